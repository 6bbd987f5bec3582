//! Streams of random messages, cut and bent in random places. Seeded, so that a failure comes
//! again. (Bytes from anywhere are in `fuzzing.rs`.)

use super::*;
use crate::frame::{FrameError, FrameReader};
use quorate_core::codec::decode_message;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Small, huge and everything between.
    fn number(&mut self) -> u64 {
        self.next() >> self.below(64)
    }

    /// Often around the size from which bytes are passed by reference.
    fn bytes(&mut self) -> Bytes {
        let len = match self.below(4) {
            0 => 0,
            1 => self.below(30),
            2 => 1020 + self.below(8),
            _ => self.below(20_000),
        };
        (0..len).map(|_| self.next() as u8).collect::<Vec<_>>().into()
    }

    fn log_id(&mut self) -> LogId {
        LogId::new(self.number(), self.number(), self.number())
    }

    fn replica(&mut self) -> Replica {
        Replica::new(self.number().max(1), self.number().max(1))
    }

    fn ids(&mut self) -> BTreeSet<NodeId> {
        (0..self.below(5)).map(|_| self.number().max(1)).collect()
    }

    /// Nodes with addresses of their own.
    fn list(&mut self) -> BTreeMap<NodeId, String> {
        let count = 1 + self.below(5);
        let node = |n| (self.number().max(1), format!("{n}{}", "é".repeat(self.below(20))));
        (0..count).map(node).collect()
    }

    fn membership(&mut self) -> Membership {
        let members = self.list().into_iter();
        let members =
            members.map(|(id, address)| (Replica::new(id, self.number().max(1)), address));
        Membership::founding(CLUSTER, members.collect()).unwrap()
    }

    fn entries(&mut self, prev: LogId) -> Entries {
        let (mut term, mut index, mut time) = (prev.term.0, prev.index, self.number());
        let mut entries = Vec::new();
        for _ in 0..self.below(6) {
            term = term.saturating_add(self.below(2) as u64);
            time = time.saturating_add(self.below(2) as u64);
            let Some(next) = index.checked_add(1) else { break };
            index = next;
            let payload = match self.below(4) {
                0 => Payload::Blank,
                1 => Payload::Membership(self.membership()),
                _ => Payload::Command(self.bytes()),
            };
            entries.push(Entry { log_id: LogId::new(term, self.number(), index), time, payload });
        }
        entries.into()
    }

    fn situation(&mut self) -> Situation {
        match self.below(6) {
            0 => Situation::Empty,
            1 => {
                let (ballot, founder, ids) = (self.number(), self.replica(), self.ids());
                Situation::Claimed { ballot, founder, ids }
            }
            2 => Situation::Admitted,
            3 => Situation::Member { founders: self.ids(), voter: self.below(2) == 1 },
            4 => Situation::Spent,
            _ => Situation::Elsewhere,
        }
    }

    fn body(&mut self) -> Body {
        let last_log_id = self.log_id();
        let (boot, sequence, round) = (self.number(), self.number(), self.number());
        let (granted, attempt) = (self.below(2) == 0, self.number());
        match self.below(15) {
            0 => Body::PreVote { last_log_id, attempt },
            1 => Body::PreVoteReply { granted, attempt },
            2 => {
                let transfer =
                    LeadershipTransfer { leader: self.replica(), term: Term(boot), round };
                Body::Vote { last_log_id, transfer: granted.then_some(transfer), attempt }
            }
            3 => Body::VoteReply { granted, attempt },
            4 => {
                let entries = self.entries(last_log_id);
                Body::Append {
                    prev: last_log_id,
                    committed: self.number(),
                    round,
                    durable: self.number(),
                    entries,
                }
            }
            5 => {
                let outcome = match self.below(2) {
                    0 => AppendOutcome::Accepted { matched: self.number() },
                    _ => AppendOutcome::Rejected { prev: self.number(), hint: last_log_id },
                };
                Body::AppendReply { round, outcome }
            }
            6 => {
                let commands = (0..self.below(6)).map(|_| self.bytes()).collect();
                Body::Forward { boot, sequence, commands }
            }
            7 => {
                let outcome = match self.below(5) {
                    0 => ForwardOutcome::Appended(last_log_id),
                    1 => ForwardOutcome::NotLeader,
                    2 => ForwardOutcome::Busy,
                    3 => ForwardOutcome::StorageFull,
                    _ => {
                        let count = self.below(4) as u32;
                        let refused = (0..count)
                            .map(|at| quorate_core::Refusal::new(at * 2, "x".repeat(at as usize)));
                        ForwardOutcome::Partly { first: last_log_id, refused: refused.collect() }
                    }
                };
                Body::ForwardReply { boot, sequence, outcome }
            }
            8 => Body::ReadIndex { sequence },
            9 => Body::TimeoutNow { last_log_id, round },
            10 => Body::Who { listed: self.ids() },
            11 => Body::Situation { situation: self.situation(), listed: self.ids() },
            12 => {
                let (founder, list) = (self.replica(), self.list());
                Body::Claim(Box::new(Claim {
                    cluster: CLUSTER,
                    ballot: boot,
                    founder,
                    list: Arc::new(list.into_iter().collect()),
                }))
            }
            13 => Body::Admit { cluster: CLUSTER, founders: self.ids() },
            _ => {
                let index = Some(self.number()).filter(|index| *index > 0);
                Body::ReadIndexReply { sequence, index, time: self.number() }
            }
        }
    }

    fn message(&mut self) -> Message {
        let (group, term) = (self.number(), Term(self.number()));
        let (from, to, body) = (self.replica(), self.replica(), self.body());
        Message { group, term, ..message_between(from, to, body) }
    }

    /// Flips bits, overwrites, cuts, repeats.
    fn bend(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][self.below(5)],
                2 => {
                    let tail = bytes[at..].to_vec();
                    bytes.extend(tail);
                }
                3 => {
                    let end = bytes.len().min(at + 8);
                    bytes[at..end].fill(0xFF);
                }
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
    }
}

/// All messages that a stream holds, fed in random pieces.
fn read(random: &mut Random, stream: &[u8]) -> Result<Vec<Message>, FrameError> {
    let mut reader = FrameReader::new(BytesMut::new(), 1 << 20);
    let (mut rest, mut messages) = (stream, Vec::new());
    loop {
        while let Some(body) = reader.next()? {
            messages.push(decode_message(body)?);
        }
        let mut buffer = reader.take_buffer();
        assert!(buffer.capacity() <= 2 * (1 << 20) + 8);
        let step = 1 + random.below(70_000);
        let (now, later) =
            rest.split_at(step.min(buffer.capacity() - buffer.len()).min(rest.len()));
        if now.is_empty() {
            return Ok(messages);
        }
        buffer.extend_from_slice(now);
        reader.put_back(buffer);
        rest = later;
    }
}

#[test]
fn random_messages_come_out_of_a_stream_as_they_went_in() {
    let mut random = Random(1);
    for _ in 0..100 {
        let sent: Vec<Message> = (0..random.below(40)).map(|_| random.message()).collect();
        let stream: Vec<u8> = sent.iter().flat_map(|message| frame(&encode(message))).collect();
        assert_eq!(read(&mut random, &stream), Ok(sent));
    }
}

#[test]
fn every_kind_survives_a_frame_and_is_refused_when_cut_or_extended() {
    let mut random = Random(2);
    for body in all_kinds() {
        let sent = message(1, 2, body);
        let bytes = encode(&sent);
        assert_eq!(read(&mut random, &frame(&bytes)), Ok(vec![sent]));
        for len in 0..bytes.len() {
            let cut = decode_message(Bytes::copy_from_slice(&bytes[..len]));
            assert!(cut.is_err(), "{len} bytes give {cut:?}");
        }
        let extended = [&bytes[..], &[0]].concat();
        assert!(decode_message(extended.into()).is_err());
    }
}

#[test]
fn a_bent_stream_gives_an_error_or_a_prefix_of_what_was_sent() {
    let mut random = Random(3);
    for _ in 0..2000 {
        let sent: Vec<Message> = (0..1 + random.below(5)).map(|_| random.message()).collect();
        let mut stream: Vec<u8> = sent.iter().flat_map(|message| frame(&encode(message))).collect();
        random.bend(&mut stream);
        // Repeated frames are whole, too; so each that comes out must be one that went in.
        if let Ok(read) = read(&mut random, &stream) {
            assert!(read.iter().all(|message| sent.contains(message)));
        }
    }
}

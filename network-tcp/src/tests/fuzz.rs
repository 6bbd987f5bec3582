//! Streams of random messages, cut and bent in random places. Seeded, so that a failure comes again. (Bytes from anywhere are in `fuzzing.rs`.)

use super::*;
use crate::frame::{FrameError, FrameReader};
use quorate_core::codec::{DecodeError, decode_message};

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

    fn membership(&mut self) -> Membership {
        let count = 1 + self.below(5);
        let voters = (0..count).map(|_| {
            let address = "é".repeat(self.below(20));
            (self.number().max(1), address)
        });
        Membership::new(voters.collect()).unwrap()
    }

    fn entries(&mut self, prev: LogId) -> Entries {
        let (mut term, mut index) = (prev.term.0, prev.index);
        let mut entries = Vec::new();
        for _ in 0..self.below(6) {
            term = term.saturating_add(self.below(2) as u64);
            let Some(next) = index.checked_add(1) else { break };
            index = next;
            let payload = match self.below(4) {
                0 => Payload::Blank,
                1 => Payload::Membership(self.membership()),
                _ => Payload::Command(self.bytes()),
            };
            entries.push(Entry { log_id: LogId::new(term, self.number(), index), payload });
        }
        entries.into()
    }

    fn vote(&mut self) -> Vote {
        [Vote::No, Vote::Yes, Vote::Tentative][self.below(3)]
    }

    fn body(&mut self) -> Body {
        let log_id = self.log_id();
        let (session, sequence, round) = (self.number(), self.number(), self.number());
        match self.below(11) {
            0 => Body::PreVote { last_log_id: log_id },
            1 => Body::PreVoteReply { vote: self.vote() },
            2 => Body::Vote { last_log_id: log_id, handover: self.below(2) == 0 },
            3 => Body::VoteReply { vote: self.vote() },
            4 => {
                let entries = self.entries(log_id);
                Body::Append { prev: log_id, committed: self.number(), round, entries }
            }
            5 => {
                let outcome = match self.below(2) {
                    0 => AppendOutcome::Accepted { matched: self.number() },
                    _ => AppendOutcome::Rejected { prev: self.number(), hint: log_id },
                };
                Body::AppendReply { round, outcome }
            }
            6 => {
                let commands = (0..self.below(6)).map(|_| self.bytes()).collect();
                Body::Forward { session, sequence, commands }
            }
            7 => {
                let outcome = match self.below(4) {
                    0 => ForwardOutcome::Appended(log_id),
                    1 => ForwardOutcome::NotLeader,
                    2 => ForwardOutcome::Busy,
                    _ => {
                        let count = self.below(4) as u32;
                        let refused =
                            (0..count).map(|at| Refusal::new(at * 2, "x".repeat(at as usize)));
                        ForwardOutcome::Partly { first: log_id, refused: refused.collect() }
                    }
                };
                Body::ForwardReply { session, sequence, outcome }
            }
            8 => Body::ReadIndex { sequence },
            9 => Body::TimeoutNow,
            _ => Body::ReadIndexReply { sequence, index: Some(self.number()).filter(|i| *i > 0) },
        }
    }

    fn message(&mut self) -> Message {
        Message {
            group: self.number(),
            from: self.number().max(1),
            to: self.number().max(1),
            term: Term(self.number()),
            body: self.body(),
        }
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
            assert!(matches!(cut, Err(DecodeError::Short { .. })), "{len} bytes give {cut:?}");
        }
        let extended = [&bytes[..], &[0]].concat();
        assert_eq!(decode_message(extended.into()), Err(DecodeError::Long(1)));
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

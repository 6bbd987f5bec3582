//! How often the log tells of what others do wrong.

use std::time::Duration;

use quorate_rt::Limited;

use super::Common;
use crate::identity::Replica;
use crate::plant;
use crate::types::LogId;

/// How many lines were not written since the last one; none is not worth a word.
type Suppressed = Option<u64>;

/// So many messages that are ignored are told of at once, and then one in so long.
const IGNORED_BURST: u32 = 8;
const IGNORED_PAUSE: Duration = Duration::from_secs(10);

/// A leader that contradicts what is committed does so with each heartbeat.
const CONTRADICTIONS_PAUSE: Duration = Duration::from_secs(1);

/// How often the log tells of what others do wrong.
pub(super) struct Lines {
    contradictions: Limited,
    /// Of messages that are ignored: of those that anybody can send, and of those of peers that
    /// have proven to be of the cluster.
    strangers: Limited,
    peers: Limited,
}

impl Common {
    /// The leader has another entry where this log is committed, and it is not taken. The leader
    /// lies, or its voters have forgotten what they had acknowledged: their disks were put back,
    /// and nobody has noticed.
    #[cold]
    pub(super) fn contradicted(&mut self, leader: Replica, theirs: LogId) {
        plant!(X11, panic!("entry {theirs} contradicts what is committed"));
        self.contradictions = self.contradictions.saturating_add(1);
        if self.lines().contradictions.pass(self.now).is_none() {
            return;
        }
        let ours = self.log.log_id(theirs.index).unwrap_or(self.log.purged());
        tracing::error!(
            me = %self.me,
            %leader,
            term = %self.hard_state.term,
            %theirs,
            %ours,
            contradictions = self.contradictions,
            "refused an entry of the leader that contradicts what is committed here; unless the \
             leader's messages are forged, the other nodes have lost acknowledged writes, and this \
             node's folder may be the only one that has them: keep it, stop the others, and \
             restore their present folders"
        );
    }

    fn lines(&self) -> &Lines {
        self.lines.get_or_init(|| {
            Box::new(Lines {
                contradictions: Limited::new(1, CONTRADICTIONS_PAUSE),
                strangers: Limited::new(IGNORED_BURST, IGNORED_PAUSE),
                peers: Limited::new(IGNORED_BURST, IGNORED_PAUSE),
            })
        })
    }

    /// Whether the log tells of a message that anybody can send and that is ignored, and then how
    /// many it has not told of.
    #[cold]
    pub(super) fn logs_stranger(&self) -> Option<Suppressed> {
        self.lines()
            .strangers
            .pass(self.now)
            .map(|suppressed| (suppressed > 0).then_some(suppressed))
    }

    /// Whether the log tells of a message of a peer that is ignored, and then how many it has not
    /// told of.
    #[cold]
    pub(super) fn logs_peer(&self) -> Option<Suppressed> {
        self.lines().peers.pass(self.now).map(|suppressed| (suppressed > 0).then_some(suppressed))
    }
}

//! The trait of a replicated state machine, which every user implements, and of the commands it
//! takes.

use bytes::Bytes;

use crate::snapshot::Snapshot;
use crate::types::LogId;

/// A response that a [`Raft`](crate::Raft) handle can carry to another thread: whatever is
/// [`Send`]. It is a name for that bound with a better error.
#[diagnostic::on_unimplemented(
    message = "the response `{Self}` can't be sent to another thread, which a `Raft` handle needs",
    label = "is not `Send`",
    note = "use `open_local`, which returns a handle for the node's own thread",
    note = "or make the response `Send`: with `Arc` in place of `Rc`, for example"
)]
pub trait SharedResponse: Send {}

#[diagnostic::do_not_recommend]
impl<T: Send> SharedResponse for T {}

/// What is replicated: commands go in, in the order of the log, and each gives a response.
///
/// It must be deterministic: the same commands in the same order give the same state on every node,
/// so it reads no clock, draws no random numbers and iterates over no hash map.
///
/// It is also a [`Snapshot`], which whatever serde can serialize and deserialize is by itself.
pub trait StateMachine: Snapshot {
    /// What is proposed: anything serde knows, or [`Raw`] bytes.
    type Command: Command;
    /// What a write gives back.
    type Response: 'static;

    /// Applies one committed command; `at` is its place in the log.
    ///
    /// It may take its time and may await: heartbeats go on meanwhile, only this group's applying
    /// and its reads wait.
    ///
    /// # What it must not do
    ///
    /// Every node applies the same commands, perhaps years later and on another machine, and all
    /// must come to the same state and the same responses. Otherwise nodes answer reads
    /// differently, and nobody notices. So the outcome depends on nothing but the state, the
    /// command and `at`:
    ///
    /// * **No clock.** Use [`At::time`], the leader's wall clock, which is in the log. Use
    ///   [`At::log_id`] for numbers that are given out once.
    /// * **No random numbers.** Draw them before the write and put them into the command, or seed
    ///   a generator from `at.log_id.index`.
    /// * **No iteration over a `HashMap` or `HashSet`.** Its order differs from process to process.
    ///   Use a `BTreeMap`, or sort.
    /// * **Nothing from outside**: no environment, no files, no answers of other services, no
    ///   settings of this node. Ask before the write and put the answer into the command.
    ///
    /// It runs on the node's thread, as [`view`](Snapshot::view), [`restore`](Snapshot::restore)
    /// and the closures of reads do. **It must not block that thread**: no blocking I/O or locks,
    /// and no computation for milliseconds without an `await`. All groups of the node stand still
    /// meanwhile, and after an election timeout their peers elect other leaders. Await what takes
    /// long, give computations to the runtime's `spawn_blocking`, and pause in long loops with
    /// `yield_now`. A node whose turn was held up for longer than a heartbeat interval logs by
    /// which group, and at which index.
    ///
    /// A panic ends the group on this node. After a restart it meets the same command again, so a
    /// command that can't be applied is to be answered with an error in the response.
    async fn apply(&mut self, command: Self::Command, at: At) -> Self::Response;

    /// Applies committed commands, in order, and gives a response for each. The default applies one
    /// after the other; override it where doing many at once is cheaper.
    async fn apply_batch(&mut self, commands: Vec<(Self::Command, At)>) -> Vec<Self::Response> {
        let mut responses = Vec::with_capacity(commands.len());
        let mut progress = progress::Progress::default();
        for (command, at) in commands {
            responses.push(self.apply(command, at).await);
            progress.next();
        }
        responses
    }
}

/// Where a command stands. It is the same on every node, so a state machine may depend on it.
///
/// More fields may come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct At {
    /// The place of its entry in the log. Each command has another one, and they rise; the indexes
    /// between them are entries of Raft's own.
    pub log_id: LogId,
    /// The wall clock of the leader that took it, in milliseconds since the Unix epoch. It never
    /// decreases along the log. It may be as wrong as that leader's clock; see
    /// [`Config::max_clock_step`](crate::Config::max_clock_step).
    pub time: u64,
}

impl At {
    /// For a test that applies commands by itself.
    pub fn new(log_id: LogId, time: u64) -> Self {
        Self { log_id, time }
    }
}

/// A command: it becomes bytes once, where it is proposed, and is read back from these bytes on
/// every node.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a command",
    label = "has no form as bytes",
    note = "derive `Serialize` and `Deserialize` for it and all that it consists of",
    note = "or implement `Command`, which makes bytes of it"
)]
pub trait Command: Sized + 'static {
    /// The bytes that are replicated.
    ///
    /// Errors: a sentence that says why it has none.
    fn encode(self) -> Result<Bytes, String>;

    /// Returns the command in these bytes. It must depend on nothing but them.
    ///
    /// The leader calls it before the command gets its place in the log, and applies what it
    /// returns; the other nodes call it when the command is committed.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the bytes. The leader refuses the write with it
    /// ([`WriteError::Command`](crate::WriteError::Command)). A node that can't read what is
    /// committed stops, as to skip it would make the replicas differ: its command type is older
    /// than the leader's.
    fn decode(bytes: &Bytes) -> Result<Self, String>;
}

/// A state machine without a state, for tests that need any.
impl StateMachine for () {
    type Command = ();
    type Response = ();

    async fn apply(&mut self, (): (), _: At) {}
}

/// A command that is its own bytes: nothing is encoded or copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl Command for Raw {
    fn encode(self) -> Result<Bytes, String> {
        Ok(self.0)
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        Ok(Self(bytes.clone()))
    }
}

/// Which command of a batch a state machine panicked at, for the node's error.
pub(crate) mod progress {
    use std::cell::Cell;
    use std::thread;

    thread_local! {
        static OF_PANIC: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Counts what is applied of a batch.
    #[derive(Default)]
    pub(super) struct Progress(usize);

    impl Progress {
        pub(super) fn next(&mut self) {
            self.0 += 1;
        }
    }

    impl Drop for Progress {
        fn drop(&mut self) {
            if thread::panicking() {
                OF_PANIC.set(Some(self.0));
            }
        }
    }

    /// How many commands of its batch came before the one that has just panicked, if that was
    /// applied by the default [`apply_batch`](super::StateMachine::apply_batch). To be asked by
    /// whoever has caught the panic: nothing else runs on this thread in between.
    pub(crate) fn of_panic() -> Option<usize> {
        OF_PANIC.take()
    }
}

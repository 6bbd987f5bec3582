//! Looking names up, by the operating system's `getaddrinfo`.
//!
//! It blocks, for as long as name servers don't answer, and can't be cancelled. So it has threads
//! of its own, a few for the whole process: look-ups that hang hold up other look-ups at the most,
//! and neither the files nor the end of a runtime.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use futures::channel::oneshot;

/// How many names are looked up at the same time. The peers of a usual cluster, so that one dead
/// zone among them doesn't keep the others waiting; each is a thread.
const MOST_THREADS: usize = 4;

/// How many names may wait for one of the threads: more than a node's peers and clients need.
const MOST_WAITING: usize = 256;

/// Returns the parts of `host:port`; the host may be an IP address, that of IPv6 in brackets.
///
/// # Errors
/// `InvalidInput` where it is not `host:port`.
pub fn split(host_and_port: &str) -> io::Result<(&str, u16)> {
    let parts = host_and_port.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    parts.filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
        let message = format!("{host_and_port:?} is no address host:port");
        io::Error::new(ErrorKind::InvalidInput, message)
    })
}

/// Returns the addresses of `host:port`; see [`Network::resolve`](crate::Network::resolve).
pub(crate) async fn resolve(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    static LOOKUPS: LazyLock<Arc<Lookups>> = LazyLock::new(|| {
        // The port is put in later, so that look-ups of a name are one whatever the port.
        Lookups::new(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    });
    if let Ok(literal) = host_and_port.parse() {
        return Ok(vec![literal]);
    }
    let (host, port) = split(host_and_port)?;
    let found = LOOKUPS.look_up(host).await.map_err(|Failure { kind, reason }| {
        io::Error::new(kind, format!("looking {host} up: {reason}"))
    })?;
    if found.is_empty() {
        return Err(io::Error::new(ErrorKind::NotFound, format!("{host} has no address")));
    }
    let mut addresses = Vec::with_capacity(found.len());
    for mut address in found {
        address.set_port(port);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Why a look-up failed, for all that wait for it.
#[derive(Clone, Debug)]
struct Failure {
    kind: ErrorKind,
    reason: String,
}

type Answer = Result<Vec<SocketAddr>, Failure>;
type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct Lookups {
    state: Mutex<State>,
    arrived: Condvar,
    look_up: Box<LookUp>,
}

#[derive(Default)]
struct State {
    /// Names that are looked up, or wait for that, and who waits for each.
    waiting: BTreeMap<String, Vec<oneshot::Sender<Answer>>>,
    line: VecDeque<String>,
    threads: usize,
    idle: usize,
}

impl Lookups {
    fn new(
        look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (state, arrived) = (Mutex::default(), Condvar::new());
        Arc::new(Self { state, arrived, look_up: Box::new(look_up) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(self: &Arc<Self>, name: &str) -> Answer {
        let receiver = self.begin(name)?;
        let gone = |_| Failure { kind: ErrorKind::Other, reason: "it was given up".to_owned() };
        receiver.await.map_err(gone)?
    }

    /// Begins it, or joins the one that is under way.
    fn begin(self: &Arc<Self>, name: &str) -> Result<oneshot::Receiver<Answer>, Failure> {
        let (sender, receiver) = oneshot::channel();
        let state = &mut *self.state();
        if let Some(waiting) = state.waiting.get_mut(name) {
            waiting.retain(|sender| !sender.is_canceled());
            waiting.push(sender);
            return Ok(receiver);
        }
        if state.line.len() >= MOST_WAITING {
            state.forget_the_forgotten();
        }
        if state.line.len() >= MOST_WAITING {
            let reason = format!("{MOST_WAITING} names wait to be looked up, and nothing answers");
            return Err(Failure { kind: ErrorKind::ResourceBusy, reason });
        }
        state.line.push_back(name.to_owned());
        if state.idle >= state.line.len() {
            self.arrived.notify_one();
        } else if let Err(error) = self.start_another(state)
            && state.threads == 0
        {
            state.line.clear();
            let reason = format!("no thread for it can be started: {error}");
            return Err(Failure { kind: error.kind(), reason });
        }
        state.waiting.insert(name.to_owned(), vec![sender]);
        Ok(receiver)
    }

    #[expect(clippy::disallowed_methods, reason = "for production backends")]
    fn start_another(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.threads < MOST_THREADS {
            let lookups = Arc::clone(self);
            let name = "quorate-names".to_owned();
            thread::Builder::new().name(name).spawn(move || lookups.work())?;
            state.threads += 1;
        }
        Ok(())
    }

    /// A thread's. It has no end: there are few, and one that is there can't be refused.
    fn work(&self) {
        let mut state = self.state();
        loop {
            while let Some(name) = state.next() {
                drop(state);
                let answer = (self.look_up)(&name)
                    .map_err(|error| Failure { kind: error.kind(), reason: error.to_string() });
                state = self.state();
                for waiting in state.waiting.remove(&name).unwrap_or_default() {
                    let _nobody_may_care = waiting.send(answer.clone());
                }
            }
            state.idle += 1;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl State {
    /// The next name for which somebody still waits.
    fn next(&mut self) -> Option<String> {
        loop {
            let name = self.line.pop_front()?;
            if self.waiting.get(&name).is_some_and(|waiting| is_wanted(waiting)) {
                return Some(name);
            }
            self.waiting.remove(&name);
        }
    }

    /// Takes those out of the line for which nobody waits any more.
    fn forget_the_forgotten(&mut self) {
        let Self { waiting, line, .. } = self;
        line.retain(|name| {
            let wanted = waiting.get(name).is_some_and(|waiting| is_wanted(waiting));
            if !wanted {
                waiting.remove(name);
            }
            wanted
        });
    }
}

fn is_wanted(waiting: &[oneshot::Sender<Answer>]) -> bool {
    waiting.iter().any(|sender| !sender.is_canceled())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;

    /// Look-ups that end one by one, each with this address, and tell when they begin.
    struct Slow {
        lookups: Arc<Lookups>,
        begun: mpsc::Receiver<String>,
        end: mpsc::Sender<()>,
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn slow() -> Slow {
        let (begins, begun) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let ends = Mutex::new(ends);
        let lookups = Lookups::new(move |name| {
            begins.send(name.to_owned()).unwrap();
            ends.lock().unwrap().recv().map_err(io::Error::other)?;
            if name == "unknown" {
                Err(ErrorKind::NotFound.into())
            } else {
                Ok(vec![at("10.0.0.1:0")])
            }
        });
        Slow { lookups, begun, end }
    }

    #[test]
    fn look_ups_of_one_name_are_one() {
        let slow = slow();
        let (one, other) = (slow.lookups.begin("a").unwrap(), slow.lookups.begin("a").unwrap());
        assert_eq!(slow.begun.recv().unwrap(), "a");
        slow.end.send(()).unwrap();
        assert_eq!(block_on(one).unwrap().unwrap(), [at("10.0.0.1:0")]);
        assert_eq!(block_on(other).unwrap().unwrap(), [at("10.0.0.1:0")]);
        assert!(slow.begun.try_recv().is_err(), "there was one");
        let third = slow.lookups.begin("a").unwrap();
        slow.end.send(()).unwrap();
        assert!(block_on(third).unwrap().is_ok());
        assert_eq!(slow.begun.recv().unwrap(), "a", "a later one is another");
    }

    #[test]
    fn look_ups_that_hang_take_a_few_threads_and_others_wait_in_line() {
        let slow = slow();
        let begin = |n: usize| slow.lookups.begin(&format!("n{n}"));
        let mut waiting: Vec<_> = (0..MOST_THREADS).map(|n| begin(n).unwrap()).collect();
        (0..MOST_THREADS).for_each(|_| drop(slow.begun.recv().unwrap()));
        waiting.extend((0..MOST_WAITING).map(|n| begin(MOST_THREADS + n).unwrap()));
        assert_eq!(slow.lookups.state().threads, MOST_THREADS);
        let refused = slow.lookups.begin("one-more").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::ResourceBusy);
        assert!(slow.lookups.begin("n0").is_ok(), "that one is under way");

        waiting.truncate(MOST_THREADS); // Those that gave up make room.
        let last = slow.lookups.begin("one-more").unwrap();
        (0..=MOST_THREADS).for_each(|_| slow.end.send(()).unwrap());
        assert!(block_on(last).unwrap().is_ok());
        assert_eq!(slow.begun.recv().unwrap(), "one-more", "nobody waited for the others");
    }

    #[test]
    fn a_failure_is_told_to_all_and_the_next_look_up_begins_anew() {
        let slow = slow();
        slow.end.send(()).unwrap();
        let failure = block_on(slow.lookups.look_up("unknown")).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::NotFound);
        slow.end.send(()).unwrap();
        assert!(block_on(slow.lookups.look_up("known")).is_ok());
    }

    #[test]
    fn an_ip_address_is_not_looked_up() {
        let resolved = |text| resolve(text).now_or_never().expect("at once").unwrap();
        assert_eq!(resolved("10.0.0.1:80"), [at("10.0.0.1:80")]);
        assert_eq!(resolved("[::1]:80"), [at("[::1]:80")]);
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(split("raft-1:80").unwrap(), ("raft-1", 80));
        for wrong in ["raft-1", ":80", "raft-1:", "raft-1:http", "raft-1:65536", ""] {
            assert_eq!(split(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }
}

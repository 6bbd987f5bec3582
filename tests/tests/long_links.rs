//! Nodes that are far apart: a round trip takes 1.4 s.
//!
//! The log is looked at, and one process has one, so all of it is one test.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate::prelude::*;
use quorate::rt::Task;
use quorate::sim::{NetworkConfig, Sim, Simulation};
use quorate::{Metrics, UnfitTiming};
use quorate_tests::Single;

const ONE_WAY: std::ops::Range<Duration> = Duration::from_millis(690)..Duration::from_millis(700);

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

impl StateMachine for Counter {
    type Command = i64;
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.total += add;
        self.total
    }
}

/// What has been logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// All of it, which is then forgotten.
    fn take(&self) -> String {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(std::mem::take(&mut written)).expect("text")
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Handles = Rc<RefCell<BTreeMap<u64, Raft<Counter>>>>;

async fn serve(rt: &Sim, config: Config, id: u64, list: Vec<(u64, String)>, handles: Handles) {
    let address = &list[id as usize - 1].1;
    let node = Single::start(
        rt,
        id,
        config,
        MemStore::new(),
        TcpTransport::bind(rt, address).await.expect("nobody else has the port"),
        Counter::default(),
    )
    .await
    .expect("the settings are valid");
    let raft = node.raft();
    handles.borrow_mut().insert(id, raft.clone());
    raft.initialize(list).await.expect("the list is right");
    node.stopped().await.expect("nothing fails");
}

/// Three nodes with such settings, far apart. Clients write at all of them for so long; gives what
/// the nodes tell in the end, and what the writes were answered.
fn writes(config: &Config, duration: Duration) -> (Vec<Metrics>, Vec<Result<i64, WriteError>>) {
    let simulation = Simulation::new(7);
    let network = NetworkConfig { latency: ONE_WAY, jitter: 0.0, ..NetworkConfig::default() };
    simulation.network().configure(network);
    let hosts: Vec<_> = ["a", "b", "c"].map(|name| simulation.host(name)).into();
    let list: Vec<_> = (1..).zip(hosts.iter().map(|host| format!("{}:7001", host.ip()))).collect();
    let (handles, answers) = (Handles::default(), Rc::new(RefCell::new(Vec::new())));
    for (host, (id, _)) in hosts.iter().zip(list.clone()) {
        let (config, list, handles) = (config.clone(), list.clone(), Rc::clone(&handles));
        let answers = Rc::clone(&answers);
        host.start(async move |rt| {
            let client = rt.clone();
            let own = Rc::clone(&handles);
            rt.spawn(async move {
                client.sleep(Duration::from_secs(1)).await;
                let raft = own.borrow()[&id].clone();
                loop {
                    let answer = raft.write(1).await;
                    answers.borrow_mut().push(answer);
                    client.sleep(Duration::from_secs(1)).await;
                }
            })
            .detach();
            serve(&rt, config, id, list, handles).await;
        });
    }
    simulation.run_for(duration);
    let metrics =
        handles.borrow().values().map(|raft| Metrics::clone(&raft.metrics().borrow())).collect();
    (metrics, answers.take())
}

#[test]
fn a_round_trip_that_the_settings_do_not_fit_is_told_with_what_to_set_which_then_works() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();

    let (metrics, answers) = writes(&Config::default(), Duration::from_secs(120));
    let unfit: Vec<UnfitTiming> = metrics.iter().filter_map(|known| known.unfit_timing).collect();
    let measured = unfit.first().expect("one of the nodes has measured it");
    assert!((1_380..1_500).contains(&measured.round_trip.as_millis()), "{measured:?}");
    let line = lines.take();
    let says = |text: &str| line.contains(text);
    assert!(says("no leader can last: a quorum of the voters answers after 1"), "{line}");
    assert!(says("but the election timeout is 1000 ms (with a heartbeat interval of 100 ms)"));
    assert!(says("set election_timeout to at least 4"));
    let is_told = |answer: &Result<i64, WriteError>| match answer {
        Err(error @ WriteError::NotLeader { why, .. }) => {
            why.unfit_timing.is_some() && error.to_string().contains("set election_timeout to")
        }
        _ => false,
    };
    assert!(answers.iter().any(is_told), "clients are told, too: {answers:?}");

    let fitting = Config {
        election_timeout: measured.fitting_election_timeout(),
        heartbeat_interval: measured.fitting_heartbeat_interval(),
        request_timeout: 2 * measured.fitting_election_timeout(),
        ..Config::default()
    };
    let (metrics, answers) = writes(&fitting, Duration::from_secs(120));
    assert!(metrics.iter().all(|known| known.unfit_timing.is_none()), "{metrics:?}");
    assert!(metrics.iter().any(|known| known.round_trip.is_some()), "the leader has measured it");
    assert!(!lines.take().contains("no leader can last"));
    let from = answers.iter().position(Result::is_ok).expect("a leader is elected");
    assert!(answers[from..].iter().all(Result::is_ok), "and stays: {answers:?}");
}

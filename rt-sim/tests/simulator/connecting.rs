//! Connections that are refused, hang, or find nobody.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::{join, join_all};
use quorate_rt::{Executor, Listener, Network, Stream};
use quorate_rt_sim::{Crash, NetworkConfig, SimStream};

use crate::common::*;

/// As long as nobody answers, TCP asks again, after 1, 2, 4 … s.
const PATIENCE: Duration = Duration::from_secs(63);

impl Pair {
    /// What comes of connecting to `b`, and after how long.
    fn try_to_connect(&self) -> (io::Result<SimStream>, Duration) {
        self.time(self.on_a.connect(at(&self.b)))
    }

    /// Somebody accepts on `b`, for ever, and reads to the end of each stream; what was read.
    fn serve(&self) -> Log<(Vec<u8>, Option<ErrorKind>)> {
        let (log, rt) = (Log::default(), self.on_b.clone());
        let told = Log::clone(&log);
        self.b.crash(Crash::Process);
        self.b.start(async move |_| {
            let mut listener = rt.listen(at(&rt.host())).await.unwrap();
            loop {
                let (mut reader, _writer) = listener.accept().await.unwrap().0.split();
                let (read, end) = read_to_end(&mut reader).await;
                told.borrow_mut().push((read, kind(end)));
            }
        });
        self.simulation.run_for(MS);
        log
    }
}

#[test]
fn it_takes_a_way_there_and_back() {
    let pair = Pair::on(1, even(10 * MS, 1 << 16));
    let _served = pair.serve();
    let (connected, took) = pair.try_to_connect();
    assert!(connected.is_ok());
    assert_eq!(took, 20 * MS);
}

#[test]
fn the_other_side_sees_the_address() {
    let pair = Pair::new(1);
    pair.wait(async {
        let mut listener = pair.on_b.listen(at(&pair.b)).await.unwrap();
        assert_eq!(listener.local_addr().unwrap(), at(&pair.b));
        let (_, accepted) = join(pair.on_a.connect(at(&pair.b)), listener.accept()).await;
        assert_eq!(accepted.unwrap().1.ip(), pair.a.ip());
    });
}

#[test]
fn where_nobody_listens_it_is_refused() {
    let pair = Pair::on(1, even(10 * MS, 1 << 16));
    let (refused, took) = pair.try_to_connect();
    assert_eq!(kind(refused), Some(ErrorKind::ConnectionRefused));
    assert_eq!(took, 20 * MS);

    pair.b.crash(Crash::Process);
    let (refused, took) = pair.try_to_connect();
    assert_eq!(kind(refused), Some(ErrorKind::ConnectionRefused), "by the kernel");
    assert_eq!(took, 20 * MS);
}

#[test]
fn it_may_be_refused_though_somebody_listens() {
    let pair = Pair::on(1, NetworkConfig { refusal: 1.0, ..NetworkConfig::default() });
    let served = pair.serve();
    assert_eq!(kind(pair.try_to_connect().0), Some(ErrorKind::ConnectionRefused));
    assert_eq!(pair.simulation.counts()["connection refused"], 1);
    pair.simulation.network().configure(NetworkConfig::default());
    assert!(pair.try_to_connect().0.is_ok());
    pair.simulation.run_for(SECOND);
    assert_eq!(served.borrow().len(), 1, "only one was accepted");
}

#[test]
fn it_may_hang_for_long() {
    let pair = Pair::on(1, NetworkConfig { hang: 1.0, ..NetworkConfig::default() });
    let _served = pair.serve();
    let (hung, took) = pair.try_to_connect();
    assert_eq!(kind(hung), Some(ErrorKind::TimedOut));
    assert!(took >= 30 * SECOND, "{took:?}");
    assert_eq!(pair.simulation.counts()["connecting hangs"], 1);
    let itself = pair.wait(async {
        let _listener = pair.on_a.listen(at(&pair.a)).await.unwrap();
        pair.on_a.connect(at(&pair.a)).await
    });
    assert!(itself.is_ok(), "but not to itself");
}

#[test]
fn a_machine_without_power_does_not_answer() {
    let pair = Pair::new(1);
    let _served = pair.serve();
    pair.b.crash(Crash::Power);
    let (connected, took) = pair.try_to_connect();
    assert_eq!(kind(connected), Some(ErrorKind::TimedOut));
    assert!(took >= PATIENCE && took < PATIENCE + SECOND, "{took:?}");
}

#[test]
fn a_machine_that_gets_its_power_back_answers_when_it_is_asked_again() {
    let pair = Pair::new(1);
    pair.b.crash(Crash::Power);
    let connecting = pair.on_a.spawn({
        let (rt, to) = (pair.on_a.clone(), at(&pair.b));
        async move { rt.connect(to).await }
    });
    pair.simulation.run_for(5 * SECOND);
    let _served = pair.serve();
    let (connected, took) = pair.time(connecting);
    assert!(connected.unwrap().is_ok());
    assert!(took < 3 * SECOND, "{took:?}");
}

#[test]
fn nobody_answers_at_an_address_of_no_host() {
    let pair = Pair::new(1);
    let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99)), PORT);
    let (connected, took) = pair.time(pair.on_a.connect(nobody));
    assert_eq!(kind(connected), Some(ErrorKind::TimedOut));
    assert!(took >= PATIENCE, "{took:?}");
}

#[test]
fn over_a_link_that_is_cut_it_comes_about_after_the_cut_or_never() {
    for there in [true, false] {
        let pair = Pair::new(1);
        let served = pair.serve();
        let (from, to) = if there { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        pair.cut(from, to);
        let (connected, took) = pair.try_to_connect();
        assert_eq!(kind(connected), Some(ErrorKind::TimedOut), "the way there: {there}");
        assert!(took >= PATIENCE && took < PATIENCE + SECOND, "{took:?}");
        pair.simulation.run_for(HOUR);
        // If it was accepted, it has ended.
        let closed = vec![(vec![], None); if there { 0 } else { 1 }];
        assert_eq!(*served.borrow(), closed);

        let connecting = pair.on_a.spawn({
            let (rt, to) = (pair.on_a.clone(), at(&pair.b));
            async move { rt.connect(to).await }
        });
        pair.simulation.run_for(5 * SECOND);
        pair.heal(from, to);
        let (connected, took) = pair.time(connecting);
        assert!(took < 3 * SECOND, "{took:?}");
        let (_, mut writer) = connected.unwrap().unwrap().split();
        pair.wait(write(&mut writer, "hello")).unwrap();
        drop(writer);
        pair.simulation.run_for(SECOND);
        assert_eq!(served.borrow().last(), Some(&(b"hello".to_vec(), None)));
        assert_eq!(served.borrow().len(), closed.len() + 1, "it was accepted once");
    }
}

#[test]
fn a_machine_that_loses_its_power_before_its_answer_is_there_knows_nothing_of_it() {
    let pair = Pair::on(1, even(10 * MS, 1 << 16));
    let first = pair.serve();
    let connecting = pair.on_a.spawn({
        let (rt, to) = (pair.on_a.clone(), at(&pair.b));
        async move { rt.connect(to).await }
    });
    pair.simulation.run_for(15 * MS);
    pair.b.crash(Crash::Power);
    pair.simulation.run_for(10 * MS);
    let second = pair.serve();
    let (connected, took) = pair.time(connecting);
    assert!(took < 3 * SECOND, "{took:?}");
    let (_, mut writer) = connected.unwrap().unwrap().split();
    pair.wait(write(&mut writer, "hello")).unwrap();
    drop(writer);
    pair.simulation.run_for(SECOND);
    assert_eq!((first.borrow().len(), second.borrow().len()), (0, 1));
    assert_eq!(second.borrow()[0], (b"hello".to_vec(), None));
}

#[test]
fn who_no_longer_waits_for_it_closes_it() {
    for patience in [5 * MS, 15 * MS] {
        let pair = Pair::on(1, even(10 * MS, 1 << 16));
        let served = pair.serve();
        assert!(pair.within(patience, pair.on_a.connect(at(&pair.b))).is_none());
        pair.simulation.run_for(SECOND);
        let accepted = if patience > 10 * MS { 1 } else { 0 };
        assert_eq!(*served.borrow(), vec![(vec![], None); accepted]);
    }
}

#[test]
fn connections_wait_for_who_is_paused() {
    let pair = Pair::new(1);
    let served = pair.serve();
    pair.b.pause();
    let (connected, took) = pair.try_to_connect();
    assert!(connected.is_ok() && took < MS, "the kernel takes it in: {took:?}");
    drop(connected);
    pair.simulation.run_for(SECOND);
    assert!(served.borrow().is_empty());
    pair.b.resume();
    pair.simulation.run_for(SECOND);
    assert_eq!(served.borrow().len(), 1);
}

#[test]
fn too_many_that_nobody_accepts_have_to_wait() {
    const BACKLOG: usize = 1024;
    let pair = Pair::new(1);
    let mut listener = pair.wait(pair.on_b.listen(at(&pair.b))).unwrap();
    let many = pair.wait(join_all((0..BACKLOG).map(|_| pair.on_a.connect(at(&pair.b)))));
    assert!(many.iter().all(Result::is_ok));
    let one_more = pair.on_a.spawn({
        let (rt, to) = (pair.on_a.clone(), at(&pair.b));
        async move { rt.connect(to).await }
    });
    pair.simulation.run_for(2 * SECOND);
    pair.wait(listener.accept()).unwrap();
    let (connected, took) = pair.time(one_more);
    assert!(connected.unwrap().is_ok());
    assert!(took > 100 * MS && took < 4 * SECOND, "when it is repeated: {took:?}");
}

#[test]
fn a_listener_that_is_dropped_closes_what_it_has_not_accepted() {
    let pair = Pair::new(1);
    let listener = pair.wait(pair.on_b.listen(at(&pair.b))).unwrap();
    let (mut reader, _writer) = pair.try_to_connect().0.unwrap().split();
    drop(listener);
    assert!(
        matches!(pair.within(SECOND, read_some(&mut reader, 1)), Some(Ok(end)) if end.is_empty())
    );
    assert_eq!(kind(pair.try_to_connect().0), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn a_host_listens_on_its_own_addresses_and_on_each_port_once() {
    let pair = Pair::new(1);
    pair.wait(async {
        let foreign = pair.on_b.listen(at(&pair.a)).await;
        assert_eq!(kind(foreign), Some(ErrorKind::AddrNotAvailable));
        let first = pair.on_b.listen(at(&pair.b)).await.unwrap();
        assert_eq!(kind(pair.on_b.listen(at(&pair.b)).await), Some(ErrorKind::AddrInUse));
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        assert_eq!(kind(pair.on_b.listen(everywhere).await), Some(ErrorKind::AddrInUse));
        assert!(pair.on_a.listen(at(&pair.a)).await.is_ok(), "another host's port is another");
        drop(first);
        let _everywhere = pair.on_b.listen(everywhere).await.unwrap();
        assert!(pair.on_a.connect(at(&pair.b)).await.is_ok());
    });
}

#[test]
fn without_descriptors_nothing_is_opened_or_accepted_and_nothing_is_lost() {
    const EMFILE: Option<i32> = Some(24);
    let pair = Pair::new(1);
    let mut listener = pair.wait(pair.on_b.listen(at(&pair.b))).unwrap();
    pair.b.refuse_sockets(1.0);
    let (_reader, _writer) = pair.try_to_connect().0.expect("the kernel takes it in").split();
    for _ in 0..2 {
        let accepted = pair.wait(listener.accept());
        assert_eq!(accepted.map(drop).unwrap_err().raw_os_error(), EMFILE);
    }
    let opened = pair.wait(pair.on_b.connect(at(&pair.a)));
    assert_eq!(opened.map(drop).unwrap_err().raw_os_error(), EMFILE);
    pair.b.refuse_sockets(0.0);
    assert!(pair.wait(listener.accept()).is_ok(), "it has waited");
    assert_eq!(pair.simulation.counts()["socket refused"], 3);
}

//! The suite of Quorate, which checks the contract of a transport, on this one; and what it does
//! with a backlog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use http_transport::HttpTransport;
use quorate::conformance::transport::TransportFactory;
use quorate::conformance::transport_suite;
use quorate::prelude::*;
use quorate::rt::{Either, Task};
use quorate::{
    Body, Boot, ClusterId, Credentials, Executor, Inbox, Launch, Message, Replica, StoreState,
    Term, Tokio, Transport,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

struct Transports;

impl TransportFactory<Tokio> for Transports {
    type Transport = HttpTransport;

    async fn transport(&self, rt: &Tokio) -> (HttpTransport, String) {
        let (transport, route) = HttpTransport::new(rt);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        rt.spawn(async { axum::serve(listener, route).await }).detach();
        (transport, address)
    }
}

transport_suite!(http, Tokio, Launch::default(), Transports);

const GROUP: u64 = 1;
const CLUSTER: Option<ClusterId> = Some(ClusterId(1));
const TO: Replica = Replica::new(2, 1);
const COUNT: u64 = 1000;

fn numbered(sequence: u64) -> Message {
    let body = Body::ReadIndex { sequence };
    Message {
        group: GROUP,
        cluster: CLUSTER,
        from: Replica::new(1, 1),
        to: TO,
        term: Term(1),
        body,
    }
}

/// A peer takes a request, and dies without an answer while more messages come.
#[test]
fn a_backlog_is_dropped_where_requests_fail_and_is_one_request_else() {
    quorate::run(async |rt: Tokio| {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens").to_string();
        let (one, _) = HttpTransport::new(&rt);
        one.set_peers(GROUP, &BTreeMap::from([(TO, address)]));
        assert!(one.send(numbered(0)));
        let (mut request, _) = listener.accept().await.expect("it connects");
        request.read_u8().await.expect("a request comes");
        for sequence in 1..COUNT {
            assert!(one.send(numbered(sequence)));
        }
        drop(request);

        // It is back, and counts requests.
        let (two, route) = HttpTransport::new(&rt);
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let route = route.layer(middleware::from_fn(move |request: Request, next: Next| {
            counter.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        }));
        let _server = rt.spawn(async { axum::serve(listener, route).await });
        let (sender, mut inbox) = mpsc::unbounded_channel();
        let deliver = move |message| sender.send(message).expect("the test takes all");
        let boot = Boot { number: 1, tag: 1 };
        let credentials =
            Credentials { replica: TO, boot, state: StoreState::Member, cluster: CLUSTER };
        two.attach(GROUP, credentials, Inbox::new(deliver));

        // As long as it isn't known that the request has failed, new messages are lost as well.
        let mut next = COUNT;
        let first = loop {
            one.send(numbered(next));
            next += 1;
            match race(inbox.recv(), rt.sleep(Duration::from_millis(1))).await {
                Either::Left(first) => break first.expect("there is a sender"),
                Either::Right(()) => {}
            }
        };
        let Body::ReadIndex { sequence: first } = first.body else { panic!("{first:?}") };
        assert!(first >= COUNT, "message {first} of the backlog arrived");
        assert_eq!(one.dropped_messages(), first, "all before the first one that arrived");

        for sequence in first + 1..next {
            assert_eq!(inbox.recv().await, Some(numbered(sequence)));
        }
        let before = requests.load(Ordering::Relaxed);
        for sequence in 0..COUNT {
            assert!(one.send(numbered(sequence)));
        }
        for sequence in 0..COUNT {
            assert_eq!(inbox.recv().await, Some(numbered(sequence)));
        }
        assert_eq!(requests.load(Ordering::Relaxed) - before, 1);

        one.detach(GROUP);
        assert!(!one.send(numbered(0)));
        assert_eq!(one.dropped_messages(), first + 1, "one that was not taken");
        Ok::<_, quorate::Error>(())
    })
    .expect("it starts");
}

//! The suite of Quorate, which checks the contract of a transport, on this one.

use http_transport::HttpTransport;
use quorate::conformance::transport::TransportFactory;
use quorate::conformance::transport_suite;
use quorate::rt::Task;
use quorate::{Executor, Launch, Tokio};
use tokio::net::TcpListener;

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

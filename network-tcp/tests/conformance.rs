//! The suite of `quorate-core`, on every runtime.

use quorate_core::conformance::transport::TransportFactory;
use quorate_core::transport_suite;
use quorate_network_tcp::TcpTransport;
use quorate_rt::{Driver, Launch, Network};
use quorate_rt_compio::Compio;
use quorate_rt_monoio::Monoio;
use quorate_rt_tokio::Tokio;

struct Tcp;

impl<R: Network> TransportFactory<R> for Tcp {
    type Transport = TcpTransport<R>;

    async fn transport(&self, rt: &R) -> (TcpTransport<R>, String) {
        let transport = TcpTransport::bind(rt, "127.0.0.1:0").await.expect("a free port");
        let address = transport.local_addr().to_string();
        (transport, address)
    }
}

fn uring() -> Launch {
    Launch { driver: Driver::Uring, ..Launch::default() }
}

transport_suite!(tokio, Tokio, Launch::default(), Tcp);
transport_suite!(monoio, Monoio, uring(), Tcp);
transport_suite!(compio, Compio, uring(), Tcp);

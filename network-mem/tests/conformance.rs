//! The suite of `quorate-core`, on both networks.

use quorate_core::conformance::transport::TransportFactory;
use quorate_core::transport_suite;
use quorate_network_mem::{LocalNetwork, LocalTransport, SharedNetwork, SharedTransport};
use quorate_rt::{Executor, Launch};
use quorate_rt_tokio::Tokio;

#[derive(Default)]
struct Local(LocalNetwork);

impl<R: Executor> TransportFactory<R> for Local {
    type Transport = LocalTransport;

    async fn transport(&self, _rt: &R) -> (LocalTransport, String) {
        (self.0.transport(), String::new())
    }
}

#[derive(Default)]
struct Shared(SharedNetwork);

impl<R: Executor> TransportFactory<R> for Shared {
    type Transport = SharedTransport<R>;

    async fn transport(&self, rt: &R) -> (SharedTransport<R>, String) {
        (self.0.transport(rt), String::new())
    }
}

transport_suite!(local, Tokio, Launch::default(), Local::default());
transport_suite!(shared, Tokio, Launch::default(), Shared::default());

//! Looking names up. What an unknown name gives is not tried: it would ask name servers.

use std::io::ErrorKind;
use std::net::SocketAddr;

use futures::future::join_all;

use crate::Network;

pub async fn addresses_stay<R: Network>(rt: R) {
    for text in ["10.0.0.1:80", "0.0.0.0:0", "[::1]:7001", "[2001:db8::7]:65535", "[::]:0"] {
        let address: SocketAddr = text.parse().unwrap();
        assert_eq!(rt.resolve(text).await.unwrap(), [address]);
    }
}

pub async fn a_name<R: Network>(rt: R) {
    let addresses = rt.resolve("localhost:7001").await.unwrap();
    assert!(!addresses.is_empty());
    for (place, address) in addresses.iter().enumerate() {
        assert!(address.ip().is_loopback() && address.port() == 7001, "{address}");
        assert!(!addresses[..place].contains(address), "each once: {addresses:?}");
    }
}

pub async fn without_a_host_or_a_port<R: Network>(rt: R) {
    for text in ["", "localhost", ":80", "localhost:", "localhost:http", "localhost:65536"] {
        assert_eq!(rt.resolve(text).await.unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
    }
}

pub async fn many_at_once<R: Network>(rt: R) {
    let ports = 1..=1_000_u16;
    let all = join_all(ports.clone().map(|port| {
        let rt = rt.clone();
        async move { rt.resolve(&format!("localhost:{port}")).await.unwrap()[0].port() }
    }));
    assert!(all.await.into_iter().eq(ports));
}

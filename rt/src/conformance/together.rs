//! Several runtimes in one process, on one machine.

use bytes::{Bytes, BytesMut};

use super::net::any_port;
use crate::channel::watch;
use crate::{Launch, Listener, Network, ReadHalf, Stream, WriteHalf};

pub fn talking_to_each_other<R: Network>(launch: Launch) {
    let (address_known, mut address) = watch::channel(None);
    let server = R::launch(launch.clone(), async move |rt| {
        let mut listener = rt.listen(any_port()).await.unwrap();
        address_known.send(Some(listener.local_addr().unwrap()));
        let (mut reader, mut writer) = listener.accept().await.unwrap().0.split();
        loop {
            let (result, got) = reader.read(BytesMut::with_capacity(64)).await;
            if result.unwrap() == 0 {
                return;
            }
            writer.write_all(vec![got.freeze()]).await.unwrap();
        }
    });
    let client = R::launch(launch, async move |rt| {
        let address = (*address.wait_for(Option::is_some).await.unwrap()).unwrap();
        let (mut reader, mut writer) = rt.connect(address).await.unwrap().split();
        for number in 0..1_000_u16 {
            let sent = number.to_be_bytes();
            writer.write_all(vec![Bytes::copy_from_slice(&sent)]).await.unwrap();
            let mut got = BytesMut::with_capacity(2);
            while got.len() < 2 {
                let (result, back) = reader.read(got).await;
                assert_ne!(result.unwrap(), 0);
                got = back;
            }
            assert_eq!(got, sent[..]);
        }
    });
    client.unwrap().join().unwrap().unwrap();
    server.unwrap().join().unwrap().unwrap();
}

pub fn random_numbers_differ<R: Network>(launch: Launch) {
    let numbers = || {
        let started = R::launch(launch.clone(), async |rt| [(); 4].map(|()| rt.random())).unwrap();
        started.join().unwrap().unwrap()
    };
    assert_ne!(numbers(), numbers());
}

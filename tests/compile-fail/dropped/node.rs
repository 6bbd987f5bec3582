//! A node that is not kept has crashed.
#![deny(unused_must_use)]

use quorate::prelude::*;

fn main() -> quorate::Result<()> {
    quorate::run(async |rt: Tokio| {
        let transport = LocalNetwork::new().transport();
        Node::builder(1).log_store(MemStore::new()).transport(transport).start(&rt).await?;
        Ok(())
    })
}

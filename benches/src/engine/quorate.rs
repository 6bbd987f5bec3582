//! Quorate's engines.

use anyhow::Result;

use super::three::Three;
use super::{COMMAND, Cluster};

pub(super) fn start() -> Result<Box<dyn Cluster>> {
    Ok(Box::new(Three::start()?))
}

impl Cluster for Three {
    fn round(&mut self, batch: usize) -> Result<()> {
        self.round(batch, &COMMAND)
    }

    fn heartbeat(&mut self) -> Result<()> {
        self.heartbeat()
    }

    fn handed_out(&self) -> Vec<usize> {
        self.handed_out()
    }
}

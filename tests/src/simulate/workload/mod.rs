//! What is asked of a cluster while things go wrong, and after that. A new kind of request is a
//! file, and a line in `start`.

pub mod clients;
mod compaction;

use std::rc::Rc;

use quorate::Executor;
use quorate::sim::Sim;

use super::SimTask;
use super::cluster::Cluster;
use super::quiet;

/// Starts all that is asked of a cluster from outside. The handles end when the clients have been
/// told to, and have got their last answers.
pub fn start(cluster: &Rc<Cluster>, rt: &Sim) -> Vec<SimTask> {
    let clients = (0..cluster.plan.load.clients)
        .map(|number| rt.spawn(clients::outside(Rc::clone(cluster), rt.clone(), number)));
    let compaction = rt.spawn(compaction::run(Rc::clone(cluster), rt.clone()));
    let quiet = quiet::start(cluster, rt);
    clients.chain([compaction]).chain(quiet).collect()
}

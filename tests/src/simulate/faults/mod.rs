//! What goes wrong. Each kind is a file: a task that lets things go well for a while, makes one go
//! wrong, and mends it, until the time of faults is over.

mod clocks;
mod copies;
mod crashes;
mod descriptors;
mod disks;
mod formation;
mod late;
mod liars;
pub mod memberships;
mod names;
mod network;
mod processes;
mod put_backs;
mod rot;
mod settings;
pub mod strangers;
pub mod transfers;
mod upheavals;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use quorate::sim::{Generator, Sim};
use quorate::{Executor, NodeId};

use super::SimTask;
use super::cluster::{Cluster, Phase};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    Partitions,
    Stalls,
    Resets,
    Crashes,
    Pauses,
    Slowness,
    Restarts,
    DiskErrors,
    DiskFull,
    DiskStalls,
    Rot,
    Misdirections,
    Wipes,
    Clocks,
    WallClocks,
    Shortenings,
    Upheavals,
    PutBacks,
    Copies,
    Swaps,
    LateMessages,
    Formation,
    Strangers,
    Liars,
    Names,
    Descriptors,
    Memberships,
    Settings,
    Transfers,
}

impl Fault {
    pub const ALL: [Self; 29] = [
        Self::Partitions,
        Self::Stalls,
        Self::Resets,
        Self::Crashes,
        Self::Pauses,
        Self::Slowness,
        Self::Restarts,
        Self::DiskErrors,
        Self::DiskFull,
        Self::DiskStalls,
        Self::Rot,
        Self::Misdirections,
        Self::Wipes,
        Self::Clocks,
        Self::WallClocks,
        Self::Shortenings,
        Self::Upheavals,
        Self::PutBacks,
        Self::Copies,
        Self::Swaps,
        Self::LateMessages,
        Self::Formation,
        Self::Strangers,
        Self::Liars,
        Self::Names,
        Self::Descriptors,
        Self::Memberships,
        Self::Settings,
        Self::Transfers,
    ];

    /// Whether it may go wrong while memberships change. Others count on the founders being the
    /// members, or on disks that nobody else changes.
    pub fn goes_with_memberships(self) -> bool {
        !matches!(
            self,
            Self::DiskErrors
                | Self::Rot
                | Self::Misdirections
                | Self::Shortenings
                | Self::Upheavals
                | Self::PutBacks
                | Self::Copies
                | Self::Swaps
                | Self::LateMessages
                | Self::Formation
                | Self::Strangers
                | Self::Liars
        )
    }

    /// Whether what is drawn for it comes from a generator of its own, so that it shifts no others:
    /// all but those that were there first.
    pub fn draws_alone(self) -> bool {
        matches!(
            self,
            Self::Shortenings
                | Self::Upheavals
                | Self::PutBacks
                | Self::Copies
                | Self::Swaps
                | Self::LateMessages
                | Self::Formation
                | Self::Strangers
                | Self::Liars
                | Self::Names
                | Self::Descriptors
                | Self::Memberships
                | Self::Settings
                | Self::Transfers
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Partitions => "partitions",
            Self::Stalls => "stalls",
            Self::Resets => "resets",
            Self::Crashes => "crashes",
            Self::Pauses => "pauses",
            Self::Slowness => "slowness",
            Self::Restarts => "restarts",
            Self::DiskErrors => "disk-errors",
            Self::DiskFull => "disk-full",
            Self::DiskStalls => "disk-stalls",
            Self::Rot => "rot",
            Self::Misdirections => "misdirections",
            Self::Wipes => "wipes",
            Self::Clocks => "clocks",
            Self::WallClocks => "wall-clocks",
            Self::Shortenings => "shortenings",
            Self::Upheavals => "upheavals",
            Self::PutBacks => "put-backs",
            Self::Copies => "copies",
            Self::Swaps => "swaps",
            Self::LateMessages => "late-messages",
            Self::Formation => "formation",
            Self::Strangers => "strangers",
            Self::Liars => "liars",
            Self::Names => "names",
            Self::Descriptors => "descriptors",
            Self::Memberships => "memberships",
            Self::Settings => "settings",
            Self::Transfers => "transfers",
        })
    }
}

/// Starts what makes things go wrong. A handle ends when its kind of fault is over and mended.
pub fn start(cluster: &Rc<Cluster>, rt: &Sim) -> Vec<SimTask> {
    let tasks = cluster.plan.faults.iter().map(|(fault, mean)| {
        let draw = match fault.draws_alone() {
            true => Rc::new(Generator::new(cluster.plan.seed, &format!("faults: {fault}"))),
            false => Rc::clone(&cluster.faults),
        };
        let calm = Calm { cluster: Rc::clone(cluster), rt: rt.clone(), mean: *mean, draw };
        rt.spawn(run(*fault, calm))
    });
    tasks.collect()
}

async fn run(fault: Fault, calm: Calm) {
    match fault {
        Fault::Partitions => network::partitions(calm).await,
        Fault::Stalls => network::stalls(calm).await,
        Fault::Resets => network::resets(calm).await,
        Fault::Crashes => crashes::crashes(calm).await,
        Fault::Pauses => processes::pauses(calm).await,
        Fault::Slowness => processes::slowness(calm).await,
        Fault::Restarts => crashes::restarts(calm).await,
        Fault::DiskErrors => disks::errors(calm).await,
        Fault::DiskFull => disks::full(calm).await,
        Fault::DiskStalls => disks::stalls(calm).await,
        Fault::Rot => rot::rot(calm).await,
        Fault::Misdirections => rot::misdirections(calm).await,
        Fault::Wipes => rot::wipes(calm).await,
        Fault::Clocks => clocks::clocks(calm).await,
        Fault::WallClocks => clocks::wall_clocks(calm).await,
        Fault::Shortenings => rot::shortenings(calm).await,
        Fault::Upheavals => upheavals::upheavals(calm).await,
        Fault::PutBacks => put_backs::put_backs(calm).await,
        Fault::Copies => copies::copies(calm).await,
        Fault::Swaps => copies::swaps(calm).await,
        Fault::LateMessages => late::late_messages(calm).await,
        Fault::Formation => formation::formation(calm).await,
        Fault::Strangers => strangers::strangers(calm).await,
        Fault::Liars => liars::liars(calm).await,
        Fault::Names => names::names(calm).await,
        Fault::Descriptors => descriptors::descriptors(calm).await,
        Fault::Memberships => memberships::memberships(calm).await,
        Fault::Settings => settings::settings(calm).await,
        Fault::Transfers => transfers::transfers(calm).await,
    }
}

/// The time between two faults of a kind, and what they are made with.
struct Calm {
    cluster: Rc<Cluster>,
    rt: Sim,
    mean: Duration,
    /// What is drawn: from that of all faults, or from one of this kind alone.
    draw: Rc<Generator>,
}

impl Calm {
    /// Lets things go well for a while. False: the time of faults is over.
    async fn passes(&self) -> bool {
        self.lasts(self.draw.duration(&(Duration::ZERO..2 * self.mean))).await
    }

    /// Lets a fault last, but not beyond the time of faults. False: that is over.
    async fn lasts(&self, duration: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(100);
        let mut left = duration;
        while self.cluster.phase() == Phase::Faults && left > Duration::ZERO {
            let step = left.min(STEP);
            self.rt.sleep(step).await;
            left -= step;
        }
        self.cluster.phase() == Phase::Faults
    }

    /// A time from a moment to several election timeouts.
    fn some_time(&self) -> Duration {
        let election = self.cluster.plan.config.election_timeout;
        let draw = &self.draw;
        let longest = *draw.choose(&[election / 10, election, 5 * election]);
        draw.duration(&(Duration::from_millis(1)..longest))
    }

    fn any_node(&self) -> NodeId {
        *self.draw.choose(&self.cluster.ids())
    }

    /// A node that runs, and leads as often as not.
    fn any_running(&self) -> Option<NodeId> {
        let (cluster, draw) = (&self.cluster, &self.draw);
        let running: Vec<_> =
            cluster.ids().into_iter().filter(|id| cluster.raft(*id).is_some()).collect();
        if running.is_empty() {
            return None;
        }
        match self.leader() {
            Some(leader) if draw.chance(0.4) => Some(leader),
            _ => Some(*draw.choose(&running)),
        }
    }

    /// A node that leads, or takes itself for the leader.
    fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            let metrics = self.cluster.metrics(*id);
            metrics.is_some_and(|metrics| metrics.role == quorate::Role::Leader)
        };
        self.cluster.ids().into_iter().find(leads)
    }
}

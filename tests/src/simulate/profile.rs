//! The profiles: what kind of runs are drawn.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use quorate::sim::Generator;

use super::faults::Fault;

/// A kind of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Profile {
    /// Any of all that can go wrong, and any load.
    #[default]
    Default,
    /// Five nodes under load, and nothing goes wrong.
    Calm,
    /// Links are cut, stall and break, connections hang or are refused.
    Network,
    /// Processes are killed and paused, machines lose their power.
    Crashes,
    /// Disks fail, are full and stall; files rot and disks are lost.
    Disks,
    /// Clocks run fast and slow, and jump, within what a machine's clock may do; wall clocks are
    /// set.
    Clocks,
    /// … and beyond that.
    WildClocks,
    /// Small logs and many snapshots, under all that can go wrong.
    Snapshots,
    /// Clusters that are formed while members die, lose their disks, and are told other lists.
    Formation,
    /// Memberships are changed all the time, while processes die, disks are lost and links are cut.
    Memberships,
    /// Disks are lost, put back, copied and swapped, and messages of earlier lives come.
    Identity,
    /// What lies around the nodes fails, and whoever is outside speaks nonsense and lies.
    Outside,
    /// A little goes wrong for a moment, and then something of which it is known what must come of
    /// it.
    Endings,
}

impl Profile {
    pub const ALL: [Self; 13] = [
        Self::Default,
        Self::Calm,
        Self::Network,
        Self::Crashes,
        Self::Disks,
        Self::Clocks,
        Self::WildClocks,
        Self::Snapshots,
        Self::Formation,
        Self::Memberships,
        Self::Identity,
        Self::Outside,
        Self::Endings,
    ];

    /// The sizes of clusters, as often as they are wanted.
    pub fn sizes(self) -> &'static [u64] {
        match self {
            Self::Calm => &[5],
            Self::Endings | Self::Identity | Self::Outside => &[3, 3, 3, 4, 5, 5, 7],
            Self::Formation | Self::Memberships => &[1, 2, 2, 3, 3, 3, 3, 4, 5],
            _ => &[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7],
        }
    }

    pub fn duration(self) -> Range<Duration> {
        match self {
            Self::Calm => Duration::from_secs(20)..Duration::from_secs(21),
            Self::Endings => Duration::from_millis(500)..Duration::from_secs(2),
            _ => Duration::from_secs(2)..Duration::from_secs(12),
        }
    }

    /// How many clients, and how long they wait between two requests, at most.
    pub fn load(self, draw: &Generator) -> (u64, Duration) {
        match self {
            Self::Calm => (10, Duration::from_millis(400)),
            _ => (1 + draw.below(8), Duration::from_millis(1 + draw.below(400))),
        }
    }

    pub fn takes_snapshots(self, draw: &Generator) -> bool {
        self == Self::Snapshots || draw.chance(0.6)
    }

    pub fn network_is_bad(self, draw: &Generator) -> bool {
        match self {
            Self::Calm => false,
            Self::Network => true,
            _ => draw.chance(0.4),
        }
    }

    /// What goes wrong, and how long it goes well in between, on average. For wall clocks it is
    /// drawn from a generator of its own, and so for what concerns identities: nothing else in a
    /// plan depends on them.
    pub fn faults(
        self,
        draw: &Generator,
        wall_clocks: &Generator,
        identities: &Generator,
    ) -> Vec<(Fault, Duration)> {
        use Fault::*;
        let possible: &[Fault] = match self {
            Self::Calm => &[],
            Self::Default | Self::Snapshots | Self::Endings => &Fault::ALL,
            Self::Network => &[Partitions, Stalls, Resets, Crashes, Strangers, Settings],
            Self::Crashes => &[Crashes, Pauses, Slowness, Restarts, Partitions, Settings],
            Self::Disks => &[
                DiskErrors,
                DiskFull,
                DiskStalls,
                Rot,
                Misdirections,
                Shortenings,
                Wipes,
                Crashes,
                Restarts,
            ],
            Self::Clocks | Self::WildClocks => &[Clocks, WallClocks, Partitions, Pauses, Crashes],
            Self::Formation => &[Formation, LateMessages, Partitions, Crashes, Resets, DiskStalls],
            Self::Memberships => &[
                Memberships,
                Partitions,
                Resets,
                Stalls,
                Crashes,
                Restarts,
                Pauses,
                Wipes,
                Clocks,
                WallClocks,
                DiskStalls,
                DiskFull,
                Settings,
                Transfers,
            ],
            Self::Identity => {
                &[Upheavals, PutBacks, Copies, Swaps, LateMessages, Crashes, Partitions, Wipes]
            }
            Self::Outside => {
                &[Strangers, Liars, Names, Descriptors, Partitions, Resets, Crashes, Restarts]
            }
        };
        let wanted = match self {
            Self::Default => 0.4,
            Self::Endings => 0.1,
            _ => 0.7,
        };
        let mut faults = Vec::new();
        for fault in possible {
            let draw = match fault {
                WallClocks => wall_clocks,
                fault if fault.draws_alone() => identities,
                _ => draw,
            };
            let mean = Duration::from_millis(200 + draw.below(3_000));
            let always = matches!(
                (self, fault),
                (Self::Clocks | Self::WildClocks, Clocks)
                    | (Self::Formation, Formation)
                    | (Self::Memberships, Memberships)
            );
            // Most runs of other kinds are to go on with the disks that they have.
            let wanted = match self {
                Self::Endings if *fault == Memberships => 0.0,
                Self::Default | Self::Snapshots
                    if matches!(fault, Liars | Names | Descriptors | Memberships) =>
                {
                    0.1
                }
                Self::Default | Self::Snapshots if fault.draws_alone() => 0.2,
                _ => wanted,
            };
            if always || draw.chance(wanted) {
                faults.push((*fault, mean));
            }
        }
        faults
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Calm => "calm",
            Self::Network => "network",
            Self::Crashes => "crashes",
            Self::Disks => "disks",
            Self::Clocks => "clocks",
            Self::WildClocks => "wild-clocks",
            Self::Snapshots => "snapshots",
            Self::Formation => "formation",
            Self::Memberships => "memberships",
            Self::Identity => "identity",
            Self::Outside => "outside",
            Self::Endings => "endings",
        })
    }
}

//! What of the unsynced survives when a machine loses its power: nothing, all, what was done first,
//! or anything.

use crate::disk::DiskState;
use crate::world::World;

/// How it is decided. One way for all files of a disk, so that whole states of it are seen, old and
/// new ones.
#[derive(Clone, Copy, Debug)]
enum Survives {
    Nothing,
    Everything,
    /// The first of each file's changes, and of the last of them any sectors.
    First,
    /// Each sector of each change with this probability, whatever was written there later.
    Sectors(f64),
}

impl DiskState {
    pub(crate) fn lose_power(&self, world: &World) {
        let draw = &world.disks;
        let survives = *draw.choose(&[
            Survives::Nothing,
            Survives::Everything,
            Survives::First,
            Survives::First,
            Survives::Sectors(0.1),
            Survives::Sectors(0.5),
            Survives::Sectors(0.9),
        ]);
        for inode in self.inodes() {
            inode.lose_power(|changes| match survives {
                Survives::Nothing => Vec::new(),
                Survives::Everything => changes,
                Survives::First => {
                    let whole = draw.index(changes.len() + 1);
                    let torn = changes.get(whole).map(|last| last.sectors(|| draw.chance(0.5)));
                    let first = changes.into_iter().take(whole);
                    first.chain(torn.into_iter().flatten()).collect()
                }
                Survives::Sectors(probability) => {
                    let parts =
                        |change: &super::inode::Change| change.sectors(|| draw.chance(probability));
                    changes.iter().flat_map(parts).collect()
                }
            });
        }
        self.names.borrow_mut().lose_power(|mut changes| match survives {
            Survives::Nothing => Vec::new(),
            Survives::Everything => changes,
            Survives::First => {
                changes.truncate(draw.index(changes.len() + 1));
                changes
            }
            Survives::Sectors(probability) => {
                changes.retain(|_| draw.chance(probability));
                changes
            }
        });
        world.note(self.host, "loses what was not synced", survives.number(), 0);
    }
}

impl Survives {
    fn number(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Everything => 1,
            Self::First => 2,
            Self::Sectors(probability) => 10 + (10.0 * probability) as u64,
        }
    }
}

//! Files, as a process has them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate_rt::{File, OpenMode};

use super::DiskState;
use super::inode::{Change, Inode};
use super::names::plain;
use super::operation::{Kind, io_error};
use crate::world::World;

/// No file may be larger, as on ext4.
const MAX_BYTES: u64 = 1 << 44;

/// An open file.
pub struct SimFile {
    world: Rc<World>,
    disk: Rc<DiskState>,
    inode: Rc<Inode>,
    mode: OpenMode,
}

impl DiskState {
    pub(crate) async fn open(
        self: &Rc<Self>,
        world: &Rc<World>,
        path: &Path,
        mode: OpenMode,
    ) -> io::Result<SimFile> {
        let (disk, path) = (Rc::clone(self), plain(path));
        let inode = self.operate(world, Kind::Name, None, move |_, _| {
            if mode == OpenMode::CreateNew {
                let inode = disk.make_inode();
                disk.names.borrow_mut().make(&path, Rc::clone(&inode))?;
                return Ok(inode);
            }
            disk.names.borrow().get(&path).cloned().ok_or(io::Error::from(io::ErrorKind::NotFound))
        });
        let inode = inode.await?;
        inode.open();
        Ok(SimFile { world: Rc::clone(world), disk: Rc::clone(self), inode, mode })
    }

    /// An operation on names.
    async fn on_names<T: 'static>(
        self: &Rc<Self>,
        world: &Rc<World>,
        work: impl FnOnce(&mut super::Names) -> io::Result<T> + 'static,
    ) -> io::Result<T> {
        let disk = Rc::clone(self);
        self.operate(world, Kind::Name, None, move |_, _| work(&mut disk.names.borrow_mut())).await
    }

    pub(crate) async fn create_dir_all(
        self: &Rc<Self>,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<()> {
        let path = plain(path);
        self.on_names(world, move |names| names.make_directories(&path)).await
    }

    pub(crate) async fn read_dir(
        self: &Rc<Self>,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<Vec<String>> {
        let path = plain(path);
        self.on_names(world, move |names| names.list(&path)).await
    }

    pub(crate) async fn rename(
        self: &Rc<Self>,
        world: &Rc<World>,
        from: &Path,
        to: &Path,
    ) -> io::Result<()> {
        let (from, to) = (plain(from), plain(to));
        let directory = to.parent().unwrap_or(&to).to_owned();
        self.on_names(world, move |names| names.rename(&from, &to)).await?;
        if !self.config.borrow().durable_renames {
            return Ok(());
        }
        // In between, a crash finds the new name, or the old one, or neither if that was not
        // durable.
        self.sync_dir(world, &directory).await
    }

    pub(crate) async fn remove_file(
        self: &Rc<Self>,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<()> {
        let path = plain(path);
        self.on_names(world, move |names| names.remove(&path)).await
    }

    pub(crate) async fn sync_dir(
        self: &Rc<Self>,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<()> {
        let path = plain(path);
        self.on_names(world, move |names| names.sync(&path)).await
    }

    pub(crate) async fn lock_file(
        self: &Rc<Self>,
        world: &Rc<World>,
        path: &Path,
    ) -> io::Result<SimFileLock> {
        let (disk, file) = (Rc::clone(self), plain(path));
        self.on_names(world, move |names| {
            let mut locks = disk.locks.borrow_mut();
            if locks.contains_key(&file) {
                let message = format!("{} is locked by someone else", file.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
            match names.make(&file, disk.make_inode()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let number = disk.locked.get() + 1;
            disk.locked.set(number);
            locks.insert(file.clone(), number);
            drop(locks);
            Ok(SimFileLock { disk, path: file, number })
        })
        .await
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.inode.close();
    }
}

impl SimFile {
    fn may_write(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::Read => Err(io::ErrorKind::PermissionDenied.into()),
            OpenMode::Write | OpenMode::CreateNew => Ok(()),
        }
    }

    /// Grows the file, if it is shorter.
    async fn resize(&self, len: u64, may_cut: bool) -> io::Result<()> {
        self.may_write()?;
        let (disk, inode) = (Rc::clone(&self.disk), Rc::clone(&self.inode));
        let resized = self.disk.operate(&self.world, Kind::Write, None, move |_, fails| {
            if fails {
                return Err(io_error());
            }
            if len > MAX_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if !disk.has_room(len.saturating_sub(inode.len())) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if len > inode.len() || len < inode.len() && may_cut {
                inode.change(Change::Len(len));
            }
            Ok(())
        });
        resized.await
    }
}

impl File for SimFile {
    async fn read_at(&self, mut into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        let inode = Rc::clone(&self.inode);
        let short_reads = self.disk.config.borrow().short_reads;
        self.disk
            .operate(&self.world, Kind::Read, None, move |world, fails| {
                if fails {
                    return (Err(io_error()), into);
                }
                let room = into.capacity() - into.len();
                let most = match world.disks.chance(short_reads) && room > 1 {
                    true => 1 + world.disks.index(room),
                    false => room,
                };
                let count = inode.read(&mut into, offset, most);
                (Ok(count), into)
            })
            .await
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.may_write()?;
        let mut at = offset;
        let changes = from.into_iter().filter(|data| !data.is_empty()).map(|data| {
            let change = Change::Write { offset: at, data: data.clone() };
            at = at.saturating_add(data.len() as u64);
            change
        });
        let changes: Vec<_> = changes.collect();
        if at > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (disk, inode) = (Rc::clone(&self.disk), Rc::clone(&self.inode));
        let in_case_of_a_crash = Some((Rc::clone(&self.inode), changes.clone()));
        self.disk
            .operate(&self.world, Kind::Write, in_case_of_a_crash, move |world, fails| {
                let changes = inode.write(changes);
                let end = changes.last().map_or(0, Change::end);
                let full = !disk.has_room(end.saturating_sub(inode.len()));
                for change in changes {
                    if let Change::Write { data, .. } = &change {
                        let content = u64::from(crc32fast::hash(data));
                        world.note(disk.host, "writes bytes", data.len() as u64, content);
                    }
                    if fails || full {
                        // Some of it may have been written.
                        for part in change.sectors(|| fails && world.disks.chance(0.5)) {
                            inode.change(part);
                        }
                    } else {
                        inode.change(change);
                    }
                }
                match (fails, full) {
                    (true, _) => Err(io_error()),
                    (_, true) => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(()),
                }
            })
            .await
    }

    async fn sync_data(&self) -> io::Result<()> {
        let inode = Rc::clone(&self.inode);
        let changes = inode.changes();
        self.disk
            .operate(&self.world, Kind::Sync, None, move |world, fails| {
                if fails {
                    let probability = *world.disks.choose(&[0.0, 0.5, 0.9]);
                    inode.lost(changes, || world.disks.chance(probability));
                    return Err(io_error());
                }
                inode.synced(changes);
                Ok(())
            })
            .await
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.resize(len, false).await
    }

    async fn len(&self) -> io::Result<u64> {
        let inode = Rc::clone(&self.inode);
        self.disk.operate(&self.world, Kind::Name, None, move |_, _| Ok(inode.len())).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len, true).await
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// An exclusive lock on a file, held until it is dropped, or its process dies.
pub struct SimFileLock {
    disk: Rc<DiskState>,
    path: PathBuf,
    number: u64,
}

impl Drop for SimFileLock {
    fn drop(&mut self) {
        // After the process has died it may be another's.
        let mut locks = self.disk.locks.borrow_mut();
        if locks.get(&self.path) == Some(&self.number) {
            locks.remove(&self.path);
        }
    }
}

impl fmt::Debug for SimFileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimFileLock").field(&self.path).finish()
    }
}

//! The names on a disk: as they are seen, as they are durable, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::DiskImage;
use super::inode::Inode;

#[derive(Default)]
pub(super) struct Names {
    visible: Directory,
    durable: Directory,
    unsynced: Vec<NameChange>,
}

/// All files and directories, by their paths. Every directory is there that has no other above it.
#[derive(Clone, Default)]
struct Directory {
    files: BTreeMap<PathBuf, Rc<Inode>>,
    directories: BTreeSet<PathBuf>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Make(PathBuf, Rc<Inode>),
    MakeDirectory(PathBuf),
    Rename(PathBuf, PathBuf, Rc<Inode>),
    Remove(PathBuf),
}

impl NameChange {
    /// The directory that has to be synced for it to be durable.
    fn directory(&self) -> &Path {
        match self {
            Self::Make(path, _) | Self::MakeDirectory(path) | Self::Remove(path) => above(path),
            Self::Rename(_, to, _) => above(to),
        }
    }
}

/// The path without what means nothing in it.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// The directory that an entry is in.
fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl Directory {
    fn has_directory(&self, path: &Path) -> bool {
        path.parent().is_none_or(|above| above == Path::new("")) && path.file_name().is_none()
            || path == Path::new("")
            || self.directories.contains(path)
    }

    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Make(path, inode) => {
                self.files.insert(path.clone(), Rc::clone(inode));
            }
            NameChange::MakeDirectory(path) => {
                self.directories.insert(path.clone());
            }
            NameChange::Rename(from, to, inode) => {
                // The old name may not have become durable; or be another file's.
                if self.files.get(from).is_some_and(|file| Rc::ptr_eq(file, inode)) {
                    self.files.remove(from);
                }
                self.files.insert(to.clone(), Rc::clone(inode));
            }
            NameChange::Remove(path) => {
                self.files.remove(path);
            }
        }
    }
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<&Rc<Inode>> {
        self.visible.files.get(path)
    }

    pub(super) fn visible(&self) -> impl Iterator<Item = (&PathBuf, &Rc<Inode>)> {
        self.visible.files.iter()
    }

    fn change(&mut self, change: NameChange) {
        self.visible.apply(&change);
        self.unsynced.push(change);
    }

    pub(super) fn make(&mut self, path: &Path, inode: Rc<Inode>) -> io::Result<()> {
        if self.visible.files.contains_key(path) || self.visible.has_directory(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.demand_directory(above(path))?;
        self.change(NameChange::Make(path.to_owned(), inode));
        Ok(())
    }

    /// # Errors
    /// There is no such directory.
    fn demand_directory(&self, path: &Path) -> io::Result<()> {
        match self.visible.has_directory(path) {
            true => Ok(()),
            false if self.visible.files.contains_key(path) => {
                Err(io::ErrorKind::NotADirectory.into())
            }
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes a directory and those above it, and syncs the directory of each new one.
    pub(super) fn make_directories(&mut self, path: &Path) -> io::Result<()> {
        if self.visible.has_directory(path) {
            return Ok(());
        }
        if self.visible.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.make_directories(above(path))?;
        self.change(NameChange::MakeDirectory(path.to_owned()));
        self.sync(above(path))
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if above(from) != above(to) {
            let message = format!("{} and {} are in two directories", from.display(), to.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let inode = Rc::clone(self.get(from).ok_or(io::ErrorKind::NotFound)?);
        self.change(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.get(path).ok_or(io::ErrorKind::NotFound)?;
        self.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    /// The names in a directory.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.demand_directory(path)?;
        let Directory { files, directories } = &self.visible;
        let inside = files.keys().chain(directories).filter(|entry| above(entry) == path);
        let names = inside.filter_map(|entry| entry.file_name()).map(OsString::from);
        let mut names = names
            .map(|name| {
                name.into_string().map_err(|name| {
                    let message =
                        format!("a name that is not UTF-8 in {}: {name:?}", path.display());
                    io::Error::new(io::ErrorKind::InvalidData, message)
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// What was done in a directory becomes durable.
    pub(super) fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.demand_directory(path)?;
        let Self { durable, unsynced, .. } = self;
        for change in unsynced.extract_if(.., |change| change.directory() == path) {
            durable.apply(&change);
        }
        Ok(())
    }

    /// The power is gone; of what was not synced this survives.
    pub(super) fn lose_power(
        &mut self,
        surviving: impl FnOnce(Vec<NameChange>) -> Vec<NameChange>,
    ) {
        for change in surviving(std::mem::take(&mut self.unsynced)) {
            self.durable.apply(&change);
        }
        self.visible = self.durable.clone();
    }

    /// The durable files, and what is on them.
    pub(super) fn image(&self, content: impl Fn(&Inode) -> Vec<u8>) -> DiskImage {
        let files = self.durable.files.iter();
        DiskImage {
            files: files.map(|(path, inode)| (path.clone(), content(inode))).collect(),
            directories: self.durable.directories.iter().cloned().collect(),
        }
    }

    pub(super) fn make_durable_dir(&mut self, path: &Path) {
        for directory in [&mut self.visible, &mut self.durable] {
            directory.directories.insert(path.to_owned());
        }
    }

    pub(super) fn add_durable(&mut self, path: &Path, inode: Rc<Inode>) {
        for directory in [&mut self.visible, &mut self.durable] {
            directory.files.insert(path.to_owned(), Rc::clone(&inode));
        }
    }
}

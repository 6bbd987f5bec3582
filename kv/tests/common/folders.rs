//! Folders of nodes: what is in them, and copies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The content of every file.
pub(crate) fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).expect("reads"));
        }
    }
    files
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates a folder");
    for entry in fs::read_dir(from).expect("lists") {
        let path = entry.expect("lists").path();
        let copied = to.join(path.file_name().expect("has a name"));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).expect("copies");
        }
    }
}

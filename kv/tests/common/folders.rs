//! Folders of nodes: what is in them, and copies.

use std::fs;
use std::path::Path;

use super::kv;

/// What `quorate-kv check` says of a folder.
pub(crate) fn check(folder: &Path) -> String {
    let output = kv().arg("check").arg("--data").arg(folder).output().expect("runs");
    String::from_utf8(output.stdout).expect("is text")
}

/// The same without what is about files. An opening cuts a torn tail off, and removes and prepares
/// segments that hold nothing.
pub(crate) fn records(folder: &Path) -> String {
    let text = check(folder);
    let of_files = ["segments: ", "  from ", "left over: ", "end: ", "tail: "];
    let of_records =
        text.lines().filter(|line| !of_files.iter().any(|file| line.starts_with(file)));
    of_records.collect::<Vec<_>>().join("\n")
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

use std::fs;
use std::io::{BufRead, BufReader, pipe};
use std::os::fd::OwnedFd;

use super::*;

fn start(file: impl Into<OwnedFd>, path: Option<&Path>, format: Format) -> Lines {
    let file = File::from(file.into());
    Lines::start(Target { file, path: path.map(Path::to_owned), format }).unwrap()
}

/// How many lines the log says are missing.
fn missing(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" lines of the log are missing here")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_pipe_that_nobody_reads_delays_nobody_and_the_lost_lines_are_counted() {
    const LINES: u64 = 40_000;
    let (reader, writer) = pipe().unwrap();
    let lines = start(writer, None, Format::Text);
    let line = |n: u64| format!("line {n} {}\n", "x".repeat(90));
    (0..LINES).for_each(|n| lines.push(line(n).as_bytes()));
    // It waits for no more than its time, though nothing can be written.
    lines.close();
    let mut next = 0;
    for read in BufReader::new(reader).lines() {
        let read = read.unwrap();
        match missing(&read) {
            Some(lost) => next += lost,
            None => {
                assert_eq!(format!("{read}\n"), line(next));
                next += 1;
            }
        }
        if next == LINES {
            return;
        }
    }
    panic!("ends after {next} lines");
}

#[test]
fn lines_that_could_not_be_written_are_told_when_it_works_again() {
    for format in [Format::Text, Format::Json] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let lines = start(full, Some(&path), format);
        (0..3).for_each(|_| lines.push(b"lost\n"));
        // The next line finds the full one still there, as a reopening is done first of all.
        let emptied = || lines.lock().waiting.is_empty();
        while !emptied() {
            thread::yield_now();
        }
        lines.reopen();
        lines.push(b"kept\n");
        lines.close();
        let text = fs::read_to_string(&path).unwrap();
        let all: Vec<_> = text.lines().collect();
        assert_eq!((all.len(), all.last()), (2, Some(&"kept")), "{text}");
        assert!(all[0].contains("3 lines of the log are missing here"), "{text}");
        assert!(all[0].contains("No space left on device"), "{text}");
        if format == Format::Json {
            let told: serde_json::Value = serde_json::from_str(all[0]).unwrap();
            assert_eq!(told["level"], "WARN");
        }
    }
}

#[test]
fn a_reader_that_is_gone_is_no_error() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let lines = start(writer, None, Format::Text);
    lines.push(b"lost\n");
    lines.close();
    assert!(lines.lock().ended);
}

#[test]
fn a_file_that_cannot_be_opened_anew_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let lines = start(open(&path).unwrap(), Some(&path), Format::Text);
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    lines.reopen();
    lines.push(b"next\n");
    lines.close();
    let text = fs::read_to_string(&moved).unwrap();
    assert!(text.contains("can't open the log file"), "{text}");
    assert!(text.ends_with("it goes on in the old one\nnext\n"), "{text}");
}

#[test]
fn a_named_pipe_without_a_reader_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let (kind, mode) = (rustix::fs::FileType::Fifo, 0o600.into());
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    assert!(open(&path).is_err());
}

//! The log. Its lines wait in a bounded queue, and one thread of its own writes them: whatever
//! becomes of the file, the terminal or the pipe that they go to, it neither ends nor delays a
//! node.
//!
//! The writer of the crate `tracing-appender` is not used because it bounds its queue in lines and
//! not in bytes, and forgets lines that it could not write.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use rustix::fs::OFlags;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The most that waits to be written, in bytes, besides as much that is being written: some five
/// thousand lines. A disk that is slow for seconds loses none of them, and the memory of a node
/// hardly shows it.
const QUEUE_BYTES: usize = 1 << 20;

/// How long the end of the process waits for the lines that are left: long for a disk that works,
/// and short for whoever waits for the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// When to try again where a write would have to wait, but was told not to (`O_NONBLOCK`).
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Where the log goes.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// The file that the log is appended to, opened anew on SIGHUP; without it the log goes to
    /// standard error.
    #[arg(long, value_name = "PATH")]
    log_file: Option<PathBuf>,
    /// How a line of the log looks.
    #[arg(long, value_enum, default_value_t)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// An object of JSON on each line.
    Json,
}

/// The log of this process.
pub(crate) struct Log {
    lines: Lines,
    format: Format,
    in_file: bool,
}

impl Log {
    /// Sends what is traced, and the messages of panics, to where the options say.
    ///
    /// Errors: the file can't be opened, or the thread can't be started.
    pub(crate) fn start(options: Options, filter: EnvFilter) -> Result<Self, String> {
        let Options { log_file, log_format: format } = options;
        let in_file = log_file.is_some();
        let (file, colours) = match &log_file {
            Some(path) => (open(path).map_err(|error| cannot_open(path, &error))?, false),
            None => {
                let file = duplicate(&io::stderr()).map_err(|error| error.to_string())?;
                (file, io::stderr().is_terminal() && format == Format::Text)
            }
        };
        let lines = Lines::start(Target { file, path: log_file, format })?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(colours)
            .with_writer(lines.clone())
            // They would be printed to standard error, which panics where that can't be written.
            .log_internal_errors(false);
        match format {
            Format::Text => builder.init(),
            Format::Json => builder.json().init(),
        }
        report_panics(lines.clone(), format);
        Ok(Self { lines, format, in_file })
    }

    /// A handle to have the file opened anew.
    pub(crate) fn file(&self) -> Option<Lines> {
        self.in_file.then(|| self.lines.clone())
    }

    /// Writes why the process ends, and everything before that, as far as it can be written in a
    /// second.
    pub(crate) fn end(self, error: Option<&str>) {
        if let Some(error) = error {
            match (self.in_file, self.format) {
                (false, Format::Text) => self.lines.push(last_words(error).as_bytes()),
                (_, format) => self.lines.push(line(format, "ERROR", error).as_bytes()),
            }
            if self.in_file {
                say_last(error);
            }
        }
        self.lines.close();
    }
}

/// Tells on standard error why the process ends, if that can be written within a second.
pub(crate) fn say_last(error: &str) {
    let Ok(file) = duplicate(&io::stderr()) else { return };
    if let Ok(lines) = Lines::start(Target { file, path: None, format: Format::Text }) {
        lines.push(last_words(error).as_bytes());
        lines.close();
    }
}

fn last_words(error: &str) -> String {
    format!("quorate-kv: {error}\n")
}

fn report_panics(lines: Lines, format: Format) {
    panic::set_hook(Box::new(move |info| {
        let thread = thread::current();
        let mut text = format!("thread '{}' {info}", thread.name().unwrap_or("unnamed"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("\n{backtrace}"));
        }
        // No filter of what is traced may hide it.
        lines.push(line(format, "ERROR", &text).as_bytes());
    }));
}

/// A line of the log that is not traced.
fn line(format: Format, level: &str, text: &str) -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    match format {
        Format::Text => format!("{time} {level:>5} quorate_kv: {text}\n"),
        Format::Json => {
            let text = serde_json::Value::from(text);
            format!(
                "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"fields\":{{\"message\":{text}}},\"target\":\"quorate_kv\"}}\n"
            )
        }
    }
}

/// Opens a file to append to. A named pipe that nobody reads is an error, and doesn't wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    File::options().create(true).append(true).custom_flags(flags).open(path)
}

fn cannot_open(path: &Path, error: &dyn Display) -> String {
    format!("can't open the log file {}: {error}", path.display())
}

/// The same open file, without the locks of the standard library: the end of the process waits for
/// none.
fn duplicate(stream: &impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// Lines that a thread writes, one after the other. The last handle need not outlive what it has
/// pushed.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do, or the thread has ended.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Vec<u8>>,
    /// Of those that wait.
    bytes: usize,
    /// How many came after these and found no room.
    dropped: u64,
    reopen: bool,
    closing: bool,
    ended: bool,
}

impl Lines {
    /// Lines for standard output.
    ///
    /// Errors: the thread can't be started.
    pub(crate) fn to_stdout() -> Result<Self, String> {
        let file = duplicate(&io::stdout()).map_err(|error| error.to_string())?;
        Self::start(Target { file, path: None, format: Format::Text })
    }

    #[expect(clippy::disallowed_methods, reason = "not a part of any runtime")]
    fn start(target: Target) -> Result<Self, String> {
        let shared = Shared { queue: Mutex::default(), changed: Condvar::new() };
        let lines = Self(Arc::new(shared));
        let mut pen = Pen { target, lost: 0, cause: None, is_torn: false };
        let of_thread = lines.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || of_thread.write_all(&mut pen))
            .map_err(|error| format!("can't start a thread for the log: {error}"))?;
        Ok(lines)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under the lock can panic half-way.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line. It never waits for the writing.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        // Those that follow a lost one are lost until there is room for all: the loss is told in
        // one place.
        if queue.dropped > 0 || queue.bytes + line.len() > QUEUE_BYTES {
            queue.dropped += 1;
        } else {
            queue.bytes += line.len();
            queue.waiting.push_back(line.to_vec());
        }
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Has the file opened anew, for a log that was moved away.
    pub(crate) fn reopen(&self) {
        self.lock().reopen = true;
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, but no longer than [`FLUSH_WITHIN`].
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closing = true;
        self.0.changed.notify_all();
        let waited = self.0.changed.wait_timeout_while(queue, FLUSH_WITHIN, |queue| !queue.ended);
        drop(waited);
    }

    /// The thread.
    fn write_all(&self, pen: &mut Pen) {
        loop {
            let mut queue = self.lock();
            while queue.waiting.is_empty() && queue.dropped == 0 && !queue.reopen && !queue.closing
            {
                queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let lines = mem::take(&mut queue.waiting);
            queue.bytes = 0;
            let dropped = mem::take(&mut queue.dropped);
            if mem::take(&mut queue.reopen) {
                drop(queue);
                pen.reopen();
            } else if queue.closing && lines.is_empty() && dropped == 0 {
                queue.ended = true;
                drop(queue);
                self.0.changed.notify_all();
                return;
            } else {
                drop(queue);
            }
            for line in lines {
                pen.write(&line);
            }
            pen.lost += dropped;
            pen.tell_losses();
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// One write for each event, as the subscriber does it.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines go.
struct Target {
    file: File,
    /// Where it is opened anew.
    path: Option<PathBuf>,
    format: Format,
}

/// Writes lines, and counts those that it can't.
struct Pen {
    target: Target,
    /// Lines that nobody was told of yet, and why the last one could not be written.
    lost: u64,
    cause: Option<io::Error>,
    /// The last line ends in the middle.
    is_torn: bool,
}

impl Pen {
    fn write(&mut self, line: &[u8]) {
        self.tell_losses();
        if self.lost > 0 {
            self.lost += 1;
        } else if let Err(error) = self.put(line) {
            self.lost = 1;
            self.cause = Some(error);
        }
    }

    /// Where lines were lost: says how many.
    fn tell_losses(&mut self) {
        if self.lost == 0 {
            return;
        }
        let cause = match &self.cause {
            Some(error) => format!("they could not be written: {error}"),
            None => "they came faster than they could be written".to_owned(),
        };
        let text = format!("{} lines of the log are missing here: {cause}", self.lost);
        match self.put(line(self.target.format, "WARN", &text).as_bytes()) {
            Ok(()) => (self.lost, self.cause) = (0, None),
            Err(error) => self.cause = Some(error),
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.target.path else { return };
        match open(path) {
            Ok(file) => {
                self.target.file = file;
                self.is_torn = false;
            }
            Err(error) => {
                let text = format!("{}; it goes on in the old one", cannot_open(path, &error));
                self.write(line(self.target.format, "ERROR", &text).as_bytes());
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "not a part of any runtime")]
    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        let whole;
        let mut rest = line;
        if self.is_torn {
            whole = [b"\n", line].concat();
            rest = &whole;
        }
        while !rest.is_empty() {
            match self.target.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(RETRY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;

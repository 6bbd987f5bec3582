//! The signals that a node hears.

use std::io;
use std::thread;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;
use tracing::info;

use crate::log::Lines;

/// Hears signals, on a thread of its own, from now on: SIGTERM and SIGINT call `stop`, and SIGHUP
/// opens the log file anew, if there is one. A write beyond the limit of the size of files
/// (SIGXFSZ) becomes an error of that write.
///
/// Errors: the thread can't be started, or signals can't be heard.
#[expect(clippy::disallowed_methods, reason = "not a part of any runtime")]
pub(crate) fn hear(
    log_file: Option<Lines>,
    stop: impl Fn() + Send + 'static,
) -> Result<(), String> {
    let cannot = |error: io::Error| format!("can't listen to signals: {error}");
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGXFSZ]).map_err(cannot)?;
    let hear = move || {
        for signal in signals.forever() {
            let name = signal_name(signal).unwrap_or("unknown");
            match (signal, &log_file) {
                (SIGHUP, Some(log_file)) => {
                    info!(signal = name, "a signal: opens the log file anew");
                    log_file.reopen();
                }
                (SIGHUP, None) => {
                    info!(signal = name, "a signal: there is no log file to open anew")
                }
                // Not a line: if it is the log's file, that would be the next signal.
                (SIGXFSZ, _) => {}
                _ => {
                    info!(signal = name, "a signal: stops");
                    stop();
                }
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(hear).map(drop).map_err(cannot)
}

//! The machine on which a bench has run.

use std::fmt;
use std::fs;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpu: String,
    cores: usize,
    memory_bytes: u64,
    kernel: String,
}

impl Machine {
    pub(super) fn this() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name))?.to_owned();
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let uname = rustix::system::uname();
        let part = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| part(uname.machine())),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.unwrap_or_default() << 10,
            kernel: format!("{} {}", part(uname.sysname()), part(uname.release())),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_bytes, kernel } = self;
        write!(f, "{cpu}, {cores} cores, {} GiB, {kernel}", memory_bytes.div_ceil(1 << 30))
    }
}

//! Processes of a cluster, and what they have had of the processors.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Ends with the value.
pub(crate) struct Processes(Vec<Child>);

impl Processes {
    pub(super) fn start(commands: impl IntoIterator<Item = Command>) -> Result<Self> {
        let mut processes = Self(Vec::new());
        for mut command in commands {
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let program = quiet.get_program().to_owned();
            let child =
                quiet.spawn().with_context(|| format!("{} can't be run", program.display()))?;
            processes.0.push(child);
        }
        Ok(processes)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// What all of them together have in memory.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let of = |child: &Child| {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next());
            let kib: u64 = kib.context("the kernel does not tell of memory")?.parse()?;
            anyhow::Ok(kib << 10)
        };
        self.0.iter().map(of).sum()
    }

    /// What all of them together have had of the processors so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        let of = |child: &Child| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
            // After the name, which is in parentheses, the 12th and 13th field: in user mode and in
            // the kernel.
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        };
        let ticks: u64 = self.0.iter().map(of).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Addresses that nobody listens at.
pub(super) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    // All are held until the last is found, so that none comes twice.
    let held: Vec<_> =
        (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses = held.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    Ok(addresses.try_into().expect("as many as were asked for"))
}

/// Asks again and again until there is an answer.
pub(super) fn wait_for<T>(what: &str, ask: impl Fn() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("{what}: not within 30 s")
}

pub(super) fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

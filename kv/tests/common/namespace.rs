//! Namespaces of Linux, in which a test may mount and cut cables as it likes, and which end with
//! it.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

/// Set for the run of a test in its namespaces.
const INSIDE: &str = "QUORATE_TEST_NAMESPACES";

/// The first ways to get namespaces that the machine might allow: as anybody, or as root.
const WAYS: [&[&str]; 2] = [&["--map-root-user", "--mount", "--net"], &["--mount", "--net"]];

/// Runs the test of this name once more, in a mount and a network namespace of its own. True: this
/// is that run, which does the work. False: it has been done, or the machine doesn't allow it.
pub(crate) fn entered(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    let works = |way: &&&[&str]| {
        let mut tried = Command::new("unshare");
        // What the tests need, and what not every machine has.
        tried.args(**way).args([
            "sh",
            "-c",
            "mount -t tmpfs none /run && ip link add br0 type bridge",
        ]);
        tried.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let Some(way) = WAYS.iter().find(works) else {
        skipped(test, "there are no namespaces for mounts and networks (unshare, mount, ip)");
        return false;
    };
    let output = Command::new("unshare")
        .args(*way)
        .arg(env::current_exe().expect("has a path"))
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "yes")
        .output()
        .expect("runs");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in its namespaces");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "there is no {test}");
    false
}

/// Says so even where what tests print is caught.
pub(crate) fn skipped(test: &str, reason: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {test}: {reason}");
}

fn run(program: &str, arguments: &[impl AsRef<OsStr>]) {
    let status = Command::new(program).args(arguments).status();
    let arguments: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    assert!(status.is_ok_and(|s| s.success()), "{program} {}", arguments.join(" "));
}

/// Runs `ip` with arguments that are separated by spaces.
fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

/// Mounts a small disk, or changes its size. Only within namespaces.
pub(crate) fn mount_disk(path: &Path, bytes: u64) {
    std::fs::create_dir_all(path).expect("a folder to mount at");
    let options = format!("size={bytes}");
    let arguments: [&OsStr; 6] = [
        "-t".as_ref(),
        "tmpfs".as_ref(),
        "-o".as_ref(),
        options.as_ref(),
        "disk".as_ref(),
        path.as_ref(),
    ];
    run("mount", &arguments);
}

/// Gives a disk that is mounted another size.
pub(crate) fn resize_disk(path: &Path, bytes: u64) {
    let options = format!("remount,size={bytes}");
    let arguments: [&OsStr; 3] = ["-o".as_ref(), options.as_ref(), path.as_ref()];
    run("mount", &arguments);
}

/// A network: each node in a namespace of its own, with one cable to a switch, for the others, and
/// one to the test, for clients.
pub(crate) struct Network;

/// Nobody's.
const NOBODY: &str = "02:00:00:00:00:99";

impl Network {
    /// Lays the cables. Only within namespaces.
    pub(crate) fn lay(nodes: usize) -> Self {
        // Where `ip` keeps the names of namespaces: one that no other process sees.
        run("mount", &["-t", "tmpfs", "none", "/run"]);
        std::fs::create_dir("/run/netns").expect("a folder for names");
        ip("link add switch type bridge");
        ip("link set switch up");
        for node in 1..=nodes {
            ip(&format!("netns add node{node}"));
            ip(&format!("-n node{node} link set lo up"));
            ip(&format!("link add peers{node} type veth peer name peers netns node{node}"));
            ip(&format!("link set peers{node} master switch up"));
            ip(&format!("-n node{node} addr add 10.77.0.{node}/24 dev peers"));
            ip(&format!("-n node{node} link set peers up"));
            ip(&format!("link add clients{node} type veth peer name clients netns node{node}"));
            ip(&format!("addr add 10.78.{node}.254/24 dev clients{node}"));
            ip(&format!("link set clients{node} up"));
            ip(&format!("-n node{node} addr add 10.78.{node}.1/24 dev clients"));
            ip(&format!("-n node{node} link set clients up"));
        }
        Self
    }

    pub(crate) fn peer_address(&self, node: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(10, 77, 0, number(node)), 7101))
    }

    pub(crate) fn client_address(&self, node: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(10, 78, number(node), 1), 7001))
    }

    /// The command, to be run in a node's namespace.
    pub(crate) fn within(&self, node: usize, command: Command) -> Command {
        let mut within = Command::new("nsenter");
        within.arg(format!("--net=/run/netns/node{}", node + 1)).arg(command.get_program());
        within
    }

    /// Pulls the cable between a node and the switch; its clients still reach it.
    pub(crate) fn isolate(&self, node: usize) {
        ip(&format!("link set peers{} down", node + 1));
    }

    /// Plugs it in again.
    pub(crate) fn rejoin(&self, node: usize) {
        ip(&format!("link set peers{} up", node + 1));
    }

    /// What one node sends to another arrives no more, and nobody is told. The other way is not
    /// touched.
    pub(crate) fn lose(&self, from: usize, to: usize) {
        let (from, to) = (from + 1, to + 1);
        ip(&format!(
            "-n node{from} neigh replace 10.77.0.{to} lladdr {NOBODY} dev peers nud permanent"
        ));
    }

    pub(crate) fn lose_no_more(&self, from: usize, to: usize) {
        ip(&format!("-n node{} neigh del 10.77.0.{} dev peers", from + 1, to + 1));
    }
}

fn number(node: usize) -> u8 {
    u8::try_from(node + 1).expect("few nodes")
}

//! Everything that a run is made of, drawn from its seed and its profile.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use clap::ValueEnum;
use quorate::codec::{APPEND_OVERHEAD_BYTES, MAX_SNAPSHOT_OVERHEAD_BYTES};
use quorate::sim::{DiskConfig, Generator, NetworkConfig};
use quorate::{Config, Entry, FileConfig, TcpConfig};

use super::faults::Fault;
use super::profile::Profile;

const KIB: u64 = 1 << 10;
const MILLISECOND: Duration = Duration::from_millis(1);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub profile: Profile,
    /// How many nodes found the cluster, all of them voters.
    pub nodes: u64,
    /// How many nodes there are beside them, which are told no list.
    pub spares: u64,
    /// How long things go wrong.
    pub duration: Duration,
    pub config: Config,
    pub tcp: TcpConfig,
    pub file: FileConfig,
    pub network: NetworkConfig,
    pub names: Naming,
    pub disk: DiskConfig,
    /// What goes wrong, and how long it goes well in between, on average.
    pub faults: Vec<(Fault, Duration)>,
    pub load: Load,
    /// How likely applying a command takes the state machine a while.
    pub slow_applying: f64,
    /// How likely a durable write is looked for in what its disk has for sure.
    pub recoveries: f64,
    /// What is tried when all is well again.
    pub epilogue: Epilogue,
}

/// How the nodes are named in their lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By their addresses.
    Addresses,
    /// By names.
    Names,
    /// By names of two addresses each, the first of which swallows packets, even when all is well.
    NamesThatSwallow,
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Clients with a handle for any thread, which outlive the nodes.
    pub clients: u64,
    /// Clients in the process of each node.
    pub local_clients: u64,
    pub keys: u64,
    /// How long a client waits between two requests, at most.
    pub pause: Duration,
    /// How likely a request is a read.
    pub reads: f64,
    /// How likely a write is one of several at once.
    pub batches: f64,
    /// The size of the values: usually.
    pub value_bytes: Range<u64>,
    /// How likely a value is as large as a command may be.
    pub large: f64,
}

/// What is tried when all is well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Epilogue {
    None,
    /// A follower is cut off for a while. When it returns, the leader stays.
    CutOffFollower,
    /// A leader is cut off. It must not go on as leader, and another must be found.
    CutOffLeader,
    /// The leader's disk hangs. Another must take over.
    StalledLeader,
    /// The followers' disks hang, so that nothing is committed, while they pass on much. The leader
    /// must not take more than its limit.
    HungFollowers,
    /// Everything stops at once and starts at once. A leader must be found.
    ColdStart,
    /// Everything stops at once, and strangers take all the connections that they get, of all
    /// nodes. A leader must be found all the same.
    Siege,
    /// The leader is stopped in order: another must take over without an election timeout.
    StoppedLeader,
    /// The leader wants to transfer leadership, and whom it has told dies. It leads on, or another
    /// does.
    FailedTransfer,
    /// The leader wants to transfer leadership, and hears nothing of whoever takes over. What it is
    /// asked in between it can't answer.
    DeafLeader,
    /// The leader has entries that nobody else has, and others have later ones. A majority of both
    /// must find a leader.
    DivergedLogs,
    /// A follower that was away needs a snapshot, and something happens to that on its way.
    LaggingFollower,
    /// A follower has lost its disk, and the leader's can't be read. It must not lead on.
    UnreadableLeader,
    /// The disk of a node is put back while those are away who remember more of it, and the node
    /// goes on with the others. When the former return, somebody stops.
    PutBackUnseen,
    /// A `TimeoutNow` comes late: the leader has gone on, and has said so. It stays.
    LateOrder,
    /// More is written through a follower, all at once, than fits into any window on the way to the
    /// leader. As nothing fails, each write is known to be done, or refused.
    Burst,
    /// A node campaigns, loses its disk, and campaigns in the same term with the next one. Who has
    /// voted for the first disk must not vote for the second.
    BothDisks,
}

/// Changes of a plan that a command line may demand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub nodes: Option<u64>,
    pub duration: Option<Duration>,
    pub clients: Option<u64>,
    pub without: BTreeSet<Fault>,
    pub epilogue: Option<Epilogue>,
}

impl fmt::Display for Overrides {
    /// As options of the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(nodes) = self.nodes {
            write!(f, " --nodes {nodes}")?;
        }
        if let Some(duration) = self.duration {
            write!(f, " --duration {}", duration.as_millis())?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        for fault in &self.without {
            write!(f, " --without {fault}")?;
        }
        if let Some(epilogue) = self.epilogue.and_then(|epilogue| epilogue.to_possible_value()) {
            write!(f, " --epilogue {}", epilogue.get_name())?;
        }
        Ok(())
    }
}

impl Plan {
    pub fn new(seed: u64, profile: Profile, overrides: &Overrides) -> Self {
        let draw = &Draw(Generator::new(seed, "plan"));
        // One draw more for wall clocks shifts nothing else.
        let wall_clocks = &Generator::new(seed, "plan of wall clocks");
        let identities = &Generator::new(seed, "plan of identities");
        let config = config(draw, profile, wall_clocks);
        let mut plan = Self {
            seed,
            profile,
            nodes: *draw.0.choose(profile.sizes()),
            spares: 0,
            duration: draw.time(&profile.duration()),
            tcp: tcp(draw, &config),
            file: file(draw, profile),
            network: network(draw, profile),
            names: Naming::Addresses,
            disk: disk(draw),
            faults: profile.faults(&draw.0, wall_clocks, identities),
            load: load(draw, &config, profile),
            slow_applying: if draw.0.chance(0.3) { 0.05 } else { 0.0 },
            recoveries: if draw.0.chance(0.5) { 0.02 } else { 0.0 },
            epilogue: epilogue(draw, profile),
            config,
        };
        plan.names = naming(&plan);
        if plan.has(Fault::Memberships) {
            let draw = Generator::new(seed, "plan of memberships");
            plan.spares = draw.below(4);
            plan.faults.retain(|(fault, _)| fault.goes_with_memberships());
            plan.epilogue = Epilogue::None;
        }
        // Values in chunks of a few bytes each would be all that such a run consists of.
        let segment = &mut plan.network.segment;
        segment.end = segment.end.max(plan.load.value_bytes.end / 16);
        let Overrides { nodes, duration, clients, without, epilogue } = overrides;
        plan.nodes = nodes.unwrap_or(plan.nodes);
        plan.duration = duration.unwrap_or(plan.duration);
        plan.load.clients = clients.unwrap_or(plan.load.clients);
        plan.faults.retain(|(fault, _)| !without.contains(fault));
        plan.epilogue = epilogue.unwrap_or(plan.epilogue);
        plan
    }

    /// Whether this goes wrong in it.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(one, _)| *one == fault)
    }

    /// How long it may take a cluster that is well to do anything: to notice what is broken (TCP's
    /// part of that is seconds, whatever the election timeout), to elect, and to catch up.
    pub fn patience(&self) -> Duration {
        // A look-up that has begun to hang is waited for.
        let look_up = match self.names {
            Naming::Addresses => Duration::ZERO,
            Naming::Names | Naming::NamesThatSwallow => Duration::from_secs(30),
        };
        // A snapshot that goes in chunks of a few dozen bytes: where the queue to a peer holds less
        // than what may be under way, what it drops is sent again after a heartbeat interval.
        let chunks = STATE_BYTES / self.config.max_append_bytes.max(1);
        let transfer = self.config.heartbeat_interval * (chunks / CHUNKS_PER_HEARTBEAT) as u32;
        Duration::from_secs(30)
            + look_up
            + transfer
            + 20 * self.config.election_timeout
            + 4 * self.config.request_timeout
    }
}

/// What a state takes at the most, or little more, for how long its transfer may take.
const STATE_BYTES: usize = 256 * KIB as usize;

/// So many chunks of a snapshot arrive in a heartbeat interval, at the least.
const CHUNKS_PER_HEARTBEAT: usize = 16;

/// Draws, with a liking for the ends of ranges: most mistakes are there.
struct Draw(Generator);

impl Draw {
    /// Each order of magnitude is as likely as the others.
    fn size(&self, range: Range<u64>) -> u64 {
        let (low, high) = (range.start.max(1), range.end.max(2));
        let bits = |number: u64| 64 - number.leading_zeros();
        let width = self.0.within(&(u64::from(bits(low))..u64::from(bits(high - 1)) + 1));
        let drawn = self.0.within(&(1 << (width - 1)..(1 << (width - 1)) * 2));
        drawn.clamp(range.start, high - 1)
    }

    fn bytes(&self, range: Range<u64>) -> usize {
        usize::try_from(self.size(range)).unwrap_or(usize::MAX)
    }

    fn time(&self, range: &Range<Duration>) -> Duration {
        self.0.duration(range)
    }
}

fn config(draw: &Draw, profile: Profile, wall_clocks: &Generator) -> Config {
    let election_timeout = draw.time(&(150 * MILLISECOND..1000 * MILLISECOND));
    let max_command_bytes = draw.bytes(512..64 * KIB);
    let max_append_bytes = draw.bytes(64..64 * KIB);
    let max_uncommitted_bytes =
        max_command_bytes + Entry::OVERHEAD_BYTES + draw.bytes(1..256 * KIB);
    let retained_bytes = if draw.0.chance(0.3) { 0 } else { draw.size(1..64 * KIB) };
    let snapshots = profile.takes_snapshots(&draw.0);
    Config {
        heartbeat_interval: election_timeout / (3 + draw.0.below(7) as u32),
        election_timeout,
        max_clock_step: wall_clocks.duration(&(MILLISECOND..5000 * MILLISECOND)),
        request_timeout: election_timeout + draw.time(&(Duration::ZERO..3 * election_timeout)),
        max_command_bytes,
        max_append_bytes,
        // Not so little that a snapshot takes longer than the log takes to outgrow it: who is
        // behind would be so for ever.
        max_inflight_bytes: max_append_bytes + draw.bytes(KIB..128 * KIB),
        max_uncommitted_bytes,
        max_queued_bytes: max_command_bytes + Entry::OVERHEAD_BYTES + draw.bytes(1..512 * KIB),
        max_apply_bytes: draw.bytes(64..64 * KIB),
        snapshot_after_bytes: if snapshots { draw.size(512..256 * KIB) } else { u64::MAX },
        snapshot_after_entries: if snapshots { draw.size(5..1000) } else { u64::MAX },
        retained_bytes,
        max_retained_bytes: retained_bytes + draw.size(1..256 * KIB),
        replace_lost_disks: true,
        elections: true,
        heartbeats: true,
        pre_vote: true,
        max_pending_reads: draw.bytes(2..1000),
    }
}

fn tcp(draw: &Draw, config: &Config) -> TcpConfig {
    // Whatever one message holds: a command, or entries or a chunk of a snapshot up to the limit.
    let append = config.max_command_bytes + APPEND_OVERHEAD_BYTES;
    let least = append.max(config.max_append_bytes + MAX_SNAPSHOT_OVERHEAD_BYTES);
    let max_frame_bytes = least + draw.bytes(1..64 * KIB);
    TcpConfig {
        max_frame_bytes,
        // Often too little for two at a time.
        max_arriving_bytes: max_frame_bytes + max_frame_bytes / 2,
        max_outbox_bytes: draw.bytes(4 * KIB..1024 * KIB),
        advertise: None,
    }
}

fn file(draw: &Draw, profile: Profile) -> FileConfig {
    // Much of what can go wrong as a process dies does so between two segments.
    let largest = if profile == Profile::Crashes { 32 * KIB } else { 256 * KIB };
    FileConfig {
        segment_bytes: draw.size(16 * KIB..largest),
        cache_bytes: if draw.0.chance(0.2) { 0 } else { draw.bytes(64..1024 * KIB) },
        max_batch_bytes: draw.bytes(4 * KIB..256 * KIB),
    }
}

fn network(draw: &Draw, profile: Profile) -> NetworkConfig {
    let micros = Duration::from_micros;
    let latency = draw.time(&(micros(20)..micros(5_000)));
    let bad = profile.network_is_bad(&draw.0);
    let sometimes = |probability: f64| if bad && draw.0.chance(0.5) { probability } else { 0.0 };
    NetworkConfig {
        latency: latency / 4..latency,
        jitter: sometimes(0.05),
        loss: sometimes(0.01),
        bandwidth: draw.size(KIB * KIB..1024 * KIB * KIB),
        window: 4 * KIB..draw.size(8 * KIB..1024 * KIB),
        segment: 1..draw.size(16..64 * KIB),
        refusal: sometimes(0.1),
        hang: sometimes(0.05),
    }
}

/// Where names go wrong there are names, and in some other runs.
fn naming(plan: &Plan) -> Naming {
    let draw = Generator::new(plan.seed, "plan of names");
    let has_names = plan.has(Fault::Names) || draw.chance(0.1);
    match (has_names, draw.chance(0.3)) {
        (false, _) => Naming::Addresses,
        (true, false) => Naming::Names,
        (true, true) => Naming::NamesThatSwallow,
    }
}

fn disk(draw: &Draw) -> DiskConfig {
    let micros = Duration::from_micros;
    DiskConfig {
        latency: micros(1)..draw.time(&(micros(10)..micros(500))),
        sync_latency: micros(20)..draw.time(&(micros(100)..micros(10_000))),
        short_reads: if draw.0.chance(0.5) { 0.1 } else { 0.0 },
        ..DiskConfig::default()
    }
}

fn load(draw: &Draw, config: &Config, profile: Profile) -> Load {
    let (clients, pause) = profile.load(&draw.0);
    let largest = config.max_command_bytes as u64;
    Load {
        clients,
        local_clients: draw.0.below(3),
        keys: draw.size(1..20),
        pause,
        reads: *draw.0.choose(&[0.1, 0.5, 0.9]),
        batches: if draw.0.chance(0.3) { 0.2 } else { 0.0 },
        value_bytes: 0..draw.size(1..(largest / 4).max(2)),
        large: if draw.0.chance(0.2) { 0.02 } else { 0.0 },
    }
}

fn epilogue(draw: &Draw, profile: Profile) -> Epilogue {
    if profile == Profile::Outside && draw.0.chance(0.7) {
        // The latter takes as long as many of the others.
        let [burst, siege] = [Epilogue::Burst, Epilogue::Siege];
        return *draw.0.choose(&[burst, burst, burst, siege]);
    }
    let always = profile == Profile::Endings;
    if !always && draw.0.chance(0.4) {
        return Epilogue::None;
    }
    // There are many ways for that one to end.
    if draw.0.chance(0.25) {
        return Epilogue::LaggingFollower;
    }
    if profile == Profile::Identity && draw.0.chance(0.5) {
        return Epilogue::BothDisks;
    }
    *draw.0.choose(&Epilogue::value_variants()[1..])
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, profile, nodes, spares, duration, .. } = self;
        writeln!(
            f,
            "seed {seed}, profile {profile}: {nodes} nodes and {spares} spare ones, faults for {duration:?}"
        )?;
        for (fault, mean) in &self.faults {
            writeln!(f, "  {fault}, every {mean:?} or so")?;
        }
        writeln!(f, "  {:?}", self.load)?;
        writeln!(f, "  {:?}", self.config)?;
        writeln!(f, "  {:?}", self.tcp)?;
        writeln!(f, "  {:?}", self.file)?;
        writeln!(f, "  {:?}", self.network)?;
        writeln!(f, "  {:?}", self.names)?;
        writeln!(f, "  {:?}", self.disk)?;
        let Self { slow_applying, recoveries, epilogue, .. } = self;
        write!(
            f,
            "  applying slowly: {slow_applying}, recoveries: {recoveries}, epilogue: {epilogue:?}"
        )
    }
}

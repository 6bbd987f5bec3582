//! Two hosts and a connection, files, and how long to wait.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{Either, join, select};
use futures::pin_mut;
use quorate_rt::{Executor, File, Files, Listener, Network, OpenMode, ReadHalf, Stream, WriteHalf};
use quorate_rt_sim::{Host, NetworkConfig, Sim, SimFile, SimStream, Simulation};

/// Where servers listen.
pub(crate) const PORT: u16 = 7000;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A network on which everything takes the same time, and whose windows hold this much.
pub(crate) fn even(latency: Duration, window: u64) -> NetworkConfig {
    NetworkConfig {
        latency: latency..latency,
        jitter: 0.0,
        window: window..window,
        ..NetworkConfig::default()
    }
}

/// Two hosts, and the runtimes of the processes on them, which do nothing by themselves.
pub(crate) struct Pair {
    pub(crate) simulation: Simulation,
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) on_a: Sim,
    pub(crate) on_b: Sim,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        Self::on(seed, NetworkConfig::default())
    }

    pub(crate) fn on(seed: u64, config: NetworkConfig) -> Self {
        let simulation = Simulation::new(seed);
        simulation.network().configure(config);
        let (a, b) = (simulation.host("a"), simulation.host("b"));
        let [on_a, on_b] = [&a, &b].map(|host| {
            host.start(idle);
            simulation.block_on(host, async |rt| rt).expect("that is no work")
        });
        Self { simulation, a, b, on_a, on_b }
    }

    pub(crate) fn cut(&self, from: &Host, to: &Host) {
        self.simulation.network().cut(from.id(), to.id());
    }

    pub(crate) fn heal(&self, from: &Host, to: &Host) {
        self.simulation.network().heal(from.id(), to.id());
    }

    /// The two sides of a connection from `a` to `b`. Nobody listens any more.
    pub(crate) fn connect(&self) -> (SimStream, SimStream) {
        self.wait(async {
            let mut listener = self.on_b.listen(at(&self.b)).await.expect("a free port");
            let (connected, accepted) =
                join(self.on_a.connect(at(&self.b)), listener.accept()).await;
            (connected.expect("it listens"), accepted.expect("it is asked").0)
        })
    }

    /// Drives the simulation until this ends, outside of any process.
    pub(crate) fn wait<T>(&self, main: impl Future<Output = T>) -> T {
        self.simulation.block_on(&self.a, async |_| main.await).expect("something happens")
    }

    /// How long something takes.
    pub(crate) fn time<T>(&self, main: impl Future<Output = T>) -> (T, Duration) {
        let begun = self.simulation.now();
        let output = self.wait(main);
        (output, self.simulation.now() - begun)
    }

    /// What comes of it within a time, if anything does. It is dropped then.
    pub(crate) fn within<T>(&self, limit: Duration, main: impl Future<Output = T>) -> Option<T> {
        self.wait(within(&self.on_a, limit, main))
    }
}

/// The main future of a process that does nothing by itself.
pub(crate) async fn idle(_: Sim) {
    std::future::pending().await
}

/// Where a host's server listens.
pub(crate) fn at(host: &Host) -> SocketAddr {
    SocketAddr::new(host.ip(), PORT)
}

/// What comes of something within a time, if anything does. It is dropped then.
pub(crate) async fn within<T>(
    rt: &Sim,
    limit: Duration,
    what: impl Future<Output = T>,
) -> Option<T> {
    let late = rt.sleep(limit);
    pin_mut!(what, late);
    match select(what, late).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// What happened elsewhere, in its order.
pub(crate) type Log<T> = Rc<RefCell<Vec<T>>>;

/// Bytes that are not the same all over, so that what is out of place shows.
pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// Reads what is there, at most so much.
pub(crate) async fn read_some(reader: &mut impl ReadHalf, most: usize) -> io::Result<Bytes> {
    let (read, bytes) = reader.read(BytesMut::with_capacity(most)).await;
    read.map(|count| bytes.freeze().slice(..count))
}

/// Reads so much.
pub(crate) async fn read_exactly(reader: &mut impl ReadHalf, len: usize) -> io::Result<Bytes> {
    let mut all = BytesMut::new();
    while all.len() < len {
        let some = read_some(reader, len - all.len()).await?;
        if some.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        all.extend_from_slice(&some);
    }
    Ok(all.freeze())
}

/// Reads what has arrived, without waiting.
pub(crate) async fn read_all_there(reader: &mut impl ReadHalf) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(some) = read_some(reader, 1 << 16).now_or_never() {
        all.extend_from_slice(&some.expect("it is whole"));
    }
    all
}

/// Reads to the end of the stream; an error, and what came before it, where that comes first.
pub(crate) async fn read_to_end(reader: &mut impl ReadHalf) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    loop {
        match read_some(reader, 1 << 16).await {
            Ok(some) if some.is_empty() => return (all, Ok(())),
            Ok(some) => all.extend_from_slice(&some),
            Err(error) => return (all, Err(error)),
        }
    }
}

pub(crate) async fn write(writer: &mut impl WriteHalf, data: impl Into<Bytes>) -> io::Result<()> {
    writer.write_all(vec![data.into()]).await
}

pub(crate) fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Both halves of the two sides of a connection.
pub(crate) fn halves<S: Stream>(sides: (S, S)) -> [(S::ReadHalf, S::WriteHalf); 2] {
    [sides.0.split(), sides.1.split()]
}

/// Makes a file.
pub(crate) async fn create(rt: &Sim, path: &str) -> SimFile {
    rt.open(Path::new(path), OpenMode::CreateNew).await.expect("a new name")
}

pub(crate) async fn write_at(
    file: &SimFile,
    offset: u64,
    data: impl Into<Bytes>,
) -> io::Result<()> {
    file.write_all_at(vec![data.into()], offset).await
}

/// Makes a file with a content, all of it durable.
pub(crate) async fn create_durable(rt: &Sim, path: &str, data: impl Into<Bytes>) -> SimFile {
    let file = create(rt, path).await;
    write_at(&file, 0, data).await.expect("there is room");
    file.sync_data().await.expect("a good disk");
    rt.sync_dir(Path::new(path).parent().expect("it is in a directory"))
        .await
        .expect("it is there");
    file
}

/// All of a file.
pub(crate) async fn content(file: &SimFile) -> Vec<u8> {
    let len = file.len().await.expect("a good disk") as usize;
    let mut all = BytesMut::new();
    while all.len() < len {
        let into = BytesMut::with_capacity(len - all.len());
        let (read, bytes) = file.read_at(into, all.len() as u64).await;
        assert!(read.expect("a good disk") > 0, "it ends before its end");
        all.extend_from_slice(&bytes);
    }
    all.to_vec()
}

/// All of a file, if there is one.
pub(crate) async fn content_of(rt: &Sim, path: &str) -> Option<Vec<u8>> {
    match rt.open(Path::new(path), OpenMode::Read).await {
        Ok(file) => Some(content(&file).await),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

/// Whether something is true for some seeds and false for others; of each it is told which.
pub(crate) fn for_some(seeds: Range<u64>, mut is_so: impl FnMut(u64) -> bool) {
    let len = seeds.end - seeds.start;
    let so = seeds.filter(|seed| is_so(*seed)).count() as u64;
    assert!(so > 0 && so < len, "it is so for {so} of {len} seeds");
}

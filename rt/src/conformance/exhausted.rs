//! What happens where the operating system refuses threads and descriptors. Limits hold for a whole
//! process, so each case runs in one of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::process::Command;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use rustix::process::{Resource, Rlimit, Uid, getrlimit, getuid, setrlimit};
use rustix::thread::set_thread_uid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::net::any_port;
use super::refused::network_and_files_work;
use crate::{AsyncRuntime, File as _, Launch, Listener, OpenMode};

const EAGAIN: u32 = 11;

/// The system calls that start threads: `clone` and `clone3`.
#[cfg(target_arch = "x86_64")]
const SYS_CLONE: [i64; 2] = [56, 435];
#[cfg(not(target_arch = "x86_64"))]
const SYS_CLONE: [i64; 2] = [220, 435];

/// Runs a case of the test `name` alone in a process: this test's binary is started again for that
/// test only.
pub fn alone(name: &str, case: impl FnOnce()) {
    const ALONE: &str = "QUORATE_TEST_IS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return case();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, "1");
    let output = command.output().unwrap();
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && told[0].contains("1 passed"), "{}", told.concat());
}

/// Checks that a running backend does all its work without a new thread, and that one that can't
/// start its first thread says so.
pub fn threads_are_refused<R: AsyncRuntime>(launch: &Launch) {
    let inside = launch.clone();
    R::run(launch, async move |rt: R| {
        refuse_threads(); // To the whole process, also to the threads that are there.
        let work = (0..1_000_u64).map(|number| rt.spawn_blocking(move || number));
        let done: Vec<u64> = join_all(work).await.into_iter().map(Result::unwrap).collect();
        assert!(done.into_iter().eq(0..1_000));
        network_and_files_work(rt.clone()).await;
        let name = rt.resolve("localhost:80").await;
        assert_eq!(name.unwrap_err().kind(), ErrorKind::WouldBlock, "its thread is refused");
        assert!(rt.resolve("127.0.0.1:80").await.is_ok());
        let launched = R::launch(inside, async |_| ()).map(drop);
        assert_eq!(launched.unwrap_err().kind(), ErrorKind::WouldBlock);
    })
    .unwrap();

    let error = R::run(launch, async |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    for part in ["no thread for blocking work", "RLIMIT_NPROC", "pids"] {
        assert!(error.to_string().contains(part), "{part} in {error}");
    }
}

fn refuse_threads() {
    let filter = SeccompFilter::new(
        SYS_CLONE.map(|number| (number, Vec::new())).into_iter().collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        SeccompAction::Errno(EAGAIN),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

/// Checks that file work goes on where io_uring is refused its threads, which are the kernel's own
/// and pass no filter of system calls: opening, writing, syncing and reading.
///
/// Limits on processes don't hold for root, so the runtime's thread gives that up.
pub fn threads_of_the_ring_are_refused<R: AsyncRuntime>(launch: &Launch) {
    const NOBODY: u32 = 65534;
    R::run(launch, async |rt: R| {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nproc);
        setrlimit(Resource::Nproc, Rlimit { current: Some(0), maximum }).unwrap();
        if getuid().is_root() {
            set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        }
        network_and_files_work(rt.clone()).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = rt.open(&path, OpenMode::CreateNew).await.unwrap();
        for buffers in [1, 2, 100] {
            let from: Vec<Bytes> = (0..buffers).map(|byte| vec![byte; 5_000].into()).collect();
            let written = from.concat();
            file.write_durably_at(from.clone(), 0).await.unwrap();
            file.write_all_at(from, written.len() as u64).await.unwrap();
            file.sync_data().await.unwrap();
            let (result, read) = file.read_at(BytesMut::with_capacity(2 * written.len()), 0).await;
            assert_eq!(result.unwrap(), read.len());
            assert!(read == [&written[..], &written].concat());
            assert_eq!(file.len().await.unwrap(), read.len() as u64);
        }
        let again = rt.open(&path, OpenMode::Read).await.unwrap();
        let refused = again.write_durably_at(vec![Bytes::from_static(b"x")], 0).await;
        assert!(refused.is_err(), "it may only be read");
    })
    .unwrap();
}

/// Checks that a listener that finds no descriptor for a connection says so each time, and accepts
/// it when there is one again.
pub fn descriptors_are_used_up<R: AsyncRuntime>(launch: &Launch) {
    R::run(launch, async |rt: R| {
        let mut listener = rt.listen(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = rt.spawn_blocking(move || TcpStream::connect(address).unwrap()).await.unwrap();
        let mut used = use_up_descriptors();
        for _ in 0..3 {
            let error = listener.accept().await.map(drop).unwrap_err();
            assert!(is_of_descriptors(&error), "{error:?}");
        }
        let other = rt.connect(address).await.map(drop);
        assert!(is_of_descriptors(&other.unwrap_err()), "nor does it connect");
        used.truncate(used.len() - 2);
        let (_stream, from) = listener.accept().await.expect("there is one again");
        assert_eq!(from, peer.local_addr().unwrap());
    })
    .unwrap();
}

fn is_of_descriptors(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    error.raw_os_error() == Some(EMFILE)
}

fn use_up_descriptors() -> Vec<File> {
    /// Few, so that it is quick.
    const LIMIT: u64 = 256;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum }).unwrap();
    let mut used = vec![File::open("/dev/null").unwrap()];
    while let Ok(another) = used[0].try_clone() {
        used.push(another);
    }
    used
}

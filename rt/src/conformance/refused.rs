//! What happens where the kernel refuses io_uring. It needs a process of its own: the refusal, the
//! choice made after it and the warning are all for the life of a process.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::{AsyncRuntime, Driver, File, Launch, Listener, OpenMode, ReadHalf, Stream, WriteHalf};

/// The same number on every architecture.
const SYS_IO_URING_SETUP: i64 = 425;
const EPERM: u32 = 1;

/// Refuses io_uring to this thread, and checks that the backend `R`, which the warning calls
/// `name`, falls back to epoll, with one warning. The only test of its process.
pub fn falls_back_with_one_warning<R: AsyncRuntime>(name: &str) {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
    refuse_io_uring(); // For this thread, and those that it starts.

    let error = R::run(&launch(Driver::Uring), async |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(log.lines(), [""; 0], "an error is no warning");

    R::run(&launch(Driver::Auto), network_and_files_work::<R>).unwrap();
    R::launch(launch(Driver::Auto), network_and_files_work::<R>).unwrap().join().unwrap().unwrap();

    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["WARN", name, "io_uring", "epoll", "refused=", "not permitted"] {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
}

fn launch(driver: Driver) -> Launch {
    Launch { driver, ..Launch::named("refused") }
}

pub(super) async fn network_and_files_work<R: AsyncRuntime>(rt: R) {
    let mut listener = rt.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = rt.spawn(async move {
        let (_read, mut write) = listener.accept().await.unwrap().0.split();
        write.write_all(vec![Bytes::from_static(b"hello")]).await.unwrap();
    });
    let (mut read, _write) = rt.connect(address).await.unwrap().split();
    let (result, received) = read.read(BytesMut::with_capacity(5)).await;
    assert_eq!((result.unwrap(), &received[..]), (5, &b"hello"[..]));
    server.await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file = rt.open(&directory.path().join("file"), OpenMode::CreateNew).await.unwrap();
    file.allocate(8).await.unwrap();
    file.write_all_at(vec![received.freeze()], 3).await.unwrap();
    file.set_len(8).await.unwrap();
    file.sync_data().await.unwrap();
    let (result, read) = file.read_at(BytesMut::with_capacity(8), 0).await;
    assert_eq!((result.unwrap(), &read[..]), (8, &b"\0\0\0hello"[..]));
}

fn refuse_io_uring() {
    let filter = SeccompFilter::new(
        BTreeMap::from([(SYS_IO_URING_SETUP, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// What has been logged.
#[derive(Clone, Default)]
struct Log {
    text: Arc<Mutex<Vec<u8>>>,
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = self.text.lock().unwrap();
        str::from_utf8(&text).unwrap().lines().map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

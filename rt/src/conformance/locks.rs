//! Locks of the operating system's files at the end of a runtime.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::blocking::lock_file;
use crate::{Files, Launch, Task};

/// As where a runtime ends with all that runs on it.
pub fn a_lock_is_held_until_what_has_begun_has_ended_with_the_runtime<R: Files>(launch: Launch) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("LOCK");
    let probed = path.clone();
    let seen = R::run(&launch, async move |rt| {
        let lock = rt.lock_file(&path).await.unwrap();
        rt.spawn(async move {
            let _lock = lock;
            std::future::pending::<()>().await;
        })
        .detach();
        let (seen, is_seen) = channel();
        rt.spawn_blocking(move || {
            // Time for the runtime to drop its tasks, which it must not do before.
            std::thread::sleep(Duration::from_millis(50));
            let _ = seen.send(lock_file(&path).is_err());
        })
        .detach();
        is_seen
    });
    assert_eq!(seen.unwrap().recv(), Ok(true), "the lock is held while the work goes on");
    assert!(lock_file(&probed).is_ok(), "it is free when the runtime has ended");
}

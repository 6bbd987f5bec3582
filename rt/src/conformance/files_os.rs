//! Locks of the operating system's files, and the work that they guard.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::files::Scratch;
use crate::blocking::lock_file;
use crate::{Executor, Files, Task};

async fn until_free<R: Files>(rt: &R, path: &Path) {
    while lock_file(path).is_err() {
        rt.sleep(Duration::from_millis(1)).await;
    }
}

/// As where a store is dropped while it writes.
pub async fn a_lock_is_held_until_what_has_begun_has_ended<R: Files>(rt: R) {
    let scratch = Scratch::new(&rt).await;
    let path = scratch.path("LOCK");
    let lock = rt.lock_file(&path).await.unwrap();
    let (go, gone) = channel::<()>();
    rt.spawn_blocking(move || gone.recv()).detach();
    drop(lock);
    let (later, until) = channel::<()>();
    rt.spawn_blocking(move || until.recv()).detach();
    assert!(lock_file(&path).is_err(), "what has begun before goes on");
    go.send(()).unwrap();
    until_free(&rt, &path).await; // What has begun later goes on.
    later.send(()).unwrap();
}

pub async fn a_result_that_panics_when_it_is_dropped_harms_nobody<R: Executor>(rt: R) {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    rt.spawn(async { PanicsOnDrop }).detach();
    drop(rt.spawn_blocking(|| PanicsOnDrop));
    assert_eq!(rt.spawn(async { 7 }).await, Ok(7));
    assert_eq!(rt.spawn_blocking(|| 8).await, Ok(8));
}

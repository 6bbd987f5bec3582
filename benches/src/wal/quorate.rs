//! Quorate's log, on a runtime.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::path::Path;
use std::rc::Rc;

use anyhow::Result;
use quorate::rt::channel::Signal;
use quorate::{
    Completion, Entry, FileStore, Files, GroupId, HardState, Index, LogId, LogStore, LogWrite,
    Payload, Replica, StoreError, Term,
};

use super::{Contents, Shape, Store};

pub(super) struct On<R>(pub(super) R);

pub(super) struct Wal<R: Files> {
    store: FileStore<R>,
    shape: Shape,
    contents: Contents,
    /// By group.
    last: Vec<Index>,
    waiting: Rc<Waiting>,
}

/// The appends that are not durable yet.
#[derive(Default)]
struct Waiting {
    count: Cell<usize>,
    failed: RefCell<Option<StoreError>>,
    signal: Signal,
}

impl<R: Files> Store for On<R> {
    type Wal = Wal<R>;

    async fn open(&self, dir: &Path, shape: &Shape) -> Result<Wal<R>> {
        let store = FileStore::open(&self.0, dir).await?;
        store.identify(1).await?;
        let mut last = Vec::new();
        for group in 0..shape.groups {
            last.push(store.recover(group as GroupId).await?.log_meta.last().index);
        }
        Ok(Wal {
            store,
            shape: shape.clone(),
            contents: Contents::new(),
            last,
            waiting: Rc::default(),
        })
    }
}

impl<R: Files> super::Wal for Wal<R> {
    fn append(&mut self, group: usize) -> Result<()> {
        let last = &mut self.last[group];
        let first = *last + 1;
        *last += self.shape.entries as u64;
        let mut entry = |index| Entry {
            log_id: LogId::new(1, 1, index),
            time: 1,
            payload: Payload::Command(self.contents.take(self.shape.bytes)),
        };
        let state = HardState { term: Term(1), voted_for: Some(Replica::new(1, 1)) };
        let write = LogWrite {
            hard_state: (first == 1).then_some(state),
            entries: (first..=*last).map(&mut entry).collect(),
            ..LogWrite::default()
        };
        let waiting = Rc::clone(&self.waiting);
        waiting.count.update(|count| count + 1);
        let done = Completion::new(move |outcome| {
            waiting.count.update(|count| count - 1);
            if let Err(error) = outcome {
                *waiting.failed.borrow_mut() = Some(error);
            }
            waiting.signal.raise();
        });
        let _pending = self.store.append(group as GroupId, write, done);
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        while self.waiting.count.get() > 0 {
            poll_fn(|context| self.waiting.signal.poll(context)).await;
        }
        self.waiting.failed.take().map_or(Ok(()), |error| Err(error.into()))
    }

    fn last(&self) -> u64 {
        self.last[0]
    }

    async fn read(&mut self, first: u64, count: usize) -> Result<usize> {
        let range = first..first + count as u64;
        Ok(self.store.read(0, range, usize::MAX).await?.len())
    }
}

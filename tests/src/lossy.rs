//! A transport that loses, repeats and delays the messages that a test chooses.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use quorate::{
    Credentials, GroupId, Inbox, Message, MessageLimit, NodeId, Obstacle, Replica, Transport,
};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    Lost,
    ArrivesTwice,
    /// It comes after so many messages of the same sender that were sent later.
    Late(usize),
}

type Choice = Box<dyn FnMut(&Message) -> Fate>;

/// The fate of messages, on all the transports that share it.
#[derive(Clone, Default)]
pub struct Faults(Rc<RefCell<Option<Choice>>>);

impl Faults {
    /// From now on this is what becomes of each message.
    pub fn set(&self, fate: impl FnMut(&Message) -> Fate + 'static) {
        self.0.replace(Some(Box::new(fate)));
    }

    /// From now on these messages are lost, and no others.
    pub fn lose(&self, lost: impl Fn(&Message) -> bool + 'static) {
        self.set(move |message| if lost(message) { Fate::Lost } else { Fate::Arrives });
    }

    /// From now on each message arrives, once and in order.
    pub fn heal(&self) {
        self.0.replace(None);
    }
}

/// Another transport, with faults.
pub struct Lossy<T> {
    inner: T,
    faults: Faults,
    late: RefCell<VecDeque<(usize, Message)>>,
}

impl<T: Transport> Lossy<T> {
    pub fn new(inner: T, faults: Faults) -> Self {
        Self { inner, faults, late: RefCell::default() }
    }
}

impl<T: Transport> Transport for Lossy<T> {
    /// What a fault loses was taken: nobody knows of it.
    fn send(&self, message: Message) -> bool {
        let fate = self.faults.0.borrow_mut().as_mut().map_or(Fate::Arrives, |fate| fate(&message));
        let taken = match fate {
            Fate::Arrives => self.inner.send(message),
            Fate::Lost => true,
            Fate::ArrivesTwice => {
                let taken = self.inner.send(message.clone());
                self.inner.send(message) || taken
            }
            Fate::Late(messages) => {
                self.late.borrow_mut().push_back((messages, message));
                return true;
            }
        };
        let mut due = Vec::new();
        self.late.borrow_mut().retain_mut(|(left, message)| {
            *left -= 1;
            let stays = *left > 0;
            if !stays {
                due.push(message.clone());
            }
            stays
        });
        for message in due {
            self.inner.send(message);
        }
        taken
    }

    fn is_ready(&self, to: Replica) -> bool {
        self.inner.is_ready(to)
    }

    fn message_limit(&self) -> Option<MessageLimit> {
        self.inner.message_limit()
    }

    fn dropped_messages(&self) -> u64 {
        self.inner.dropped_messages()
    }

    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        self.inner.attach(group, credentials, inbox);
    }

    fn set_credentials(&self, group: GroupId, credentials: Credentials) {
        self.inner.set_credentials(group, credentials);
    }

    fn set_peers(&self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        self.inner.set_peers(group, peers);
    }

    fn check_list(&self, me: NodeId, list: &BTreeMap<NodeId, String>) -> Result<(), String> {
        self.inner.check_list(me, list)
    }

    fn obstacle(&self, to: Replica) -> Obstacle {
        self.inner.obstacle(to)
    }

    fn detach(&self, group: GroupId) {
        self.inner.detach(group);
    }
}

//! The network of a cluster: what is on its way, and what is lost.

use std::collections::{BTreeSet, VecDeque};

use quorate_core::engine::Input;
use quorate_core::{Message, NodeId};

use super::{Cluster, Flying};
use crate::show;

impl Cluster {
    /// The links on which something is under way, in order.
    pub(crate) fn busy_links(&self) -> Vec<(NodeId, NodeId)> {
        self.links.iter().filter(|(_, link)| !link.is_empty()).map(|(ends, _)| *ends).collect()
    }

    pub(crate) fn on_link(&self, from: NodeId, to: NodeId) -> usize {
        self.links.get(&(from, to)).map_or(0, VecDeque::len)
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.links.values().flatten().map(|flying| flying.message.clone()).collect()
    }

    pub(super) fn link(&mut self, from: NodeId, to: NodeId) -> &mut VecDeque<Flying> {
        self.links.entry((from, to)).or_default()
    }

    /// The oldest message on a link.
    pub(crate) fn take_message(&mut self, from: NodeId, to: NodeId) -> Message {
        let first = self.link(from, to).pop_front();
        first.unwrap_or_else(|| panic!("nothing is on its way from {from} to {to}")).message
    }

    pub(crate) fn put_message(&mut self, message: Message, at_front: bool) {
        let flying = Flying { since: self.now, message };
        let link = self.link(flying.message.from.id, flying.message.to.id);
        if at_front { link.push_front(flying) } else { link.push_back(flying) }
    }

    /// A message reaches its receiver, if that is up.
    pub(crate) fn arrive(&mut self, message: Message) {
        let text = self.show(&message);
        if self.nodes.get(&message.to.id).is_none_or(|node| node.engine.is_none()) {
            self.tell(true, format!("{text} (lost)"));
            return;
        }
        self.tell(true, text);
        let events = self.events.len();
        self.step(message.to.id, vec![Input::Message(message)]);
        for event in &mut self.events[events..] {
            event.effect = true;
        }
    }

    pub(crate) fn show(&mut self, message: &Message) -> String {
        let numbers = &mut self.numbers;
        show::message(message, |owner, number| {
            let known = numbers.entry(owner).or_default();
            let at = known.iter().position(|known| *known == number);
            1 + at.unwrap_or_else(|| {
                known.push(number);
                known.len() - 1
            })
        })
    }

    /// From now on only the nodes of a group reach each other. What is on its way still arrives.
    pub(crate) fn cut(&mut self, groups: Vec<BTreeSet<NodeId>>) {
        self.partition = groups;
    }

    pub(crate) fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.partition.clear();
        self.blocked.clear();
        for id in self.ids() {
            self.remind(id);
        }
    }

    pub(super) fn connected(&self, from: NodeId, to: NodeId) -> bool {
        let together = |group: &BTreeSet<NodeId>| group.contains(&from) && group.contains(&to);
        !self.blocked.contains(&(from, to))
            && (self.partition.is_empty() || self.partition.iter().any(together))
    }
}

//! Two nodes that speak to each other by hand.

use super::*;
use crate::config::Config;

const TICK: Duration = Duration::from_millis(100);
const TERM: Term = Term(4);

fn replica(id: u64) -> Replica {
    Replica::new(id, 1)
}

fn boot(number: u64) -> Boot {
    Boot { number, tag: number * 7 }
}

#[derive(Default)]
struct Wire(RefCell<VecDeque<Message>>);

impl Transport for Wire {
    fn send(&self, message: Message) -> bool {
        self.0.borrow_mut().push_back(message);
        true
    }
}

/// A group that notes what it is told.
struct Told(Rc<RefCell<Vec<Input>>>);

impl OpenGroup for Told {
    fn hear_of_node(&self, input: Input) {
        self.0.borrow_mut().push(input);
    }

    fn deliver(&self, message: Message) {
        self.0.borrow_mut().push(Input::Message(message));
    }
}

/// A node, whose groups 1 and 2 have the other one for a peer.
struct Node {
    liveness: Rc<Liveness>,
    beats: Beats<Wire>,
    wire: Rc<Wire>,
    told: [Rc<RefCell<Vec<Input>>>; 2],
}

impl Node {
    fn new(id: u64, boot_number: u64) -> Self {
        let node = Self::without_groups(id, boot_number);
        node.open(1, &[3 - id]);
        node.open(2, &[3 - id]);
        node
    }

    fn without_groups(id: u64, boot_number: u64) -> Self {
        let ready = Rc::default();
        let liveness = Rc::new(Liveness::new(replica(id), boot(boot_number), ready, 0));
        let wire = Rc::new(Wire::default());
        let beats = Beats { liveness: Rc::clone(&liveness), transport: Rc::clone(&wire) };
        Self { liveness, beats, wire, told: [Rc::default(), Rc::default()] }
    }

    fn open(&self, group: u64, peers: &[u64]) {
        let told = Told(Rc::clone(&self.told[group as usize - 1]));
        self.liveness.open(group, &Config::default(), Rc::new(told));
        self.liveness.set_peers(group, TERM, None, peers.iter().copied().map(replica).collect());
    }

    fn turn(&mut self, now: Instant) {
        self.beats.turn(now, &mut Box::default()).expect("it never fails");
    }

    /// What group 1 has been told, in short.
    fn told(&self) -> Vec<String> {
        let words = |input| match input {
            Input::NodeIsAlive { boot, .. } => format!("alive in {}", boot.number),
            Input::NodeIsSilent { .. } => "silent".to_owned(),
            Input::PeerHasLeft { term, .. } => format!("left {}", term.0),
            other => format!("{other:?}"),
        };
        self.told[0].take().into_iter().map(words).collect()
    }
}

/// What one has sent arrives at the other; how many messages that were.
fn deliver(from: &Node, to: &Node) -> usize {
    let messages = from.wire.0.take();
    let count = messages.len();
    messages.into_iter().for_each(|message| to.liveness.deliver(message));
    count
}

/// A tick of both.
fn tick(now: &mut Instant, one: &mut Node, two: &mut Node) {
    *now += TICK;
    one.turn(*now);
    two.turn(*now);
    deliver(one, two);
    deliver(two, one);
    one.turn(*now);
    two.turn(*now);
}

#[test]
fn groups_are_told_of_changes_only() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    for _ in 0..50 {
        tick(&mut now, &mut one, &mut two);
    }
    assert_eq!(
        (one.told(), two.told()),
        (vec!["alive in 9".to_owned()], vec!["alive in 5".to_owned()])
    );
    // Whatever the number of groups, it is one message in an interval.
    one.wire.0.take();
    now += TICK;
    one.turn(now);
    one.turn(now);
    assert_eq!(deliver(&one, &two), 1);

    // Node 2 is gone for two election timeouts.
    for _ in 0..20 {
        now += TICK;
        one.turn(now);
    }
    assert_eq!(one.told(), ["silent"]);
    // It comes back as it was, and in another boot.
    two.wire.0.take();
    tick(&mut now, &mut one, &mut two);
    assert_eq!(one.told(), ["alive in 9"]);
    let mut two = Node::new(2, 10);
    tick(&mut now, &mut one, &mut two);
    assert_eq!(one.told(), ["alive in 10"]);
}

const HOUR: Duration = Duration::from_secs(3600);

/// A node that was paused hears its peers before it takes them for dead.
#[test]
fn who_was_paused_waits_for_what_was_sent_meanwhile() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    tick(&mut now, &mut one, &mut two);
    one.told();
    now += HOUR;
    one.turn(now);
    assert_eq!(one.told(), [] as [&str; 0]);
    two.turn(now);
    deliver(&two, &one);
    one.turn(now + TICK / 2);
    assert_eq!(one.told(), [] as [&str; 0]);
}

/// A state machine may hold up each turn for longer than an interval.
#[test]
fn a_node_whose_turns_always_come_late_notices_who_is_silent() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    tick(&mut now, &mut one, &mut two);
    one.told();
    for _ in 0..10 {
        now += 5 * TICK;
        one.turn(now);
    }
    assert_eq!(one.told(), ["silent"]);
}

/// A node alone leads its group in a term before it has peers: they follow it in that term.
#[test]
fn a_group_that_gets_its_first_peers_later_has_left_nothing() {
    let (mut one, mut two) = (Node::without_groups(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    one.open(1, &[]);
    one.liveness.set_peers(1, TERM, None, vec![replica(2)]);
    tick(&mut now, &mut one, &mut two);
    assert_eq!(two.told(), ["alive in 5"]);
}

#[test]
fn a_departure_is_told_at_once_and_repeated_until_it_was_heard() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    tick(&mut now, &mut one, &mut two);
    two.told();
    one.liveness.departed(1, Term(7));
    one.turn(now);
    assert_eq!(one.wire.0.take().len(), 1, "at once; it is lost");
    one.liveness.departed(1, Term(8));
    tick(&mut now, &mut one, &mut two);
    assert_eq!(two.told(), ["left 8"], "the last one is all that matters");
    for _ in 0..3 {
        tick(&mut now, &mut one, &mut two);
    }
    assert_eq!(two.told(), [] as [&str; 0]);
    now += TICK;
    one.turn(now);
    let last = one.wire.0.take().pop_back().expect("a beat");
    let Body::Alive(alive) = last.body else { panic!("another message") };
    assert_eq!(alive.departures, [], "it has been heard");
}

#[test]
fn a_group_that_is_opened_again_has_left_what_it_was() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    tick(&mut now, &mut one, &mut two);
    two.told();
    assert!(!one.liveness.forget(1, TERM), "there is another group");
    one.open(1, &[2]);
    assert_eq!(one.told(), ["alive in 9", "alive in 9"], "at the first tick, and again");
    tick(&mut now, &mut one, &mut two);
    assert_eq!(two.told(), [format!("left {}", TERM.0)]);
    assert!(!one.liveness.forget(1, TERM));
    assert!(one.liveness.forget(2, TERM), "it was the last one");
    one.turn(now + HOUR);
    assert_eq!((one.wire.0.take().len(), one.beats.wake_at()), (0, None));
}

#[test]
fn words_of_an_earlier_boot_and_of_strangers_count_for_nothing() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    two.turn(now);
    let old = two.wire.0.take();
    let mut two = Node::new(2, 10);
    tick(&mut now, &mut one, &mut two);
    assert_eq!(one.told(), ["alive in 10"]);
    let mut stranger = old[0].clone();
    stranger.from = replica(3);
    one.liveness.deliver(stranger);
    old.into_iter().for_each(|message| one.liveness.deliver(message));
    one.turn(now);
    assert_eq!(one.told(), [] as [&str; 0]);
}

/// A transport may have one inbox for all that comes.
#[test]
fn an_inbox_of_one_group_takes_what_is_for_others() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let now = Instant::default() + HOUR;
    two.turn(now);
    let message = two.wire.0.take().pop_front().expect("a beat");
    one.liveness.route(Message { group: 1, ..message.clone() });
    one.liveness.route(Message { group: 7, ..message.clone() });
    assert!(matches!(one.told[0].take()[..], [Input::Message(_)]));
    one.liveness.route(message);
    one.turn(now);
    assert_eq!(one.told(), ["alive in 9"]);
}

/// A shorter timeout counts from when it is set; a shorter interval, too.
#[test]
fn other_timeouts_disturb_nobody_and_hold() {
    let (mut one, mut two) = (Node::new(1, 5), Node::new(2, 9));
    let mut now = Instant::default() + HOUR;
    for _ in 0..5 {
        tick(&mut now, &mut one, &mut two);
    }
    one.told();
    let times = |interval, timeout| Config {
        heartbeat_interval: interval,
        election_timeout: timeout,
        ..Config::default()
    };
    let set = |node: &Node, interval, timeout| {
        for group in [1, 2] {
            node.liveness.set_times(group, &times(interval, timeout));
        }
    };
    // Node 2 was heard of nine tenths of a second ago, which is long by now.
    for _ in 0..8 {
        now += TICK;
        one.turn(now);
    }
    now += TICK;
    set(&one, TICK / 10, TICK);
    one.turn(now);
    assert_eq!(one.told(), [] as [&str; 0]);
    assert_eq!(one.beats.wake_at(), Some(now + TICK / 10));
    for _ in 0..10 {
        now += TICK / 10;
        one.turn(now);
    }
    assert_eq!(one.told(), ["silent"]);

    // One group with longer times is enough for a longer timeout, but not for a longer interval.
    one.liveness.set_times(2, &times(TICK, 100 * TICK));
    tick(&mut now, &mut one, &mut two);
    assert_eq!(one.told(), ["alive in 9"]);
    for _ in 0..900 {
        now += TICK / 10;
        one.turn(now);
    }
    assert_eq!(one.told(), [] as [&str; 0]);
    assert_eq!(one.beats.wake_at(), Some(now + TICK / 10));
    for _ in 0..100 {
        now += TICK / 10;
        one.turn(now);
    }
    assert_eq!(one.told(), ["silent"]);
}

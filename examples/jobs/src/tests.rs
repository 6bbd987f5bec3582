//! What the queue promises its clients, and what Quorate asks of every state machine: that replicas
//! don't differ.

use std::time::Duration;

use quorate::conformance::state_machine::MachineFactory;
use quorate::conformance::state_machine_suite;
use quorate::prelude::*;
use quorate::{Launch, LogId};

use crate::queue::{Command, Queue, Response};

struct Queues;

impl MachineFactory for Queues {
    type Machine = Queue;
    type State = Vec<String>;

    fn machine(&self) -> Queue {
        Queue::default()
    }

    fn command(&self, random: u64) -> Command {
        let name = format!("job {}", random % 5);
        match random / 5 % 3 {
            0 => Command::Enqueue { payload: random.to_string(), name },
            1 => Command::Claim { lease_ms: random % 20_000 },
            // A lease is the index of its claim.
            _ => Command::Complete { name, lease: random % 700 },
        }
    }

    fn state(&self, queue: &Queue) -> Vec<String> {
        queue.0.keys().cloned().collect()
    }
}

state_machine_suite!(queue, Tokio, Launch::default(), Queues);

#[test]
fn a_job_is_somebody_else_s_when_its_lease_has_ended() {
    quorate::run(async |_: Tokio| -> quorate::Result<()> {
        let mut queue = Queue::default();
        let at = |index, time: Duration| At::new(LogId::new(1, 1, index), time.as_millis() as u64);
        let (name, second) = ("fence".to_owned(), Duration::from_secs(1));
        let enqueue = Command::Enqueue { name: name.clone(), payload: "paint it".to_owned() };
        assert_eq!(queue.apply(enqueue, at(1, second)).await, Response::Done);

        let claim = || Command::Claim { lease_ms: 1000 };
        let claimed = |lease| {
            let (name, payload) = (name.clone(), "paint it".to_owned());
            Response::Job { name, payload, lease }
        };
        assert_eq!(queue.apply(claim(), at(2, second)).await, claimed(2));
        assert_eq!(queue.apply(claim(), at(3, second)).await, Response::NoJob);
        assert_eq!(queue.apply(claim(), at(4, 2 * second)).await, claimed(4));

        let complete = |lease| Command::Complete { name: name.clone(), lease };
        assert_eq!(queue.apply(complete(2), at(5, 2 * second)).await, Response::LeaseLost);
        assert_eq!(queue.apply(complete(4), at(6, 2 * second)).await, Response::Done);
        assert_eq!(queue.apply(complete(4), at(7, 2 * second)).await, Response::Done, "repeated");
        Ok(())
    })
    .expect("no error");
}

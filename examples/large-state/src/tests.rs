//! What Quorate asks of a state machine and of its snapshots: that the same state is the same
//! bytes, that a view stays as it was, and that damaged bytes are an error.

use quorate::conformance::state_machine::MachineFactory;
use quorate::conformance::state_machine_suite;
use quorate::{Launch, Tokio};

use crate::Documents;

struct Factory;

impl MachineFactory for Factory {
    type Machine = Documents;
    type State = Vec<(u64, String)>;

    fn machine(&self) -> Documents {
        Documents::default()
    }

    fn command(&self, random: u64) -> (u64, String) {
        (random % 50, random.to_string().repeat(random as usize % 100))
    }

    fn state(&self, documents: &Documents) -> Vec<(u64, String)> {
        documents.0.iter().map(|(id, text)| (*id, text.to_string())).collect()
    }
}

state_machine_suite!(documents, Tokio, Launch::default(), Factory);

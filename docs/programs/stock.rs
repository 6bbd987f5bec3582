use std::collections::BTreeMap;

use quorate::prelude::*;

/// What is replicated.
#[derive(Default, Serialize, Deserialize)]
pub struct Stock {
    items: BTreeMap<String, u64>,
}

/// What changes it.
#[derive(Serialize, Deserialize)]
pub enum Change {
    Add { item: String, count: u64 },
    Take { item: String, count: u64 },
}

/// What a client gets: how many are left, or why not.
pub type Answer = Result<u64, String>;

impl StateMachine for Stock {
    type Command = Change;
    type Response = Answer;

    async fn apply(&mut self, change: Change, _: At) -> Answer {
        match change {
            Change::Add { item, count } => {
                let left = self.items.entry(item).or_default();
                *left = left.checked_add(count).ok_or("too many")?;
                Ok(*left)
            }
            Change::Take { item, count } => {
                let left = self.items.get_mut(&item).ok_or("there is no such item")?;
                *left = left.checked_sub(count).ok_or_else(|| format!("only {left} are left"))?;
                Ok(*left)
            }
        }
    }
}

impl Stock {
    pub fn count(&self, item: &str) -> u64 {
        self.items.get(item).copied().unwrap_or_default()
    }
}

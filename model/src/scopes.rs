//! What is explored: a small scope for every test run, and a full one.

use std::fmt;

use clap::ValueEnum;

use crate::formation::{Formation, List};
use crate::replication::Replication;

/// How much is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Seconds. Every rule that is dropped is noticed here.
    Small,
    /// Minutes, and a gigabyte of memory.
    Full,
}

/// Returns the models of replication of this scope, the smaller ones first.
pub fn replication(scope: Scope) -> Vec<Replication> {
    let bounds: &[(usize, usize)] = match scope {
        Scope::Small => &[(2, 1), (3, 1), (2, 2), (2, 3)],
        Scope::Full => &[(2, 4), (2, 5), (3, 3)],
    };
    let model = |&(terms, entries)| Replication { terms, entries, plain: false, without: None };
    bounds.iter().map(model).collect()
}

/// Returns the models of formation of this scope, the smaller ones first.
pub fn formation(scope: Scope) -> Vec<Formation> {
    // Lists as sets of nodes: bit 0 is node 1.
    let small: &[[u8; 2]] = &[[0b111, 0b111], [0b111, 0b011], [0b111, 0b1110]];
    let full: &[[u8; 2]] = &[
        [0b111, 0b111],
        [0b111, 0b011],
        [0b111, 0b110],
        [0b111, 0b1011],
        [0b111, 0b1100],
        [0b111, 0b1110],
        [0b111, 0b1111],
        [0b1110, 0b1111],
    ];
    let mut models = vec![];
    for &lists in if scope == Scope::Small { small } else { full } {
        let same = lists[0] == lists[1];
        for (wipes, twins) in [(0, 1), (2, 0)] {
            // The wipes of differing lists take too long for a test.
            if scope == Scope::Small && wipes > 0 && !same {
                continue;
            }
            models.push(Formation {
                lists,
                wipes,
                twins,
                retold: 1,
                attempts: if scope == Scope::Full && same { 4 } else { 3 },
                ballots: 3,
                without: None,
            });
        }
    }
    models
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { terms, entries, plain, .. } = self;
        write!(f, "replication, {terms} terms, {entries} entries")?;
        if *plain { f.write_str(", plain") } else { Ok(()) }
    }
}

impl fmt::Display for Formation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [one, other] = self.lists;
        write!(f, "formation, {}", List(one))?;
        if one != other {
            write!(f, " or {}", List(other))?;
        }
        let Self { wipes, twins, retold, attempts, .. } = self;
        write!(f, ", {attempts} attempts, wipes {wipes}, twins {twins}, lists retold {retold}")
    }
}

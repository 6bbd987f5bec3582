//! tmp
use quorate_model::{explore::*, replication::*, rule::Rule};
use clap::ValueEnum;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let m = Replication { terms: a[1].parse().unwrap(), entries: a[2].parse().unwrap(), without: a.get(3).map(|r| Rule::from_str(r, true).unwrap()) };
    let r = explore(&m, 180_000_000);
    println!("{} states {} steps depth {}", r.states, r.steps, r.depth);
    match r.outcome { Outcome::Safe => println!("safe"), Outcome::Limit => println!("limit"), Outcome::Violation(t) => { for s in t.steps { println!("  {s}") } println!("  => {}", t.violation) } }
}

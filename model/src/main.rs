//! tmp
use quorate_model::{explore::*, replication::*, formation::*, rule::Rule};
use clap::ValueEnum;
fn run<M: Model>(m: &M) {
    let r = explore(m, 180_000_000);
    println!("{} states {} steps depth {}", r.states, r.steps, r.depth);
    match r.outcome { Outcome::Safe => println!("safe"), Outcome::Limit => println!("limit"), Outcome::Violation(t) => { for s in t.steps { println!("  {s}") } println!("  => {}", t.violation) } }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a[1] == "f" {
        let n = |i: usize| a[i].parse::<u8>().unwrap();
        let m = Formation { lists: [n(2), n(3)], nodes: n(4).into(), wipes: n(5), twins: n(6), retold: n(7), attempts: n(8).into(), ballots: n(9), without: a.get(10).map(|r| Rule::from_str(r, true).unwrap()) };
        return run(&m);
    }
    let m = Replication { plain: a.get(4).is_some(), terms: a[1].parse().unwrap(), entries: a[2].parse().unwrap(), without: a.get(3).filter(|r| *r != "none").map(|r| Rule::from_str(r, true).unwrap()) };
    run(&m)
}

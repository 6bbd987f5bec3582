//! The instructions that a proposal takes, as callgrind counts them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs this program again, twice, under callgrind: what the longer run takes beyond the shorter
/// one is the proposals' alone. Not a number where there is no valgrind.
pub(super) fn per_proposal(row: &str, batch: usize) -> Result<f64> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("no valgrind: instructions are not counted");
        return Ok(f64::NAN);
    }
    let (few, many) = (1024_usize.div_ceil(batch), 5 * 1024_usize.div_ceil(batch));
    let beyond = instructions(row, batch, many)? - instructions(row, batch, few)?;
    Ok(beyond / ((many - few) * batch) as f64)
}

fn instructions(row: &str, batch: usize, rounds: usize) -> Result<f64> {
    let this = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["engine-alone", row, &batch.to_string(), &rounds.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "under callgrind: {text}");
    let collected = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = collected.with_context(|| format!("callgrind tells no count: {text}"))?;
    Ok(count.trim().parse()?)
}

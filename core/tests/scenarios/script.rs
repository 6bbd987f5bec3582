//! Scenario files: blocks of commands, a line `----`, and what is expected to come of them, up to
//! the next blank line. `#` starts a comment. With `REWRITE=1` in the environment what has come is
//! written into the file instead of compared.

use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::commands::Scenario;

/// Runs one file of `testdata`.
///
/// Panics with all differences, each with file and line, or with the violation of a safety property
/// and the line of the command that led to it.
#[expect(clippy::disallowed_methods, reason = "whether to rewrite is the caller's choice")]
pub(crate) fn run(name: &str) {
    compare(name, std::env::var_os("REWRITE").is_some());
}

/// Runs one file, and compares what has come with what it says, or writes it there.
pub(crate) fn compare(name: &str, rewrite: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut scenario = Scenario::default();
    let (mut rewritten, mut differences, mut blocks) = (String::new(), String::new(), 0);
    let mut commands: Vec<(usize, &str)> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        rewritten.push_str(line);
        rewritten.push('\n');
        if line.trim().is_empty() || line.starts_with('#') {
            assert!(commands.is_empty(), "{name}:{}: a block without `----`", number + 1);
            continue;
        }
        if line != "----" {
            commands.push((number + 1, line));
            continue;
        }
        assert!(!commands.is_empty(), "{name}:{}: a block without commands", number + 1);
        let actual = match run_block(&mut scenario, &commands) {
            Ok(lines) => lines,
            Err(error) => panic!("\n{differences}\n{name}:{error}"),
        };
        let expected: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| !line.trim().is_empty())
            .collect();
        if actual != expected {
            let _ = write!(differences, "{name}:{}: {}", commands[0].0, diff(&expected, &actual));
        }
        for line in actual {
            rewritten.push_str(&line);
            rewritten.push('\n');
        }
        rewritten.push('\n');
        commands.clear();
        blocks += 1;
    }
    assert!(commands.is_empty() && blocks > 0, "{name}: ends without `----`");
    if rewrite {
        let rewritten = format!("{}\n", rewritten.trim_end());
        if rewritten != text {
            fs::write(&path, rewritten).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    } else {
        assert!(
            differences.is_empty(),
            "\n{differences}\n(- expected, + come; REWRITE=1 accepts what has come)"
        );
    }
}

/// What has come of the commands; or the line and the command that failed, why, and what had come
/// before.
fn run_block(scenario: &mut Scenario, commands: &[(usize, &str)]) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for (number, command) in commands {
        match catch_unwind(AssertUnwindSafe(|| scenario.run(command))) {
            Ok(more) => lines.extend(more),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                lines.extend(scenario.events(true));
                let (before, why) = (lines.join("\n"), text.unwrap_or_default());
                return Err(format!("{number}: `{command}`: {why}\nafter\n{before}"));
            }
        }
    }
    if lines.is_empty() {
        lines.push("ok".to_owned());
    }
    Ok(lines)
}

/// The two texts beside each other, line by line: common lines once, by their longest common
/// subsequence.
fn diff(expected: &[&str], actual: &[String]) -> String {
    let (rows, columns) = (expected.len(), actual.len());
    let mut longest = vec![vec![0; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            longest[row][column] = if expected[row] == actual[column] {
                longest[row + 1][column + 1] + 1
            } else {
                longest[row + 1][column].max(longest[row][column + 1])
            };
        }
    }
    let mut text = "differs\n".to_owned();
    let (mut row, mut column) = (0, 0);
    while row < rows || column < columns {
        if row < rows && column < columns && expected[row] == actual[column] {
            let _ = writeln!(text, "      {}", expected[row]);
            (row, column) = (row + 1, column + 1);
        } else if column == columns
            || row < rows && longest[row + 1][column] >= longest[row][column + 1]
        {
            let _ = writeln!(text, "    - {}", expected[row]);
            row += 1;
        } else {
            let _ = writeln!(text, "    + {}", actual[column]);
            column += 1;
        }
    }
    text
}

#[test]
fn a_difference_shows_both_sides() {
    let actual = ["a".to_owned(), "c".to_owned(), "d".to_owned()];
    assert_eq!(diff(&["a", "b", "d"], &actual), "differs\n      a\n    - b\n    + c\n      d\n");
}

//! What clients may use of a node: time, and memory that all of them share.

use std::time::Duration;

/// How fast a request has to come, in bytes a second, besides the time that a client may be silent:
/// 16 MiB take two minutes at most. Without it a byte now and then would keep memory for ever.
const LEAST_REQUEST_RATE: u64 = 128 << 10;

/// Limits of clients.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Limits {
    /// Closes a client that has asked nothing for so long, such as 300s; 0: never.
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration)]
    pub(crate) client_timeout: Duration,
    /// Closes a client that takes nothing of its answers (of each 256 KiB) for so long, or sends
    /// nothing of a request that it has begun. A request has to be whole after this time and a
    /// second for each 128 KiB.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = stall)]
    pub(crate) stall_timeout: Duration,
    /// The memory for answers that have not been read, over all clients; beyond it those
    /// clients are closed that have left theirs unread for longest, or reads are refused. Each
    /// client may hold 16 KiB besides.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    pub(crate) max_unread_bytes: usize,
    /// The memory for requests that are not whole or not answered, over all clients; beyond it
    /// those clients are closed whose requests are not whole for longest, or the one that needs
    /// more is. Each client may hold 16 KiB besides.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    pub(crate) max_unfinished_bytes: usize,
}

impl Limits {
    /// How long a request may take to come, of which so much is there.
    pub(crate) fn request_time(&self, bytes: u64) -> Duration {
        self.stall_timeout + Duration::from_millis(bytes * 1000 / LEAST_REQUEST_RATE)
    }
}

/// Reads a time: a number and `ms`, `s` (as where there is nothing), `m` or `h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("'{text}' is not a time such as 1500ms, 3s or 5m")),
    };
    let number: u64 = number.parse().map_err(|error| format!("'{text}': {error}"))?;
    // So that deadlines can be counted with.
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    let time = Duration::from_millis(number.saturating_mul(unit));
    if time > LONGEST { Err(format!("'{text}' is longer than a year")) } else { Ok(time) }
}

fn stall(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("it must be more than 0".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, time) in [("0", 0), ("1500ms", 1500), ("3s", 3000), ("3", 3000), ("2m", 120_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(time)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "9999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(stall("0s").is_err());
    }
}

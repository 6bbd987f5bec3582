//! RAFT CONFIG: settings of this node that are seen and changed while it runs.

use std::time::Duration;

use bytes::Bytes;
use quorate::{Config, ConfigError, ConfigureError, Network};

use crate::limits::duration;
use crate::reply::Reply;
use crate::server::Server;

/// A setting that can be changed. What bounds commands and memory is not among them: this server's
/// own limits are made for those.
struct Setting {
    name: &'static str,
    /// The field of [`Config`].
    field: &'static str,
    get: fn(&Config) -> String,
    /// Errors: what is wrong with the value.
    set: fn(&mut Config, &str) -> Result<(), String>,
}

macro_rules! settings {
    ($($name:literal: $field:ident as $show:ident / $read:ident,)*) => {
        &[$(Setting {
            name: $name,
            field: stringify!($field),
            get: |config| $show(&config.$field),
            set: |config, value| Ok(config.$field = $read(value)?),
        },)*]
    };
}

/// By the names of the command line, where they are there.
const SETTINGS: &[Setting] = settings! {
    "heartbeat": heartbeat_interval as millis / duration,
    "election-timeout": election_timeout as millis / duration,
    "request-timeout": request_timeout as millis / duration,
    "elections": elections as yes_or_no / truth,
    "heartbeats": heartbeats as yes_or_no / truth,
    "pre-vote": pre_vote as yes_or_no / truth,
    "replace-lost-disks": replace_lost_disks as yes_or_no / truth,
    "snapshot-bytes": snapshot_after_bytes as number / count,
    "snapshot-entries": snapshot_after_entries as number / count,
    "retained-bytes": retained_bytes as number / count,
    "max-retained-bytes": max_retained_bytes as number / count,
};

fn millis(time: &Duration) -> String {
    format!("{}ms", time.as_millis())
}

fn yes_or_no(value: &bool) -> String {
    if *value { "yes" } else { "no" }.to_owned()
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("'{text}' is neither yes nor no")),
    }
}

fn number(value: &u64) -> String {
    value.to_string()
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is no number"))
}

/// These settings with the values of `words`, which are names and values in turn.
fn changed(mut config: Config, words: &[Bytes]) -> Result<Config, String> {
    let (pairs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a setting has no value".to_owned());
    }
    for [name, value] in pairs {
        let name = String::from_utf8_lossy(name).to_lowercase();
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.ok_or_else(|| {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            format!("there is no setting '{name}', but {}", names.join(", "))
        })?;
        let value = String::from_utf8_lossy(value);
        (setting.set)(&mut config, &value).map_err(|error| format!("{name}: {error}"))?;
        if setting.field == "election_timeout" {
            // As on the command line.
            config.request_timeout = config.request_timeout.max(2 * config.election_timeout);
        }
    }
    Ok(config)
}

/// What is wrong with settings together, by their names here.
fn invalid(error: &ConfigError) -> String {
    let setting = SETTINGS.iter().find(|setting| setting.field == error.field);
    format!("{} {}", setting.map_or(error.field, |setting| setting.name), error.reason)
}

/// The answer to RAFT CONFIG: all settings, or OK once those are in force that were given.
pub(crate) async fn answer<R: Network>(server: &Server<R>, words: &[Bytes]) -> Reply {
    let _alone = server.settings.lock().await;
    let config = server.raft.config();
    if words.is_empty() {
        let shown =
            |setting: &Setting| (Reply::bulk(setting.name), Reply::bulk((setting.get)(&config)));
        return Reply::Map(SETTINGS.iter().map(shown).collect());
    }
    let config = match changed(config, words) {
        Ok(config) => config,
        Err(error) => return Reply::error(format!("ERR {error}")),
    };
    let patience = config.request_timeout;
    match server.raft.configure(config).await {
        Ok(()) => {
            server.patience.set(patience);
            Reply::OK
        }
        Err(ConfigureError::Invalid(error)) => Reply::error(format!("ERR {}", invalid(&error))),
        Err(error @ (ConfigureError::Shutdown | ConfigureError::Fatal(_))) => {
            Reply::error(format!("CLUSTERDOWN {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Bytes> {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    /// What each setting shows can be given as its value.
    #[test]
    fn every_setting_takes_what_it_shows() {
        let shown = |config: &Config| {
            let one = |setting: &Setting| format!("{} {}", setting.name, (setting.get)(config));
            SETTINGS.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        let other = "heartbeat 20ms election-timeout 200ms request-timeout 900ms elections no heartbeats no pre-vote no replace-lost-disks no snapshot-bytes 7 snapshot-entries 8 retained-bytes 9 max-retained-bytes 10";
        let changed_once = changed(Config::default(), &words(other)).expect("valid");
        assert_eq!(shown(&changed_once), other);
        let before = shown(&Config::default());
        let back = changed(changed_once, &words(&before)).expect("valid");
        assert_eq!(back, Config::default());
    }

    #[test]
    fn an_error_names_the_setting() {
        let refused = |line| changed(Config::default(), &words(line)).expect_err("refused");
        assert_eq!(refused("elections"), "a setting has no value");
        assert_eq!(refused("elections on"), "elections: 'on' is neither yes nor no");
        assert!(refused("foo 1").starts_with("there is no setting 'foo', but heartbeat, election"));
        assert_eq!(refused("retained-bytes -1"), "retained-bytes: '-1' is no number");
        assert!(refused("election-timeout x").starts_with("election-timeout: 'x' is not a time"));
    }
}

//! Settings that are read from files, and metrics that are written for dashboards.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use quorate::{
    ChangeId, ChangeOptions, ChangeProgress, ChangeWait, ClusterId, Config, Fatal, FileConfig,
    GroupState, LogId, Membership, Metrics, Obstacle, PeerMetrics, Replica, Role, SnapshotError,
    StoreError, TcpConfig, TransferOptions, UnfitTiming, quorum::Voters,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The settings of a program.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    group: Config,
    store: FileConfig,
    network: TcpConfig,
}

#[test]
fn settings_are_read_from_toml() {
    let settings: Settings = toml::from_str(
        r#"
        [group]
        heartbeat_interval = "250ms"
        election_timeout = "2s 500ms"
        elections = false
        max_command_bytes = 1_048_576

        [store]
        cache_bytes = 0

        [network]
        advertise = "10.0.0.1:7101"
        "#,
    )
    .unwrap();
    let expected = Settings {
        group: Config {
            heartbeat_interval: Duration::from_millis(250),
            election_timeout: Duration::from_millis(2500),
            elections: false,
            max_command_bytes: 1 << 20,
            ..Config::default()
        },
        store: FileConfig { cache_bytes: 0, ..FileConfig::default() },
        network: TcpConfig { advertise: Some("10.0.0.1:7101".to_owned()), ..TcpConfig::default() },
    };
    assert_eq!(settings, expected);
}

#[test]
fn what_is_not_said_is_the_default() {
    assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    assert_eq!(serde_json::from_str::<ChangeOptions>("{}").unwrap(), ChangeOptions::default());
    let patient: TransferOptions = serde_json::from_str(r#"{"within": "1m"}"#).unwrap();
    let minute = Some(Duration::from_secs(60));
    assert_eq!(patient, TransferOptions { within: minute, ..TransferOptions::default() });
}

#[test]
fn settings_that_are_written_are_read_again() {
    let settings = Settings {
        group: Config { max_clock_step: Duration::new(61, 1_002_003), ..Config::default() },
        ..Settings::default()
    };
    let text = toml::to_string(&settings).unwrap();
    assert!(text.contains("max_clock_step = \"1m 1s 1ms 2us 3ns\""), "{text}");
    assert!(text.contains("heartbeat_interval = \"100ms\""), "{text}");
    assert_eq!(toml::from_str::<Settings>(&text).unwrap(), settings);
    round_trip(&settings);
}

#[test]
fn mistakes_in_settings_are_errors_that_name_them() {
    let refused = |text: &str| toml::from_str::<Settings>(text).unwrap_err().to_string();
    for (text, part) in [
        ("[group]\nelection_time = \"1s\"", "unknown field `election_time`"),
        ("[store]\nsegments = 1", "unknown field `segments`"),
        ("[network]\nport = 1", "unknown field `port`"),
        ("[group]\nelection_timeout = \"1 parsec\"", "\"1 parsec\" is no duration"),
        ("[group]\nelection_timeout = \"\"", "\"\" is no duration"),
        ("[group]\nelection_timeout = 250", "expected a duration such as \"250ms\""),
        ("[group]\nelection_timeout = 1000", "invalid type: integer `1000`"),
        ("[group]\nmax_append_bytes = -1", "invalid value: integer `-1`"),
    ] {
        let error = refused(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Value {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn replica(id: u64) -> Replica {
    Replica::new(id, id << 56 | 0xabcd)
}

fn membership() -> Membership {
    let members = BTreeMap::from([1, 2, 3].map(|id| (replica(id), format!("node-{id}:7001"))));
    Membership::founding(ClusterId(u128::MAX - 1), members).unwrap()
}

#[test]
fn metrics_are_written_as_json() {
    let config = Config::default();
    let metrics = Metrics {
        id: 1,
        replica: replica(1),
        cluster: Some(ClusterId(5)),
        waits_for: BTreeMap::from([
            (2, Obstacle::Silent),
            (3, Obstacle::OtherStore { lives: replica(3), is_empty: true }),
        ]),
        round_trip: Some(Duration::from_micros(1500)),
        unfit_timing: UnfitTiming::of(Duration::from_millis(1400), &config),
        role: Role::PreCandidate,
        last_log_id: LogId::new(3, 1, 20),
        snapshot_error: Some(SnapshotError::StateMachine("no room".to_owned())),
        membership: Some(membership()),
        change: Some(ChangeProgress {
            id: ChangeId(7),
            waits_for: BTreeMap::from([(
                4,
                ChangeWait::CatchingUp { behind: 5, snapshot: Some((1, 2)), left: None },
            )]),
        }),
        peers: BTreeMap::from([(
            replica(2),
            PeerMetrics {
                matched: 19,
                last_contact: Some(Duration::from_millis(20)),
                ..PeerMetrics::default()
            },
        )]),
        state: GroupState::Failed(Fatal::Store(StoreError::Missing(4))),
        ..Metrics::default()
    };
    let text = serde_json::to_string(&metrics).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let expected = [
        ("replica", json!("1/010000000000abcd")),
        (
            "waits_for",
            json!({
                "2": "silent",
                "3": {"other_store": {"lives": "3/030000000000abcd", "is_empty": true}},
            }),
        ),
        ("round_trip", json!("1ms 500us")),
        (
            "unfit_timing",
            json!({
                "round_trip": "1s 400ms",
                "election_timeout": "1s",
                "heartbeat_interval": "100ms",
            }),
        ),
        ("role", json!("pre_candidate")),
        ("leader", json!(null)),
        ("last_log_id", json!({"term": 3, "leader": 1, "index": 20})),
        ("snapshot_error", json!("the state machine's snapshot: no room")),
        (
            "change",
            json!({
                "id": "00000000000000000000000000000007",
                "waits_for": {"4": {"catching_up": {"behind": 5, "snapshot": [1, 2], "left": null}}},
            }),
        ),
        (
            "peers",
            json!({"2/020000000000abcd": {
                "matched": 19, "last_contact": "20ms", "inflight_bytes": 0, "snapshot": null,
            }}),
        ),
        ("state", json!({"failed": "the log store failed: the log holds no entry 4"})),
    ];
    for (field, value) in expected {
        assert_eq!(json[field], value, "{field}");
    }
    let address = json["membership"]["members"]["3/030000000000abcd"].as_str();
    assert_eq!(address, Some("node-3:7001"));
    let secret = [ClusterId(u128::MAX - 1).to_string(), ClusterId(5).to_string()];
    assert!(!secret.iter().any(|secret| text.contains(secret)), "strangers may read it: {text}");
}

#[test]
fn what_metrics_consist_of_is_read_again() {
    let membership = membership();
    let target = membership.target().with_voter(4, "d").unwrap().with_learner(5, "e").unwrap();
    round_trip(&target);
    let json = round_trip(&membership.plan(&target, Some(1)).unwrap());
    assert_eq!(json["steps"][0], json!({"add_learners": [4, 5]}));
    round_trip(&Metrics { id: 2, ..Metrics::default() }.hindrance());
    round_trip(&ChangeOptions { follows: Some(ChangeId(u128::MAX)), ..ChangeOptions::default() });
    round_trip(&Some(PeerMetrics::default()));
    round_trip(&Voters::joint([replica(1), replica(2)], [replica(1)]));
}

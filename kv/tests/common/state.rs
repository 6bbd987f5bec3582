//! What nodes hold, to be compared byte by byte.

use redis::{Connection, RedisResult};

use super::{Cluster, number, status, until};

/// Keys with their values, in the order of the scan.
pub(crate) type State = Vec<(Vec<u8>, Vec<u8>)>;

/// The state of each node, all at the same place of the log: a write whose client has given it up
/// may still arrive.
pub(crate) fn states(cluster: &Cluster) -> Vec<State> {
    (0..3).for_each(|node| cluster.serves(node));
    until("nothing is applied any more", || {
        let before = applied(cluster)?;
        let states = (0..3)
            .map(|node| cluster.connect(node).and_then(|mut connection| state(&mut connection)))
            .collect::<RedisResult<Vec<_>>>()
            .ok()?;
        let still = applied(cluster)? == before && before.iter().all(|index| *index == before[0]);
        still.then_some(states)
    })
}

fn applied(cluster: &Cluster) -> Option<Vec<u64>> {
    let applied = |node| number(&status(&mut cluster.connect(node).ok()?).ok()?, "applied");
    (0..3).map(applied).collect()
}

fn state(connection: &mut Connection) -> RedisResult<State> {
    let mut state = State::new();
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(7).query(connection)?;
        for key in keys {
            let value = redis::cmd("GET").arg(&key).query(connection)?;
            state.push((key, value));
        }
        cursor = next;
        if next == 0 {
            break;
        }
    }
    let count: usize = redis::cmd("DBSIZE").query(connection)?;
    assert_eq!(state.len(), count, "a scan gives every key once");
    Ok(state)
}

pub(crate) fn assert_same(states: &[State]) {
    for other in &states[1..] {
        let differs = states[0].iter().zip(other).find(|(left, right)| left != right);
        assert_eq!(differs, None, "the first difference");
        assert_eq!(states[0].len(), other.len());
    }
}

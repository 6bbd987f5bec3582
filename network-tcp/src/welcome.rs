//! The acceptor's side of a handshake.

use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use quorate_core::{Credentials, GroupId, Memory, Replica, StoreState};
use quorate_rt::{Network, Stream, WriteHalf};
use thiserror::Error;

use crate::connection_slots::Class;
use crate::handshake::{Answer, Confirm, Hello, MAX_HELLO_BYTES, Party, Refusal, Role, judge, mac};
use crate::memories;
use crate::sessions::Asked;
use crate::transport::State;
use crate::wait::read_until;

/// A peer whose handshake succeeded.
pub(crate) struct Guest<S: Stream> {
    pub(crate) hello: Hello,
    /// What this node has shown it.
    pub(crate) own: Credentials,
    pub(crate) proven: bool,
    /// What it remembers of this node.
    pub(crate) remember: Vec<(GroupId, Memory)>,
    pub(crate) read: S::ReadHalf,
    pub(crate) write: S::WriteHalf,
    /// What came after the handshake.
    pub(crate) rest: BytesMut,
}

#[derive(Debug, Error)]
pub(crate) enum WelcomeError {
    /// Here, by this node. The peer, if it has said who it is.
    #[error("{1}")]
    Refused(Option<Replica>, Refusal),
    /// There, by the peer.
    #[error("the peer refuses this node: {1}")]
    RefusedByPeer(Option<Replica>, Refusal),
    #[error("no handshake: {0}")]
    Io(#[from] io::Error),
    /// Closed before the first byte, as health checks do.
    #[error("nothing was said")]
    Silent,
    #[error("no node is attached")]
    Detached,
}

impl WelcomeError {
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(_, refusal) | Self::RefusedByPeer(_, refusal) => Some(*refusal),
            Self::Io(_) | Self::Silent | Self::Detached => None,
        }
    }
}

pub(crate) async fn welcome<R: Network>(
    state: Rc<State<R>>,
    id: u64,
    stream: R::Stream,
) -> Result<Guest<R::Stream>, WelcomeError> {
    let own = state.own.get().ok_or(WelcomeError::Detached)?;
    let (mut read, mut write) = stream.split();
    let mut rest = BytesMut::with_capacity(MAX_HELLO_BYTES);
    let hello = match read_until(&mut read, &mut rest, Hello::take).await {
        Ok(hello) => hello,
        Err(_) if rest.is_empty() => return Err(WelcomeError::Silent),
        Err(error) => return Err(error.into()),
    };
    if let Ok(Hello { from: Party { replica, .. }, .. }) = &hello {
        state.rise(id, if state.is_listed(*replica) { Class::Listed } else { Class::Hello });
    }
    let node = Party::new(&own, state.nonce());
    // Who may still prove that it is of the cluster is not held up by those who have not.
    let may_prove = |hello: &Hello| own.cluster.is_some() && hello.from.state != StoreState::Empty;
    let peer = hello.as_ref().ok().map(|hello| hello.from.replica);
    let verdict = match hello {
        Ok(hello) => {
            let asked = if may_prove(&hello) { Asked::Proven } else { Asked::All };
            check(&state, &own, &hello, asked).await.map(|()| hello)
        }
        Err(refusal) => Err(refusal),
    };
    let hello = match verdict {
        Ok(hello) => hello,
        Err(refusal) => {
            // Whether it hears that or not, it is refused.
            let _ = write.write_all(vec![Answer::refuse(refusal, Some(node)).encode()]).await;
            return Err(WelcomeError::Refused(peer, refusal));
        }
    };
    let mac_of = |role| own.cluster.map(|cluster| mac(cluster, role, &hello.from, &node));
    let answer = Answer::welcome(&hello, node, mac_of(Role::Acceptor));
    write.write_all(vec![answer.encode()]).await?;
    let refused = |refusal| WelcomeError::Refused(peer, refusal);
    let confirm = read_until(&mut read, &mut rest, Confirm::take).await?.map_err(refused)?;
    let expected = mac_of(Role::Dialler);
    let judged = judge(own.state, hello.from.state, expected, confirm.mac);
    if confirm.refused != 0 {
        if judged == Ok(true) {
            memories::hear(&state, hello.from.replica, confirm.remember);
        }
        return Err(WelcomeError::RefusedByPeer(peer, Refusal::from_code(confirm.refused)));
    }
    let proven = judged.map_err(refused)?;
    if !proven && may_prove(&hello) {
        let Party { replica, boot, .. } = hello.from;
        let twin =
            state.sessions.check_twin(&state.rt, state.timing.ping, replica, boot, Asked::All);
        twin.await.map_err(refused)?;
    }
    Ok(Guest { hello, own, proven, remember: confirm.remember, read, write, rest })
}

async fn check<R: Network>(
    state: &State<R>,
    own: &Credentials,
    hello: &Hello,
    asked: Asked,
) -> Result<(), Refusal> {
    let Party { replica, boot, .. } = hello.from;
    hello.check(own)?;
    state.sessions.check_twin(&state.rt, state.timing.ping, replica, boot, asked).await?;
    match memories::is_older(boot, &memories::recall(state, replica).await) {
        true => Err(Refusal::OlderBoot),
        false => Ok(()),
    }
}

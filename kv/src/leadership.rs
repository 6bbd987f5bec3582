//! The answers to RAFT TRANSFER and RAFT CAMPAIGN.

use quorate::{CampaignError, Leadership, TransferError};

use crate::reply::Reply;

/// The answer to RAFT TRANSFER: the id of the node that leads now.
pub(crate) fn transferred(result: Result<Leadership, TransferError>) -> Reply {
    match result {
        Ok(led) => leader(led),
        Err(error) => {
            let word = match error {
                TransferError::NotLeader { leader: Some(_) }
                | TransferError::NoSuchVoter(_)
                | TransferError::NoOtherVoter => "ERR",
                TransferError::UnderWay { .. } | TransferError::Failed { .. } => "TRYAGAIN",
                TransferError::NotLeader { leader: None }
                | TransferError::Shutdown
                | TransferError::Fatal(_) => "CLUSTERDOWN",
            };
            Reply::error(format!("{word} {error}"))
        }
    }
}

/// The answer to RAFT CAMPAIGN: the id of this node, which leads now.
pub(crate) fn campaigned(result: Result<Leadership, CampaignError>) -> Reply {
    match result {
        Ok(led) => leader(led),
        Err(error) => {
            let word = match error {
                CampaignError::NotVoter | CampaignError::LeaderIsAlive(_) => "ERR",
                CampaignError::NotElected => "TRYAGAIN",
                CampaignError::Shutdown | CampaignError::Fatal(_) => "CLUSTERDOWN",
            };
            Reply::error(format!("{word} {error}"))
        }
    }
}

fn leader(led: Leadership) -> Reply {
    Reply::Integer(led.leader.cast_signed())
}

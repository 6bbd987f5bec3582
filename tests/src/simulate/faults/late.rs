//! Messages that come once more, long after they were sent: in another life of the node they are
//! for, or to its next disk, or from a disk that is gone. A transport may do that.

use super::Calm;

pub(super) async fn late_messages(calm: Calm) {
    // Many, as each is of little consequence.
    while calm.lasts(calm.draw.duration(&(calm.mean / 100..calm.mean / 10))).await {
        if calm.cluster.observer.deliver_late() {
            calm.cluster.count("message came late");
        }
    }
}

//! Waiting for a watched value.

use tokio::sync::watch;

/// Waits until `pick` finds something in the watched value. The sender is ours, so it never goes away meanwhile.
pub async fn until<T, R>(sender: &watch::Sender<T>, pick: impl Fn(&T) -> Option<R>) -> R {
    let mut changes = sender.subscribe();
    loop {
        let found = pick(&changes.borrow_and_update());
        if let Some(found) = found {
            return found;
        }
        changes.changed().await.expect("the sender is borrowed");
    }
}

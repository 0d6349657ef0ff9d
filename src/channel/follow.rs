//! Carries what happens at the desk to a channel.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use super::Channel;
use crate::approval::HoldState;
use crate::desk::{Desk, DeskEvent, Filter};

/// Delivers every event of `desk` to `channel`, for ever, from this call on: the future need not have
/// been polled yet. A channel that fell so far behind that it missed events is told the state of every
/// request.
pub fn follow(desk: Desk, channel: Arc<dyn Channel>) -> impl Future<Output = ()> + Send {
    let mut events = desk.subscribe();
    async move {
        loop {
            match events.recv().await {
                Ok(event) => channel.deliver(&event),
                Err(RecvError::Lagged(missed)) => {
                    warn!(channel = %channel.name(), missed, "a channel missed events; it is told the state of every request");
                    deliver_all(&desk, &*channel);
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Tells `channel` the state of every request.
fn deliver_all(desk: &Desk, channel: &dyn Channel) {
    for view in desk.requests(&Filter::default()).into_iter().rev() {
        let request = view.request.clone();
        if view.state != HoldState::Waiting {
            channel.deliver(&DeskEvent::Ended { request, state: view.state });
        } else if !view.is_behind {
            channel.deliver(&DeskEvent::Opened { request, behind: view.behind });
        }
        if let Some(receipt) = view.receipt {
            channel.deliver(&DeskEvent::Ran { request: view.request, receipt });
        }
    }
}

//! Whose large text is read next.
//!
//! Large texts are read one at a time, so that memory is bounded by one of them. Agents take turns: one that
//! sends many, over many sessions, waits for its own, and any other for the one that is being read and at
//! most one of each other agent that waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::actor::AgentName;

#[derive(Default)]
struct State {
    busy: bool,
    /// Those who wait, by agent, in the order in which they came.
    waiting: HashMap<AgentName, VecDeque<oneshot::Sender<Turn>>>,
    /// The agents that have any, in the order of their turns.
    order: VecDeque<AgentName>,
}

/// The turns of one process.
#[derive(Default)]
pub struct LargeTexts {
    state: Mutex<State>,
}

/// The right to read one large text, until it is dropped.
pub(super) struct Turn(Option<Arc<LargeTexts>>);

impl LargeTexts {
    /// Waits for a turn of this agent's.
    pub(super) async fn turn(self: &Arc<Self>, agent: &AgentName) -> Turn {
        let turn = {
            let mut state = self.state.lock();
            if !state.busy {
                state.busy = true;
                return Turn(Some(Arc::clone(self)));
            }
            let (sender, turn) = oneshot::channel();
            let State { waiting, order, .. } = &mut *state;
            let of_agent = waiting.entry(agent.clone()).or_default();
            if of_agent.is_empty() {
                order.push_back(agent.clone());
            }
            of_agent.push_back(sender);
            turn
        };
        // The sender is dropped with the whole process only.
        turn.await.unwrap_or(Turn(None))
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let agent = self.order.pop_front()?;
        let of_agent = self.waiting.get_mut(&agent)?;
        let next = of_agent.pop_front();
        if of_agent.is_empty() {
            self.waiting.remove(&agent);
        } else {
            self.order.push_back(agent);
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(texts) = self.0.take() else { return };
        loop {
            let mut state = texts.state.lock();
            let Some(next) = state.next() else {
                state.busy = false;
                return;
            };
            drop(state);
            // Whoever has left meanwhile does not take it.
            match next.send(Turn(Some(Arc::clone(&texts)))) {
                Ok(()) => return,
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn agents_take_turns_however_many_texts_one_of_them_sends() {
        let texts = Arc::new(LargeTexts::default());
        let first = texts.turn(&"greedy".into()).await;
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for agent in ["greedy", "greedy", "greedy", "greedy", "modest", "other", "modest"] {
            let (texts, told) = (Arc::clone(&texts), told.clone());
            tasks.push(tokio::spawn(async move {
                let turn = texts.turn(&agent.into()).await;
                told.send(agent).unwrap();
                drop(turn);
            }));
            tokio::task::yield_now().await;
        }

        drop(first);
        for task in tasks {
            task.await.unwrap();
        }

        let order: Vec<&str> = std::iter::from_fn(|| order.try_recv().ok()).collect();
        assert_eq!(order, ["greedy", "modest", "other", "greedy", "modest", "greedy", "greedy"]);
    }

    #[tokio::test]
    async fn whoever_leaves_the_queue_keeps_nobody_waiting() {
        let texts = Arc::new(LargeTexts::default());
        let first = texts.turn(&"a".into()).await;
        let leaving = tokio::spawn({
            let texts = Arc::clone(&texts);
            async move { texts.turn(&"b".into()).await }
        });
        tokio::task::yield_now().await;
        leaving.abort();
        assert!(leaving.await.is_err());
        let next = tokio::spawn({
            let texts = Arc::clone(&texts);
            async move { texts.turn(&"c".into()).await }
        });
        tokio::task::yield_now().await;

        drop(first);

        drop(next.await.unwrap());
        assert!(!texts.state.lock().busy);
    }
}

//! The dialog that asks for a reason.
//!
//! A dialog is known by a nonce of ours that Slack carries along and brings back. What it is about is
//! kept here, not in the dialog, so that nothing in a submission can say so.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use slack_morphism::prelude::{
    SlackBlock, SlackBlockPlainTextInputElement, SlackInputBlock, SlackModalView, SlackView,
};

use super::text::PlainText;
use crate::approval::{Document, Request, Verdict};
use crate::identity::account::ChatAccount;
use crate::statement::{Digest, RequestId};

/// Names of ours in a dialog.
pub(super) const CALLBACK: &str = "countersign.reason";
pub(super) const BLOCK: &str = "countersign.reason";
pub(super) const INPUT: &str = "countersign.reason.text";

/// The longest reason; the desk takes no longer one.
const LONGEST: u64 = 2_000;

/// An open dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingAnswer {
    /// Who was asked. Nobody else can submit it.
    pub(super) account: ChatAccount,
    pub(super) request: RequestId,
    pub(super) verdict: Verdict,
    /// Digest of the statement on the card on which the button was pressed.
    pub(super) digest: Digest,
    /// When that card was shown.
    pub(super) displayed_at: Timestamp,
}

/// The dialogs that are open.
#[derive(Debug, Default)]
pub(super) struct Dialogs {
    asked: BTreeMap<String, PendingAnswer>,
    order: VecDeque<String>,
}

/// More than that many are not open at a time: people close dialogs, and Slack does not say so.
const KEPT: usize = 1_000;

impl Dialogs {
    pub(super) fn insert(&mut self, nonce: String, asked: PendingAnswer) {
        self.order.push_back(nonce.clone());
        self.asked.insert(nonce, asked);
        while self.order.len() > KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.asked.remove(&oldest);
            }
        }
    }

    /// The dialog, when it was opened by us for `account`. It is used up by that.
    pub(super) fn take(&mut self, nonce: &str, account: &ChatAccount) -> Option<PendingAnswer> {
        if self.asked.get(nonce).is_none_or(|asked| asked.account != *account) {
            return None;
        }
        self.order.retain(|other| other != nonce);
        self.asked.remove(nonce)
    }

    pub(super) fn remove(&mut self, nonce: &str) {
        self.order.retain(|other| other != nonce);
        self.asked.remove(nonce);
    }
}

/// The dialog for `verdict` on `request`.
pub(super) fn dialog(request: &Request, verdict: Verdict, nonce: &str) -> SlackView {
    let (word, label) = match verdict {
        Verdict::Approve => ("Approve", "Reason (it is recorded)"),
        Verdict::Deny => ("Deny", "Reason (the agent is told)"),
        Verdict::Escalate => ("Escalate", "Reason (it is recorded)"),
    };
    let optional = !request.draft.terms.reason_required || verdict == Verdict::Escalate;
    let input = SlackBlockPlainTextInputElement::new()
        .with_action_id(INPUT.into())
        .with_multiline(true)
        .with_max_length(LONGEST)
        .with_focus_on_load(true);
    let about = PlainText::shown(&Document::of(request).title)
        .and(" (")
        .then(&PlainText::line(request.words.join(" ")))
        .and(")");
    let blocks: Vec<SlackBlock> = vec![
        about.heading(),
        SlackInputBlock::new(PlainText::ours(label).only(), input.into())
            .with_block_id(BLOCK.into())
            .with_optional(optional)
            .into(),
    ];
    let title = PlainText::ours(word).and(" ").then(&PlainText::line(request.id.code()));
    SlackView::Modal(
        SlackModalView::new(title.only(), blocks)
            .with_submit(PlainText::ours(word).only())
            .with_close(PlainText::ours("Cancel").only())
            .with_callback_id(CALLBACK.into())
            .with_private_metadata(nonce.to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_can_be_submitted_once_and_by_the_one_who_was_asked() {
        let mut dialogs = Dialogs::default();
        dialogs.insert("n1".to_owned(), asked("U1"));

        assert_eq!(dialogs.take("n1", &account("U2")), None);
        assert_eq!(dialogs.take("n2", &account("U1")), None);
        assert_eq!(dialogs.take("n1", &account("U1")), Some(asked("U1")));
        assert_eq!(dialogs.take("n1", &account("U1")), None);
    }

    #[test]
    fn dialogs_that_nobody_submits_are_forgotten() {
        let mut dialogs = Dialogs::default();
        for number in 0..=KEPT {
            dialogs.insert(number.to_string(), asked("U1"));
        }

        assert_eq!(dialogs.take("0", &account("U1")), None);
        assert!(dialogs.take("1", &account("U1")).is_some());
    }

    fn account(user: &str) -> ChatAccount {
        crate::channel::slack::check::chat_account("T1", user)
    }

    fn asked(user: &str) -> PendingAnswer {
        PendingAnswer {
            account: account(user),
            request: RequestId(uuid::Uuid::from_u128(1)),
            verdict: Verdict::Deny,
            digest: Digest::of(b"x"),
            displayed_at: Timestamp::UNIX_EPOCH,
        }
    }
}

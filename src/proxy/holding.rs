//! What a connection waits for, and what reviewers and the agent are told meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::catalogue::Known;
use super::comment;
use super::gate::{Pending, Referred};
use super::large_texts::Turn;
use super::sessions::Watch;
use super::upstream::ConnectError;
use crate::actor::{Agent, AgentIdentity, PersonName};
use crate::approval::request::TransactionView;
use crate::approval::seal::{PreparedText, SealedSetting, SettingChange};
use crate::approval::{Draft, Grant, Request, Seal, VoidReason, Withdrawal};
use crate::classify::{Classification, SearchPath};
use crate::desk;
use crate::policy::{Decision, Policy, Subject};
use crate::refusal::Refusal;
use crate::session::settings::parse_search_path;
use crate::session::{Session, Submission};
use crate::statement::{Digest, RequestId, ServerTimers, SqlText, TransactionStatus};

/// The settings that upstream reported, by name.
pub(super) type ReportedSettings = BTreeMap<Arc<str>, Arc<str>>;

/// What had to be there before a statement can be decided.
pub(super) enum Before {
    /// The catalogue was read anew.
    Catalogue(Result<Arc<Known>, ConnectError>),
    /// Names that it does not know were looked up.
    LookedUp(Result<Arc<Known>, ConnectError>),
    /// A large text may be read now.
    Turn(Turn),
    /// The agent has waited for its next change of the catalogue.
    Paused,
}

/// What a connection waits for.
pub(super) enum Holding {
    /// Something has to be there first that decides what the statement means, or when it is its turn.
    Undecided { submission: Submission, waiting: JoinHandle<Before> },
    /// Upstream is asked where names are looked up and who the session acts as; nothing can be judged
    /// without it.
    Asking { submission: Submission },
    /// Upstream is asked what the session is like, so that a request can be opened.
    Probing { pending: Box<Pending> },
    /// People are asked.
    Waiting {
        pending: Box<Pending>,
        request: Arc<Request>,
        ending: oneshot::Receiver<desk::Ending>,
        /// When the agent is told again that it waits.
        notice_at: Instant,
        /// How often upstream is kept awake, and when next; never where no timer of its own would end the
        /// session.
        awake: Option<(Duration, Instant)>,
    },
    /// People have approved, and the catalogue is being read: what was approved is judged once more.
    Rereading { pending: Box<Pending>, grant: Grant, reading: JoinHandle<Result<Arc<Known>, ConnectError>> },
    /// People have approved, and upstream is asked once more.
    Reprobing { pending: Box<Pending>, grant: Grant },
}

/// What a grant for `pending` is bound to. Texts that run before it in the same batch, and texts
/// that it refers to by name, decide what it does as much as its own, so they are part of it.
pub(super) fn seal(watch: &Watch, session: &Session, pending: &Pending, reported: ReportedSettings) -> Seal {
    let changed_by = if session.unit_changes_settings() {
        Some(SettingChange::Batch)
    } else if session.settings().change_on_the_way(&pending.classification.steps) {
        Some(SettingChange::SameText)
    } else {
        None
    };
    let settings = reported.into_iter().map(|(name, value)| {
        let setting = match changed_by {
            Some(by) if matches!(&*name, "search_path" | "role") => {
                SealedSetting::Changing { before: value, by }
            }
            Some(_) | None => SealedSetting::Known(value),
        };
        (name, setting)
    });
    let before = &pending.submission.before;
    Seal {
        statement: pending.submission.digest,
        agent: watch.identity.agent.name.clone(),
        session: (!pending.terms.defer).then_some(watch.id),
        upstream: watch.target.upstream.clone(),
        database: watch.target.database.clone(),
        role: watch.target.role.clone(),
        settings: settings.collect(),
        batch_before: (!before.is_empty()).then(|| digest_of(before)),
        prepared: prepared_texts(&pending.refers_to),
    }
}

/// The refusal of a hold with more before it in its batch than reviewers are shown: all of it has to be,
/// because any of it may change what the statement does.
pub(super) fn too_much_before(before: &[SqlText]) -> Option<Refusal> {
    const STATEMENTS: usize = 100;
    const BYTES: usize = 64 << 10;
    let bytes: usize = before.iter().map(SqlText::len).sum();
    let refusal = Refusal::TooMuchBefore { statements: STATEMENTS, bytes: BYTES };
    (before.len() > STATEMENTS || bytes > BYTES).then_some(refusal)
}

fn prepared_texts(refers_to: &[Referred]) -> BTreeMap<String, PreparedText> {
    // Many names may stand for one text, which is hashed once.
    let mut digests: HashMap<(*const u8, usize), Digest> = HashMap::new();
    let prepared = |Referred { name, sql, types, .. }: &Referred| {
        let bytes = sql.as_bytes();
        let digest = digests.entry((bytes.as_ptr(), bytes.len())).or_insert_with(|| Digest::of(bytes));
        let declared = types.iter().any(|oid| *oid != 0);
        let types = if declared { types.to_vec() } else { Vec::new() };
        (name.to_string(), PreparedText { digest: *digest, types })
    };
    refers_to.iter().map(prepared).collect()
}

fn digest_of(texts: &[SqlText]) -> Digest {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    Digest::from_bytes(hash.finalize().into())
}

/// What the desk opens a request from.
pub(super) fn draft(
    watch: &Watch,
    session: &Session,
    pending: &Pending,
    seal: Seal,
    classification: Arc<Classification>,
    owners: &[PersonName],
) -> Draft {
    let (texts, earlier) = session.transaction();
    let mut statements: Vec<String> = texts.map(SqlText::to_display).collect();
    let dropped = statements.len().saturating_sub(TransactionView::KEPT);
    statements.drain(..dropped);
    let before = &pending.submission.before;
    let mut claimed = watch.claimed.lock().clone();
    comment::claims(pending.submission.statement.sql.as_bytes(), &mut claimed);
    Draft {
        statement: pending.submission.statement.clone(),
        classification,
        identity: owned_by(&watch.identity, owners),
        claimed,
        session: watch.id,
        target: watch.target.clone(),
        seal,
        transaction: TransactionView {
            status: pending.submission.status,
            statements,
            earlier: earlier + dropped as u64,
            batch: before.iter().map(SqlText::to_display).collect(),
            ..TransactionView::default()
        },
        terms: pending.terms.clone(),
        refers_to: pending
            .refers_to
            .iter()
            .map(|known| (known.name.to_string(), known.shown.clone()))
            .collect(),
    }
}

/// Who asks, with the owners of this moment beside those of the time when the session began: the agent
/// may have been given to somebody else since, and neither may approve for it.
fn owned_by(identity: &Arc<AgentIdentity>, owners: &[PersonName]) -> Arc<AgentIdentity> {
    let known = &identity.agent.owners;
    let is_known = |owner: &&PersonName| known.iter().any(|known| known.same_person(owner.as_str()));
    let new: Vec<PersonName> = owners.iter().filter(|owner| !is_known(owner)).cloned().collect();
    if new.is_empty() {
        return Arc::clone(identity);
    }
    let owners = known.iter().cloned().chain(new).collect();
    let agent = Arc::new(Agent { owners, ..(*identity.agent).clone() });
    Arc::new(AgentIdentity { agent, ..(**identity).clone() })
}

/// How long a statement may wait in a transaction that upstream ends, with its session: it has to be refused
/// while that can still be done. `None` where upstream does not limit it.
pub(super) fn time_left(
    session: &Session,
    pending: &Pending,
    timers: &ServerTimers,
    now_ns: u64,
) -> Option<Duration> {
    let limit = timers.transaction.filter(|_| pending.submission.status != Some(TransactionStatus::Idle))?;
    let reserve = (limit / 5).clamp(Duration::from_millis(100), Duration::from_secs(2));
    Some(limit.saturating_sub(session.transaction_age(now_ns)).saturating_sub(reserve))
}

/// How often an idle session has to be kept awake with these timers; `None` where none of them runs.
pub(super) fn awake_every(timers: &ServerTimers) -> Option<Duration> {
    /// A timer that is shorter than some of these nobody can be sure to outlive.
    const SHORTEST: Duration = Duration::from_millis(20);
    timers.idle().map(|limit| (limit / 4).max(SHORTEST))
}

/// A notice for the agent.
pub(super) struct Notice {
    pub(super) message: String,
    pub(super) detail: Option<String>,
}

/// What the agent is told at once.
pub(super) fn opened_notice(request: &Request) -> Notice {
    let class = request.draft.classification.class;
    let mut message =
        format!("waiting for approval of this statement (class {class}): request {}", request.id);
    let open = request.draft.transaction.status != Some(TransactionStatus::Idle);
    if open {
        message.push_str("; the open transaction keeps its locks meanwhile");
    }
    let asked: Vec<String> = request
        .draft
        .terms
        .approvals
        .iter()
        .map(|approval| {
            if approval.count == 1 {
                approval.group.to_string()
            } else {
                format!("{} of {}", approval.count, approval.group)
            }
        })
        .collect();
    let mut detail = format!("Asked: {}. It expires at {}", asked.join(" and "), at(request.expires_at));
    if let Some(limit) = request.draft.transaction.timers.transaction.filter(|_| request.is_cut_short()) {
        detail
            .push_str(&format!(", before the server's transaction_timeout ({limit:?}) ends the transaction"));
    }
    detail.push('.');
    Notice { message, detail: Some(detail) }
}

/// What it is told from time to time.
pub(super) fn waiting_notice(request: &Request, now: Timestamp) -> Notice {
    let left = request.expires_at.duration_since(now).as_secs().max(0);
    let left = if left >= 120 { format!("{} minutes", left / 60) } else { format!("{left} seconds") };
    let message = format!("still waiting for approval: request {}", request.id);
    Notice { message, detail: Some(format!("It expires in {left}.")) }
}

fn at(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The refusal of something that was asked for, or approved, and does not stand any more.
pub(super) fn lapsed(request: RequestId, why: &VoidReason) -> Refusal {
    match why {
        VoidReason::DeniedByPolicy { rule, message } => {
            Refusal::DeniedByPolicy { rule: rule.clone(), message: message.clone() }
        }
        VoidReason::Mismatch(_)
        | VoidReason::SyntaxError
        | VoidReason::Stricter { .. }
        | VoidReason::ApproversChanged
        | VoidReason::AgentRevoked => Refusal::HoldWithdrawn { request, reason: why.withdrawal().as_str() },
    }
}

/// What an open request is about, as a policy is asked.
pub(super) fn decide_again(policy: &Policy, request: &Request, now: Timestamp) -> Decision {
    let draft = &request.draft;
    let target = &draft.target;
    let path = draft.seal.settings.get("search_path").and_then(SealedSetting::known);
    let search_path = path.map_or(SearchPath::Unknown, |path| parse_search_path(path, target.role.as_str()));
    policy.decide(&Subject {
        agent: &draft.identity.agent,
        target,
        classification: &draft.classification,
        search_path: &search_path,
        in_transaction: draft.transaction.status != Some(TransactionStatus::Idle),
        claimed_defer: draft.terms.defer,
        now,
    })
}

/// The refusal of something that is withdrawn for a reason of ours.
pub(super) fn withdrawn(pending: &Pending, reason: Withdrawal) -> Refusal {
    match pending.request {
        Some(request) => Refusal::HoldWithdrawn { request, reason: reason.as_str() },
        None => Refusal::Cancelled,
    }
}

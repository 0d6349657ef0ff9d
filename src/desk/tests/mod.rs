//! Promises P2, P4, P7 and P9 at the desk, and what happens when everybody answers at once.

mod changes;
mod deferred;
mod limits;

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::actor::ChannelName;
use crate::actor::{Agent, AgentName, PersonName, Reviewer};
use crate::approval::quorum::NotAllowed;
use crate::approval::seal::SealedSetting;
use crate::approval::{SealDifference, Verdict, Withdrawal};
use crate::identity::account::{ChatAccount, ChatAccounts};
use crate::identity::reviewer::PersonalTokens;
use crate::identity::secret::SecretHash;
use crate::identity::{
    AgentEntry, AuthenticatedReviewer, ReviewerEntry, ReviewerIdentity as _, ScramVerifier,
};
use crate::policy::{Decision, Denied, Terms};
use crate::samples::{SQL, after, approval, draft_of, escalation, start, terms};
use crate::statement::{Digest, Ending as StatementEnding, SessionId, TransactionStatus};

/// A ledger that remembers, and fails when notified to.
#[derive(Default)]
struct Notebook {
    records: Mutex<Vec<Event>>,
    full: AtomicBool,
}

impl Recorder for Notebook {
    fn append(&self, record: Event) -> Result<(), Unrecorded> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Unrecorded { disk_full: true });
        }
        self.records.lock().push(record);
        Ok(())
    }

    fn head(&self) -> Option<crate::approval::request::TreeHead> {
        None
    }
}

struct World {
    desk: Desk,
    notebook: Arc<Notebook>,
    directory: Arc<ArcSwap<Directory>>,
    time: Arc<Mutex<Timestamp>>,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "one kind of event is wanted")]
fn ended(event: &Event) -> Option<HoldEnd> {
    match event {
        Event::HoldEnded { end, .. } => Some(*end),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "one kind of event is wanted")]
fn refused(event: &Event) -> Option<String> {
    match event {
        Event::Review(review) => {
            review.not_counted.as_ref().map(|why| format!("{}: {why}", review.reviewer.id))
        }
        _ => None,
    }
}

fn person(id: &str, also: &[&str], groups: &[&str]) -> ReviewerEntry {
    ReviewerEntry {
        reviewer: Arc::new(Reviewer {
            id: id.into(),
            also: also.iter().map(|name| PersonName::from(*name)).collect(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
        }),
        tokens: vec![SecretHash::of(&format!("csr_{id}"))],
        accounts: vec![ChatAccount {
            channel: ChannelName::Slack,
            team: "T1".into(),
            user: format!("U-{id}"),
        }],
    }
}

fn directory() -> Directory {
    let agent = Agent {
        name: "reporting-bot".into(),
        owners: vec!["alice@corp.example".into()],
        upstreams: vec!["app".into()],
    };
    let verifier = ScramVerifier::of_password("csa_bot");
    let people = vec![
        person("alice", &["Alice@Corp.Example"], &["dba"]),
        person("bob", &[], &["dba"]),
        person("carol", &[], &["dba", "security"]),
        person("olga", &[], &["oncall"]),
    ];
    Directory::new(vec![AgentEntry::with_password(agent, verifier)], people, [7; 32]).unwrap()
}

/// One for all tests: it takes a SCRAM derivation to build, and another for each token first shown.
static DIRECTORY: std::sync::LazyLock<Arc<Directory>> = std::sync::LazyLock::new(|| Arc::new(directory()));

fn world_with(limits: Limits) -> World {
    let notebook = Arc::new(Notebook::default());
    let directory = Arc::new(ArcSwap::new(DIRECTORY.clone()));
    let time = Arc::new(Mutex::new(start()));
    let desk = Desk::new(limits, notebook.clone(), directory.clone(), Clock::manual(time.clone()));
    World { desk, notebook, directory, time }
}

fn world() -> World {
    world_with(Limits::default())
}

impl World {
    fn at(&self, seconds: u64) -> &Self {
        *self.time.lock() = after(seconds);
        self
    }

    fn open(&self, session: u128, terms: Terms) -> Opened {
        self.desk.open(draft_of(SQL, session, terms)).unwrap()
    }

    fn who(&self, id: &str) -> AuthenticatedReviewer {
        PersonalTokens.recognise(&self.directory.load(), &format!("csr_{id}"), start()).unwrap()
    }

    fn give(&self, request: &Request, verdict: Verdict, id: &str) -> Result<CountedAnswer, VerdictError> {
        let answer = Answer {
            by: self.who(id),
            digest: request.digest,
            reason: Some("because".into()),
            displayed_at: None,
        };
        self.desk.verdict(request.id, verdict, answer)
    }

    fn state(&self, request: &Request) -> HoldState {
        self.desk.request(&request.id.code()).unwrap().state
    }

    fn ends(&self) -> Vec<HoldEnd> {
        self.notebook.records.lock().iter().filter_map(ended).collect()
    }

    fn refused_reviews(&self) -> Vec<String> {
        self.notebook.records.lock().iter().filter_map(refused).collect()
    }
}

fn deferred() -> Terms {
    Terms { defer: true, ..terms() }
}

#[test]
fn an_approval_reaches_the_session_as_a_grant_and_the_ledger_before_it() {
    let world = world();
    let mut opened = world.open(1, terms());

    let counted = world.at(10).give(&opened.request, Verdict::Approve, "bob").unwrap();

    assert!(matches!(counted.state, HoldState::Granted { .. }));
    let Ok(Ending::Granted(grant)) = opened.ending.try_recv() else { panic!("no grant") };
    assert_eq!(grant.fits(&opened.request.draft.seal, after(11)), Ok(()));
    let records = world.notebook.records.lock();
    assert!(matches!(
        records.as_slice(),
        [Event::RequestOpened { .. }, Event::Review(_), Event::HoldEnded { end: HoldEnd::Granted, .. }]
    ));
}

#[test]
fn p9_what_the_ledger_cannot_write_does_not_happen() {
    let world = world();
    let mut opened = world.open(1, terms());
    world.notebook.full.store(true, Ordering::SeqCst);

    assert_eq!(world.give(&opened.request, Verdict::Approve, "bob").unwrap_err(), VerdictError::Unrecorded);
    assert_eq!(world.state(&opened.request), HoldState::Waiting);
    assert!(opened.ending.try_recv().is_err());
    let refused = world.desk.open(draft_of("COPY orders TO STDOUT", 2, terms())).unwrap_err();
    assert_eq!(refused, Refusal::LedgerUnavailable { disk_full: true });
    assert_eq!(world.desk.counts().waiting, 1, "the place of the one that was not opened is free again");

    world.notebook.full.store(false, Ordering::SeqCst);
    assert!(world.give(&opened.request, Verdict::Approve, "bob").is_ok(), "and then it does");
}

#[test]
fn p9_a_hold_still_ends_when_the_ledger_cannot_write_because_ending_runs_nothing() {
    let world = world();
    let mut opened = world.open(1, terms());
    world.notebook.full.store(true, Ordering::SeqCst);

    world.at(900).desk.on_time(after(900));

    assert!(matches!(opened.ending.try_recv(), Ok(Ending::Expired)));
}

// ---- P4 ---------------------------------------------------------------------------------------

#[test]
fn p4_an_owner_who_tries_to_approve_leaves_an_entry_on_every_channel() {
    let world = world();
    let opened = world.open(1, terms());
    let account = ChatAccount { channel: ChannelName::Slack, team: "T1".into(), user: "U-alice".into() };
    let on_slack = ChatAccounts.recognise(&world.directory.load(), &account, start()).unwrap();

    let by_token = world.give(&opened.request, Verdict::Approve, "alice").unwrap_err();
    let answer = Answer { by: on_slack, digest: opened.request.digest, reason: None, displayed_at: None };
    let by_button = world.desk.verdict(opened.request.id, Verdict::Approve, answer).unwrap_err();

    let owner = VerdictError::NotAllowed { why: NotAllowed::OwnsTheAgent };
    assert_eq!((by_token, by_button), (owner.clone(), owner.clone()));
    assert_eq!(world.refused_reviews(), [format!("alice: {owner}"), format!("alice: {owner}")]);
    assert_eq!(world.state(&opened.request), HoldState::Waiting);
}

#[test]
fn p4_an_agents_password_is_nobodys_token() {
    let directory = directory();

    for credential in ["csa_bot", "csr_bot", "bot", ""] {
        assert!(PersonalTokens.recognise(&directory, credential, start()).is_err(), "{credential}");
    }
}

#[test]
fn p4_a_reviewer_who_was_removed_after_signing_in_cannot_answer() {
    let world = world();
    let opened = world.open(1, terms());
    let bob = world.who("bob");
    let others = Directory::new(Vec::new(), vec![person("carol", &[], &["dba"])], [7; 32]).unwrap();
    world.directory.store(Arc::new(others));

    let answer = Answer { by: bob, digest: opened.request.digest, reason: None, displayed_at: None };
    let result = world.desk.verdict(opened.request.id, Verdict::Approve, answer);

    assert_eq!(result.unwrap_err(), VerdictError::NotEnrolled);
    assert_eq!(world.refused_reviews().len(), 1);
}

#[test]
fn p6_an_answer_to_another_digest_leaves_an_entry_and_does_nothing() {
    let world = world();
    let opened = world.open(1, terms());
    let digest = Digest::of(b"select 1");
    let answer = Answer { by: world.who("bob"), digest, reason: None, displayed_at: None };

    let result = world.desk.verdict(opened.request.id, Verdict::Approve, answer);

    assert_eq!(result.unwrap_err(), VerdictError::DigestMismatch);
    assert_eq!(world.refused_reviews().len(), 1);
}

// ---- sessions that leave ----------------------------------------------------------------------

#[test]
fn an_approval_for_a_session_that_left_is_told_so_and_grants_nothing() {
    let world = world();
    let Opened { request, ending } = world.open(1, terms());
    drop(ending);

    let late = world.give(&request, Verdict::Approve, "bob").unwrap_err();

    assert_eq!(
        late,
        VerdictError::TooLate { state: HoldState::Withdrawn { reason: Withdrawal::SessionGone } }
    );
    assert_eq!(world.ends(), [HoldEnd::Withdrawn]);
}

#[test]
fn a_click_after_the_agent_cancelled_is_told_what_happened() {
    let world = world();
    let mut opened = world.open(1, terms());
    world.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);
    world.desk.withdraw(opened.request.id, Withdrawal::SessionEnded);

    assert!(matches!(opened.ending.try_recv(), Ok(Ending::Withdrawn { reason: Withdrawal::AgentCancelled })));
    let late = world.give(&opened.request, Verdict::Approve, "bob").unwrap_err();
    assert_eq!(late.to_string(), "too late: the request is withdrawn already");
    assert_eq!(world.ends(), [HoldEnd::Withdrawn], "one end, once");
}

#[test]
fn the_receipt_comes_back_to_the_card() {
    let world = world();
    let mut events = world.desk.subscribe();
    let opened = world.open(1, terms());
    world.give(&opened.request, Verdict::Approve, "bob").unwrap();
    let outcome = Outcome {
        ending: StatementEnding::Completed { tag: "COPY 42".into() },
        rows: 42,
        bytes: 4096,
        transaction: Some(TransactionStatus::Idle),
        result_digest: None,
    };

    world.desk.ran(opened.request.id, &outcome, Duration::from_millis(1500));

    let view = world.desk.request(&opened.request.id.0.to_string()).unwrap();
    assert_eq!(view.state, HoldState::Executed);
    assert_eq!(view.receipt.as_ref().map(|receipt| receipt.result.as_str()), Some("COPY 42"));
    let names: Vec<&str> = std::iter::from_fn(|| events.try_recv().ok())
        .map(|event| match event {
            DeskEvent::Opened { .. } => "opened",
            DeskEvent::Reviewed { .. } => "reviewed",
            DeskEvent::Ended { state, .. } => state.as_str(),
            DeskEvent::Ran { .. } => "ran",
            DeskEvent::Joined { .. } | DeskEvent::Escalated { .. } | DeskEvent::LeftOver { .. } => "other",
        })
        .collect();
    assert_eq!(names, ["opened", "reviewed", "granted", "executed", "ran"]);
}

// ---- the clock --------------------------------------------------------------------------------

#[test]
fn an_escalation_is_announced_and_recorded_when_its_time_has_come() {
    let world = world();
    let mut events = world.desk.subscribe();
    let opened = world.open(1, Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() });
    assert!(world.give(&opened.request, Verdict::Approve, "olga").is_err());

    assert_eq!(world.desk.on_time(after(299)), Some(after(300)));
    world.at(300).desk.on_time(after(300));

    assert!(
        std::iter::from_fn(|| events.try_recv().ok())
            .any(|event| matches!(event, DeskEvent::Escalated { to, .. } if to.as_str() == "oncall"))
    );
    let view = world.desk.request(&opened.request.id.code()).unwrap();
    assert_eq!(view.may_answer, ["bob".into(), "carol".into(), "olga".into()]);
    assert!(world.give(&opened.request, Verdict::Approve, "olga").is_ok());
}

#[tokio::test]
async fn a_request_expires_by_itself() {
    let world = world();
    let timers = world.desk.clone();
    tokio::spawn(async move { timers.run_timers().await });
    let opened = world.open(1, terms());
    world.at(900);
    // The made-up clock moves without the runtime's noticing; any event wakes the timers.
    world.open(2, terms());

    assert!(matches!(opened.ending.await, Ok(Ending::Expired)));
}

#[test]
fn a_session_that_left_without_a_word_is_noticed() {
    let world = world();
    let Opened { request, ending } = world.open(1, terms());
    drop(ending);

    world.desk.sweep();

    assert_eq!(world.state(&request), HoldState::Withdrawn { reason: Withdrawal::SessionGone });
}

// ---- memory -----------------------------------------------------------------------------------

#[test]
fn what_has_ended_is_forgotten_in_the_end() {
    let world = world_with(Limits { history: 3, ..Limits::default() });
    let mut ids = Vec::new();
    for session in 0..5 {
        let opened = world.open(session, terms());
        world.desk.withdraw(opened.request.id, Withdrawal::SessionEnded);
        ids.push(opened.request.id);
    }

    assert_eq!(world.desk.requests(&Filter::default()).len(), 3);
    assert!(world.desk.request(&ids[0].code()).is_none());
    let answer = Answer { by: world.who("bob"), digest: Digest::of(b""), reason: None, displayed_at: None };
    assert_eq!(world.desk.verdict(ids[0], Verdict::Approve, answer).unwrap_err(), VerdictError::Unknown);
}

#[test]
fn channels_are_told_of_requests_of_an_earlier_run() {
    let world = world();
    let mut events = world.desk.subscribe();
    let left = RequestId(Uuid::from_u128(5));

    world.desk.close_left_over(&[left]);

    assert!(matches!(events.try_recv(), Ok(DeskEvent::LeftOver { id }) if id == left));
}

#[test]
fn lists_are_filtered_and_say_who_may_answer() {
    let world = world();
    let opened = world.open(1, Terms { approvals: vec![approval("dba", 2)], ..terms() });
    world.give(&opened.request, Verdict::Approve, "bob").unwrap();

    let [view] = &world.desk.requests(&Filter::waiting())[..] else { panic!("one waits") };
    assert_eq!(view.missing, [approval("dba", 1)]);
    assert_eq!(view.may_answer, ["carol".into()], "alice owns the agent, bob has answered");
    let json = serde_json::to_value(view.to_json(false)).unwrap();
    for key in ["id", "state", "class", "agent", "upstream", "sql", "digest", "expires_at"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    let agent = |name: &str| Filter { agent: Some(AgentName::new(name)), ..Filter::default() };
    assert_eq!(world.desk.requests(&agent("other-bot")).len(), 0);
    assert_eq!(world.desk.requests(&agent("reporting-bot")).len(), 1);
    let for_alice = Filter { for_reviewer: Some("alice".into()), ..Filter::waiting() };
    assert_eq!(world.desk.requests(&for_alice).len(), 0);
}

// ---- everybody at once ------------------------------------------------------------------------

#[test]
fn p2_of_many_answers_at_once_exactly_one_ending_reaches_the_session() {
    for round in 0..200 {
        let world = world();
        let mut opened = world.open(1, terms());
        let request = opened.request.clone();
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                let _ = world.give(&request, Verdict::Approve, "bob");
            });
            scope.spawn(|| {
                barrier.wait();
                let _ = world.give(&request, Verdict::Deny, "carol");
            });
            scope.spawn(|| {
                barrier.wait();
                world.desk.withdraw(request.id, Withdrawal::AgentCancelled);
            });
            scope.spawn(|| {
                barrier.wait();
                // Alternately in time and too late for the others.
                let late = if round % 2 == 0 { 900 } else { 1 };
                world.at(late).desk.on_time(after(late));
            });
        });

        let ending = opened.ending.try_recv().expect("an ending");
        let ends = world.ends();
        match ending {
            // A grant that was sent may be withdrawn afterwards, by the cancel; it is still one.
            Ending::Granted(_) => {
                assert!(ends.first() == Some(&HoldEnd::Granted) && ends.len() <= 2, "{ends:?}")
            }
            Ending::Denied { .. } => assert_eq!(ends, [HoldEnd::Denied]),
            Ending::Expired => assert_eq!(ends.last(), Some(&HoldEnd::Expired)),
            Ending::Withdrawn { .. } => assert_eq!(ends, [HoldEnd::Withdrawn]),
            Ending::Lapsed(why) => panic!("nothing has changed: {why}"),
        }
        assert!(opened.ending.try_recv().is_err(), "and no second one");
    }
}

#[test]
fn p2_a_deferred_grant_is_claimed_by_one_of_many_sessions() {
    for _ in 0..100 {
        let world = world();
        let opened = world.open(1, deferred());
        world.give(&opened.request, Verdict::Approve, "bob").unwrap();
        let claimed: usize = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| matches!(world.desk.claim(&opened.request.draft.seal), Claim::Granted(_)))
                })
                .collect();
            claims.into_iter().map(|claim| usize::from(claim.join().unwrap())).sum()
        });

        assert_eq!(claimed, 1);
    }
}

//! Promises P2, P4 and P6 at the hold, and every race between an answer, the clock and the session.

mod release;
mod sequences;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::approval::seal::SealedSetting;
use crate::policy::{Decision, Terms};
use crate::samples::*;

/// Considers and applies, as the desk does when the ledger writes.
fn give(
    hold: Hold,
    verdict: Verdict,
    by: &Arc<Reviewer>,
    crowd: &SamplePeople,
    at: u64,
) -> (Hold, Result<(), VerdictError>) {
    let reply = reply(by, hold.request());
    give_reply(hold, verdict, &reply, crowd, at)
}

fn give_reply(
    hold: Hold,
    verdict: Verdict,
    reply: &Reply,
    crowd: &SamplePeople,
    at: u64,
) -> (Hold, Result<(), VerdictError>) {
    match hold.check_answer(verdict, reply, crowd, after(at)) {
        Ok(checked) => (hold.on_verdict(checked, after(at)), Ok(())),
        Err(error) => (hold, Err(error)),
    }
}

fn bob() -> Arc<Reviewer> {
    reviewer("bob@example.com", &["dba"])
}

fn carol() -> Arc<Reviewer> {
    reviewer("carol@example.com", &["dba", "security"])
}

fn waiting(terms: Terms) -> Hold {
    Hold::new(request(terms))
}

#[test]
fn an_approval_makes_one_grant_for_what_was_shown() {
    let (mut hold, result) =
        give(waiting(terms()), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 10);
    assert_eq!(result, Ok(()));
    assert_eq!(hold.state(), &HoldState::Granted { until: after(70), handed_out: false });

    let grant = hold.take_grant(after(11)).unwrap();
    assert_eq!(grant.seal(), &hold.request().draft.seal);
    assert_eq!(grant.approvals()[0].reviewer.as_str(), "bob@example.com");
    assert!(hold.take_grant(after(11)).is_none(), "a grant leaves the hold once");
}

// ---- races ------------------------------------------------------------------------------------

#[test]
fn approval_after_the_deadline_does_not_grant() {
    let (hold, result) = give(waiting(terms()), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 900);

    assert_eq!(result, Err(VerdictError::TooLate { state: HoldState::Expired }));
    assert_eq!(hold.on_time(after(900)).state(), &HoldState::Expired);
}

#[test]
fn approval_one_moment_before_the_deadline_grants() {
    let (hold, result) = give(waiting(terms()), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 899);

    assert_eq!(result, Ok(()));
    assert!(matches!(hold.state(), HoldState::Granted { .. }));
}

#[test]
fn approval_and_denial_at_once_end_as_the_first_of_them() {
    let crowd = SamplePeople::of(&[&bob(), &carol()]);
    let (hold, _) = give(waiting(terms()), Verdict::Deny, &carol(), &crowd, 5);
    let (mut hold, late) = give(hold, Verdict::Approve, &bob(), &crowd, 5);
    assert!(matches!(late, Err(VerdictError::TooLate { state: HoldState::Denied { .. } })));
    assert!(hold.take_grant(after(5)).is_none());

    let (mut hold, _) = give(waiting(terms()), Verdict::Approve, &bob(), &crowd, 5);
    hold.take_grant(after(5)).unwrap();
    let (_, late) = give(hold, Verdict::Deny, &carol(), &crowd, 5);
    assert!(matches!(late, Err(VerdictError::TooLate { state: HoldState::Granted { .. } })));
}

#[test]
fn approval_after_the_agent_left_does_nothing_and_says_so() {
    let hold = waiting(terms()).on_withdrawn(Withdrawal::AgentCancelled, after(1));

    let (mut hold, late) = give(hold, Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 5);

    assert_eq!(
        late,
        Err(VerdictError::TooLate { state: HoldState::Withdrawn { reason: Withdrawal::AgentCancelled } })
    );
    assert!(hold.take_grant(after(5)).is_none());
}

#[test]
fn what_was_considered_before_something_else_happened_is_void() {
    let crowd = SamplePeople::of(&[&bob()]);
    let hold = waiting(terms());
    let checked =
        hold.check_answer(Verdict::Approve, &reply(&bob(), hold.request()), &crowd, after(5)).unwrap();

    let mut hold = hold.on_withdrawn(Withdrawal::AgentDisconnected, after(5)).on_verdict(checked, after(5));

    assert!(matches!(hold.state(), HoldState::Withdrawn { .. }));
    assert!(hold.take_grant(after(5)).is_none());
}

#[test]
fn an_answer_that_took_past_the_deadline_to_write_down_does_not_grant() {
    let hold = waiting(terms());
    let crowd = SamplePeople::of(&[&bob()]);
    let checked =
        hold.check_answer(Verdict::Approve, &reply(&bob(), hold.request()), &crowd, after(899)).unwrap();

    let hold = hold.on_verdict(checked, after(901));

    assert_eq!(hold.state(), &HoldState::Expired);
}

#[test]
fn what_is_past_its_deadline_has_expired_and_is_not_withdrawn() {
    assert_eq!(
        waiting(terms()).on_withdrawn(Withdrawal::AgentDisconnected, after(900)).state(),
        &HoldState::Expired
    );
}

#[test]
fn p4_a_denial_takes_back_a_grant_that_nobody_has_used() {
    let deferred = Terms { defer: true, ..terms() };
    let crowd = SamplePeople::of(&[&bob(), &carol()]);
    let (hold, _) = give(waiting(deferred), Verdict::Approve, &bob(), &crowd, 10);

    let (mut hold, result) = give(hold, Verdict::Deny, &carol(), &crowd, 20);

    assert_eq!(result, Ok(()));
    assert_eq!(hold.state(), &HoldState::Withdrawn { reason: Withdrawal::TakenBack });
    assert!(hold.take_grant(after(20)).is_none());
}

#[test]
fn a_grant_that_nobody_took_expires() {
    let deferred = Terms { defer: true, ..terms() };
    let (hold, _) = give(waiting(deferred), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 10);
    assert_eq!(hold.next_change(), Some(after(910)));

    let mut hold = hold.on_time(after(910));

    assert_eq!(hold.state(), &HoldState::Expired);
    assert!(hold.take_grant(after(910)).is_none());
}

#[test]
fn a_grant_is_not_handed_out_past_its_life_even_if_no_timer_fired() {
    let (mut hold, _) = give(waiting(terms()), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 10);

    assert!(hold.take_grant(after(70)).is_none());
}

#[test]
fn only_what_was_handed_out_can_have_run() {
    let (hold, _) = give(waiting(terms()), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 10);
    let mut hold = hold.on_ran();
    assert!(matches!(hold.state(), HoldState::Granted { handed_out: false, .. }));

    hold.take_grant(after(11)).unwrap();
    let hold = hold.on_time(after(5000)).on_ran();
    assert_eq!(hold.state(), &HoldState::Executed);
    assert_eq!(hold.on_withdrawn(Withdrawal::SessionEnded, after(5000)).state(), &HoldState::Executed);
}

// ---- P2: what a grant covers ------------------------------------------------------------------

#[test]
fn p2_a_grant_covers_the_sealed_statement_and_nothing_else() {
    let (mut hold, _) = give(waiting(terms()), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 10);
    let seal = hold.request().draft.seal.clone();
    let grant = hold.take_grant(after(10)).unwrap();
    let other = |change: &dyn Fn(&mut Seal)| {
        let mut seal = seal.clone();
        change(&mut seal);
        grant.fits(&seal, after(10)).unwrap_err()
    };

    assert_eq!(grant.fits(&seal, after(10)), Ok(()));
    assert_eq!(grant.fits(&seal, after(70)), Err(GrantMismatch::Expired));
    assert_eq!(other(&|seal| seal.statement = Digest::of(b"another")), SealDifference::Statement.into());
    assert_eq!(other(&|seal| seal.agent = "other-bot".into()), SealDifference::Agent.into());
    assert_eq!(other(&|seal| seal.session = None), SealDifference::Session.into());
    assert_eq!(other(&|seal| seal.upstream = "billing".into()), SealDifference::Upstream.into());
    assert_eq!(other(&|seal| seal.database = "postgres".into()), SealDifference::Database.into());
    assert_eq!(other(&|seal| seal.role = "postgres".into()), SealDifference::Role.into());
    let set = |seal: &mut Seal, name: &str, value: &str| {
        seal.settings.insert(name.into(), SealedSetting::Known(value.into()));
    };
    let changed = GrantMismatch::from(SealDifference::Setting { name: "search_path".into() });
    assert_eq!(other(&|seal| set(seal, "search_path", "evil")), changed);
    assert_eq!(other(&|seal| seal.settings.clear()), changed);
    assert_eq!(
        other(&|seal| set(seal, "role", "postgres")),
        SealDifference::Setting { name: "role".into() }.into()
    );
}

#[test]
fn p2_a_deferred_grant_fits_any_session_of_its_agent() {
    let deferred = Terms { defer: true, ..terms() };
    let (mut hold, _) = give(waiting(deferred), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob()]), 10);
    let grant = hold.take_grant(after(100)).unwrap();
    let mut seal = hold.request().draft.seal.clone();
    seal.session = Some(crate::statement::SessionId(uuid::Uuid::from_u128(99)));

    assert_eq!(grant.fits(&seal, after(100)), Ok(()));
}

#[test]
fn p2_a_draft_whose_seal_speaks_of_something_else_is_no_request() {
    let id = RequestId(uuid::Uuid::from_u128(1));
    let open = |change: fn(&mut crate::approval::Draft)| {
        let mut draft = draft_of(SQL, 1, terms());
        change(&mut draft);
        Request::open(id, draft, start(), None, Vec::new(), None).map(|_| ())
    };
    let differs = Err(crate::approval::request::BadDraft::SealDiffers);

    assert_eq!(open(|_| ()), Ok(()));
    assert_eq!(open(|draft| draft.seal.statement = Digest::of(b"DROP TABLE customers")), differs);
    assert_eq!(open(|draft| draft.seal.agent = "other-bot".into()), differs);
    assert_eq!(open(|draft| draft.seal.role = "postgres".into()), differs);
    assert_eq!(
        open(|draft| draft.seal.session = None),
        differs,
        "a grant for any session is for deferred holds only"
    );
    assert_eq!(open(|draft| draft.terms.defer = true), differs);
}

// ---- P4: who may answer -----------------------------------------------------------------------

#[test]
fn p4_an_owner_cannot_approve_or_escalate_but_can_deny() {
    let alice = reviewer("alice@example.com", &["dba"]);
    let crowd = SamplePeople::of(&[&alice]);
    let refused = Err(VerdictError::NotAllowed { why: NotAllowed::OwnsTheAgent });

    let (hold, result) = give(waiting(terms()), Verdict::Approve, &alice, &crowd, 5);
    assert_eq!(result, refused);
    let (hold, result) = give(hold, Verdict::Escalate, &alice, &crowd, 5);
    assert_eq!(result, refused);
    let (hold, result) = give(hold, Verdict::Deny, &alice, &crowd, 5);
    assert_eq!(result, Ok(()));
    assert!(matches!(hold.state(), HoldState::Denied { .. }));
}

#[test]
fn p4_somebody_who_becomes_an_owner_after_approving_no_longer_counts() {
    let two = Terms { approvals: vec![approval("dba", 2)], ..terms() };
    let mut crowd = SamplePeople::of(&[&bob(), &carol()]);
    let (hold, _) = give(waiting(two), Verdict::Approve, &bob(), &crowd, 5);
    crowd.owners = vec!["BOB@example.com".into()];

    let (hold, result) = give(hold, Verdict::Approve, &carol(), &crowd, 6);

    assert_eq!(result, Ok(()));
    assert_eq!(hold.state(), &HoldState::Waiting);
}

#[test]
fn p4_somebody_who_leaves_the_group_after_approving_no_longer_counts() {
    let two = Terms { approvals: vec![approval("dba", 2)], ..terms() };
    let (hold, _) = give(waiting(two), Verdict::Approve, &bob(), &SamplePeople::of(&[&bob(), &carol()]), 5);
    let moved = reviewer("bob@example.com", &["marketing"]);

    let (hold, _) = give(hold, Verdict::Approve, &carol(), &SamplePeople::of(&[&moved, &carol()]), 6);

    assert_eq!(hold.state(), &HoldState::Waiting);
}

#[test]
fn p4_nobody_counts_twice_on_whatever_channel() {
    let two = Terms { approvals: vec![approval("dba", 2)], ..terms() };
    let crowd = SamplePeople::of(&[&bob(), &carol()]);
    let (hold, _) = give(waiting(two), Verdict::Approve, &bob(), &crowd, 5);
    let on_slack = Reply { channel: ChannelName::Slack, ..reply(&bob(), hold.request()) };

    let (hold, again) = give_reply(hold, Verdict::Approve, &on_slack, &crowd, 6);

    assert_eq!(again, Err(VerdictError::AlreadyAnswered));
    assert_eq!(hold.state(), &HoldState::Waiting);
}

#[test]
fn p4_somebody_who_approved_may_still_deny_while_others_are_asked() {
    let two = Terms { approvals: vec![approval("dba", 2)], ..terms() };
    let crowd = SamplePeople::of(&[&bob()]);
    let (hold, _) = give(waiting(two), Verdict::Approve, &bob(), &crowd, 5);

    let (hold, result) = give(hold, Verdict::Deny, &bob(), &crowd, 6);

    assert_eq!(result, Ok(()));
    assert!(matches!(hold.state(), HoldState::Denied { .. }));
}

#[test]
fn p4_an_approval_that_is_not_sure_enough_does_not_count_and_a_denial_does() {
    let strict = Terms { assurance: Assurance::Login, ..terms() };
    let crowd = SamplePeople::of(&[&bob()]);

    let (hold, result) = give(waiting(strict), Verdict::Approve, &bob(), &crowd, 5);
    assert_eq!(
        result,
        Err(VerdictError::AssuranceTooLow { needed: Assurance::Login, had: Assurance::Click })
    );
    let (hold, result) = give(hold, Verdict::Deny, &bob(), &crowd, 6);
    assert_eq!(result, Ok(()));
    assert!(hold.state().is_final());
}

#[test]
fn p6_an_answer_to_something_else_than_what_waits_does_not_count() {
    let hold = waiting(terms());
    let saw_another = Reply { digest: Digest::of(b"select 1"), ..reply(&bob(), hold.request()) };

    let (hold, result) = give_reply(hold, Verdict::Approve, &saw_another, &SamplePeople::of(&[&bob()]), 5);

    assert_eq!(result, Err(VerdictError::DigestMismatch));
    assert_eq!(hold.state(), &HoldState::Waiting);
}

// ---- reasons, haste, escalation ---------------------------------------------------------------

#[test]
fn a_rule_that_wants_a_reason_gets_one() {
    let hold = waiting(Terms { reason_required: true, ..terms() });
    let blank = Reply { reason: Some("  \n".into()), ..reply(&bob(), hold.request()) };
    let unseen = Reply { reason: Some("\u{200B}\u{2060} ".into()), ..reply(&bob(), hold.request()) };
    let long = Reply { reason: Some("x".repeat(2_001)), ..reply(&bob(), hold.request()) };
    let given = Reply { reason: Some(" ticket 7 ".into()), ..reply(&bob(), hold.request()) };
    let crowd = SamplePeople::of(&[&bob()]);

    let (hold, result) = give_reply(hold, Verdict::Approve, &blank, &crowd, 5);
    assert_eq!(result, Err(VerdictError::ReasonRequired));
    let (hold, result) = give_reply(hold, Verdict::Approve, &unseen, &crowd, 5);
    assert_eq!(result, Err(VerdictError::ReasonRequired));
    let (hold, result) = give_reply(hold, Verdict::Approve, &long, &crowd, 5);
    assert_eq!(result, Err(VerdictError::ReasonTooLong { limit: 2_000 }));
    let (hold, _) = give_reply(hold, Verdict::Approve, &given, &crowd, 5);
    assert_eq!(hold.reviews()[0].reason.as_deref(), Some("ticket 7"));
}

#[test]
fn an_approval_sooner_than_it_can_be_read_is_flagged() {
    let quick = |at, displayed_at: Option<u64>| {
        let hold = waiting(terms());
        let reply = Reply { displayed_at: displayed_at.map(after), ..reply(&bob(), hold.request()) };
        let (hold, _) = give_reply(hold, Verdict::Approve, &reply, &SamplePeople::of(&[&bob()]), at);
        hold.reviews()[0].quick
    };

    assert!(quick(2, None));
    assert!(!quick(3, None));
    assert!(quick(60, Some(58)));
    assert!(!quick(60, Some(30)));
    // A channel whose clock is wrong does not make haste look like care, nor the other way round.
    assert!(!quick(60, Some(500)));
}

fn stand_in(id: &str) -> Arc<Reviewer> {
    reviewer(id, &["oncall"])
}

fn escalating() -> Terms {
    Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() }
}

#[test]
fn an_escalation_lets_its_group_answer_when_its_time_has_come() {
    let crowd = SamplePeople::of(&[&bob(), &stand_in("olga")]);

    let (hold, early) = give(waiting(escalating()), Verdict::Approve, &stand_in("olga"), &crowd, 299);
    assert_eq!(early, Err(VerdictError::NotYet { from: after(300) }));
    assert_eq!(hold.next_change(), Some(after(300)));
    // No timer has fired.
    let (hold, in_time) = give(hold, Verdict::Approve, &stand_in("olga"), &crowd, 300);
    assert_eq!(in_time, Ok(()));
    assert!(matches!(hold.state(), HoldState::Granted { .. }));
}

#[test]
fn p4_no_escalation_by_hand_lets_a_stand_in_approve_before_their_time() {
    let crowd = SamplePeople::of(&[&bob(), &stand_in("olga"), &stand_in("otto")]);
    let not_yet = Err(VerdictError::NotYet { from: after(300) });

    for who in [bob(), stand_in("olga"), stand_in("otto")] {
        let (hold, notified) = give(waiting(escalating()), Verdict::Escalate, &who, &crowd, 10);
        assert_eq!((notified, hold.notified(), hold.steps()), (Ok(()), 1, 0));
        assert_eq!(hold.next_change(), Some(after(300)), "the clock brings it into force");
        let (hold, again) = give(hold, Verdict::Escalate, &who, &crowd, 11);
        assert_eq!(again, Err(VerdictError::AlreadyAnswered));
        let (hold, early) = give(hold, Verdict::Approve, &stand_in("olga"), &crowd, 12);
        assert_eq!(early, not_yet);
        assert_eq!(hold.missing_at(&crowd, after(12)), [approval("dba", 1)]);
        let (hold, in_time) = give(hold, Verdict::Approve, &stand_in("olga"), &crowd, 300);
        assert_eq!(in_time, Ok(()));
        assert!(matches!(hold.state(), HoldState::Granted { .. }));
    }
}

#[test]
fn of_several_stand_ins_each_waits_for_its_own_time() {
    let two = Terms {
        escalate: vec![escalation(60, "leads", &["dba"]), escalation(300, "oncall", &["dba"])],
        ..terms()
    };
    let lead = reviewer("lena", &["leads"]);
    let crowd = SamplePeople::of(&[&bob(), &lead, &stand_in("olga")]);
    let (hold, _) = give(waiting(two), Verdict::Escalate, &bob(), &crowd, 5);
    let (hold, second) = give(hold, Verdict::Escalate, &lead, &crowd, 6);
    assert_eq!((second, hold.notified()), (Ok(()), 2));
    let (hold, further) = give(hold, Verdict::Escalate, &stand_in("olga"), &crowd, 7);
    assert_eq!(further, Err(VerdictError::NoFurtherStep));

    let (hold, early) = give(hold, Verdict::Approve, &stand_in("olga"), &crowd, 100);
    assert_eq!(early, Err(VerdictError::NotYet { from: after(300) }));
    let (_, in_time) = give(hold, Verdict::Approve, &lead, &crowd, 100);
    assert_eq!(in_time, Ok(()));
}

#[test]
fn a_stand_in_gives_a_reason_where_the_rule_wants_one() {
    let strict = Terms { reason_required: true, ..escalating() };
    let olga = stand_in("olga");

    let (hold, result) = give(waiting(strict), Verdict::Approve, &olga, &SamplePeople::of(&[&olga]), 400);

    assert_eq!(result, Err(VerdictError::ReasonRequired));
    assert_eq!(hold.state(), &HoldState::Waiting);
}

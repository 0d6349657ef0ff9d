//! A grant is judged once more when it is used, and a request whenever policy or people change.

use super::*;

fn granted(terms: Terms, crowd: &SamplePeople, at: u64, by: &[Arc<Reviewer>]) -> Hold {
    let mut hold = waiting(terms);
    for reviewer in by {
        let reply = Reply { reason: Some("ticket 7".into()), ..reply(reviewer, hold.request()) };
        let (next, result) = give_reply(hold, Verdict::Approve, &reply, crowd, at);
        assert_eq!(result, Ok(()));
        hold = next;
    }
    assert!(matches!(hold.state(), HoldState::Granted { .. }), "{:?}", hold.state());
    hold
}

fn release(mut hold: Hold, decision: &Decision, crowd: &SamplePeople, at: u64) -> Result<Digest, VoidReason> {
    let seal = hold.request().draft.seal.clone();
    let grant = hold.take_grant(after(at)).expect("a grant");
    grant.release(&seal, decision, crowd, after(at)).map(|release| release.policy())
}

fn newer(terms: Terms) -> Decision {
    Decision::Hold(Terms { policy: Digest::of(b"newer policy"), ..terms })
}

fn denied() -> Decision {
    Decision::Deny(crate::policy::Denied {
        rule: "freeze".into(),
        message: Some("frozen".into()),
        policy: Digest::of(b"newer policy"),
    })
}

fn denied_by_policy() -> VoidReason {
    VoidReason::DeniedByPolicy { rule: "freeze".into(), message: Some("frozen".into()) }
}

fn allowed() -> Decision {
    Decision::Allow(crate::policy::Allowed::for_test(Some("fine".into()), Digest::of(b"newer policy")))
}

#[test]
fn p2_a_grant_that_stands_is_released_under_the_policy_that_judged_it() {
    let crowd = SamplePeople::of(&[&bob()]);
    let released =
        |decision: &Decision| release(granted(terms(), &crowd, 10, &[bob()]), decision, &crowd, 11);

    assert_eq!(released(&newer(terms())), Ok(Digest::of(b"newer policy")));
    assert_eq!(released(&allowed()), Ok(Digest::of(b"newer policy")));
}

#[test]
fn a_grant_that_the_policy_in_force_denies_is_void() {
    let crowd = SamplePeople::of(&[&bob()]);

    assert_eq!(
        release(granted(terms(), &crowd, 10, &[bob()]), &denied(), &crowd, 11),
        Err(denied_by_policy())
    );
}

#[test]
fn a_grant_satisfies_the_terms_in_force_or_is_void() {
    let crowd = SamplePeople::of(&[&bob(), &carol()]);
    let two = || Terms { approvals: vec![approval("dba", 2)], ..terms() };
    let judged = |own: Terms, by: &[Arc<Reviewer>], now: Terms| {
        release(granted(own, &crowd, 10, by), &newer(now), &crowd, 11).map(|_| ())
    };
    let stricter = |what| Err(VoidReason::Stricter { what });
    let approvals = || stricter("other or more approvals");
    let security = || Terms { approvals: vec![approval("security", 1)], ..terms() };

    assert_eq!(judged(terms(), &[bob()], two()), approvals());
    assert_eq!(judged(terms(), &[bob()], security()), approvals());
    assert_eq!(judged(terms(), &[carol()], security()), Ok(()), "she is in both groups");
    assert_eq!(judged(two(), &[bob(), carol()], two()), Ok(()));
    assert_eq!(judged(two(), &[bob(), carol()], terms()), Ok(()), "more than is asked now");
    let login = Terms { assurance: Assurance::Login, ..terms() };
    assert_eq!(judged(terms(), &[bob()], login), approvals(), "a click is not a login");
    let short = Terms { expires: Duration::from_secs(5), ..terms() };
    assert_eq!(judged(terms(), &[bob()], short), stricter("an approval in less time"));
    let with_reason = Terms { reason_required: true, ..terms() };
    assert_eq!(judged(terms(), &[bob()], with_reason), Ok(()), "he gave one");
}

#[test]
fn an_approval_without_a_reason_does_not_satisfy_a_policy_that_wants_one_by_now() {
    let crowd = SamplePeople::of(&[&bob()]);
    let (hold, _) = give(waiting(terms()), Verdict::Approve, &bob(), &crowd, 10);

    let lapsed = release(hold, &newer(Terms { reason_required: true, ..terms() }), &crowd, 11);

    assert_eq!(lapsed, Err(VoidReason::Stricter { what: "other or more approvals" }));
}

#[test]
fn a_stand_in_who_answered_in_time_is_void_when_the_policy_lets_them_answer_later_by_now() {
    let crowd = SamplePeople::of(&[&stand_in("olga")]);
    let hold = || granted(escalating(), &crowd, 400, &[stand_in("olga")]);
    let later = Terms { escalate: vec![escalation(600, "oncall", &["dba"])], ..terms() };

    assert!(release(hold(), &newer(later), &crowd, 401).is_err());
    assert!(release(hold(), &newer(escalating()), &crowd, 401).is_ok());
}

#[test]
fn p4_a_grant_is_void_when_somebody_who_approved_could_not_any_more() {
    let before = SamplePeople::of(&[&bob(), &carol()]);
    let owner = SamplePeople { owners: vec!["mailto:BOB@example.com".into()], ..before.clone() };
    let also = Arc::new(Reviewer { also: vec!["alice@example.com".into()], ..(*bob()).clone() });
    let changes = [
        ("removed", SamplePeople::of(&[&carol()])),
        ("left the group", SamplePeople::of(&[&reviewer("bob@example.com", &["marketing"]), &carol()])),
        ("owns the agent", owner),
        ("is the owner by another name", SamplePeople::of(&[&also, &carol()])),
        ("goes by the agent's name", {
            let twin = Reviewer { also: vec!["Reporting-Bot".into()], ..(*bob()).clone() };
            SamplePeople::of(&[&Arc::new(twin), &carol()])
        }),
    ];
    let deferred = Terms { defer: true, ..terms() };
    let two = Terms { approvals: vec![approval("dba", 2)], ..terms() };

    for (what, now) in &changes {
        for (own, by) in
            [(terms(), vec![bob()]), (deferred.clone(), vec![bob()]), (two.clone(), vec![bob(), carol()])]
        {
            for decision in [newer(own.clone()), allowed()] {
                let lapsed = release(granted(own.clone(), &before, 10, &by), &decision, now, 20);
                assert_eq!(lapsed, Err(VoidReason::ApproversChanged), "{what}");
            }
            let unused = granted(own.clone(), &before, 10, &by);
            assert_eq!(
                unused.reconsider(&newer(own), now, after(20)),
                Err(VoidReason::ApproversChanged),
                "{what}, unused"
            );
        }
    }
}

#[test]
fn a_grant_of_an_agent_that_was_revoked_or_moved_is_void() {
    let crowd = SamplePeople::of(&[&bob()]);
    let gone = SamplePeople { agent_is_gone: true, ..crowd.clone() };

    let lapsed = release(granted(terms(), &crowd, 10, &[bob()]), &newer(terms()), &gone, 11);

    assert_eq!(lapsed, Err(VoidReason::AgentRevoked));
    assert_eq!(waiting(terms()).reconsider(&newer(terms()), &gone, after(1)), Err(VoidReason::AgentRevoked));
}

#[test]
fn a_deferred_grant_lives_no_longer_than_the_policy_in_force_says() {
    let crowd = SamplePeople::of(&[&bob()]);
    let deferred = |seconds| Terms { defer: true, expires: Duration::from_secs(seconds), ..terms() };
    let hold = || granted(deferred(900), &crowd, 10, &[bob()]);

    assert!(release(hold(), &newer(deferred(60)), &crowd, 69).is_ok());
    assert_eq!(
        release(hold(), &newer(deferred(60)), &crowd, 70),
        Err(VoidReason::Stricter { what: "an approval in less time" })
    );
    let not_deferred = Terms { defer: false, ..deferred(900) };
    assert_eq!(
        release(hold(), &newer(not_deferred), &crowd, 20),
        Err(VoidReason::Stricter { what: "it may not be deferred" })
    );
}

#[test]
fn what_waits_goes_on_waiting_unless_the_policy_in_force_denies_it_or_asks_for_more() {
    let crowd = SamplePeople::of(&[&bob()]);
    let own = || Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() };
    let judged = |decision: &Decision| waiting(own()).reconsider(decision, &crowd, after(10));
    let stricter = |what| Err(VoidReason::Stricter { what });

    assert_eq!(judged(&newer(own())), Ok(()));
    assert_eq!(judged(&allowed()), Ok(()), "sent again it runs; this one may still be answered");
    assert_eq!(judged(&newer(Terms { rules: vec!["renamed".into()], ..own() })), Ok(()));
    assert_eq!(judged(&newer(Terms { expires: Duration::from_secs(100), ..own() })), Ok(()));
    assert_eq!(judged(&denied()), Err(denied_by_policy()));
    let approvals = |asked| newer(Terms { approvals: asked, ..own() });
    assert_eq!(judged(&approvals(vec![approval("dba", 2)])), stricter("other or more approvals"));
    assert_eq!(judged(&approvals(vec![approval("security", 1)])), stricter("other or more approvals"));
    assert_eq!(
        judged(&newer(Terms { reason_required: true, ..own() })),
        stricter("a reason with the answer")
    );
    assert_eq!(judged(&newer(Terms { assurance: Assurance::Login, ..own() })), stricter("more assurance"));
    assert_eq!(judged(&newer(terms())), stricter("stand-ins later, or none"));
    let later = Terms { escalate: vec![escalation(301, "oncall", &["dba"])], ..own() };
    assert_eq!(judged(&newer(later)), stricter("stand-ins later, or none"));
    let earlier = Terms { escalate: vec![escalation(60, "oncall", &["dba"])], ..own() };
    assert_eq!(judged(&newer(earlier)), Ok(()));
}

#[test]
fn what_has_ended_or_is_in_a_sessions_hand_is_not_judged_from_afar() {
    let crowd = SamplePeople::of(&[&bob()]);
    let mut handed_out = granted(terms(), &crowd, 10, &[bob()]);
    handed_out.take_grant(after(11)).unwrap();

    assert_eq!(handed_out.reconsider(&denied(), &crowd, after(12)), Ok(()));
    assert_eq!(waiting(terms()).reconsider(&denied(), &crowd, after(900)), Ok(()), "it has expired");
}

#[test]
fn those_who_would_be_asked_later_may_say_no_now() {
    let oncall = reviewer("olga@example.com", &["oncall"]);
    let with_steps = Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() };

    let (hold, result) = give(waiting(with_steps), Verdict::Deny, &oncall, &SamplePeople::of(&[&oncall]), 1);

    assert_eq!(result, Ok(()));
    assert!(hold.state().is_final());
}

#[test]
fn a_stand_in_for_one_group_does_not_stand_in_for_another() {
    let both = Terms {
        approvals: vec![approval("dba", 1), approval("security", 1)],
        escalate: vec![escalation(300, "oncall", &["dba"])],
        ..terms()
    };
    let (olga, otto) = (reviewer("olga", &["oncall"]), reviewer("otto", &["oncall"]));
    let crowd = SamplePeople::of(&[&olga, &otto]);

    let (hold, _) = give(waiting(both), Verdict::Approve, &olga, &crowd, 400);
    let (hold, _) = give(hold, Verdict::Approve, &otto, &crowd, 401);

    assert_eq!(hold.missing_at(&crowd, after(402)), [approval("security", 1)]);
    assert_eq!(hold.state(), &HoldState::Waiting);
}

#[test]
fn a_hold_inside_a_transaction_waits_no_longer_than_the_rule_says() {
    let open = |status, in_transaction| {
        let mut draft = draft_of(SQL, 1, Terms { in_transaction, ..terms() });
        draft.transaction.status = status;
        let id = RequestId(uuid::Uuid::from_u128(1));
        Request::open(id, draft, start(), None, Vec::new(), None).map(|request| request.expires_at)
    };
    use crate::policy::InTransaction::{Refuse, Wait};
    use crate::statement::TransactionStatus::{Idle, InBlock};
    let two_minutes = Wait(Duration::from_secs(120));

    assert_eq!(open(Some(Idle), two_minutes), Ok(after(900)));
    assert_eq!(open(Some(InBlock), two_minutes), Ok(after(120)));
    assert_eq!(
        open(None, two_minutes),
        Ok(after(120)),
        "what upstream has not answered may be a transaction"
    );
    assert_eq!(open(Some(Idle), Refuse), Ok(after(900)));
    assert_eq!(open(Some(InBlock), Refuse), Err(crate::approval::request::BadDraft::InTransaction));
}

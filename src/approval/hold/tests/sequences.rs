//! Any sequence of events.

use super::*;

#[derive(Clone, Debug)]
enum Happening {
    Verdict(Verdict, usize),
    Stale(Verdict, usize),
    Time,
    Withdraw,
    Take,
    Ran,
}

fn happening() -> impl Strategy<Value = Happening> {
    let verdict = prop_oneof![Just(Verdict::Approve), Just(Verdict::Deny), Just(Verdict::Escalate)];
    prop_oneof![
        6 => (verdict.clone(), 0usize..5).prop_map(|(verdict, who)| Happening::Verdict(verdict, who)),
        2 => (verdict, 0usize..5).prop_map(|(verdict, who)| Happening::Stale(verdict, who)),
        2 => Just(Happening::Time),
        1 => Just(Happening::Withdraw),
        3 => Just(Happening::Take),
        1 => Just(Happening::Ran),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// P2: no sequence of events yields two grants, a grant after an ending, or a grant that
    /// different people in every group that was asked did not approve.
    #[test]
    fn p2_no_sequence_of_events_yields_two_grants_or_one_after_an_ending(
        happenings in prop::collection::vec((happening(), 0u64..200), 0..30),
        defer in any::<bool>(),
        count in 1u32..3,
    ) {
        let people = [
            bob(),
            carol(),
            reviewer("alice@example.com", &["dba", "security"]),
            reviewer("olga@example.com", &["oncall"]),
            reviewer("eve@example.com", &["marketing"]),
        ];
        let crowd = SamplePeople::of(&people.each_ref());
        let terms = Terms {
            approvals: vec![approval("dba", count), approval("security", 1)],
            escalate: vec![escalation(300, "oncall", &["dba"])],
            defer,
            ..terms()
        };
        let mut hold = Hold::new(request(terms));
        let mut now = 0;
        let mut grants = Vec::new();
        let mut ended: Option<HoldState> = None;
        let mut kept: Option<CheckedAnswer> = None;
        for (happening, passes) in happenings {
            now += passes;
            match happening {
                Happening::Verdict(verdict, who) => {
                    let (next, _) = give(hold, verdict, &people[who], &crowd, now);
                    hold = next;
                }
                // CheckedAnswer now, applied at some later time, after whatever happens in between.
                Happening::Stale(verdict, who) => {
                    if let Some(checked) = kept.take() {
                        hold = hold.on_verdict(checked, after(now));
                    }
                    kept = hold.check_answer(verdict, &reply(&people[who], hold.request()), &crowd, after(now)).ok();
                }
                Happening::Time => hold = hold.on_time(after(now)),
                Happening::Withdraw => hold = hold.on_withdrawn(Withdrawal::AgentDisconnected, after(now)),
                Happening::Take => {
                    if let Some(grant) = hold.take_grant(after(now)) {
                        let early = grant.approvals().iter().any(|review| {
                            review.reviewer.as_str() == "olga@example.com" && review.at < after(300)
                        });
                        prop_assert!(!early, "a stand-in before their time");
                        prop_assert!(ended.is_none(), "a grant after {ended:?}");
                        prop_assert!(after(now) < grant.expires());
                        grants.push(grant);
                    }
                }
                Happening::Ran => hold = hold.on_ran(),
            }
            let state = hold.state_at(after(now));
            if let Some(ended) = &ended {
                prop_assert_eq!(&state, ended, "an ending is final");
            }
            if state.is_final() {
                ended = Some(state);
            }
        }
        prop_assert!(grants.len() <= 1);
        for grant in &grants {
            let approvers: Vec<&str> = grant.approvals().iter().map(|review| review.reviewer.as_str()).collect();
            prop_assert!(approvers.len() > count as usize, "{approvers:?}");
            prop_assert!(!approvers.contains(&"alice@example.com"), "the owner");
            prop_assert!(!approvers.contains(&"eve@example.com"), "nobody asked her");
            prop_assert!(approvers.contains(&"carol@example.com"), "security had to agree");
        }
    }
}

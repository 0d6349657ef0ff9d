//! Per request one thing at a time and in order, nothing lost, nothing twice, whatever fails.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::samples::{draft_of, start, terms};

#[test]
fn a_card_is_posted_then_changed_and_then_the_receipt_follows() {
    let mut desk = Scene::new();
    let request = desk.open(1);
    desk.outbox.ended(request.id, &granted());
    desk.outbox.ran(request.id, &receipt());
    // It was answered before it could be shown; there is nobody to show it to.
    assert_eq!(desk.outbox.next(desk.now), Next::Idle);

    let request = desk.open(2);
    let post = desk.take();
    desk.outbox.ended(request.id, &granted());
    desk.outbox.ran(request.id, &receipt());
    assert_eq!(desk.outbox.next(desk.now), Next::Idle, "one thing at a time");
    assert_eq!(desk.posted(&post), Some(JournalChange::Shown(request.id, place(2))));

    let update = desk.take();
    assert!(matches!(update.action, Action::Update { .. }));
    assert_eq!(desk.outbox.done(request.id, Done::Sent), Some(JournalChange::Closed(request.id)));
    assert!(matches!(desk.take().action, Action::Receipt { .. }));
    assert_eq!(desk.outbox.done(request.id, Done::Sent), Some(JournalChange::Closed(request.id)));
    assert_eq!(desk.outbox.next(desk.now), Next::Idle);
}

#[test]
fn events_replace_earlier_ones() {
    let mut desk = Scene::new();
    let request = desk.open(1);
    let post = desk.take();
    for _ in 0..100 {
        desk.outbox.changed(request.id);
    }
    desk.posted(&post);

    assert_eq!(desk.outbox.queued(), 1);
    desk.take();
    desk.outbox.done(request.id, Done::Sent);
    assert_eq!(desk.outbox.next(desk.now), Next::Idle);
}

#[test]
fn what_happens_while_a_card_is_being_changed_is_shown_next_and_it_stays_open_until_then() {
    let mut desk = Scene::new();
    let request = desk.open(1);
    let post = desk.take();
    desk.posted(&post);
    desk.outbox.changed(request.id);
    desk.take();
    desk.outbox.ended(request.id, &HoldState::Expired);

    assert_eq!(desk.outbox.done(request.id, Done::Sent), None, "it still shows its buttons");
    desk.take();
    assert_eq!(desk.outbox.done(request.id, Done::Sent), Some(JournalChange::Closed(request.id)));
}

#[test]
fn buttons_that_do_nothing_go_before_new_cards_come() {
    let mut desk = Scene::new();
    let old = desk.open(1);
    let post = desk.take();
    desk.posted(&post);
    desk.open(2);
    desk.outbox.ended(old.id, &HoldState::Expired);

    assert_eq!(desk.take().id, old.id);
}

#[test]
fn a_rate_limited_kind_of_call_waits_as_long_as_the_service_says() {
    let mut desk = Scene::new();
    let shown = desk.open(1);
    let post = desk.take();
    desk.posted(&post);
    desk.open(2);
    let post = desk.take();
    desk.fail(&post, Failure::RateLimited { wait: Duration::from_secs(30) });
    desk.outbox.ended(shown.id, &HoldState::Expired);

    assert!(matches!(desk.take().action, Action::Update { .. }));
    desk.outbox.done(shown.id, Done::Sent);
    assert_eq!(desk.outbox.next(desk.now), Next::WaitUntil(desk.now + Duration::from_secs(30)));
    desk.now += Duration::from_secs(30);
    assert_eq!(desk.take().action, Action::Post);
}

#[test]
fn in_an_outage_one_task_at_a_time_is_tried_and_ever_more_rarely() {
    let mut desk = Scene::new();
    for number in 1..=10 {
        desk.open(number);
    }
    let first: Vec<Task> = (0..MAX_CONCURRENT).map(|_| desk.take()).collect();
    assert_eq!(desk.outbox.next(desk.now), Next::Idle, "so many at a time");
    for task in &first {
        desk.fail(task, Failure::Temporary { error: "out of reach".to_owned() });
    }
    let mut waits = Vec::new();
    for _ in 0..12 {
        let Next::WaitUntil(until) = desk.outbox.next(desk.now) else { panic!("it waits") };
        waits.push(until - desk.now);
        desk.now = until;
        let task = desk.take();
        assert_eq!(desk.outbox.next(desk.now), Next::Idle, "one at a time");
        desk.fail(&task, Failure::Temporary { error: "out of reach".to_owned() });
    }

    assert!(waits.iter().all(|wait| *wait <= desk.timing.longest));
    assert!(waits.last().unwrap() > &Duration::from_secs(20), "{waits:?}");
    assert_eq!(desk.outbox.queued(), 10);
    assert_eq!(desk.outbox.dead_letters().count(), 0);
}

#[test]
fn what_has_ended_is_given_up_at_last_and_what_waits_never() {
    let mut desk = Scene::new();
    let waits = desk.open(1);
    let ends = desk.open(2);
    for _ in 0..2 {
        let post = desk.take();
        desk.posted(&post);
    }
    desk.outbox.ended(ends.id, &HoldState::Expired);
    desk.outbox.changed(waits.id);
    for _ in 0..200 {
        match desk.outbox.next(desk.now) {
            Next::Do(task) => {
                desk.fail(&task, Failure::Temporary { error: "500".to_owned() });
            }
            Next::WaitUntil(until) => desk.now = until,
            Next::Idle => break,
        }
    }

    let dead: Vec<_> = desk.outbox.dead_letters().collect();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].request.clone(), dead[0].what), (ends.id.code(), "change the card"));
    assert_eq!(desk.outbox.queued(), 1, "the other one is still tried");
}

#[test]
fn a_card_that_is_too_much_is_tried_briefly_and_then_given_up() {
    let mut desk = Scene::new();
    desk.open(1);
    let whole = desk.take();
    assert!(!whole.brief);
    desk.fail(&whole, Failure::TooLarge { error: "msg_blocks_too_long".to_owned() });
    let brief = desk.take();
    assert!(brief.brief);
    desk.fail(&brief, Failure::TooLarge { error: "invalid_blocks".to_owned() });

    assert_eq!(desk.outbox.next(desk.now), Next::Idle);
    assert_eq!(
        desk.outbox.dead_letters().map(|letter| &*letter.error).collect::<Vec<_>>(),
        ["invalid_blocks"]
    );
}

#[test]
fn a_button_belongs_to_the_card_that_was_posted_last() {
    let mut desk = Scene::new();
    let request = desk.open(1);
    let first = desk.take();
    desk.outbox.sending(request.id, Some("one".to_owned()), &[Verdict::Approve]);
    desk.fail(&first, Failure::Temporary { error: "no answer in time".to_owned() });
    desk.now += Duration::from_secs(60);
    let second = desk.take();
    desk.outbox.sending(request.id, Some("two".to_owned()), &[Verdict::Approve]);
    desk.posted(&second);

    assert!(matches!(desk.outbox.find(request.id, "two"), CardMatch::Current(_)));
    assert!(matches!(desk.outbox.find(request.id, "one"), CardMatch::Copy(_)));
    assert!(matches!(desk.outbox.find(request.id, "three"), CardMatch::OtherKey(_)));
    assert!(matches!(desk.outbox.find(request.id, ""), CardMatch::OtherKey(_)));
    assert!(matches!(desk.outbox.find(RequestId(Uuid::nil()), "two"), CardMatch::Unknown));
    assert!(desk.outbox.at(&place(1)).is_some() && desk.outbox.at(&place(2)).is_none());
}

#[test]
fn before_it_is_known_where_to_post_nothing_is_posted() {
    let mut desk = Scene::new();
    desk.outbox.allow_posting(false);
    desk.open(1);
    desk.outbox.left_over(id(9), place(9));

    assert_eq!(desk.take().action, Action::Close { place: place(9) });
    desk.outbox.done(id(9), Done::Sent);
    assert_eq!(desk.outbox.next(desk.now), Next::Idle);
    desk.outbox.allow_posting(true);
    assert_eq!(desk.take().action, Action::Post);
}

#[test]
fn cards_that_have_ended_are_forgotten_in_the_end() {
    let mut desk = Scene::new();
    for number in 1..=(ENDED_CARDS_KEPT as u64 + 10) {
        let request = desk.open(number);
        let post = desk.take();
        desk.posted(&post);
        desk.outbox.ended(request.id, &HoldState::Expired);
        desk.take();
        desk.outbox.done(request.id, Done::Sent);
    }

    assert_eq!(desk.outbox.cards.len(), ENDED_CARDS_KEPT);
    assert!(desk.outbox.at(&place(ENDED_CARDS_KEPT as u64)).is_some());
}

/// What a simulated service shows for one request.
#[derive(Clone, Debug, Default)]
struct Shown {
    posts: usize,
    /// The state that the card was last rendered from.
    state: Option<HoldState>,
    receipts: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Open(u64),
    Change(u64),
    End(u64),
    Run(u64),
    /// Begin the next task, and end it so.
    Send(u8),
    /// Begin one and leave it under way.
    Begin,
    /// End the oldest that is under way so.
    Land(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u64..6).prop_map(Step::Open),
        (1u64..6).prop_map(Step::Change),
        (1u64..6).prop_map(Step::End),
        (1u64..6).prop_map(Step::Run),
        (0u8..8).prop_map(Step::Send),
        Just(Step::Begin),
        (0u8..8).prop_map(Step::Land),
        (1u64..40).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens in whatever order, when the service works again every card shows the
    /// state of its request, was posted once, and has its receipt.
    #[test]
    fn in_the_end_every_card_shows_the_present_state(steps in prop::collection::vec(step(), 0..80)) {
        let mut desk = Scene::new();
        let mut shown: BTreeMap<RequestId, Shown> = BTreeMap::new();
        let mut truth: BTreeMap<RequestId, HoldState> = BTreeMap::new();
        let mut runs: BTreeMap<RequestId, usize> = BTreeMap::new();
        let mut under_way: VecDeque<Task> = VecDeque::new();
        for step in steps {
            match step {
                Step::Open(n) => { truth.entry(id(n)).or_insert(HoldState::Waiting); desk.open(n); }
                Step::Change(n) => desk.outbox.changed(id(n)),
                Step::End(n) => if let Some(state) = truth.get_mut(&id(n)) {
                    *state = if *state == HoldState::Waiting { granted() } else { HoldState::Executed };
                    desk.outbox.ended(id(n), state);
                },
                Step::Run(n) => if truth.get(&id(n)) == Some(&HoldState::Executed) {
                    desk.outbox.ran(id(n), &receipt());
                    *runs.entry(id(n)).or_default() += 1;
                },
                Step::Send(how) => if let Next::Do(task) = desk.outbox.next(desk.now) {
                    desk.land(task, how, &truth, &mut shown);
                },
                Step::Begin => if let Next::Do(task) = desk.outbox.next(desk.now) {
                    prop_assert!(under_way.iter().all(|other| other.id != task.id), "two at a time");
                    under_way.push_back(task);
                    prop_assert!(under_way.len() <= MAX_CONCURRENT);
                },
                Step::Land(how) => if let Some(task) = under_way.pop_front() {
                    desk.land(task, how, &truth, &mut shown);
                },
                Step::Wait(seconds) => desk.now += Duration::from_secs(seconds),
            }
        }
        for task in under_way {
            desk.land(task, 0, &truth, &mut shown);
        }
        for _ in 0..500 {
            match desk.outbox.next(desk.now) {
                Next::Do(task) => desk.land(task, 0, &truth, &mut shown),
                Next::WaitUntil(until) => desk.now = until,
                Next::Idle => break,
            }
        }

        prop_assert_eq!(desk.outbox.queued(), 0);
        for (id, state) in &truth {
            let shown = shown.get(id).cloned().unwrap_or_default();
            if *state == HoldState::Waiting {
                prop_assert_eq!(shown.posts, 1, "{:?}", shown);
            }
            if shown.posts > 0 {
                prop_assert_eq!(shown.state.as_ref(), Some(state));
            }
            prop_assert!(shown.posts <= 1);
            // Told twice, said once or twice; told and shown, never not at all.
            let runs = runs.get(id).copied().unwrap_or(0);
            prop_assert!(shown.receipts <= runs);
            prop_assert!(shown.posts == 0 || runs == 0 || shown.receipts > 0);
        }
    }
}

struct Scene {
    outbox: Outbox,
    timing: RetryTiming,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        #![expect(clippy::disallowed_methods, reason = "a moment to begin with")]
        let timing = RetryTiming::default();
        let mut outbox = Outbox::new(timing);
        outbox.allow_posting(true);
        Self { outbox, timing, now: Instant::now() }
    }

    fn open(&mut self, number: u64) -> Arc<Request> {
        let draft = draft_of("select 1", u128::from(number), terms());
        let request = Arc::new(Request::open(id(number), draft, start(), None, Vec::new(), None).unwrap());
        self.outbox.opened(&request);
        request
    }

    fn take(&mut self) -> Task {
        match self.outbox.next(self.now) {
            Next::Do(task) => task,
            idle @ (Next::WaitUntil(_) | Next::Idle) => panic!("nothing to do: {idle:?}"),
        }
    }

    fn posted(&mut self, task: &Task) -> Option<JournalChange> {
        let place = MessageRef { channel: "C".to_owned(), message: number(task.id).to_string() };
        self.outbox.done(task.id, Done::Posted { place, at: start() })
    }

    fn fail(&mut self, task: &Task, failure: Failure) -> Option<JournalChange> {
        self.outbox.failed(task, failure, self.now, start())
    }

    /// Ends a task in one of several ways; 0 is well.
    fn land(
        &mut self,
        task: Task,
        how: u8,
        truth: &BTreeMap<RequestId, HoldState>,
        shown: &mut BTreeMap<RequestId, Shown>,
    ) {
        let passing = || Failure::Temporary { error: "out of reach".to_owned() };
        match how {
            1 | 2 => drop(self.fail(&task, passing())),
            3 => drop(self.fail(&task, Failure::RateLimited { wait: Duration::from_secs(3) })),
            4 => drop(self.fail(&task, Failure::NeedsOperator { error: "token_revoked".to_owned() })),
            _ => {
                let shown = shown.entry(task.id).or_default();
                match &task.action {
                    // As the sender does: it looks once more before it posts.
                    Action::Post if truth.get(&task.id) != Some(&HoldState::Waiting) => {
                        self.outbox.done(task.id, Done::NothingToDo);
                    }
                    Action::Post => {
                        shown.posts += 1;
                        shown.state = truth.get(&task.id).cloned();
                        self.posted(&task);
                    }
                    Action::Receipt { .. } => {
                        shown.receipts += 1;
                        self.outbox.done(task.id, Done::Sent);
                    }
                    Action::Update { .. } | Action::Close { .. } | Action::Ending { .. } => {
                        shown.state = truth.get(&task.id).cloned();
                        self.outbox.done(task.id, Done::Sent);
                    }
                }
            }
        }
    }
}

fn id(number: u64) -> RequestId {
    RequestId(Uuid::from_u128(u128::from(number)))
}

fn number(id: RequestId) -> u128 {
    id.0.as_u128()
}

fn place(number: u64) -> MessageRef {
    MessageRef { channel: "C".to_owned(), message: number.to_string() }
}

fn granted() -> HoldState {
    HoldState::Granted { until: start(), handed_out: true }
}

fn receipt() -> ReceiptJson {
    ReceiptJson { result: "COPY 1".to_owned(), completed: true, rows: 1, bytes: 2, duration_ms: 3 }
}

//! Sessions: any agent, any order of answers, any timing.
//!
//! The oracle: **no byte reaches upstream that is not the agent's own, in order, or a substitute of ours;
//! and nothing is prepared, bound, executed or queried there without a receipt for exactly that.** With the
//! model server behind it the session must also be invisible: its agent gets what an agent without a proxy
//! gets, message by message, where the policy denies the same.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};

use super::Choices;
use super::model::{Cleared, Found, Model, NEWER, TEXTS, frames};
use crate::classify::{Catalogue, Classification, Classifier, Context, Limits as ClassifyLimits};
use crate::ledger::{IntentId, Receipt};
use crate::refusal::Refusal;
use crate::session::names::Lookup;
use crate::session::probe::Questions;
use crate::session::settings::{AtLogin, Settings};
use crate::session::{Limits, Output, Purpose, Resolution, Session, Sink, Submission};
use crate::statement::{
    Digest, Ending, RuleName, SearchPath, SessionEffect, SqlState, SqlText, Statement, Step, Via,
};
use crate::wire::frame::{Frame, HEADER};
use crate::wire::frontend::{self, Bind, Parse, tag};

/// One scenario.
pub fn session(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mode = match choices.pick(4) {
        0 | 1 => Mode::Compared,
        2 => Mode::Contrary,
        _ => Mode::Lies,
    };
    let options = choices.byte();
    let mut world = World::new(mode, options);
    for _ in 0..400 {
        if choices.is_done() || world.over {
            break;
        }
        world.act(&mut choices);
        world.check();
    }
    world.finish();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The model server, and a policy that decides by the text: the answers are compared with those of a
    /// server without a proxy.
    Compared,
    /// The model server, and answers to submissions in any order and of any kind.
    Contrary,
    /// A server that says anything at any time.
    Lies,
}

/// A classification of each text of the model's, by the real classifier.
static CLASSIFIED: LazyLock<BTreeMap<&'static str, Arc<Classification>>> = LazyLock::new(|| {
    let classifier = Classifier::new(ClassifyLimits::default());
    let catalogue = Catalogue::built_in(15);
    let search_path = SearchPath::Known(vec!["public".into()]);
    let context = Context {
        server_version: 15,
        catalogue: &catalogue,
        search_path: &search_path,
        database: "app",
        role: "app",
        strings_standard: true,
    };
    let classify = |text: &'static str| (text, classifier.classify(&SqlText::from(text), &context));
    TEXTS.iter().map(|(text, _)| classify(text)).collect()
});

fn classified(sql: &SqlText) -> Option<Arc<Classification>> {
    let text = sql.as_str()?;
    // What an `Execute` of a cursor is decided as.
    if text.starts_with("FETCH FORWARD ") {
        let name = text.split('"').nth(1)?;
        let mut fetch = Classification::clone(CLASSIFIED.get("fetch from x")?);
        fetch.steps = [Step { effects: vec![SessionEffect::Fetch(name.into())] }].into();
        return Some(Arc::new(fetch));
    }
    CLASSIFIED.get(text).cloned()
}

/// The name that a text executes, unless the text itself prepares it.
fn executes(steps: &[Step]) -> Option<&'static str> {
    let effects = || steps.iter().flat_map(|step| &step.effects);
    effects().find_map(|effect| match effect {
        SessionEffect::Execute(name) if &**name == "x" => Some("x"),
        SessionEffect::Execute(name) if &**name == "y" => Some("y"),
        _ => None,
    })
}

#[derive(Default)]
struct ToAgent(Vec<u8>);

impl Sink<'_> for ToAgent {
    fn pass(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn insert(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

struct World {
    mode: Mode,
    session: Session,
    limits: Limits,
    /// The server, and what a server without a proxy would do.
    model: Model,
    direct: Model,
    /// From the agent, not taken in yet, and the whole messages that were sent.
    sent: Vec<u8>,
    sent_frames: VecDeque<Vec<u8>>,
    /// How many messages of the agent's were forwarded or dropped, and how many bytes were taken in.
    passed: usize,
    taken: usize,
    /// Where each message that was sent ends.
    ends: Vec<usize>,
    /// From the server, not taken in yet.
    answered: Vec<u8>,
    /// To the server, a message that is not whole yet.
    part: Vec<u8>,
    /// What the agent got.
    got: Vec<u8>,
    submission: Option<Submission>,
    /// What has receipts in the unit under decision, by the number of its message.
    cleared: BTreeMap<usize, (Cleared, Statement)>,
    /// Where that unit begins; what lies before it and was not forwarded was dropped.
    unit: usize,
    /// Submissions that were answered or withdrawn.
    stale: Vec<Submission>,
    receipts: u64,
    /// Each receipt's number, and its outcome.
    outcomes: BTreeMap<IntentId, (u64, Option<Ending>)>,
    found: Vec<Found>,
    goodbye: bool,
    over: bool,
    /// The session ended by an error of its own, or refused what a server would not: what comes behind
    /// cannot be compared.
    compared: bool,
    /// The session has sent a `Sync` of its own that has not been seen.
    keeps_awake: bool,
    /// Probes that were asked for and not answered.
    probes: i32,
    rolled_back: bool,
    /// A Sync went among copy data: if the copy fails, nobody but the server knows whether it was read as
    /// part of it.
    among_data: bool,
    ambiguous: bool,
    /// The last message was of the extended protocol, and no Sync; a Query came behind such a one, or in a
    /// block. Where the server skips that Query, or does not come so far as to run it, the unnamed portal
    /// outlives it, which the session cannot bet on.
    unsynced: bool,
    query_behind: bool,
    newer_said: bool,
    /// A text that upstream is asked to parse on its own, and how many messages of that are to come.
    parsing: Option<Vec<u8>>,
    parsing_rest: u8,
    in_probe: bool,
    /// How many `Flush` of the session's own have been seen.
    flushes: u64,
}

impl World {
    fn new(mode: Mode, options: u8) -> Self {
        let reports_path = options & 1 != 0;
        let limits = if options & 2 != 0 && mode != Mode::Compared {
            Limits { message: 300, unit: 400, reply: 1 << 20, statements: 2, ..Limits::default() }
        } else {
            Limits::default()
        };
        Self {
            mode,
            session: Session::new(limits, Settings::new(&AtLogin::of("public", "app")), 0x5eed),
            limits,
            model: Model::new(true, false, reports_path),
            direct: Model::new(false, true, reports_path),
            sent: Vec::new(),
            sent_frames: VecDeque::new(),
            passed: 0,
            taken: 0,
            ends: Vec::new(),
            answered: Vec::new(),
            part: Vec::new(),
            got: Vec::new(),
            submission: None,
            cleared: BTreeMap::new(),
            unit: 0,
            stale: Vec::new(),
            receipts: 0,
            outcomes: BTreeMap::new(),
            found: Vec::new(),
            goodbye: false,
            over: false,
            compared: mode == Mode::Compared,
            keeps_awake: false,
            probes: 0,
            rolled_back: false,
            among_data: false,
            ambiguous: false,
            unsynced: false,
            query_behind: false,
            newer_said: false,
            parsing: None,
            parsing_rest: 0,
            in_probe: false,
            flushes: 0,
        }
    }

    fn act(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() {
            0..110 => self.agent_says(choices),
            110..150 => {
                let part = match choices.byte() {
                    cut @ 0..64 => usize::from(cut) + 1,
                    _ => usize::MAX,
                };
                self.offer(part);
            }
            150..190 => self.resolve(choices),
            190..215 if self.mode == Mode::Lies => self.lie(choices),
            190..215 => {
                for _ in 0..=choices.byte() % 4 {
                    self.model.work();
                }
            }
            215..240 => {
                let part = match choices.byte() {
                    cut @ 0..64 => usize::from(cut) + 1,
                    _ => usize::MAX,
                };
                self.deliver(part);
            }
            240..243 => self.session.decide_partial(0),
            243..246 => {
                // In the middle of a pipeline it is part of the agent's transaction, which a server without
                // a proxy does not see. There it is sent for a hold only.
                let in_pipeline = !self.session.is_idle() && self.mode == Mode::Compared;
                let all = [Questions::Names, Questions::Everything];
                if choices.byte() < 64 {
                    self.keeps_awake |= self.session.keep_awake();
                    self.follow();
                } else if !in_pipeline && self.session.probe(all[choices.pick(2)]) {
                    self.probes += 1;
                }
            }
            246..249 => self.model.remark(choices.byte()),
            249 => self.session.notice("waiting", None, Some("cancel")),
            250 => {
                self.settle();
            }
            251 if choices.byte() < 64 => {
                self.model.die();
            }
            252 if choices.byte() < 64 => self.upstream_gone(),
            253 if choices.byte() < 64 => {
                self.goodbye = true;
                self.session.agent_gone(0);
            }
            254 if choices.byte() < 64 && self.mode != Mode::Compared => {
                // Whatever it is, the agent says nothing behind it.
                let garbage = choices.take(12);
                let (whole, used) = frames(garbage);
                whole.into_iter().for_each(|frame| self.say(frame.bytes.to_vec()));
                if used < garbage.len() {
                    self.say(garbage[used..].to_vec());
                }
                self.goodbye = true;
            }
            _ => self.settle(),
        }
    }

    /// The agent sends one message, or a usual group of them.
    fn agent_says(&mut self, choices: &mut Choices<'_>) {
        if self.goodbye {
            return;
        }
        let name = |choice: usize| ["", "", "x", "y", "c"][choice % 5];
        let text = |choices: &mut Choices<'_>| TEXTS[choices.pick(TEXTS.len())].0;
        let parse =
            |name: &str, text: &str| message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"]);
        let bind = |portal: &str, statement: &str, values: u8| {
            let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0\0"].concat();
            body.push(values);
            for _ in 0..values {
                body.extend([0, 0, 0, 1, b'7']);
            }
            body.extend([0, 0]);
            message(b'B', &[&body])
        };
        let values = |text: &str| u8::from(text.ends_with("$1"));
        match choices.pick(32) {
            0..6 => {
                let text = text(choices);
                self.say(message(b'Q', &[text.as_bytes(), b"\0"]));
            }
            6..9 => {
                let text = text(choices);
                let name = name(choices.pick(5));
                self.say(parse(name, text));
            }
            9..12 => {
                let portal = name(choices.pick(5));
                let statement = name(choices.pick(5));
                self.say(bind(portal, statement, u8::from(choices.byte() > 200)));
            }
            12..15 => {
                let limit = if choices.byte() < 64 { 2_i32 } else { 0 };
                let portal = name(choices.pick(5));
                self.say(message(b'E', &[portal.as_bytes(), b"\0", &limit.to_be_bytes()]));
            }
            15 | 16 => {
                let kind = if choices.pick(2) == 0 { b"S" } else { b"P" };
                self.say(message(b'D', &[kind, name(choices.pick(5)).as_bytes(), b"\0"]));
            }
            17 | 18 => {
                let kind = if choices.pick(2) == 0 { b"S" } else { b"P" };
                self.say(message(b'C', &[kind, name(choices.pick(5)).as_bytes(), b"\0"]));
            }
            19 => self.say(message(b'H', &[])),
            20 | 21 => self.say(message(b'S', &[])),
            22 | 23 => {
                let data: &[u8] = if choices.byte() < 16 { b"\xff" } else { b"1\tone\n" };
                self.say(message(b'd', &[data]));
            }
            24 => self.say(message(b'c', &[])),
            25 => self.say(message(b'f', &[b"no\0"])),
            26 => {
                let oid = u32::from(choices.byte()) + 1;
                self.say(message(b'F', &[&oid.to_be_bytes(), &[0; 6]]));
            }
            27 if choices.byte() < 8 => self.say(message(b'X', &[])),
            27 if self.mode != Mode::Compared => {
                let mut text = choices.take(20).to_vec();
                text.retain(|byte| *byte != 0);
                if !text.starts_with(b"countersign_") {
                    self.say(message(b'Q', &[&text, b"\0"]));
                }
            }
            kind => {
                let text = text(choices);
                let (statement, portal) = (name(choices.pick(5)), name(choices.pick(5)));
                let group = [
                    parse(statement, text),
                    bind(portal, statement, values(text)),
                    message(b'D', &[b"P", portal.as_bytes(), b"\0"]),
                    message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"]),
                    message(if kind == 28 { b'H' } else { b'S' }, &[]),
                ];
                group.into_iter().for_each(|frame| self.say(frame));
            }
        }
    }

    fn say(&mut self, frame: Vec<u8>) {
        trace("agent", &frame);
        self.newer_said |= frame.windows(NEWER.len()).any(|part| part == NEWER.as_bytes());
        self.sent.extend_from_slice(&frame);
        self.sent_frames.push_back(frame.clone());
        self.ends.push(self.ends.last().copied().unwrap_or(0) + frame.len());
        if self.mode == Mode::Compared {
            self.direct.receive(frame, None);
        }
    }

    /// The session takes in what the agent has sent, or part of it.
    fn offer(&mut self, part: usize) {
        if self.over {
            return;
        }
        let end = part.min(self.sent.len());
        match self.session.on_agent(&self.sent[..end], 0) {
            Ok(used) => {
                assert!(used <= end);
                self.sent.drain(..used);
                self.taken += used;
            }
            Err(refusal) => self.fail(&refusal),
        }
        self.follow();
    }

    /// The session takes in what the server has answered, or part of it.
    fn deliver(&mut self, part: usize) {
        self.answered.append(&mut self.model.out);
        if self.over {
            return;
        }
        let end = part.min(self.answered.len());
        let mut agent = ToAgent::default();
        // What is of our own goes first: it was said before.
        self.got.extend_from_slice(&self.session.to_agent().split());
        let result = self.session.on_upstream(&self.answered[..end], 0, &mut agent);
        for frame in frames(&self.answered[..end]).0 {
            trace("        answered", frame.bytes);
        }
        self.got.append(&mut agent.0);
        self.got.extend_from_slice(&self.session.to_agent().split());
        match result {
            Ok(used) => {
                assert!(used <= end);
                self.answered.drain(..used);
            }
            Err(refusal) => {
                let copying =
                    refusal == Refusal::Protocol { what: "unexpected message type during COPY from stdin" };
                assert!(
                    copying || self.ambiguous || self.mode == Mode::Lies,
                    "a server that keeps to the protocol was called out of step: {refusal:?}"
                );
                self.fail(&refusal);
            }
        }
        self.follow();
    }

    /// What a driver of sessions does with an error: it ends the session.
    fn fail(&mut self, refusal: &Refusal) {
        if *super::TRACE {
            eprintln!("  session ends: {refusal:?}");
        }
        self.compared = false;
        self.session.end(refusal, 0);
        self.got.extend_from_slice(&self.session.to_agent().split());
        self.follow();
        self.over = true;
    }

    fn upstream_gone(&mut self) {
        self.compared = false;
        self.session.upstream_gone(0);
        self.follow();
        self.over = true;
    }

    /// Takes what the session says and forwards.
    fn follow(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Submit(submission) => {
                    assert_eq!(submission.digest, submission.statement.digest());
                    assert!(self.submission.is_none(), "one submission at a time");
                    self.submission = Some(submission);
                }
                Output::Withdrawn(ticket) => {
                    let withdrawn = self.submission.take_if(|submission| submission.ticket == ticket);
                    self.stale.push(withdrawn.expect("nothing to withdraw"));
                }
                Output::Outcome { intent, outcome, .. } => {
                    let known = self.outcomes.get_mut(&intent).expect("an outcome of nothing");
                    assert_eq!(known.1, None, "two outcomes of one intent");
                    known.1 = Some(outcome.ending);
                }
                Output::Probed(_) => self.probes -= 1,
                Output::AgentLeft => self.goodbye = true,
                Output::CatalogueChanged | Output::OwnCatalogueChanged | Output::Claimed(..) => {}
            }
        }
        let forwarded = self.session.to_upstream().split();
        self.part.extend_from_slice(&forwarded);
        let bytes = std::mem::take(&mut self.part);
        let (whole, used) = frames(&bytes);
        for frame in whole {
            self.forwarded(frame);
        }
        self.part = bytes[used..].to_vec();
        if !self.session.is_deciding() {
            self.cleared.clear();
        }
        assert!(self.session.held_bytes() <= self.limits.unit + self.limits.message + (64 << 10));
    }

    /// The unnamed portal may outlive this message.
    fn query_may_fail(&self, frame: Frame<'_>) -> bool {
        frame.tag == tag::QUERY && (self.unsynced || self.model.block.status() != b'I')
    }

    /// One whole message went upstream.
    fn forwarded(&mut self, frame: Frame<'_>) {
        trace("    forwarded", frame.bytes);
        if self.is_ours(frame) {
            // What is parsed on its own has a receipt, for that.
            let cleared = self.cleared.values().map(|(cleared, _)| cleared).find(|cleared| {
                frame.tag == tag::PARSE && self.parsing.as_ref() == Some(&cleared.sql) && cleared.parse_only
            });
            // A Query that upstream is asked about first may be one that it never runs.
            self.query_behind |= cleared.is_some() && self.model.block.status() != b'I';
            self.model.receive(frame.bytes.to_vec(), cleared.cloned());
            // A substitute stands for a message of the agent's.
            self.query_behind |= self.query_may_fail(frame);
            self.unsynced =
                frame.tag != tag::SYNC && (self.unsynced || matches!(frame.tag, tag::BIND | tag::EXECUTE));
            return;
        }
        // The agent's own, in order; what lies before it was dropped.
        loop {
            let Some(next) = self.sent_frames.pop_front() else {
                panic!("forwarded what the agent did not send: {:?}", String::from_utf8_lossy(frame.bytes));
            };
            self.passed += 1;
            if next == frame.bytes && self.passed > self.unit {
                break;
            }
            assert_ne!(next, message(b'S', &[]), "a Sync was dropped");
        }
        match frame.tag {
            tag::COPY_DATA => self.among_data = true,
            tag::SYNC => self.ambiguous |= self.among_data,
            tag::FLUSH => {}
            _ => self.among_data = false,
        }
        self.query_behind |= self.query_may_fail(frame);
        self.unsynced = !matches!(frame.tag, tag::SYNC | tag::QUERY | tag::FUNCTION_CALL);
        let own = self.cleared.get(&(self.passed - 1));
        let body = frame.body();
        let mut cleared = own.map(|(cleared, _)| cleared.clone());
        match frame.tag {
            tag::QUERY => {
                let text = frontend::query(body).unwrap();
                let fits = own.is_some_and(|(cleared, own)| {
                    own.via == Via::Query && own.sql.as_bytes() == text && !cleared.parse_only
                });
                assert!(fits, "Query without a receipt: {:?}", String::from_utf8_lossy(text));
            }
            tag::PARSE => {
                let text = Parse::read(body).unwrap().sql;
                if own.is_none() {
                    let binds = self
                        .cleared
                        .values()
                        .find(|(_, other)| other.via == Via::Bind && other.sql.as_bytes() == text);
                    // It is the Bind's run, so the Parse alone says nothing of it.
                    cleared = binds.map(|(bind, _)| {
                        let receipt = if bind.parse_only { bind.receipt } else { u64::MAX };
                        Cleared { receipt, ..bind.clone() }
                    });
                }
                let fits = cleared.as_ref().is_some_and(|cleared| cleared.sql == text);
                assert!(fits, "Parse without a receipt: {:?}", String::from_utf8_lossy(text));
            }
            tag::BIND => {
                let bind = Bind::read(body).unwrap();
                let fits = own.is_some_and(|(cleared, own)| {
                    let values = own.parameters.iter().map(|parameter| parameter.value.as_deref());
                    own.via == Via::Bind
                        && !cleared.parse_only
                        && values.eq(bind.values().map(|(_, value)| value))
                });
                assert!(fits, "Bind without a receipt");
            }
            tag::FUNCTION_CALL => {
                let fits = own.is_some_and(|(_, own)| own.via == Via::FunctionCall);
                assert!(fits, "FunctionCall without a receipt");
            }
            tag::EXECUTE
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_FAIL
            | tag::SYNC
            | tag::FLUSH
            | tag::DESCRIBE
            | tag::CLOSE => {}
            other => panic!("forwarded a message of type {:?}", char::from(other)),
        }
        self.model.receive(frame.bytes.to_vec(), cleared);
    }

    /// A substitute, or part of a probe.
    fn is_ours(&mut self, frame: Frame<'_>) -> bool {
        let body = frame.body();
        let ours = |name: &[u8]| name.starts_with(b"countersign_");
        if self.parsing_rest > 0 {
            self.parsing_rest -= 1;
            assert!(matches!((self.parsing_rest, frame.tag), (1, tag::CLOSE) | (0, tag::SYNC)));
            return true;
        }
        match frame.tag {
            tag::QUERY => {
                let text = frontend::query(body).unwrap();
                ours(text) || (self.rolled_back && text == b"ROLLBACK")
            }
            tag::PARSE => {
                let parse = Parse::read(body).unwrap();
                if parse.name.is_empty() && self.parsing.as_deref() == Some(parse.sql) {
                    self.parsing_rest = 2;
                    return true;
                }
                self.in_probe |= parse.name.starts_with(b"countersign_probe_");
                ours(parse.sql) || ours(parse.name)
            }
            tag::BIND => ours(Bind::read(body).unwrap().statement),
            tag::EXECUTE => ours(frontend::Execute::read(body).unwrap().portal),
            tag::CLOSE => ours(body.get(1..).unwrap_or_default()),
            tag::FLUSH if self.flushes < self.session.flushes() => {
                self.flushes += 1;
                true
            }
            tag::FLUSH => std::mem::take(&mut self.in_probe),
            tag::SYNC => std::mem::take(&mut self.keeps_awake) || std::mem::take(&mut self.in_probe),
            tag::FUNCTION_CALL => body == [0; 10],
            _ => false,
        }
    }

    /// A receipt for `digest`.
    fn receipt(&mut self, digest: Digest) -> Receipt {
        self.receipts += 1;
        let receipt = Receipt::for_test(self.receipts, digest);
        self.outcomes.insert(receipt.intent(), (self.receipts, None));
        receipt
    }

    /// Resolves with a receipt; as the gate does, upstream is asked first about what is no SQL to us.
    fn forward(&mut self, submission: &Submission, refers: Option<(&'static str, Vec<u8>)>) {
        let known = classified(&submission.statement.sql);
        let readable = known.as_ref().is_some_and(|known| known.syntax_error.is_none())
            || submission.statement.via == Via::FunctionCall;
        let parse_only = !readable && !submission.upstream_parses;
        let receipt = self.receipt(submission.digest);
        // The number of the message that is under decision, among all that the agent sent.
        let (at, count, bytes) = self.session.item_under_decision().expect("something is under decision");
        let mut taken = self.ends.partition_point(|end| *end <= self.taken);
        let first = self.ends.len() - self.sent_frames.len();
        assert_eq!(first, self.passed);
        if taken > first && self.sent_frames[taken - 1 - first][0] == tag::TERMINATE {
            taken -= 1;
        }
        self.unit = taken - count;
        let number = self.unit + at;
        assert_eq!(self.sent_frames[number - first], bytes, "which message is it");
        let cleared = Cleared {
            receipt: self.receipts,
            sql: submission.statement.sql.as_bytes().to_vec(),
            parse_only,
            refers,
        };
        self.cleared.insert(number, (cleared, submission.statement.clone()));
        if parse_only {
            let query = submission.statement.via == Via::Query;
            self.parsing = query.then(|| submission.statement.sql.as_bytes().to_vec());
            let resolution = Resolution::Unparsed {
                receipt,
                refusal: Refusal::Syntax { message: "no".to_owned(), position: Some(1) },
                shown: submission.statement.sql.clone(),
            };
            self.session.resolve(submission.ticket, resolution, 0);
            self.follow();
            self.parsing = None;
            return;
        }
        let resolution = Resolution::Forward {
            receipt,
            steps: known.as_ref().map_or_else(|| Arc::from([]), |known| Arc::clone(&known.steps)),
            shown: submission.statement.sql.clone(),
            digest_result: self.receipts.is_multiple_of(3),
            late: known.is_none_or(|known| known.is_bound_late()),
        };
        self.session.resolve(submission.ticket, resolution, 0);
    }

    fn resolve(&mut self, choices: &mut Choices<'_>) {
        if self.over {
            return;
        }
        let choice = if self.mode == Mode::Compared { 0 } else { choices.byte() };
        if choice >= 250 {
            // An answer that comes too late forwards nothing.
            if let Some(stale) = self.stale.pop() {
                let receipt = self.receipt(stale.digest);
                let resolution = Resolution::Forward {
                    receipt,
                    steps: Arc::from([]),
                    shown: SqlText::from(""),
                    digest_result: false,
                    late: false,
                };
                self.session.resolve(stale.ticket, resolution, 0);
                self.follow();
            }
            return;
        }
        let Some(submission) = self.submission.take() else { return };
        let denied =
            submission.statement.sql.as_bytes() == b"drop table t" && submission.purpose == Purpose::Run;
        let refuse = |refusal| Resolution::Refuse(refusal);
        if *super::TRACE {
            eprintln!(
                "  decided {} (receipt {}) {:?} {choice}",
                submission.ticket,
                self.receipts + 1,
                submission.statement.sql.as_str()
            );
        }
        let resolution = match choice {
            0..150 if denied => {
                let rule = RuleName::from("no");
                refuse(Refusal::DeniedByPolicy { rule, message: None })
            }
            0..150 => {
                self.decide(&submission);
                self.follow();
                return;
            }
            150..180 => refuse(Refusal::HoldInTransaction),
            180..200 => refuse(Refusal::Syntax { message: "no".to_owned(), position: Some(1) }),
            200..215 => Resolution::WhenIdle,
            215..230 => {
                self.rolled_back = true;
                Resolution::RollBack
            }
            _ => {
                let receipt = self.receipt(Statement::query("select 'another'".into()).digest());
                Resolution::Forward {
                    receipt,
                    steps: Arc::from([]),
                    shown: SqlText::from(""),
                    digest_result: false,
                    late: false,
                }
            }
        };
        self.session.resolve(submission.ticket, resolution, 0);
        self.stale.push(submission);
        self.follow();
    }

    /// As the gate decides what the policy allows: a name that it executes is looked up.
    fn decide(&mut self, submission: &Submission) {
        let steps = classified(&submission.statement.sql).map(|known| Arc::clone(&known.steps));
        let mut refers = None;
        if let Some(name) = steps.as_deref().and_then(executes) {
            match self.session.lookup(name) {
                Lookup::Known(prepared) => refers = Some((name, prepared.sql.as_bytes().to_vec())),
                Lookup::Unsettled if self.session.settles() && !self.session.is_idle() => {
                    self.session.resolve(submission.ticket, Resolution::WhenIdle, 0);
                    return;
                }
                Lookup::Unknown | Lookup::Unsettled => {}
            }
        }
        self.forward(submission, refers);
    }

    /// A server that says anything at any time.
    fn lie(&mut self, choices: &mut Choices<'_>) {
        let complete =
            ["SELECT 1", "COPY 1", "PREPARE", "DEALLOCATE ALL", "ROLLBACK", "DISCARD ALL", "CLOSE CURSOR"];
        let frame = match choices.pick(24) {
            0 => message(b'1', &[]),
            1 => message(b'2', &[]),
            2 => message(b'3', &[]),
            3 => message(b'n', &[]),
            4 => message(b's', &[]),
            5 => message(b'I', &[]),
            6 => message(b't', &[&[0, 0]]),
            7 => message(b'T', &[&[0, 0]]),
            8 | 9 => message(b'D', &[choices.take(5)]),
            10..13 => message(b'C', &[complete[choices.pick(complete.len())].as_bytes(), b"\0"]),
            13..16 => message(b'Z', &[&[[b'I', b'T', b'E'][choices.pick(3)]]]),
            16 | 17 => message(b'E', &[b"SERROR\0VERROR\0C42601\0Mno\0\0"]),
            18 => message(b'G', &[&[0, 0, 0]]),
            19 => message(b'H', &[&[0, 0, 0]]),
            20 => message(b'd', &[choices.take(5)]),
            21 => message(b'S', &[b"client_encoding\0SJIS\0"]),
            22 => message(b'V', &[b"\xff\xff\xff\xff"]),
            _ => {
                let kind = choices.byte();
                message(kind, &[choices.take(6)])
            }
        };
        self.answered.extend(frame);
    }

    /// Goes on until nothing moves any more.
    fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            if self.over || idle > 1 {
                return;
            }
            let before = self.measure();
            self.offer(usize::MAX);
            self.resolve(&mut Choices::new(&[]));
            if self.mode != Mode::Lies {
                while self.model.work() {}
            }
            self.deliver(usize::MAX);
            if self.measure() == before {
                if idle == 0 {
                    self.session.decide_partial(0);
                    self.follow();
                }
                idle += 1;
            } else {
                idle = 0;
            }
        }
        assert_eq!(self.mode, Mode::Lies, "the session never comes to rest");
    }

    fn measure(&self) -> (usize, usize, usize, u64, Option<u64>, usize) {
        let submitted = self.submission.as_ref().map(|submission| submission.ticket);
        (self.taken, self.got.len(), self.answered.len(), self.receipts, submitted, self.passed)
    }

    fn check(&mut self) {
        for found in self.model.found.drain(..) {
            if let Found::Violation(what) = &found
                && self.mode != Mode::Lies
            {
                panic!("{what}");
            }
            self.found.push(found);
        }
    }

    fn finish(mut self) {
        self.settle();
        self.check();
        let at_rest = !self.over && self.mode != Mode::Lies && !self.model.closed;
        if at_rest {
            self.agrees_with_the_server();
        }
        if *super::TRACE {
            eprintln!("{:#?}", self.session);
        }
        if self.mode == Mode::Compared {
            self.compare();
        }
        if !self.over {
            self.session.upstream_gone(0);
            self.follow();
        }
        assert!(self.submission.is_none(), "a submission that nobody withdraws");
        assert_eq!(self.probes, 0, "a probe without an answer");
        self.outcomes_are_true();
    }

    /// At rest, the session knows the server's state.
    fn agrees_with_the_server(&mut self) {
        let waits = self.model.copies() || self.model.skips();
        if self.session.is_idle() {
            assert!(!waits);
            assert_eq!(self.session.status().as_byte(), self.model.block.status());
            if let SearchPath::Known(schemas) = self.session.search_path() {
                // Where temporary tables are looked up is in no setting.
                let set = schemas.iter().map(|schema| &**schema).filter(|schema| *schema != "pg_temp");
                let schemas: Vec<&str> = set.collect();
                assert_eq!(schemas, [self.model.search_path()], "the search path was read along wrongly");
            }
        }
        if self.model.last_was_ready && !waits {
            assert!(self.session.is_idle(), "the server is ready, and the session waits for it");
        }
        let left =
            self.sent_frames.iter().take(self.ends.partition_point(|end| *end <= self.taken) - self.passed);
        assert!(
            self.goodbye || left.into_iter().all(|frame| *frame != message(b'S', &[])),
            "a Sync was kept"
        );
    }

    /// What the agent got is what a server without a proxy would have said.
    fn compare(&mut self) {
        while self.direct.work() {}
        let mut direct = tokens(&self.direct.out);
        let mut got = tokens(&self.got);
        // A message that may mean two things, depending on answers that will not come without a Sync, is
        // refused: a server would know.
        if let Some(at) = got.iter().position(|token| token == "E XX000") {
            got.truncate(at);
            self.compared = false;
        }
        let fatal = |token: &String| token == "E 57P01" || token == "E 08P01 FATAL";
        got.retain(|token| !fatal(token));
        if !self.compared || self.model.closed || self.goodbye || self.ambiguous {
            direct.truncate(got.len());
        }
        // What does not exist any more by the time that it would run is denied all the same.
        for (got, direct) in got.iter().zip(&mut direct) {
            if got == "E 42501" && matches!(direct.as_str(), "E 26000" | "E 34000") {
                direct.clone_from(got);
            }
            // A portal that a failed transaction still has, and our map has not any more.
            if got == "E 34000" && direct == "E 25P02" {
                direct.clone_from(got);
            }
        }
        // What only upstream's grammar takes is refused where it cannot be asked by itself.
        let newer = self.newer_said.then_some("E 42601");
        let behind = (self.query_behind || self.newer_said).then_some("E 34000");
        let differs = got.iter().zip(&direct).position(|(got, direct)| got != direct);
        if let Some(at) = differs
            && [newer, behind].contains(&Some(got[at].as_str()))
        {
            got.truncate(at);
            direct.truncate(at);
        }
        assert_eq!(got, direct, "the agent got something else than without a proxy");
    }

    /// What is recorded of each statement happened.
    fn outcomes_are_true(&self) {
        #[derive(Default)]
        struct Seen {
            prepared: bool,
            began: bool,
            failed: bool,
        }
        let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
        for found in &self.found {
            match found {
                Found::Prepared(receipt) => seen.entry(*receipt).or_default().prepared = true,
                Found::Began(receipt) | Found::Completed(receipt) => {
                    seen.entry(*receipt).or_default().began = true
                }
                Found::Failed(receipt) => seen.entry(*receipt).or_default().failed = true,
                Found::Violation(_) => {}
            }
        }
        let none = Seen::default();
        for (receipt, ending) in self.outcomes.values() {
            let Some(ending) = ending else { panic!("receipt {receipt} has no outcome") };
            if self.mode == Mode::Lies {
                continue;
            }
            let seen = seen.get(receipt).unwrap_or(&none);
            match ending {
                Ending::Completed { tag } => {
                    assert!(seen.began || seen.prepared, "{receipt} completed: {tag}")
                }
                // It completed, and something behind it in its transaction failed.
                Ending::Failed { sqlstate } if *sqlstate == SqlState::rolled_back() => {
                    assert!(seen.began || seen.prepared, "{receipt} undone");
                }
                Ending::Failed { sqlstate } => {
                    assert!(seen.failed || !seen.began, "{receipt} failed: {sqlstate}");
                }
                Ending::NotExecuted => {
                    // What the server did and did not get to say is unknown to everybody.
                    assert!(!seen.began || self.over || self.model.closed, "{receipt} was executed");
                }
                Ending::FailedAfterCommit { tag, sqlstate } => {
                    assert!(seen.began && seen.failed, "{receipt} failed after a commit: {tag}, {sqlstate}");
                }
                Ending::Unknown { .. } => {}
            }
        }
    }
}

fn trace(who: &str, frame: &[u8]) {
    let probe = frame.windows(18).any(|part| part == b"countersign_probe_");
    if *super::TRACE && !probe {
        eprintln!("{who} {}", frame.escape_ascii());
    }
}

/// The answers that mean something for the agent, one text each.
fn tokens(bytes: &[u8]) -> Vec<String> {
    let (whole, _) = frames(bytes);
    let mut tokens = Vec::new();
    for frame in whole {
        let token = match frame.tag {
            b'N' | b'A' | b'S' => continue,
            b'E' => {
                let fields = crate::wire::backend::Fields::read(frame.body()).unwrap();
                let fatal = if fields.is_fatal() && fields.code == "08P01" { " FATAL" } else { "" };
                format!("E {}{fatal}", fields.code)
            }
            tag => format!("{} {}", char::from(tag), String::from_utf8_lossy(&frame.bytes[HEADER..])),
        };
        tokens.push(token);
    }
    tokens
}

fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut frame = vec![tag];
    frame.extend((body.len() as u32 + 4).to_be_bytes());
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::super::model::Op;
    use super::*;

    /// The model does to names and transactions what the classifier says of the same text.
    #[test]
    fn the_model_and_the_classifier_agree_on_every_text() {
        for (text, ops) in TEXTS {
            let known = classified(&SqlText::from(*text)).unwrap();
            let rejected = known.syntax_error.is_some();
            assert_eq!(rejected, ops.contains(&Op::SyntaxError) || *text == NEWER, "{text}");
            if rejected {
                continue;
            }
            assert_eq!(known.steps.len(), ops.len(), "{text}");
            for (step, op) in known.steps.iter().zip(*ops) {
                use SessionEffect as Effect;
                let named = |known: &Arc<str>, name: &str| &**known == name;
                let set = |effect: &Effect, path: &str, now: bool| {
                    matches!(effect, Effect::Set { name, value: Some(value), local }
                    if &**name == "search_path" && &**value == path && *local == now)
                };
                let fits = match (step.effects.first(), op) {
                    (Some(Effect::Begin), Op::Begin) => true,
                    (Some(Effect::Commit { .. }), Op::Commit) => true,
                    (Some(Effect::Rollback { .. }), Op::Rollback) => true,
                    (Some(Effect::Savepoint), Op::Savepoint) => true,
                    (Some(Effect::RollbackToSavepoint), Op::RollbackTo) => true,
                    (Some(Effect::Prepare(known)), Op::Prepare(name))
                    | (Some(Effect::Execute(known)), Op::Execute(name))
                    | (Some(Effect::Deallocate(known)), Op::Deallocate(name))
                    | (Some(Effect::Declare(known)), Op::Declare(name, _))
                    | (Some(Effect::Fetch(known)), Op::Fetch(name))
                    | (Some(Effect::CloseCursor(known)), Op::CloseCursor(name)) => named(known, name),
                    (Some(Effect::DeallocateAll), Op::DeallocateAll) => true,
                    (Some(Effect::DiscardAll), Op::DiscardAll) => true,
                    (Some(Effect::CloseAllCursors), Op::CloseAll) => true,
                    (Some(Effect::CopyIn), Op::CopyIn) => true,
                    (Some(Effect::CopyOut), Op::CopyOut) => true,
                    (Some(effect), Op::Set(path)) => set(effect, path, false),
                    (Some(effect), Op::SetLocal(path)) => set(effect, path, true),
                    (Some(Effect::ResetAll), Op::ResetAll) => true,
                    (Some(Effect::CatalogueChange), Op::Denied | Op::FailsAtRun) => true,
                    (None, op) => matches!(
                        op,
                        Op::Select(_)
                            | Op::Delete
                            | Op::FailsAtBind
                            | Op::FailsAtRun
                            | Op::FailsAtParse
                            | Op::Deferred
                            | Op::Notify
                    ),
                    _ => false,
                };
                assert!(fits, "{text}: {step:?}, {op:?}");
            }
        }
    }
}

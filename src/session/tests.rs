//! Scripts of frames in, frames out. The server is played by hand here; real servers are in `tests/`.
#![allow(clippy::wildcard_enum_match_arm, reason = "what a test does not look at")]

use bytes::{BufMut as _, BytesMut};
use postgres_protocol::message::frontend;
use proptest::prelude::*;

use super::probe::Questions;
use super::settings::AtLogin;
use super::*;
use crate::statement::{ServerTimers, Via};
use crate::wire::frame::Frame;

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
}

fn bind(portal: &str, statement: &str, value: &str) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_slice(&[portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0\0\x01"].concat());
    body.put_u32(value.len() as u32);
    body.put_slice(value.as_bytes());
    body.put_slice(&[0, 0]);
    frame(b'B', &body)
}

fn execute(portal: &str) -> Vec<u8> {
    let mut out = BytesMut::new();
    frontend::execute(portal, 0, &mut out).unwrap();
    out.to_vec()
}

fn flush() -> Vec<u8> {
    frame(b'H', b"")
}

fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

fn complete(tag: &str) -> Vec<u8> {
    frame(b'C', &[tag.as_bytes(), b"\0"].concat())
}

fn ready(status: u8) -> Vec<u8> {
    frame(b'Z', &[status])
}

fn error(code: &str, message: &str) -> Vec<u8> {
    frame(b'E', format!("SERROR\0VERROR\0C{code}\0M{message}\0\0").as_bytes())
}

#[derive(Default)]
struct Collect(Vec<u8>);

impl Sink<'_> for Collect {
    fn pass(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn insert(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// A session with both its ends in the test's hands.
struct Ends {
    session: Session,
    held_back: Vec<u8>,
    receipts: u64,
}

impl Ends {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let settings = Settings::new(&AtLogin::of("public", "app"));
        Self { session: Session::new(limits, settings, 42), held_back: Vec::new(), receipts: 0 }
    }

    /// The agent sends; what the session does not take yet waits in front of the next.
    fn agent(&mut self, bytes: &[u8]) {
        self.held_back.extend_from_slice(bytes);
        self.offer();
    }

    fn offer(&mut self) {
        match self.session.on_agent(&self.held_back, 0) {
            Ok(used) => drop(self.held_back.drain(..used)),
            // What no generated agent can know: that upstream is copying by now.
            Err(refusal @ Refusal::Protocol { what }) if what.contains("during COPY") => {
                self.session.end(&refusal, 0);
                self.held_back.clear();
            }
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    /// Upstream sends; returns what the agent receives.
    fn upstream(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut agent = Collect::default();
        let used = self.session.on_upstream(bytes, 0, &mut agent).unwrap();
        assert_eq!(used, bytes.len(), "whole frames are consumed");
        agent.0.extend_from_slice(&self.session.to_agent().split());
        agent.0
    }

    fn forwarded(&mut self) -> Vec<u8> {
        self.session.to_upstream().split().to_vec()
    }

    fn submission(&mut self) -> Submission {
        match self.session.poll() {
            Some(Output::Submit(submission)) => submission,
            other => panic!("expected a submission, not {other:?}"),
        }
    }

    fn receipt(&mut self, digest: Digest) -> Receipt {
        self.receipts += 1;
        Receipt::for_test(self.receipts, digest)
    }

    fn allow_with(&mut self, submission: &Submission, effects: Vec<SessionEffect>) {
        let receipt = self.receipt(submission.digest);
        let resolution = Resolution::Forward {
            receipt,
            steps: [Step { effects }].into(),
            shown: submission.statement.sql.clone(),
            digest_result: false,
            late: submission.statement.sql.as_str().is_some_and(|sql| sql.starts_with("late")),
        };
        self.session.resolve(submission.ticket, resolution, 0);
        self.offer();
    }

    fn allow(&mut self) -> Submission {
        let submission = self.submission();
        self.allow_with(&submission, vec![]);
        submission
    }

    fn refuse(&mut self) {
        let submission = self.submission();
        let refusal = Refusal::DeniedByPolicy { rule: "no".into(), message: None };
        self.session.resolve(submission.ticket, Resolution::Refuse(refusal), 0);
        self.offer();
    }

    /// Our grammar rejects it.
    fn unparsed(&mut self) -> Submission {
        let submission = self.submission();
        self.leave_to_upstream(&submission);
        submission
    }

    fn leave_to_upstream(&mut self, submission: &Submission) {
        let receipt = self.receipt(submission.digest);
        let message = "syntax error at or near \"selec\"".into();
        let refusal = Refusal::Syntax { message, position: Some(1) };
        let shown = submission.statement.sql.clone();
        self.session.resolve(submission.ticket, Resolution::Unparsed { receipt, refusal, shown }, 0);
        self.offer();
    }

    fn ending(&mut self) -> Ending {
        match self.session.poll() {
            Some(Output::Outcome { outcome, .. }) => outcome.ending,
            other => panic!("expected an outcome, not {other:?}"),
        }
    }

    fn quiet(&mut self) {
        assert!(self.session.poll().is_none(), "nothing more to tell");
        assert!(self.forwarded().is_empty(), "nothing more to forward");
    }
}

fn completed(tag: &str) -> Ending {
    Ending::Completed { tag: tag.into() }
}

/// The nonce in the substitute that `forwarded` ends with, before any Sync.
fn nonce_of(forwarded: &[u8]) -> String {
    let text = String::from_utf8_lossy(forwarded);
    let start = text.rfind("countersign_").unwrap();
    text[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn kinds(bytes: &[u8]) -> String {
    let mut rest = bytes;
    let mut kinds = String::new();
    while let Some(frame) = Frame::first(rest, 1 << 30).unwrap() {
        kinds.push(char::from(frame.tag));
        rest = &rest[frame.bytes.len()..];
    }
    assert!(rest.is_empty());
    kinds
}

#[test]
fn a_query_is_forwarded_byte_for_byte_once_it_has_a_receipt() {
    let mut ends = Ends::new();
    let sent = query("select 1 -- \u{e9}");

    ends.agent(&sent);
    assert!(ends.forwarded().is_empty(), "not before");
    let submission = ends.allow();

    assert_eq!(submission.statement.via, Via::Query);
    assert_eq!(submission.status, Some(TransactionStatus::Idle));
    assert_eq!(ends.forwarded(), sent);
    let reply = [frame(b'T', b"\0\0"), frame(b'D', b"\0\0"), complete("SELECT 1"), ready(b'I')].concat();
    assert_eq!(ends.upstream(&reply), reply);
    assert_eq!(ends.ending(), completed("SELECT 1"));
    ends.quiet();
}

#[test]
fn a_receipt_for_other_bytes_forwards_nothing() {
    let mut ends = Ends::new();
    ends.agent(&query("select 1"));
    let submission = ends.submission();
    let receipt = ends.receipt(Statement::query("drop table t".into()).digest());

    let resolution = Resolution::Forward {
        receipt,
        steps: [].into(),
        shown: "".into(),
        digest_result: false,
        late: false,
    };
    ends.session.resolve(submission.ticket, resolution, 0);

    let forwarded = ends.forwarded();
    assert!(String::from_utf8_lossy(&forwarded).contains("countersign_internal"), "{forwarded:?}");
}

#[test]
fn a_refused_query_is_refused_by_upstream_and_the_error_is_ours() {
    let mut ends = Ends::new();
    ends.agent(&query("drop table t"));
    ends.refuse();

    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "Q");
    assert!(!String::from_utf8_lossy(&forwarded).contains("drop"));
    let nonce = nonce_of(&forwarded);
    let reply = [error("42601", &format!("syntax error at or near \"{nonce}\"")), ready(b'E')].concat();
    let told = ends.upstream(&reply);

    let text = String::from_utf8_lossy(&told);
    assert!(text.contains("42501") && text.contains("denied by rule"), "{text}");
    assert!(!text.contains(&nonce));
    assert!(told.ends_with(&ready(b'E')), "upstream's own status");
    assert_eq!(ends.session.status(), TransactionStatus::Failed);
}

#[test]
fn another_error_than_the_substitutes_own_is_passed_on() {
    let mut ends = Ends::new();
    ends.agent(&query("drop table t"));
    ends.refuse();
    ends.forwarded();

    let timeout = error("57014", "canceling statement due to statement timeout");
    assert_eq!(ends.upstream(&timeout), timeout);
}

#[test]
fn a_unit_is_decided_whole_before_any_of_it_is_forwarded() {
    let mut ends = Ends::new();
    let unit = [
        parse("", "insert into t values ($1)"),
        bind("", "", "1"),
        execute(""),
        parse("", "delete from t where a = $1"),
        bind("", "", "2"),
        execute(""),
        sync(),
    ]
    .concat();
    ends.agent(&unit);

    let first = ends.allow();
    assert_eq!(first.statement.sql, "insert into t values ($1)".into());
    assert_eq!(first.statement.parameters[0].value.as_deref(), Some(&b"1"[..]));
    assert!(ends.forwarded().is_empty());
    let second = ends.allow();
    assert_eq!(second.before, ["insert into t values ($1)".into()]);

    assert_eq!(ends.forwarded(), unit);
    let done = |tag| [frame(b'1', b""), frame(b'2', b""), complete(tag)].concat();
    ends.upstream(&[done("INSERT 0 1"), done("DELETE 1"), ready(b'I')].concat());
    assert_eq!(ends.ending(), completed("INSERT 0 1"));
    assert_eq!(ends.ending(), completed("DELETE 1"));
    ends.quiet();
}

const UNDONE: Ending = Ending::Failed { sqlstate: SqlState::rolled_back() };

#[test]
fn a_refused_bind_lets_what_came_before_run_and_drops_what_comes_after() {
    let mut ends = Ends::new();
    let before = [parse("a", "select 1"), bind("", "a", "1"), execute("")].concat();
    let refused = [parse("b", "drop table t"), bind("", "b", "1"), execute("")].concat();
    let after = [parse("c", "select 3"), bind("", "c", "1"), execute("")].concat();
    ends.agent(&[before.clone(), refused, after, sync()].concat());

    ends.allow();
    ends.refuse();
    let prepared = ends.allow();
    assert_eq!((prepared.purpose, prepared.statement.via), (Purpose::Prepare, Via::Parse));

    let forwarded = ends.forwarded();
    assert!(forwarded.starts_with(&before));
    assert_eq!(kinds(&forwarded), "PBEPBS");
    let nonce = nonce_of(&forwarded);
    let failed = error("26000", &format!("prepared statement \"{nonce}\" does not exist"));
    let replies =
        [frame(b'1', b""), frame(b'2', b""), complete("SELECT 1"), frame(b'1', b""), failed, ready(b'I')];
    let told = ends.upstream(&replies.concat());

    assert!(String::from_utf8_lossy(&told).contains("42501"));
    assert_eq!(ends.ending(), completed("PARSE"));
    assert_eq!(ends.ending(), UNDONE, "it ran, and its transaction was undone");
    ends.quiet();
}

#[test]
fn what_does_not_parse_is_refused_by_upstreams_own_words_and_never_executed() {
    let mut ends = Ends::new();
    ends.agent(&[query("selec 1"), query("select 2")].concat());
    ends.unparsed();

    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "PCS", "parsed, and nothing of it stays");
    assert!(forwarded.starts_with(&parse("", "selec 1")));
    let said = frame(b'E', b"SERROR\0VERROR\0C42601\0MSyntaxfehler\0Hein Tipp\0P1\0\0");
    let reply = [said, ready(b'E')].concat();
    assert_eq!(ends.upstream(&reply), reply, "as it came");
    assert_eq!(ends.ending(), Ending::Failed { sqlstate: SqlState::new("42601").unwrap() });
    assert_eq!(ends.session.status(), TransactionStatus::Failed);
    ends.offer();
    assert_eq!(ends.allow().statement.sql, "select 2".into(), "the session goes on");
}

#[test]
fn a_query_that_only_upstream_can_parse_is_decided_again_as_one_that_nobody_here_can_read() {
    let mut ends = Ends::new();
    ends.agent(&query("selec 1"));
    assert!(!ends.unparsed().upstream_parses);

    ends.forwarded();
    let told = ends.upstream(&[frame(b'1', b""), frame(b'3', b""), ready(b'T')].concat());

    assert!(told.is_empty(), "nothing of the parsing is told: {told:?}");
    assert_eq!(ends.ending(), completed("PARSE"));
    assert!(ends.forwarded().is_empty(), "nothing runs yet");
    assert_eq!(ends.session.lookup(""), Lookup::Unknown);
    let again = ends.allow();
    assert!(again.upstream_parses);
    assert_eq!((again.statement.sql, again.status), ("selec 1".into(), Some(TransactionStatus::InBlock)));
    assert_eq!(ends.forwarded(), query("selec 1"));
}

#[test]
fn several_statements_that_only_upstream_can_parse_are_refused_in_our_words() {
    let mut ends = Ends::new();
    ends.agent(&query("selec 1; selec 2"));
    ends.unparsed();
    ends.forwarded();

    let several = "cannot insert multiple commands into a prepared statement";
    let fields = format!("SFEHLER\0VERROR\0C42601\0M{several}\0Rexec_parse_message\0\0");
    let told = ends.upstream(&[frame(b'E', fields.as_bytes()), ready(b'I')].concat());

    assert_eq!(kinds(&told), "EZ");
    let text = String::from_utf8_lossy(&told);
    assert!(text.contains("C42601\0Msyntax error at or near \"selec\"\0P1\0"), "{text}");
}

#[test]
fn a_parse_that_only_upstream_can_parse_is_refused_in_our_words() {
    let mut ends = Ends::new();
    let bad = parse("", "selec 1");
    ends.agent(&[bad.clone(), bind("", "", "1"), execute(""), sync()].concat());
    ends.unparsed();

    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "PBS");
    assert!(forwarded.starts_with(&bad));
    let failed = error("26000", &format!("prepared statement \"{}\" does not exist", nonce_of(&forwarded)));
    let told = ends.upstream(&[frame(b'1', b""), failed, ready(b'E')].concat());

    assert_eq!(kinds(&told), "EZ", "nothing of the parsing is told");
    let text = String::from_utf8_lossy(&told);
    assert!(text.contains("C42601\0Msyntax error at or near \"selec\"\0P1\0"), "{text}");
    assert_eq!(ends.ending(), completed("PARSE"));
    // What upstream now has as its unnamed statement is known, and refused again when it is bound.
    assert!(matches!(ends.session.lookup(""), Lookup::Known(prepared) if prepared.sql == "selec 1".into()));
    ends.agent(&[bind("", "", "1"), execute(""), sync()].concat());
    let bound = ends.unparsed();
    assert_eq!((bound.statement.via, bound.statement.sql), (Via::Bind, "selec 1".into()));
    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "BS");
    assert!(String::from_utf8_lossy(&forwarded).contains("countersign_syntax_error"), "a substitute");
}

#[test]
fn a_name_whose_parse_is_about_to_fail_means_nothing_to_the_next_unit() {
    let mut ends = Ends::new();
    ends.agent(&[parse("y", "selec 1"), sync()].concat());
    ends.unparsed();
    ends.forwarded();
    ends.agent(&[bind("", "y", "1"), execute(""), sync()].concat());
    ends.unparsed();
    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "BS");

    ends.upstream(&[error("42601", "syntax error at or near \"selec\""), ready(b'I')].concat());
    let failed = error("26000", &format!("prepared statement \"{}\" does not exist", nonce_of(&forwarded)));
    let told = ends.upstream(&[failed, ready(b'I')].concat());

    let text = String::from_utf8_lossy(&told);
    assert!(text.contains("C26000\0Mprepared statement \"y\" does not exist\0"), "{text}");
}

#[test]
fn a_bind_that_does_not_parse_is_refused_at_its_parse() {
    let mut ends = Ends::new();
    let before = [parse("a", "select 1"), bind("", "a", "1"), execute("")].concat();
    let bad = parse("x", "selec 1");
    ends.agent(&[before.clone(), bad.clone(), bind("", "x", "1"), execute(""), sync()].concat());
    ends.allow();
    ends.unparsed();

    let forwarded = ends.forwarded();

    assert_eq!(kinds(&forwarded), "PBEPBS");
    assert!(forwarded.starts_with(&[before, bad].concat()));
    assert!(!String::from_utf8_lossy(&forwarded).contains("\0x\0\0\0\0\x01"), "not the agent's Bind");
    let ran = [frame(b'1', b""), frame(b'2', b""), complete("SELECT 1")].concat();
    let reply = [ran, error("42601", "syntax error at or near \"selec\""), ready(b'I')].concat();
    assert_eq!(ends.upstream(&reply), reply);
    assert_eq!(ends.session.lookup("x"), Lookup::Unknown);
    assert_eq!(ends.ending(), Ending::Failed { sqlstate: SqlState::new("42601").unwrap() });
    assert_eq!(ends.ending(), UNDONE);
    ends.quiet();
}

#[test]
fn after_a_failing_reparse_a_bind_means_the_old_statement() {
    let mut ends = Ends::new();
    ends.agent(&[parse("x", "delete from t"), sync()].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), ready(b'I')].concat());
    ends.forwarded();
    ends.ending();

    ends.agent(&[parse("x", "select 1"), sync()].concat());
    ends.allow();
    ends.agent(&[bind("", "x", "1"), execute(""), sync()].concat());
    assert!(ends.session.poll().is_none(), "ambiguous until upstream has answered");
    ends.upstream(&[error("42P05", "prepared statement \"x\" already exists"), ready(b'I')].concat());

    assert!(matches!(ends.ending(), Ending::Failed { .. }));
    assert_eq!(ends.submission().statement.sql, "delete from t".into());
}

/// Upstream answers on its own, because of the `Sync` in front of the `Flush`.
#[test]
fn an_ambiguous_name_behind_a_flush_waits_for_the_answer_as_well() {
    let mut ends = Ends::new();
    ends.agent(&[parse("x", "delete from t"), sync()].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), ready(b'I')].concat());
    ends.ending();

    ends.agent(&[parse("x", "select 1"), sync()].concat());
    ends.allow();
    ends.agent(&[parse("y", "select 2"), frame(b'H', b"")].concat());
    ends.allow();
    ends.agent(&[bind("", "x", "1"), execute(""), sync()].concat());
    assert!(ends.session.poll().is_none(), "ambiguous until upstream has answered");
    ends.upstream(&[error("42P05", "prepared statement \"x\" already exists"), ready(b'I')].concat());

    assert!(matches!(ends.ending(), Ending::Failed { .. }));
    assert_eq!(ends.submission().statement.sql, "delete from t".into());
}

/// Had the later `Bind` failed, the `Execute` would be skipped with it, so nothing is waited for.
#[test]
fn behind_a_flush_the_latest_bind_of_a_portal_counts() {
    let mut ends = Ends::new();
    ends.agent(&[parse("a", "late ddl"), bind("", "a", "1"), sync()].concat());
    ends.allow();
    ends.agent(&[parse("b", "select 1"), bind("", "b", "1"), frame(b'H', b"")].concat());
    ends.allow();
    ends.forwarded();

    ends.agent(&[execute(""), sync()].concat());

    assert_eq!(kinds(&ends.forwarded()), "ES", "neither decided anew nor kept waiting");
}

#[test]
fn a_name_that_changes_its_meaning_while_it_is_decided_is_decided_anew() {
    let mut ends = Ends::new();
    ends.agent(&[parse("x", "select 1"), sync()].concat());
    ends.allow();
    ends.agent(&[bind("", "x", "1"), execute(""), sync()].concat());
    let submission = ends.submission();
    ends.forwarded();
    ends.upstream(&[error("25P02", "current transaction is aborted"), ready(b'E')].concat());
    assert!(matches!(ends.ending(), Ending::Failed { .. }));

    ends.allow_with(&submission, vec![]);

    assert_eq!(ends.ending(), Ending::NotExecuted, "what the receipt was for");
    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "BS");
    let failed = error("26000", &format!("prepared statement \"{}\" does not exist", nonce_of(&forwarded)));
    let told = ends.upstream(&[failed, ready(b'E')].concat());
    assert!(String::from_utf8_lossy(&told).contains("prepared statement \"x\" does not exist"));
}

/// Postgres stops at the bytes, before it drops the unnamed statement.
#[test]
fn a_text_that_is_no_utf8_keeps_the_unnamed_statement() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "select 1"), sync()].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), ready(b'I')].concat());
    ends.ending();
    ends.forwarded();

    ends.agent(&frame(b'Q', b"\xe4\0"));
    let submission = ends.submission();
    let refusal = Refusal::Encoding { message: "invalid byte sequence".into() };
    ends.session.resolve(submission.ticket, Resolution::Refuse(refusal), 0);
    assert_eq!(ends.forwarded(), frame(b'Q', b"\xff\0"));
    let told = ends.upstream(&[error("22021", "of the substitute"), ready(b'I')].concat());
    assert!(String::from_utf8_lossy(&told).contains("invalid byte sequence"));
    ends.agent(&[bind("", "", "1"), execute(""), sync()].concat());

    assert_eq!(ends.submission().statement.sql, "select 1".into());
}

/// Had the later `Parse` failed, upstream would skip what asks with it: nobody has to wait for its answer,
/// which may never come by itself.
#[test]
fn a_name_between_two_meanings_of_one_pipeline_means_the_later() {
    for flush in [frame(b'H', b""), Vec::new()] {
        let mut ends = Ends::new();
        ends.agent(&[parse("", "delete from t"), sync()].concat());
        ends.allow();
        ends.upstream(&[frame(b'1', b""), ready(b'I')].concat());
        ends.ending();
        ends.agent(&[parse("", "select 1"), flush].concat());
        ends.session.decide_partial(0);
        ends.allow();
        ends.forwarded();

        ends.agent(&[bind("", "", "1"), execute(""), sync()].concat());

        assert_eq!(ends.submission().statement.sql, "select 1".into());
    }
}

#[test]
fn a_statement_that_ceases_to_exist_while_it_is_held_is_told_as_missing() {
    let mut ends = Ends::new();
    ends.agent(&[parse("bad", "select nonsense"), parse("x", "delete from t"), sync()].concat());
    ends.allow();
    ends.allow();
    ends.agent(&[bind("", "x", "1"), execute(""), sync()].concat());
    let held = ends.submission();
    ends.upstream(&[error("42703", "no such column"), ready(b'I')].concat());
    ends.ending();
    ends.ending();
    ends.forwarded();

    ends.allow_with(&held, vec![]);

    assert_eq!(ends.ending(), Ending::NotExecuted, "the receipt that was not used is accounted for");
    assert_eq!(kinds(&ends.forwarded()), "BS");
    ends.quiet();
}

#[test]
fn a_bind_of_what_does_not_exist_keeps_the_unnamed_portal() {
    let mut ends = Ends::new();
    ends.agent(&query("begin"));
    let begin = ends.submission();
    ends.allow_with(&begin, vec![SessionEffect::Begin]);
    ends.upstream(&[complete("BEGIN"), ready(b'T')].concat());
    ends.ending();
    ends.agent(&[parse("", "select 1"), bind("", "", "1"), sync()].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), ready(b'T')].concat());
    ends.agent(&[bind("", "nowhere", "1"), sync()].concat());
    let nonce = nonce_of(&ends.forwarded());
    ends.upstream(&[error("26000", &nonce), ready(b'E')].concat());

    ends.agent(&[execute(""), sync()].concat());

    assert_eq!(ends.forwarded(), [execute(""), sync()].concat(), "upstream itself says what is wrong");
}

#[test]
fn a_parse_that_upstream_skips_never_means_anything() {
    let mut ends = Ends::new();
    ends.agent(&[parse("x", "delete from t"), sync()].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), ready(b'I')].concat());
    // The first message of the unit fails, so the Close and the new Parse behind it never happen.
    let close = frame(b'C', b"Sx\0");
    ends.agent(&[parse("bad", "select nonsense"), close, parse("x", "select 1"), sync()].concat());
    ends.ending();
    ends.allow();
    ends.allow();
    ends.upstream(&[error("42703", "column \"nonsense\" does not exist"), ready(b'I')].concat());

    ends.agent(&[bind("", "x", "1"), execute(""), sync()].concat());

    ends.ending();
    ends.ending();
    assert_eq!(ends.submission().statement.sql, "delete from t".into());
}

#[test]
fn sql_and_protocol_names_are_one_space() {
    let mut ends = Ends::new();
    ends.agent(&query("prepare x as delete from t"));
    let submission = ends.submission();
    ends.allow_with(&submission, vec![SessionEffect::Prepare("x".into())]);
    assert!(matches!(ends.session.lookup("x"), Lookup::Known(_)), "pending already counts");
    ends.upstream(&[complete("PREPARE"), ready(b'I')].concat());
    ends.ending();

    ends.agent(&[bind("", "x", "1"), execute(""), sync()].concat());

    assert_eq!(ends.allow().statement.sql, "prepare x as delete from t".into());
}

#[test]
fn a_statement_that_sql_prepares_inside_a_unit_is_what_a_later_bind_means() {
    let mut ends = Ends::new();
    let prepare = [parse("p", "prepare x as delete from t"), bind("", "p", "1"), execute("")].concat();
    let first = [parse("x", "select 1"), frame(b'C', b"Sx\0")].concat();
    ends.agent(&[first, prepare, bind("", "x", "1"), execute(""), sync()].concat());

    let submission = ends.submission();
    ends.allow_with(&submission, vec![SessionEffect::Prepare("x".into())]);

    assert_eq!(ends.allow().statement.sql, "prepare x as delete from t".into());
    let covered = ends.allow();
    assert_eq!((covered.purpose, covered.statement.sql), (Purpose::Prepare, "select 1".into()));
    assert_eq!(kinds(&ends.forwarded()), "PCPBEBES");
}

#[test]
fn an_execute_of_an_unknown_portal_gets_postgres_own_error() {
    let mut ends = Ends::new();
    ends.agent(&[execute("nowhere"), sync()].concat());

    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "ES");
    let failed = error("34000", &format!("portal \"{}\" does not exist", nonce_of(&forwarded)));
    let told = ends.upstream(&[failed, ready(b'I')].concat());

    assert!(String::from_utf8_lossy(&told).contains("portal \"nowhere\" does not exist"));
}

#[test]
fn the_unnamed_portal_is_never_executed_behind_a_query() {
    let mut ends = Ends::new();
    ends.agent(&[query("begin"), parse("", "select 1"), bind("", "", "1"), sync()].concat());
    let begin = ends.submission();
    ends.allow_with(&begin, vec![SessionEffect::Begin]);
    ends.allow();
    ends.agent(&query("select broken"));
    ends.allow();
    ends.forwarded();

    ends.agent(&[execute(""), sync()].concat());

    assert!(String::from_utf8_lossy(&ends.forwarded()).contains("countersign_unknown"));
}

#[test]
fn syncs_inside_a_copy_are_not_counted() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "copy t from stdin"), bind("", "", "1"), execute(""), sync()].concat());
    let copy = ends.submission();
    ends.allow_with(&copy, vec![SessionEffect::CopyIn]);
    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")].concat());
    ends.forwarded();
    let data = [frame(b'd', b"1\n"), sync(), frame(b'd', b"2\n"), frame(b'c', b""), sync()].concat();
    ends.agent(&data);
    assert_eq!(ends.forwarded(), data);

    ends.upstream(&[complete("COPY 2"), ready(b'I')].concat());

    assert!(ends.session.is_idle());
    assert_eq!(ends.ending(), completed("COPY 2"));
    ends.agent(&query("select 1"));
    ends.allow();
    ends.upstream(&[complete("SELECT 1"), ready(b'I')].concat());
    assert!(ends.session.is_idle());
}

#[test]
fn each_copy_of_a_query_has_an_end_of_its_own() {
    let mut ends = Ends::new();
    ends.agent(&query("copy t from stdin; copy t from stdin"));
    let copies = ends.submission();
    let receipt = ends.receipt(copies.digest);
    let step = || Step { effects: vec![SessionEffect::CopyIn] };
    let resolution = Resolution::Forward {
        receipt,
        steps: [step(), step()].into(),
        shown: "".into(),
        digest_result: false,
        late: true,
    };
    ends.session.resolve(copies.ticket, resolution, 0);
    // The first copy's end is there before upstream asks for it.
    ends.agent(&[frame(b'd', b"1\n"), frame(b'c', b"")].concat());
    ends.upstream(&[frame(b'G', b"\0\0\0"), complete("COPY 1"), frame(b'G', b"\0\0\0")].concat());

    ends.agent(&[sync(), frame(b'c', b"")].concat());
    ends.upstream(&[complete("COPY 0"), ready(b'I')].concat());

    assert!(ends.session.is_idle(), "the Sync was part of the second copy");
    assert_eq!(ends.ending(), completed("COPY 1; COPY 0"));
}

#[test]
fn a_copy_done_that_nobody_waits_for_does_not_stand_in_the_way_of_rows() {
    let mut ends = Ends::new();
    ends.agent(&query("select 1"));
    ends.allow();
    ends.agent(&[frame(b'C', b"Sx\0"), frame(b'c', b""), query("select 2")].concat());
    ends.allow();
    ends.upstream(&[complete("SELECT 0"), ready(b'I')].concat());

    let reply = [frame(b'3', b""), frame(b'T', b"\0\0"), complete("SELECT 0"), ready(b'I')].concat();

    assert_eq!(ends.upstream(&reply), reply);
    assert!(ends.session.is_idle());
}

#[test]
fn a_copy_done_that_nobody_waits_for_does_not_keep_a_name_unsettled() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "delete from t"), sync()].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), ready(b'I')].concat());
    ends.ending();
    ends.agent(&query("select 1"));
    ends.allow();
    ends.agent(&[parse("", "select 1"), frame(b'c', b""), frame(b'H', b"")].concat());
    ends.allow();

    ends.agent(&[bind("", "", "1"), execute(""), sync()].concat());

    assert_eq!(ends.submission().statement.sql, "select 1".into(), "at once: the later meaning or none");
    ends.upstream(&[complete("SELECT 0"), ready(b'I'), frame(b'1', b"")].concat());
    assert_eq!((ends.ending(), ends.ending()), (completed("SELECT 0"), completed("PARSE")));
}

#[test]
fn a_sync_among_the_data_of_a_copy_that_failed_early_is_answered_before_the_next_query() {
    let mut ends = Ends::new();
    ends.agent(&query("copy t from stdin"));
    let copy = ends.submission();
    ends.allow_with(&copy, vec![SessionEffect::CopyIn]);
    ends.upstream(&frame(b'G', b"\0\0\0"));
    ends.agent(&[frame(b'd', b"bad\n"), sync(), frame(b'c', b"")].concat());
    ends.agent(&query("select 1"));
    ends.allow();
    ends.forwarded();
    ends.upstream(&[error("22P04", "bad data"), ready(b'I')].concat());
    ends.ending();

    ends.upstream(&[ready(b'I'), frame(b'T', b"\0\0")].concat());
    assert!(!ends.session.is_idle(), "that was the Sync");
    ends.upstream(&[complete("SELECT 0"), ready(b'I')].concat());

    assert_eq!(ends.ending(), completed("SELECT 0"));
    assert!(ends.session.is_idle());
}

#[test]
fn the_ends_of_two_copies_in_one_query_may_come_before_the_second_begins() {
    let mut ends = Ends::new();
    ends.agent(&query("copy t from stdin; copy t from stdin"));
    let copies = ends.submission();
    ends.allow_with(&copies, vec![SessionEffect::CopyIn, SessionEffect::CopyIn]);
    ends.upstream(&frame(b'G', b"\0\0\0"));

    ends.agent(&[frame(b'c', b""), frame(b'c', b""), sync()].concat());
    ends.upstream(&[complete("COPY 0"), frame(b'G', b"\0\0\0"), complete("COPY 0"), ready(b'I')].concat());
    assert!(!ends.session.is_idle(), "the Sync is behind both");
    ends.upstream(&ready(b'I'));

    assert!(ends.session.is_idle());
}

#[test]
fn copy_data_outside_a_copy_is_dropped_and_streams_within_one() {
    let mut ends = Ends::new();
    ends.agent(&[frame(b'd', b"stray"), frame(b'c', b""), frame(b'f', b"x\0")].concat());
    assert!(ends.forwarded().is_empty());

    ends.agent(&query("copy t from stdin"));
    ends.allow();
    ends.forwarded();
    ends.upstream(&frame(b'G', b"\0\0\0"));
    let data = frame(b'd', &[b'x'; 100_000]);
    ends.agent(&data[..50_000]);
    assert_eq!(ends.forwarded(), &data[..50_000], "a part is not kept waiting for the rest");
    ends.agent(&data[50_000..]);
    assert_eq!(ends.forwarded(), &data[50_000..]);
}

#[test]
fn an_error_of_an_earlier_message_withdraws_what_is_being_decided() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "select 1/0"), bind("", "", "1"), execute(""), frame(b'H', b"")].concat());
    ends.allow();
    ends.agent(&[parse("", "drop table t"), bind("", "", "1"), execute(""), sync()].concat());
    let held = ends.submission();
    ends.forwarded();

    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), error("22012", "division by zero")].concat());

    assert!(matches!(ends.ending(), Ending::Failed { .. }));
    assert!(matches!(ends.session.poll(), Some(Output::Withdrawn(ticket)) if ticket == held.ticket));
    assert_eq!(ends.forwarded(), sync());
    ends.allow_with(&held, vec![]);
    assert_eq!(ends.ending(), Ending::NotExecuted, "an approval that comes too late forwards nothing");
    ends.quiet();
    assert_eq!(ends.upstream(&ready(b'I')), ready(b'I'));
    assert!(ends.session.is_idle());
}

#[test]
fn messages_that_upstream_skips_are_not_forwarded() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "select 1/0"), bind("", "", "1"), execute(""), frame(b'H', b"")].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), error("22012", "division by zero")].concat());
    ends.forwarded();
    ends.ending();

    ends.agent(&[parse("", "drop table t"), bind("", "", "1"), query("drop table t"), sync()].concat());

    assert!(ends.session.poll().is_none());
    assert_eq!(ends.forwarded(), sync());
}

/// What upstream answers to a probe: to each setting `values` says something else of, its own name. A server
/// before 17 has no `transaction_timeout`.
fn probe_answer(questions: Questions, values: &[(&str, &str)]) -> Vec<u8> {
    let mut reply = Vec::new();
    let timers = ServerTimers::NAMES.iter().take(if questions == Questions::Everything { 2 } else { 0 });
    for setting in questions.settings().iter().chain(timers) {
        let value = values.iter().find(|(name, _)| name == setting).map_or(*setting, |(_, value)| value);
        let mut row = vec![0, 1];
        row.extend((value.len() as u32).to_be_bytes());
        row.extend(value.as_bytes());
        reply.extend([frame(b'1', b""), frame(b'2', b""), frame(b'D', &row), complete("SHOW")].concat());
        reply.extend([frame(b'3', b""), frame(b'3', b"")].concat());
    }
    reply
}

#[test]
fn a_probe_is_invisible_to_the_agent_and_asks_upstream_itself() {
    let mut ends = Ends::new();
    assert!(ends.session.probe(Questions::Everything));
    assert!(!ends.session.probe(Questions::Everything), "one at a time");
    let forwarded = ends.forwarded();
    assert_eq!(kinds(&forwarded), "PBECC".repeat(probe::SETTINGS.len() + 2) + "S");
    assert!(!forwarded.windows(2).any(|pair| pair == b"Q\0"), "never a Query");
    let mut reply = probe_answer(Questions::Everything, &[("idle_session_timeout", "2s")]);
    let notification = frame(b'A', b"\0\0\0\x01jobs\0\0");
    reply.extend(&notification);
    reply.extend(ready(b'T'));

    assert_eq!(ends.upstream(&reply), notification, "what is not an answer to it passes");

    match ends.session.poll() {
        Some(Output::Probed(Ok(probed))) => {
            assert_eq!(probed.settings.get("role").map(|value| &**value), Some("role"));
            assert_eq!(probed.status, TransactionStatus::InBlock);
            let idle_session = Some(Duration::from_secs(2));
            assert_eq!(probed.timers, ServerTimers { idle_session, ..ServerTimers::default() });
        }
        other => panic!("{other:?}"),
    }
    assert!(ends.session.is_idle());
}

/// A `Sync` of ours would end the agent's transaction, so the question is part of it.
#[test]
fn in_the_middle_of_a_pipeline_a_probe_ends_in_a_flush_and_its_answer_ends_with_the_pipeline() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "set local search_path = b"), bind("", "", "1"), execute("")].concat());
    ends.agent(&frame(b'H', b""));
    let submission = ends.submission();
    ends.allow_with(&submission, vec![set_path("b", true)]);
    ends.forwarded();
    assert!(!ends.session.probe(Questions::Names), "something is not answered");
    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), complete("SET")].concat());
    assert_eq!(ends.session.search_path(), SearchPath::Unknown);

    assert!(ends.session.probe(Questions::Names));
    assert_eq!(kinds(&ends.forwarded()), "PBECC".repeat(3) + "H");
    let values = [("search_path", "b"), ("role", "none"), ("session_authorization", "app")];
    assert_eq!(ends.upstream(&probe_answer(Questions::Names, &values)), b"");

    assert_eq!(ends.session.search_path(), SearchPath::Known(vec!["b".into()]));
    ends.agent(&sync());
    assert_eq!(ends.session.search_path(), SearchPath::Unknown, "SET LOCAL ends with it");
    ends.upstream(&ready(b'I'));
    assert_eq!(ends.session.search_path(), SearchPath::Unknown, "until upstream is asked again");
}

/// Drivers parse and describe with a `Flush`, and bind in the next packet.
#[test]
fn behind_messages_that_run_nothing_a_probe_ends_in_a_sync() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "select 1"), frame(b'D', b"S\0"), frame(b'H', b"")].concat());
    ends.allow();
    ends.forwarded();
    ends.upstream(&[frame(b'1', b""), frame(b't', &[0, 0]), frame(b'n', b"")].concat());
    ends.ending();

    assert!(ends.session.probe(Questions::Names));

    assert_eq!(kinds(&ends.forwarded()), "PBECC".repeat(3) + "S");
    assert_eq!(ends.upstream(&[probe_answer(Questions::Names, &[]), ready(b'I')].concat()), b"");
    assert!(matches!(ends.session.poll(), Some(Output::Probed(Ok(_)))));
    ends.agent(&[bind("", "", "1"), execute(""), sync()].concat());
    ends.allow();
    assert_eq!(kinds(&ends.forwarded()), "BES");
}

#[test]
fn a_probe_that_fails_in_the_middle_of_a_pipeline_fails_it_and_the_agent_is_told() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "select 1"), bind("", "", "1"), execute(""), frame(b'H', b"")].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), complete("SELECT 1")].concat());
    ends.agent(&[parse("", "drop table t"), bind("", "", "1"), execute(""), frame(b'H', b"")].concat());
    let held = ends.submission();
    assert!(ends.session.probe(Questions::Everything));
    ends.forwarded();

    let failed = error("57014", "canceling statement due to statement timeout");
    assert_eq!(ends.upstream(&failed), failed);

    assert!(matches!(ends.session.poll(), Some(Output::Probed(Err(_)))));
    assert!(matches!(ends.session.poll(), Some(Output::Withdrawn(ticket)) if ticket == held.ticket));
    ends.agent(&sync());
    assert_eq!(ends.forwarded(), sync(), "what upstream skips is not sent");
}

#[test]
fn upstream_is_kept_awake_and_nobody_sees_the_answer() {
    let mut ends = Ends::new();
    ends.agent(&query("begin"));
    ends.allow();
    ends.forwarded();
    assert!(!ends.session.keep_awake(), "it is busy");
    ends.upstream(&[complete("BEGIN"), ready(b'T')].concat());
    ends.ending();
    ends.agent(&query("held"));
    let held = ends.submission();

    assert!(ends.session.keep_awake());
    assert!(!ends.session.keep_awake(), "one at a time");
    assert_eq!(ends.forwarded(), sync());
    // An approval does not wait for the answer.
    assert!(ends.session.probe(Questions::Everything));
    ends.forwarded();
    assert!(ends.upstream(&ready(b'T')).is_empty());
    assert_eq!(ends.session.status(), TransactionStatus::InBlock);
    ends.allow_with(&held, vec![]);
    assert_eq!(ends.forwarded(), query("held"));
}

#[test]
fn a_notice_waits_until_the_row_in_passing_has_ended() {
    let mut ends = Ends::new();
    ends.agent(&query("select long"));
    ends.allow();
    let row = frame(b'D', &[7; 1000]);
    let mut agent = Collect::default();
    ends.session.on_upstream(&row[..500], 0, &mut agent).unwrap();
    ends.session.notice("waiting", None, None);
    assert!(ends.session.to_agent().is_empty());
    ends.session.on_upstream(&row[500..], 0, &mut agent).unwrap();

    assert_eq!(&agent.0[..row.len()], &row[..]);
    assert_eq!(kinds(&agent.0), "DN");
}

#[test]
fn what_upstream_never_answered_has_an_unknown_outcome() {
    let mut ends = Ends::new();
    ends.agent(&[query("update t set a = 1 where b = 2"), query("drop table t")].concat());
    ends.allow();
    let held = ends.submission();

    ends.session.upstream_gone(0);

    assert!(matches!(ends.session.poll(), Some(Output::Withdrawn(ticket)) if ticket == held.ticket));
    assert_eq!(ends.ending(), Ending::unknown());
}

/// The raw statements of a text, each with what it does to the session.
fn steps(effects: &[Option<SessionEffect>]) -> Arc<[Step]> {
    effects.iter().map(|effect| Step { effects: effect.iter().cloned().collect() }).collect()
}

/// The ending of a `Query` with these raw statements that upstream answers with these tags and an error.
fn ending_of_failed_query(before: u8, effects: &[Option<SessionEffect>], tags: &[&str]) -> Ending {
    let mut ends = Ends::new();
    ends.session.status = TransactionStatus::from_byte(before).unwrap();
    ends.agent(&query("several"));
    let submission = ends.submission();
    let receipt = ends.receipt(submission.digest);
    let shown = submission.statement.sql.clone();
    let resolution =
        Resolution::Forward { receipt, steps: steps(effects), shown, digest_result: false, late: false };
    ends.session.resolve(submission.ticket, resolution, 0);
    let mut reply: Vec<u8> = tags.iter().flat_map(|tag| complete(tag)).collect();
    reply.extend(error("22012", "division by zero"));
    ends.upstream(&reply);
    ends.ending()
}

#[test]
fn what_a_text_has_committed_before_it_fails_is_told_with_its_tags() {
    use SessionEffect::{Begin, Commit, CommitsByItself, Rollback};
    let sqlstate = SqlState::new("22012").unwrap();
    let failed = Ending::Failed { sqlstate };
    let after = |tag: &str| Ending::FailedAfterCommit { tag: tag.into(), sqlstate };
    let commit = Some(Commit { chain: false });
    let begin = Some(Begin);

    let kept = [begin.clone(), None, commit.clone(), None];
    let tags = ["BEGIN", "INSERT 0 1", "COMMIT"];
    assert_eq!(ending_of_failed_query(b'I', &kept, &tags), after("BEGIN; INSERT 0 1; COMMIT"));
    let implicit = [None, commit.clone(), None];
    assert_eq!(
        ending_of_failed_query(b'I', &implicit, &["INSERT 0 1", "COMMIT"]),
        after("INSERT 0 1; COMMIT")
    );
    let chained = [None, Some(Commit { chain: true }), None, None];
    let tags = ["INSERT 0 1", "COMMIT", "DELETE 3"];
    assert_eq!(ending_of_failed_query(b'T', &chained, &tags), after("INSERT 0 1; COMMIT; DELETE 3"));
    assert_eq!(ending_of_failed_query(b'I', &kept, &["BEGIN", "INSERT 0 1", "PREPARE TRANSACTION"]), {
        after("BEGIN; INSERT 0 1; PREPARE TRANSACTION")
    });

    // A COMMIT that fails, or of a failed transaction, keeps nothing; nor does a ROLLBACK.
    assert_eq!(ending_of_failed_query(b'I', &kept, &["BEGIN", "INSERT 0 1"]), failed);
    assert_eq!(ending_of_failed_query(b'E', &[commit, None], &["ROLLBACK"]), failed);
    let undone = [begin, None, Some(Rollback { chain: false }), None];
    assert_eq!(ending_of_failed_query(b'I', &undone, &["BEGIN", "INSERT 0 1", "ROLLBACK"]), failed);
    assert_eq!(ending_of_failed_query(b'I', &[None, None], &["INSERT 0 1"]), failed);

    // What a procedure has committed itself nobody tells; in a block, or in a longer text, it cannot.
    let call = [Some(CommitsByItself)];
    let unknown = Ending::Unknown { tag: "".into(), sqlstate: Some(sqlstate) };
    assert_eq!(ending_of_failed_query(b'I', &call, &[]), unknown);
    assert_eq!(ending_of_failed_query(b'T', &call, &[]), failed);
    assert_eq!(ending_of_failed_query(b'I', &[Some(CommitsByItself), None], &[]), failed);
}

#[test]
fn what_was_committed_before_the_connection_is_lost_is_told_apart_from_what_is_unknown() {
    let mut ends = Ends::new();
    let unit = |name: &str| [parse(name, name), bind("", name, "1"), execute("")].concat();
    ends.agent(&[unit("insert"), unit("commit"), unit("delete"), flush()].concat());
    ends.allow();
    let submission = ends.submission();
    ends.allow_with(&submission, vec![SessionEffect::Commit { chain: false }]);
    ends.allow();
    let done = |tag| [frame(b'1', b""), frame(b'2', b""), complete(tag)].concat();
    ends.upstream(&[done("INSERT 0 1"), done("COMMIT"), done("DELETE 1")].concat());

    ends.session.upstream_gone(0);

    assert_eq!(ends.ending(), completed("INSERT 0 1"));
    assert_eq!(ends.ending(), completed("COMMIT"));
    assert_eq!(ends.ending(), Ending::Unknown { tag: "DELETE 1".into(), sqlstate: None });
}

#[test]
fn in_a_pipeline_what_a_procedure_may_have_committed_is_not_told_as_undone() {
    let mut ends = Ends::new();
    let unit = |name: &str| [parse(name, name), bind("", name, "1"), execute("")].concat();
    ends.agent(&[unit("insert"), unit("call"), unit("delete"), unit("fails"), sync()].concat());
    ends.allow();
    let submission = ends.submission();
    ends.allow_with(&submission, vec![SessionEffect::CommitsByItself]);
    ends.allow();
    ends.allow();
    let done = |tag| [frame(b'1', b""), frame(b'2', b""), complete(tag)].concat();
    let failed =
        [frame(b'1', b""), frame(b'2', b""), error("22012", "division by zero"), ready(b'I')].concat();
    ends.upstream(&[done("INSERT 0 1"), done("CALL"), done("DELETE 1"), failed].concat());

    assert_eq!(ends.ending(), Ending::Failed { sqlstate: SqlState::new("22012").unwrap() });
    assert_eq!(ends.ending(), Ending::Unknown { tag: "INSERT 0 1".into(), sqlstate: None });
    assert_eq!(ends.ending(), Ending::Unknown { tag: "CALL".into(), sqlstate: None });
    assert_eq!(ends.ending(), UNDONE);
}

/// An agent's messages up to a `Query`, on a server of this version whose session has this status.
fn query_behind(version: &str, status: u8, before: &[u8], effects: &[SessionEffect]) -> Vec<u8> {
    let mut ends = Ends::new();
    ends.agent(&sync());
    ends.forwarded();
    let said = [b"server_version\0", version.as_bytes(), b"\0"].concat();
    ends.upstream(&[frame(b'S', &said), ready(status)].concat());
    ends.agent(&[before, &query("select 2")].concat());
    while let Some(output) = ends.session.poll() {
        let Output::Submit(submission) = output else { continue };
        let is_query = submission.statement.via == Via::Query;
        ends.allow_with(&submission, if is_query { vec![] } else { effects.to_vec() });
    }
    ends.forwarded()
}

#[test]
fn since_postgres_18_no_query_goes_upstream_behind_an_execute_without_a_sync() {
    let executed = [parse("", "update"), bind("", "", "1"), execute("")].concat();
    let flushed = [executed.clone(), flush()].concat();
    let refused = |forwarded: &[u8]| {
        let text = String::from_utf8_lossy(forwarded);
        assert!(text.contains("countersign_") != text.contains("select 2"), "{text}");
        text.contains("countersign_")
    };

    for before in [&executed, &flushed] {
        assert!(refused(&query_behind("18.4", b'I', before, &[])));
        assert!(refused(&query_behind("19devel", b'I', before, &[])));
        assert!(!refused(&query_behind("17.10", b'I', before, &[])));
        // Inside a block nothing is wrong with it.
        assert!(!refused(&query_behind("18.4", b'T', before, &[])));
        assert!(!refused(&query_behind("18.4", b'I', before, &[SessionEffect::Begin])));
        // Behind the end of a block there is none.
        let again = [&before[..], &executed].concat();
        let end = SessionEffect::Commit { chain: false };
        assert!(!refused(&query_behind("18.4", b'T', before, std::slice::from_ref(&end))));
        assert!(!refused(&query_behind("18.4", b'T', &again, &[SessionEffect::Commit { chain: true }])));
        assert!(!refused(&query_behind("18.4", b'I', &[&before[..], &sync()].concat(), &[])));
        assert!(!refused(&query_behind("18.4", b'I', &[parse("", "x"), bind("", "", "1")].concat(), &[])));
    }
}

#[test]
fn a_portal_that_was_bound_and_never_executed_is_recorded_as_such() {
    let mut ends = Ends::new();
    ends.agent(&[parse("", "select 1"), bind("", "", "1"), sync()].concat());
    ends.allow();
    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), ready(b'I')].concat());

    assert_eq!(ends.ending(), Ending::NotExecuted);
}

fn set_path(value: &str, local: bool) -> SessionEffect {
    SessionEffect::Set { name: "search_path".into(), value: Some(value.into()), local }
}

/// Upstream is asked where names are looked up, and says `path`.
fn asked(ends: &mut Ends, path: &str, status: u8) {
    assert!(ends.session.probe(Questions::Names));
    ends.forwarded();
    let values = [("search_path", path), ("role", "none"), ("session_authorization", "app")];
    ends.upstream(&[probe_answer(Questions::Names, &values), ready(status)].concat());
    let outputs = std::iter::from_fn(|| ends.session.poll()).last();
    assert!(matches!(outputs, Some(Output::Probed(Ok(_)))));
}

#[test]
fn what_a_transaction_has_set_is_asked_for_again_when_it_ends_or_fails() {
    let fails = [error("22012", "division by zero"), ready(b'E')].concat();
    let ends_well = [complete("COMMIT"), ready(b'I')].concat();
    for (sql, effects, answer) in [
        ("commit", vec![SessionEffect::Commit { chain: false }], ends_well),
        ("select 1/0", Vec::new(), fails),
    ] {
        let mut ends = Ends::new();
        for (sql, effect, tag) in
            [("begin", SessionEffect::Begin, "BEGIN"), ("set ..", set_path("audit", true), "SET")]
        {
            ends.agent(&query(sql));
            let submission = ends.submission();
            ends.allow_with(&submission, vec![effect]);
            ends.upstream(&[complete(tag), ready(b'T')].concat());
            ends.ending();
        }
        asked(&mut ends, "audit", b'T');
        assert_eq!(ends.session.search_path(), SearchPath::Known(vec!["audit".into()]));

        ends.agent(&query(sql));
        let submission = ends.submission();
        ends.allow_with(&submission, effects);
        ends.upstream(&answer);

        assert_eq!(ends.session.search_path(), SearchPath::Unknown, "{sql}");
    }
}

#[test]
fn while_a_set_of_the_search_path_is_in_flight_nobody_can_tell_where_names_are_looked_up() {
    let mut ends = Ends::new();
    let unit = [
        [parse("", "set search_path = evil"), bind("", "", "1"), execute("")].concat(),
        [parse("", "select lower('x')"), bind("", "", "1"), execute("")].concat(),
        sync(),
    ];
    ends.agent(&unit.concat());
    let first = ends.submission();
    assert_ne!(ends.session.search_path(), SearchPath::Unknown);
    ends.allow_with(&first, vec![set_path("evil", false)]);

    assert_eq!(ends.session.search_path(), SearchPath::Unknown, "decided, though not forwarded yet");
    ends.allow();
    ends.agent(&query("select upper('x')"));
    assert_eq!(ends.session.search_path(), SearchPath::Unknown, "forwarded and not answered");
    let done = |tag| [frame(b'1', b""), frame(b'2', b""), complete(tag)].concat();
    ends.upstream(&[done("SET"), done("SELECT 1"), ready(b'I')].concat());

    assert_eq!(ends.session.search_path(), SearchPath::Unknown, "what it said that it sets does not count");
    asked(&mut ends, "evil", b'I');
    assert_eq!(ends.session.search_path(), SearchPath::Known(vec!["evil".into()]));
}

/// Its effects are there with its first row, and may come again with each part that is fetched.
#[test]
fn a_portal_that_may_change_settings_does_so_however_its_rows_are_fetched() {
    let mut ends = Ends::new();
    let changes = SessionEffect::MayChangeSettings;
    ends.agent(&query("begin"));
    let begin = ends.submission();
    ends.allow_with(&begin, vec![SessionEffect::Begin]);
    ends.upstream(&[complete("BEGIN"), ready(b'T')].concat());
    ends.ending();
    ends.agent(&[parse("", "select set_config($1, 'x', false)"), bind("p", "", "1"), sync()].concat());
    let submission = ends.submission();
    ends.allow_with(&submission, vec![changes]);
    ends.upstream(&[frame(b'1', b""), frame(b'2', b""), ready(b'T')].concat());
    assert_eq!(ends.session.search_path(), SearchPath::Unknown, "the planner may have run it");

    for (fetch, answer) in [
        ([execute("p"), sync()].concat(), [frame(b's', b""), ready(b'T')].concat()),
        (query("fetch 1 from p"), [complete("FETCH 1"), ready(b'T')].concat()),
        (query("move 1 from p"), [complete("MOVE 1"), ready(b'T')].concat()),
    ] {
        asked(&mut ends, "public", b'T');
        assert_ne!(ends.session.search_path(), SearchPath::Unknown);
        ends.agent(&fetch);
        if fetch[0] == b'Q' {
            let submission = ends.submission();
            ends.allow_with(&submission, vec![SessionEffect::Fetch("p".into())]);
        }
        ends.upstream(&answer);
        while ends.session.poll().is_some() {}

        assert_eq!(ends.session.search_path(), SearchPath::Unknown);
    }
}

#[test]
fn a_cursor_that_nobody_here_has_declared_may_do_anything_and_a_plain_one_nothing() {
    let mut ends = Ends::new();
    ends.agent(&query("declare c cursor with hold for select 1"));
    let declare = ends.submission();
    ends.allow_with(&declare, vec![SessionEffect::Declare("c".into())]);
    ends.upstream(&[complete("DECLARE CURSOR"), ready(b'I')].concat());
    ends.ending();
    for (cursor, known) in [("c", true), ("d", false)] {
        ends.agent(&query("fetch .."));
        let fetch = ends.submission();
        ends.allow_with(&fetch, vec![SessionEffect::Fetch(cursor.into())]);
        ends.upstream(&[complete("FETCH 1"), ready(b'I')].concat());
        ends.ending();

        assert_eq!(ends.session.settings().are_known(), known, "{cursor}");
    }
}

#[test]
fn terminate_behind_a_held_statement_is_seen() {
    let waiting = [query("select 1"), frame(b'X', b"")].concat();

    assert!(Session::says_goodbye(&waiting));
    assert!(!Session::says_goodbye(&query("select 'X'")));
}

#[test]
fn a_partial_unit_runs_before_the_goodbye() {
    let mut ends = Ends::new();
    let unit = [parse("", "insert into t values (1)"), bind("", "", "1"), execute("")].concat();
    ends.agent(&[unit.clone(), frame(b'X', b"")].concat());
    ends.allow();

    assert_eq!(ends.forwarded(), unit);
    assert!(matches!(ends.session.poll(), Some(Output::AgentLeft)));
}

#[test]
fn malformed_bytes_end_the_session() {
    for bytes in [&b"Q\0\0\0\x03"[..], b"Q\0\0\0\x05a", b"!\0\0\0\x04", b"p\0\0\0\x05\0", b"S\0\0\0\x05\0"] {
        let mut session = Session::new(Limits::default(), Settings::new(&AtLogin::default()), 1);
        assert!(matches!(session.on_agent(bytes, 0), Err(Refusal::Protocol { .. })), "{bytes:?}");
    }
    let mut session =
        Session::new(Limits { message: 100, ..Limits::default() }, Settings::new(&AtLogin::default()), 1);
    assert!(matches!(session.on_agent(b"Q\0\x01\0\0", 0), Err(Refusal::TooLarge { .. })));
}

#[derive(Clone, Debug)]
enum Act {
    Agent(Vec<u8>),
    Allow,
    Refuse,
    Unparsed,
    Upstream(Vec<u8>),
    Gone,
}

fn agent_frame() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just(""), Just("x"), Just("y")];
    let sql = prop_oneof![Just("select 1"), Just("drop table t"), Just("prepare x as delete from t")];
    prop_oneof![
        sql.clone().prop_map(query),
        (name.clone(), sql).prop_map(|(name, sql)| parse(name, sql)),
        (name.clone(), name.clone()).prop_map(|(portal, statement)| bind(portal, statement, "7")),
        name.clone().prop_map(execute),
        name.clone().prop_map(|name| frame(b'C', format!("S{name}\0").as_bytes())),
        name.clone().prop_map(|name| frame(b'C', format!("P{name}\0").as_bytes())),
        name.prop_map(|name| frame(b'D', format!("S{name}\0").as_bytes())),
        Just(sync()),
        Just(frame(b'H', b"")),
        Just(frame(b'd', b"data")),
        Just(frame(b'c', b"")),
        Just(frame(b'X', b"")),
    ]
}

fn upstream_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(frame(b'1', b"")),
        Just(frame(b'2', b"")),
        Just(frame(b'3', b"")),
        Just(frame(b'n', b"")),
        Just(frame(b'G', b"\0\0\0")),
        Just(complete("SELECT 1")),
        Just(error("42601", "no")),
        Just(ready(b'I')),
        Just(ready(b'T')),
        Just(ready(b'E')),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => agent_frame().prop_map(Act::Agent),
        4 => Just(Act::Allow),
        1 => Just(Act::Refuse),
        1 => Just(Act::Unparsed),
        4 => upstream_frame().prop_map(Act::Upstream),
        1 => Just(Act::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// P1 and P2: whatever the agent, upstream and the reviewers do, in whatever order, every text that
    /// reaches upstream has a receipt for exactly that text, or is a substitute of ours.
    #[test]
    fn no_sequence_of_inputs_forwards_a_text_without_a_receipt(acts in proptest::collection::vec(act(), 0..60)) {
        let mut ends = Ends::new();
        let mut out: VecDeque<Submission> = VecDeque::new();
        let mut cleared: Vec<(Via, SqlText)> = Vec::new();
        let mut to_parse: Vec<SqlText> = Vec::new();
        for act in acts {
            match act {
                Act::Agent(bytes) => ends.agent(&bytes),
                Act::Allow => if let Some(submission) = out.pop_front() {
                    cleared.push((submission.statement.via, submission.statement.sql.clone()));
                    ends.allow_with(&submission, vec![]);
                },
                Act::Refuse => if let Some(submission) = out.pop_front() {
                    let refusal = Resolution::Refuse(Refusal::HoldInTransaction);
                    ends.session.resolve(submission.ticket, refusal, 0);
                    ends.offer();
                },
                Act::Unparsed => if let Some(submission) = out.pop_front() {
                    to_parse.push(submission.statement.sql.clone());
                    ends.leave_to_upstream(&submission);
                },
                Act::Upstream(bytes) => {
                    if ends.session.on_upstream(&bytes, 0, &mut Collect::default()).is_err() {
                        break;
                    }
                    ends.offer();
                },
                Act::Gone => { ends.session.upstream_gone(0); }
            }
            while let Some(output) = ends.session.poll() {
                match output {
                    Output::Submit(submission) => out.push_back(submission),
                    Output::Withdrawn(ticket) => out.retain(|submission| submission.ticket != ticket),
                    _ => {}
                }
            }
            let forwarded = ends.forwarded();
            let mut rest = &forwarded[..];
            while let Some(frame) = Frame::first(rest, 1 << 30).unwrap() {
                rest = &rest[frame.bytes.len()..];
                let text = match frame.tag {
                    b'Q' => crate::wire::frontend::query(frame.body()).unwrap(),
                    b'P' => crate::wire::frontend::Parse::read(frame.body()).unwrap().sql,
                    _ => continue,
                };
                let ours = text.starts_with(b"countersign_");
                let parsed = frame.tag == b'P' && to_parse.iter().any(|sql| sql.as_bytes() == text);
                prop_assert!(ours || parsed || cleared.iter().any(|(_, sql)| sql.as_bytes() == text));
            }
        }
    }

    #[test]
    fn any_chunking_forwards_the_same_bytes(cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let sent = [
            parse("x", "select $1"), bind("p", "x", "value"), execute("p"), sync(),
            query("copy t from stdin"), frame(b'd', &[b'x'; 300]), frame(b'c', b""), query("select 2"),
        ].concat();
        let mut ends = Ends::new();
        let mut forwarded = Vec::new();
        let mut rest = &sent[..];
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            rest = tail;
            ends.agent(head);
            while let Some(output) = ends.session.poll() {
                if let Output::Submit(submission) = output {
                    ends.allow_with(&submission, vec![]);
                }
            }
            forwarded.extend(ends.forwarded());
        }
        prop_assert_eq!(forwarded, sent);
    }
}

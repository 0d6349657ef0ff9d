//! A ledger with one of nearly everything: two runs, holds of every ending, refusals, hidden and
//! redacted texts. Attacks start from it, and it is the fixture that other verifiers can be tried on.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha512};

use super::sample::*;
use crate::actor::Claims;
use crate::approval::Verdict;
use crate::classify::StatementClass;
use crate::ledger::entry::Key;
use crate::ledger::{Clearance, Event, HoldEnd, Ledger, ReviewerSignature, SessionLog};
use crate::policy::{Allowed, Escalation};
use crate::refusal::Refusal;
use crate::statement::{Digest, Ending, Outcome, SqlState};

const SECOND: u64 = 1_000_000_000;

/// Fills `place` with both runs and closes the ledger.
pub(crate) fn fill(place: &Place) {
    let ledger = place.open();
    let log = first_session(place, &ledger);
    held(place, &ledger, &log);
    redact(place, &ledger);
    let info = session(3, "etl-bot");
    let other = ledger.session_opened(&info).unwrap();
    let _never_answered = read(&other, "select pg_sleep(60)");
    let open =
        request(90, &info, &Asked::new(query("truncate a"), StatementClass::MassWrite), terms(&[("dba", 1)]));
    ledger.append(Event::RequestOpened { request: open }).unwrap();
    settle(&ledger);
    std::mem::forget(other);
    ledger.close();

    place.clock.pass(60 * SECOND);
    let ledger = place.open();
    let log = ledger.session_opened(&session(11, "reporting-bot")).unwrap();
    for number in 0..20 {
        place.clock.pass(SECOND / 100);
        read_through(&log, &format!("select * from orders where id = {number}"));
    }
    log.claims(&Claims { run: Some("r-82".into()), purpose: Some("month end".into()), ..Claims::default() });
    read_through(&log, "select 'under another claim'");
    let now = place.settings.clock.now().wall;
    place.clock.set_wall(now + 3600 * SECOND);
    read_through(&log, "select 'an hour later, says the wall clock'");
    deferred(place, &ledger);
    escalated(place, &ledger, &log);
    log.closed("the agent left");
    settle(&ledger);
    ledger.close();
}

fn first_session(place: &Place, ledger: &Ledger) -> SessionLog {
    ledger
        .append(Event::PolicyLoaded {
            policy: policy(),
            what: "start-up: policies/".to_owned(),
            by: None,
            difference: Some("+ [[rule]]\n+ name = \"customer-export\"\n".to_owned()),
            rules: 1,
        })
        .unwrap();
    let changed = Event::ConfigChanged {
        what: "reviewers".to_owned(),
        by: Some("uid 0".to_owned()),
        digest: Some(Digest::of(b"configuration")),
        difference: Some("+ bob@example.com\n".to_owned()),
    };
    ledger.append(changed).unwrap();
    let log = ledger.session_opened(&session(1, "reporting-bot")).unwrap();
    for number in 0..30 {
        place.clock.pass(SECOND / 100);
        read_through(&log, &format!("select {number}"));
    }
    let write = Asked::new(bound("update t set a = 1 where id = $1", "7"), StatementClass::Write);
    let allowed = Clearance::Allowed(Allowed::for_test(None, policy()));
    let receipt = log.record_intent(&write.record(), allowed).unwrap();
    log.outcome(receipt.intent(), &failed("23505"), 700);
    let by_rule = Asked::new(query("vacuum full t"), StatementClass::Admin);
    let allowed = Clearance::Allowed(Allowed::for_test(Some("maintenance".into()), policy()));
    let receipt = log.record_intent(&by_rule.record(), allowed).unwrap();
    log.outcome(receipt.intent(), &completed("VACUUM", 0), 9_000);
    let doomed = Asked::new(query("drop table t"), StatementClass::Ddl);
    let receipt = log.record_intent(&doomed.record(), Clearance::Doomed).unwrap();
    log.outcome(receipt.intent(), &failed("25P02"), 300);
    let parsed = Asked::new(query("select never_bound($1)"), StatementClass::Read);
    let receipt = log.record_intent(&parsed.record(), Clearance::ParseOnly).unwrap();
    let nothing =
        Outcome { ending: Ending::NotExecuted, rows: 0, bytes: 0, transaction: None, result_digest: None };
    log.outcome(receipt.intent(), &nothing, 0);
    let sqlstate = SqlState::new("22012").unwrap();
    for ending in [
        Ending::FailedAfterCommit { tag: "INSERT 0 1; COMMIT".into(), sqlstate },
        Ending::Unknown { tag: "BEGIN; INSERT 0 1".into(), sqlstate: None },
        Ending::Unknown { tag: "".into(), sqlstate: Some(sqlstate) },
    ] {
        let several =
            Asked::new(query("insert into t values (1); commit; select 1/0"), StatementClass::Write);
        let allowed = Clearance::Allowed(Allowed::for_test(None, policy()));
        let receipt = log.record_intent(&several.record(), allowed).unwrap();
        log.outcome(receipt.intent(), &Outcome { ending, ..nothing.clone() }, 500);
    }
    let refused = Asked::new(query("truncate t"), StatementClass::MassWrite);
    let receipt = log.record_intent(&refused.record(), Clearance::ReadOnly).unwrap();
    log.outcome(receipt.intent(), &failed("25006"), 300);
    let denied = Asked::new(query("copy t to program 'sh'"), StatementClass::ServerIo);
    let why = Refusal::DeniedByPolicy { rule: "no-programs".into(), message: None };
    log.record_refusal(&denied.record(), &why).unwrap();
    log
}

fn held(place: &Place, ledger: &Ledger, log: &SessionLog) {
    let info = session(1, "reporting-bot");
    let (bob, carol) =
        (person("bob@example.com", &["dba"]), person("carol@example.com", &["dba", "security"]));
    let both: (&[(&str, u32)], _) = (&[("dba", 1), ("security", 1)], &[&bob, &carol][..]);
    held_through(ledger, log, &info, 1, "copy customers to stdout", both);
    place.clock.pass(SECOND);

    // Denied, and an owner who tried.
    let mut asked =
        Asked::new(bound("delete from customers where id < $1", "1000"), StatementClass::MassWrite);
    let waiting = request(2, &info, &asked, terms(&[("dba", 1)]));
    ledger.append(Event::RequestOpened { request: waiting.clone() }).unwrap();
    let mut owner = answer(&waiting, &person("alice@example.com", &["dba"]), Verdict::Approve);
    owner.not_counted = Some("an owner of the agent".to_owned());
    ledger.append(Event::Review(Box::new(owner))).unwrap();
    ledger.append(Event::Review(Box::new(answer(&waiting, &bob, Verdict::Deny)))).unwrap();
    ledger
        .append(Event::HoldEnded {
            request: waiting.id,
            end: HoldEnd::Denied,
            reason: Some("ask for a smaller set".to_owned()),
            by: Some(bob.id.clone()),
        })
        .unwrap();
    asked.request = Some(waiting.id);
    let why = Refusal::DeniedByReviewer { request: waiting.id, message: None };
    log.record_refusal(&asked.record(), &why).unwrap();

    // A secret: the stored text is not the original, and a reviewer signed with an SSH key.
    let mut asked = Asked::new(query("alter role app password 'hunter2'"), StatementClass::Grant);
    asked.classification.redacted_sql = Some("alter role app password '***'".into());
    let secret = request(3, &info, &asked, terms(&[("security", 1)]));
    ledger.append(Event::RequestOpened { request: secret.clone() }).unwrap();
    let mut signed = answer(&secret, &carol, Verdict::Approve);
    signed.signature = Some(ssh_signature(b"the canonical record"));
    ledger.append(Event::Review(Box::new(signed))).unwrap();
    let end = |end| Event::HoldEnded { request: secret.id, end, reason: None, by: None };
    ledger.append(end(HoldEnd::Granted)).unwrap();
    asked.request = Some(secret.id);
    let receipt = log.record_intent(&asked.record(), Clearance::Granted(grant(&secret, &[&carol]))).unwrap();
    log.outcome(receipt.intent(), &completed("ALTER ROLE", 0), 800);
    ledger.append(end(HoldEnd::Executed)).unwrap();
}

/// Redacts the parameters of the update, and exports the rest.
fn redact(place: &Place, ledger: &Ledger) {
    settle(ledger);
    let connection = crate::ledger::store::open_for_reading(&place.path()).unwrap();
    let seq: u64 = connection
        .query_row("SELECT min(seq) FROM payload WHERE field = ?1", [u64::from(Key::Parameters)], |row| {
            row.get(0)
        })
        .unwrap();
    let fields = vec![(seq, Key::Parameters.into()), (seq, Key::Sql.into())];
    let by = "uid 0 (root)".to_owned();
    let reason = "request of the data subject".to_owned();
    ledger.append(Event::Redaction { by: by.clone(), reason, fields }).unwrap();
    ledger.append(Event::Export { by, what: "jsonl".to_owned(), from: Some(0), to: Some(seq) }).unwrap();
}

/// Approved later than asked, and claimed by another session of the agent.
fn deferred(place: &Place, ledger: &Ledger) {
    let bob = person("bob@example.com", &["dba"]);
    let first = session(12, "etl-bot");
    let log = ledger.session_opened(&first).unwrap();
    let mut asked = Asked::new(query("create index on orders (id)"), StatementClass::Ddl);
    let mut waiting = (*at_now(place, request(4, &first, &asked, terms(&[("dba", 1)])))).clone();
    waiting.draft.seal.session = None;
    waiting.draft.terms.defer = true;
    let waiting = Arc::new(waiting);
    ledger.append(Event::RequestOpened { request: waiting.clone() }).unwrap();
    asked.request = Some(waiting.id);
    log.record_refusal(&asked.record(), &Refusal::Deferred { request: waiting.id }).unwrap();
    log.closed("the agent left");
    ledger.append(Event::Review(Box::new(answer(&waiting, &bob, Verdict::Approve)))).unwrap();
    let log = ledger.session_opened(&session(13, "etl-bot")).unwrap();
    let receipt = log.record_intent(&asked.record(), Clearance::Granted(grant(&waiting, &[&bob]))).unwrap();
    log.outcome(receipt.intent(), &completed("CREATE INDEX", 0), 80_000);
    let end = HoldEnd::Executed;
    ledger.append(Event::HoldEnded { request: waiting.id, end, reason: None, by: None }).unwrap();
}

/// Nobody of the first group answers; after five minutes on-call may.
fn escalated(place: &Place, ledger: &Ledger, log: &SessionLog) {
    let info = session(11, "reporting-bot");
    let olga = person("olga@example.com", &["oncall"]);
    let mut asked = Asked::new(query("drop table old_orders"), StatementClass::Ddl);
    let mut terms = terms(&[("dba", 1)]);
    terms.reason_required = true;
    terms.escalate = vec![Escalation {
        after: Duration::from_secs(300),
        to: "oncall".into(),
        stands_in_for: vec!["dba".into()],
    }];
    let waiting = at_now(place, request(5, &info, &asked, terms));
    ledger.append(Event::RequestOpened { request: waiting.clone() }).unwrap();
    place.clock.pass(301 * SECOND);
    let escalated = Event::Escalated { request: waiting.id, group: "oncall".into(), by: None };
    ledger.append(escalated).unwrap();
    ledger.append(Event::Review(Box::new(answer(&waiting, &olga, Verdict::Approve)))).unwrap();
    asked.request = Some(waiting.id);
    let receipt = log.record_intent(&asked.record(), Clearance::Granted(grant(&waiting, &[&olga]))).unwrap();
    log.outcome(receipt.intent(), &failed("42P01"), 80_000);
    let end = HoldEnd::Executed;
    ledger.append(Event::HoldEnded { request: waiting.id, end, reason: None, by: None }).unwrap();

    // Nobody answers at all.
    let asked = Asked::new(query("drop table older_orders"), StatementClass::Ddl);
    let waiting = at_now(place, request(6, &info, &asked, self::terms(&[("dba", 1)])));
    ledger.append(Event::RequestOpened { request: waiting.clone() }).unwrap();
    place.clock.pass(901 * SECOND);
    let end = HoldEnd::Expired;
    ledger.append(Event::HoldEnded { request: waiting.id, end, reason: None, by: None }).unwrap();
}

/// The request, as if it were opened now by the manual clock.
fn at_now(place: &Place, request: Arc<crate::approval::Request>) -> Arc<crate::approval::Request> {
    let now = jiff::Timestamp::from_nanosecond(i128::from(place.settings.clock.now().wall)).unwrap();
    let mut request = (*request).clone();
    request.opened_at = now;
    request.expires_at = now + request.draft.terms.expires;
    Arc::new(request)
}

/// What `ssh-keygen -Y sign -n countersign` makes, with a fixed key.
pub(crate) fn ssh_signature(record: &[u8]) -> ReviewerSignature {
    let key = SigningKey::from_bytes(&[7; 32]);
    let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let public = [string(b"ssh-ed25519"), string(key.verifying_key().as_bytes())].concat();
    let parts = [string(b"countersign"), string(b""), string(b"sha512")].concat();
    let message = [b"SSHSIG".as_slice(), &parts, &string(&Sha512::digest(record))].concat();
    let blob = [string(b"ssh-ed25519"), string(&key.sign(&message).to_bytes())].concat();
    let signature = [b"SSHSIG\0\0\0\x01".as_slice(), &string(&public), &parts, &string(&blob)].concat();
    ReviewerSignature { scheme: "sshsig", public_key: public, record: record.to_vec(), signature }
}

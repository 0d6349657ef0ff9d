//! A desk as it might look on a busy morning, for pictures and for looking at pages.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use countersign::approval::Withdrawal;
use countersign::approval::request::TransactionView;
use countersign::classify::Classification;
use countersign::desk::{self, Opened};
use countersign::ledger::{Clearance, Ledger, SessionInfo, SessionLog, StatementRecord};
use countersign::policy::Decision;
use countersign::refusal::Refusal;
use countersign::statement::{
    Ending, Outcome, Parameter, RequestId, SessionId, Statement, TransactionStatus, Via,
};
use countersign::web::views::Activity;
use serde_json::{Value, json};

use super::web::{Site, claims, session_row};

/// What the scene holds on to: dropping an opened request withdraws it.
pub struct Scene {
    opened: Vec<Opened>,
    pub export: RequestId,
    pub migration: RequestId,
    pub attack: RequestId,
    pub denied: RequestId,
    pub ran: RequestId,
    pub mine: RequestId,
}

impl Scene {
    /// The pages worth a picture; the last one has the box to try statements in.
    pub fn pages(&self) -> Vec<(String, String)> {
        let request = |name: &str, id: RequestId| (name.to_owned(), format!("/requests/{}", id.code()));
        let page = |path: &str| (path.trim_start_matches('/').to_owned(), path.to_owned());
        vec![
            page("/requests"),
            request("request", self.export),
            request("request-in-transaction", self.migration),
            request("request-attack", self.attack),
            request("request-denied", self.denied),
            request("request-ran", self.ran),
            page("/history"),
            page("/sessions"),
            page("/ledger"),
            page("/people"),
            page("/policies"),
        ]
    }
}

const EXPORT: &str = "COPY (
    SELECT c.id, c.name, c.email, c.country, max(o.created_at) AS last_order
    FROM customers c
    LEFT JOIN orders o ON o.customer_id = c.id
    WHERE c.country = 'DE'
    GROUP BY c.id
    ORDER BY last_order NULLS FIRST
) TO STDOUT WITH (FORMAT csv, HEADER)";

const MIGRATION: &str = "ALTER TABLE orders
    ADD COLUMN refunded_at timestamptz,
    ADD CONSTRAINT refund_after_order CHECK (refunded_at >= created_at)";

/// A right-to-left override that makes a comment look like code, a look-alike letter in a table's
/// name, and an attempt to end the element it is shown in.
const ATTACK: &str =
    "DELETE FROM sessi\u{43e}ns WHERE expires < now(); /* \u{202e}⟨ ;1 timil \u{2066}only old ones \u{2069}*/
DELETE FROM users;  -- </pre><script>alert('approved')</script>\u{200b}";

pub fn set(site: &Site) -> Scene {
    let mut opened = Vec::new();
    let mut keep = |one: Opened| {
        let id = one.request.id;
        opened.push(one);
        id
    };
    let ran = keep(site.ask_as("reporting-bot", "COPY customers TO STDOUT", |_| {}).unwrap());
    site.pass(41);
    let digest = site.desk.request(&ran.code()).unwrap().request.digest.to_string();
    verdict(site, "carol", ran, "approve", json!({"digest": digest, "reason": "monthly export for finance"}));
    verdict(site, "dave", ran, "approve", json!({"digest": digest, "reason": "DPA signed"}));
    let tag = Ending::Completed { tag: "COPY 84213".into() };
    let outcome = Outcome {
        ending: tag,
        rows: 84_213,
        bytes: 9_120_443,
        transaction: Some(TransactionStatus::Idle),
        result_digest: None,
    };
    site.desk.ran(ran, &outcome, Duration::from_millis(1_240));

    let denied =
        keep(site.ask_as("support-copilot", "TRUNCATE TABLE tickets, ticket_comments", |_| {}).unwrap());
    site.pass(25);
    let digest = site.desk.request(&denied.code()).unwrap().request.digest.to_string();
    let reason = "Never truncate tickets. Archive them with app.archive_tickets(before date) instead.";
    verdict(site, "bob", denied, "deny", json!({"digest": digest, "reason": reason}));
    let gone = keep(site.ask_as("support-copilot", "CREATE INDEX ON tickets (created_at)", |_| {}).unwrap());
    site.desk.withdraw(gone, Withdrawal::AgentCancelled);
    site.pass(1_900);

    let deferred = keep(
        site.ask_as("support-copilot", "DROP INDEX CONCURRENTLY tickets_old_idx", |draft| {
            draft.terms.defer = true
        })
        .unwrap(),
    );
    site.pass(140);
    let attack = keep(site.ask_as("support-copilot", ATTACK, |draft| draft.claimed = claims()).unwrap());
    site.pass(95);
    let migration = keep(
        site
            .ask_as("migration-agent", MIGRATION, |draft| {
                draft.transaction = TransactionView {
                    status: Some(TransactionStatus::InBlock),
                    statements: vec![
                        "BEGIN".to_owned(),
                        "LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE".to_owned(),
                        "UPDATE orders SET status = 'closed' WHERE status = 'done' AND shipped_at < now() - interval '90 days'"
                            .to_owned(),
                    ],
                    ..TransactionView::default()
                };
            })
            .unwrap(),
    );
    let export = keep(
        site.ask_as("reporting-bot", EXPORT, |draft| {
            draft.claimed = claims();
        })
        .unwrap(),
    );
    site.pass(12);
    let bound = keep(
        site.ask_as("reporting-bot", "DELETE FROM report_cache WHERE $1::boolean OR key = key", |draft| {
            draft.statement.via = Via::Bind;
            draft.statement.parameters =
                Arc::from([Parameter { format: 0, type_oid: 16, value: Some("true".into()) }]);
        })
        .unwrap(),
    );
    let digest = site.desk.request(&export.code()).unwrap().request.digest.to_string();
    verdict(
        site,
        "bob",
        export,
        "approve",
        json!({"digest": digest, "reason": "Known report, row count as expected."}),
    );
    site.pass(28);

    let now = site.now();
    let mut sessions = site.sample_sessions.0.lock();
    let mut held = session_row("reporting-bot", 12, now, Activity::Held);
    held.request = Some(export);
    held.claimed = claims();
    let mut migrating = session_row("migration-agent", 3, now, Activity::Held);
    migrating.request = Some(migration);
    migrating.transaction = Some(TransactionStatus::InBlock);
    migrating.statements = 3;
    let mut idle = session_row("support-copilot", 126, now, Activity::Idle);
    idle.tls = false;
    idle.client_address = "127.0.0.1".to_owned();
    sessions.extend([idle, held, migrating, session_row("reporting-bot", 1, now, Activity::Running)]);
    let _ = deferred;
    Scene { opened, export, migration, attack, denied, ran, mine: bound }
}

fn verdict(site: &Site, who: &str, request: RequestId, verdict: &str, body: Value) {
    let answer = ureq::post(site.at(&format!("/api/v1/requests/{}/{verdict}", request.code())))
        .header("authorization", format!("Bearer {}", site.secrets[who]))
        .send_json(body)
        .unwrap();
    assert_eq!(answer.status(), 200);
}

/// A morning in the ledger: sessions, statements that ran, one that was denied by rule, and a request
/// that two people approved. The request's id and the session's.
pub fn record_sample_entries(site: &Site, ledger: &Ledger) -> (RequestId, SessionId) {
    let draft = site.draft("reporting-bot", EXPORT, |draft| {
        draft.claimed = claims();
    });
    let info = SessionInfo {
        session: draft.session,
        identity: draft.identity.clone(),
        target: draft.target.clone(),
        claimed: draft.claimed.clone(),
        at: site.now(),
    };
    let log = ledger.session_opened(&info).unwrap();
    let opened = site.desk.open(draft).unwrap();
    let draft = &opened.request.draft;
    for sql in ["SELECT count(*) FROM customers WHERE country = 'DE'", "SELECT max(created_at) FROM orders"] {
        site.run_allowed(&log, sql);
    }
    let server_file = site.statement("COPY customers TO '/tmp/customers.csv'");
    let refusal = Refusal::DeniedByPolicy { rule: "no-server-files".into(), message: None };
    log.record_refusal(&site.record(&server_file), &refusal).unwrap();

    let (id, digest) = (opened.request.id, opened.request.digest.to_string());
    verdict(
        site,
        "bob",
        id,
        "approve",
        json!({"digest": digest, "reason": "Known report, row count as expected."}),
    );
    verdict(
        site,
        "dave",
        id,
        "approve",
        json!({"digest": digest, "reason": "Finance asked for it, DPA signed."}),
    );
    let Ok(desk::Ending::Granted(grant)) = opened.ending.blocking_recv() else { panic!("not granted") };
    let held = (draft.statement.clone(), draft.classification.clone());
    let rules = draft.terms.rules.clone();
    let record = StatementRecord { request: Some(id), rules: &rules, ..site.record(&held) };
    let decision = Decision::Hold(draft.terms.clone());
    let release = site.desk.release(grant, &draft.seal, &decision).unwrap();
    let receipt = log.record_intent(&record, Clearance::Granted(release)).unwrap();
    let outcome = completed("COPY 84213", 84_213, 9_120_443);
    log.outcome(receipt.intent(), &outcome, 1_240_000_000);
    site.desk.ran(id, &outcome, Duration::from_millis(1_240));
    log.closed("the agent said goodbye");
    let session = draft.session;
    drop(log);
    assert!(ledger.flush(Duration::from_secs(10)));
    (id, session)
}

fn completed(tag: &str, rows: u64, bytes: u64) -> Outcome {
    Outcome {
        ending: Ending::Completed { tag: tag.into() },
        rows,
        bytes,
        transaction: Some(TransactionStatus::Idle),
        result_digest: None,
    }
}

impl Site {
    fn statement(&self, sql: &str) -> (Statement, Arc<Classification>) {
        let statement = Statement::query(sql.into());
        let classification = self.classified(&statement.sql);
        (statement, classification)
    }

    fn record<'a>(&self, held: &'a (Statement, Arc<Classification>)) -> StatementRecord<'a> {
        StatementRecord {
            statement: &held.0,
            digest: held.0.digest(),
            classification: &held.1,
            in_transaction: false,
            request: None,
            policy: self.policy.load().digest(),
            rules: &[],
            wall: self.now(),
        }
    }

    fn run_allowed(&self, log: &SessionLog, sql: &str) {
        let held = self.statement(sql);
        let Decision::Allow(allowed) = self.decided("reporting-bot", &held.1) else {
            panic!("{sql} is held")
        };
        let receipt = log.record_intent(&self.record(&held), Clearance::Allowed(allowed)).unwrap();
        log.outcome(receipt.intent(), &completed("SELECT 1", 1, 42), 3_200_000);
    }
}

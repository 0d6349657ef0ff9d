//! The request laid out for people: one model, which every channel renders and none adds to.
//!
//! A [`Document`] is sections of facts, lines and one block of SQL, in the order in which a reviewer
//! should read them. Every value is a [`Shown`]; what the agent says about itself stands in a section
//! of its own that is marked as a claim. A channel keeps the order, puts SQL into plain-text
//! elements only, and leaves out a section only together with the Approve button.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::difference;
use super::parameter::{self, ShownParameter};
use super::request::{Draft, Request};
use super::visible::Shown;
use crate::classify::{Effect, ObjectKind, RowSecurity, Verb};
use crate::policy::{Approval, Escalation};
use crate::statement::{Digest, TransactionStatus};

/// A request, laid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The code people use.
    pub code: String,
    /// One line: agent, class, upstream.
    pub title: Shown,
    /// The digest that a verdict must name.
    pub digest: Digest,
    /// Four words of it.
    pub words: [&'static str; 4],
    /// What is to be read, in order.
    pub sections: Vec<Section>,
}

/// One part of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// A stable name.
    pub id: SectionId,
    /// The heading.
    pub title: &'static str,
    /// These are the agent's own words: nobody checked them.
    pub claimed: bool,
    /// What it says.
    pub body: Body,
}

/// The sections there are, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SectionId {
    /// The text of the statement, whole.
    Statement,
    /// Its bound values.
    Parameters,
    /// What it consists of and what it does to which objects.
    Effects,
    /// Why it is held.
    Reasons,
    /// Who asks, as far as it was proved.
    Agent,
    /// What the agent says about itself.
    Claims,
    /// Where it would run.
    Target,
    /// The transaction around it.
    Transaction,
    /// What was said about its like before.
    Past,
    /// Who must answer, and until when.
    Answer,
    /// What the answer is bound to.
    Proof,
}

/// What a section says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Names and values.
    Facts(Vec<Fact>),
    /// SQL. For plain-text elements only.
    Sql(Shown),
    /// Bound values.
    Parameters(Vec<ShownParameter>),
    /// Lines of text.
    Lines(Vec<Shown>),
}

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// The name, ours.
    pub label: &'static str,
    /// The value.
    pub value: Shown,
}

fn fact(label: &'static str, value: impl AsRef<str>) -> Fact {
    Fact { label, value: Shown::line(value.as_ref()) }
}

impl Document {
    /// Lays `request` out.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let draft = &request.draft;
        let title = format!(
            "{} asks to run {} on {}",
            draft.identity.agent.name, draft.classification.class, draft.target.upstream
        );
        let mut sections = vec![section(SectionId::Statement, "Statement", Body::Sql(request.shown_sql()))];
        let mut add =
            |id, title, body: Option<Body>| sections.extend(body.map(|body| section(id, title, body)));
        add(SectionId::Parameters, "Bound values", parameters(draft));
        add(SectionId::Effects, "What it does", effects(draft));
        add(SectionId::Reasons, "Why it is held", reasons(draft));
        add(SectionId::Agent, "Who asks", Some(Body::Facts(agent(draft))));
        add(SectionId::Claims, "What the agent says about itself (nobody checked this)", claims(draft));
        add(SectionId::Target, "Where it would run", Some(Body::Facts(target(draft))));
        add(SectionId::Transaction, "The transaction around it", transaction(draft));
        add(SectionId::Past, "Earlier requests like this one", past(request));
        add(SectionId::Answer, "Who must answer", Some(Body::Facts(answer(request))));
        add(SectionId::Proof, "What the answer is bound to", Some(Body::Facts(proof(request))));
        Self {
            code: request.id.code(),
            title: Shown::line(&title),
            digest: request.digest,
            words: request.words,
            sections,
        }
    }

    /// The section called `id`, when this request has it.
    #[must_use]
    pub fn section(&self, id: SectionId) -> Option<&Section> {
        self.sections.iter().find(|section| section.id == id)
    }

    /// The whole document as plain text, for terminals and mail.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{}  {}  ({})\n", self.code, self.title, self.words.join(" "));
        for section in &self.sections {
            let _ = write!(out, "\n{}\n", section.title);
            match &section.body {
                Body::Facts(facts) => {
                    let widest = facts.iter().map(|fact| fact.label.len()).max().unwrap_or(0);
                    for fact in facts {
                        let _ = writeln!(out, "  {:widest$}  {}", fact.label, fact.value);
                    }
                }
                // Every line of the agent's text is set behind a bar, so that none of it can pose
                // as a heading of ours.
                Body::Sql(sql) => out.extend(sql.as_str().lines().map(|line| format!("  | {line}\n"))),
                Body::Parameters(parameters) => {
                    for parameter in parameters {
                        let _ = writeln!(out, "  {}", parameter.to_line().on_one_line());
                    }
                }
                Body::Lines(lines) => out.extend(lines.iter().map(|line| format!("  {line}\n"))),
            }
        }
        out
    }
}

fn section(id: SectionId, title: &'static str, body: Body) -> Section {
    Section { id, title, claimed: id == SectionId::Claims, body }
}

fn parameters(draft: &Draft) -> Option<Body> {
    let hidden = draft.classification.without_secrets(&draft.statement.parameters);
    let parameters = hidden.as_deref().unwrap_or(&draft.statement.parameters);
    (!parameters.is_empty()).then(|| Body::Parameters(parameter::show(parameters)))
}

fn effects(draft: &Draft) -> Option<Body> {
    let classification = &draft.classification;
    let sql = &draft.statement.sql;
    let text = sql.to_display();
    let mut lines = Vec::new();
    let mut say = |line: String| lines.push(Shown::line(&line));
    say(format!(
        "{} bytes, {} lines, sent as {}",
        sql.len(),
        text.lines().count(),
        draft.statement.via.as_str()
    ));
    if classification.redacted_sql.is_some() {
        say("secrets in the text are hidden here; the digest covers them".to_owned());
    }
    if classification.without_secrets(&draft.statement.parameters).is_some() {
        say("secrets among the bound values are hidden here; the digest covers them".to_owned());
    }
    if classification.parts.len() > 1 {
        say(format!("{} statements, which run or do not run together:", classification.parts.len()));
        for (place, part) in classification.parts.iter().enumerate() {
            say(format!("  {}. {} ({})", place + 1, part.kind, part.class));
        }
    }
    for effect in &classification.effects {
        let verb = word(&effect.verb);
        let kind = word(&effect.kind);
        let schema = effect.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        // The same name may mean a temporary table that the agent made a moment ago.
        let unqualified = effect.kind == ObjectKind::Relation && !effect.qualified;
        let note = match way_of(effect) {
            way if way.is_empty() && unqualified => " (the statement names no schema)".to_owned(),
            way => way,
        };
        let columns = columns_of(effect);
        say(format!("{verb} {kind} {schema}{}{columns}{note}", effect.name));
        if let Some(security) = effect.row_security {
            say(format!("  {}", in_words(security)));
        }
    }
    Some(Body::Lines(lines))
}

/// ` (through public.view)`: what leads to it, where the statement does not name it itself.
pub fn way_of(effect: &Effect) -> String {
    match &effect.through {
        Some(by) if effect.cascades && matches!(effect.verb, Verb::Drop | Verb::Alter) => {
            format!(" (by CASCADE from {by})")
        }
        Some(key) if effect.cascades => format!(" (by foreign key {key})"),
        Some(view) => format!(" (through {view})"),
        None => String::new(),
    }
}

/// ` (id, name)`, or that it is all of them.
pub fn columns_of(effect: &Effect) -> String {
    /// More are only counted.
    const SHOWN: usize = 12;
    if effect.columns.is_empty() {
        return String::new();
    }
    if effect.columns.iter().any(|column| **column == *"*") {
        return " (all columns)".to_owned();
    }
    let shown: Vec<&str> = effect.columns.iter().take(SHOWN).map(|column| &**column).collect();
    match effect.columns.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => format!(" ({} and {more} more)", shown.join(", ")),
        None => format!(" ({})", shown.join(", ")),
    }
}

/// What row security of a table means for a session.
#[must_use]
pub fn in_words(security: RowSecurity) -> &'static str {
    match security {
        RowSecurity::Applies => "row security: its policies decide which rows the session sees",
        RowSecurity::Bypassed => "row security: it has policies, and they do not bind this role",
    }
}

/// The stable spelling of a fieldless enum of `classify`.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        Ok(_) | Err(_) => "?".to_owned(),
    }
}

fn reasons(draft: &Draft) -> Option<Body> {
    let terms = &draft.terms;
    let mut lines = vec![Shown::line(&format!("class {}", draft.classification.class))];
    lines.extend(draft.classification.reasons.iter().map(|reason| {
        // Reasons are written to follow these words.
        Shown::line(&format!("{} because it {}", reason.class, reason.text))
    }));
    if terms.rules.is_empty() {
        lines.push(Shown::line("no rule speaks of it, and its class is held by default"));
    } else {
        let rules: Vec<&str> = terms.rules.iter().map(|rule| rule.as_str()).collect();
        lines.push(Shown::line(&format!("held by rule {}", rules.join(", "))));
    }
    Some(Body::Lines(lines))
}

fn agent(draft: &Draft) -> Vec<Fact> {
    let identity = &draft.identity;
    let owners: Vec<&str> = identity.agent.owners.iter().map(|owner| owner.as_str()).collect();
    let mut facts = vec![
        fact("agent", identity.agent.name.as_str()),
        fact("owner", owners.join(", ")),
        fact("proved by", identity.method.as_str()),
        fact("address", &identity.client_address),
    ];
    if let Some(fingerprint) = &identity.certificate_fingerprint {
        facts.push(fact("certificate", hex::encode(fingerprint)));
    }
    facts.extend(identity.verified.iter().map(|(name, value)| fact(verified_label(name), value)));
    facts
}

fn verified_label(name: &'static str) -> &'static str {
    match name {
        "model" => "verified model",
        "version" => "verified version",
        "run" => "verified run",
        "task" => "verified task",
        "purpose" => "verified purpose",
        other => other,
    }
}

fn claims(draft: &Draft) -> Option<Body> {
    let facts: Vec<Fact> = draft.claimed.iter().map(|(name, value)| fact(name, value)).collect();
    (!facts.is_empty()).then_some(Body::Facts(facts))
}

fn target(draft: &Draft) -> Vec<Fact> {
    let mut facts = vec![
        fact("upstream", draft.target.upstream.as_str()),
        fact("database", draft.target.database.as_str()),
        fact("role", draft.target.role.as_str()),
        fact("session", draft.session.to_string()),
    ];
    let seal = &draft.seal;
    facts.extend(seal.settings.iter().map(|(name, value)| fact("setting", format!("{name} = {value}"))));
    facts.extend(seal.batch_before.iter().map(|digest| fact("runs before it", digest.to_string())));
    facts.extend(
        seal.prepared.iter().map(|(name, text)| fact("prepared statement", format!("{name} = {text}"))),
    );
    facts
}

fn transaction(draft: &Draft) -> Option<Body> {
    let transaction = &draft.transaction;
    let mut lines = Vec::new();
    match transaction.status {
        Some(TransactionStatus::Idle)
            if transaction.statements.is_empty() && transaction.batch.is_empty() =>
        {
            return None;
        }
        Some(TransactionStatus::Idle) => {}
        Some(TransactionStatus::InBlock) => {
            lines.push(Shown::line("A transaction is open: it keeps its locks while this waits."));
        }
        Some(TransactionStatus::Failed) => {
            lines.push(Shown::line("The transaction has failed; upstream refuses everything but its end."));
        }
        None => lines.push(Shown::line("Upstream is still busy with what was sent before.")),
    }
    if transaction.earlier > 0 {
        lines.push(Shown::line(&format!("{} earlier statements are not listed", transaction.earlier)));
    }
    lines.extend(transaction.statements.iter().map(|sql| Shown::after("ran: ", &Shown::line(sql))));
    let batch = transaction.batch.iter();
    lines.extend(batch.map(|sql| Shown::after("before it in the same batch: ", &Shown::line(sql))));
    Some(Body::Lines(lines))
}

fn past(request: &Request) -> Option<Body> {
    let mut lines = Vec::new();
    for past in &request.past {
        let by: Vec<&str> = past.by.iter().map(|by| by.as_str()).collect();
        let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
        lines.push(Shown::line(&format!("{} {}: {}{by}", moment(past.at), past.request, past.ended)));
    }
    if let Some(before) = &request.last_approved {
        // A text with hidden secrets cannot be compared without showing them.
        if !request.draft.holds_secrets() {
            let different = difference::lines(before, &request.draft.statement);
            lines.push(Shown::line(if different.is_empty() {
                "the last one that was approved was the same, byte for byte"
            } else {
                "different from the last one that was approved:"
            }));
            lines.extend(different.iter().map(|line| Shown::after("  ", line)));
        }
    }
    (!lines.is_empty()).then_some(Body::Lines(lines))
}

fn answer(request: &Request) -> Vec<Fact> {
    let terms = &request.draft.terms;
    let mut facts = vec![fact("approvals", approvals_in_words(&terms.approvals))];
    facts.extend(terms.escalate.iter().map(|step| fact("escalation", escalation_in_words(step))));
    facts.push(fact("assurance", terms.assurance.as_str()));
    facts.push(fact("reason", if terms.reason_required { "required" } else { "optional" }));
    facts.push(fact("opened", moment(request.opened_at)));
    facts.push(fact("expires", moment(request.expires_at)));
    let timers = &request.draft.transaction.timers;
    if let Some(limit) = timers.transaction.filter(|_| request.is_cut_short()) {
        let why = format!("before the server's transaction_timeout ({limit:?}) ends the transaction");
        facts.push(fact("expires early", why));
    }
    if !request.is_deferred() {
        let idle = [
            ("idle_in_transaction_session_timeout", timers.idle_in_transaction),
            ("idle_session_timeout", timers.idle_session),
        ];
        let named: Vec<String> = idle
            .into_iter()
            .filter_map(|(name, limit)| limit.map(|limit| format!("{name} ({limit:?})")))
            .collect();
        if !named.is_empty() {
            facts.push(fact("kept awake", format!("past the server's {}", named.join(" and "))));
        }
    }
    if request.is_deferred() {
        let life = terms.expires.as_secs();
        facts.push(fact(
            "deferred",
            format!("no session waits; once approved, the agent may run it once within {life} s"),
        ));
    }
    facts
}

/// `2 of dba and 1 of security`
#[must_use]
pub fn approvals_in_words(approvals: &[Approval]) -> String {
    let asked: Vec<String> =
        approvals.iter().map(|asked| format!("{} of {}", asked.count, asked.group)).collect();
    asked.join(" and ")
}

fn escalation_in_words(step: &Escalation) -> String {
    let groups: Vec<&str> = step.stands_in_for.iter().map(|group| group.as_str()).collect();
    format!("after {} s {} may answer for {}", step.after.as_secs(), step.to, groups.join(", "))
}

fn proof(request: &Request) -> Vec<Fact> {
    let mut facts = vec![
        fact("digest", request.digest.to_string()),
        fact("words", request.words.join(" ")),
        fact("seal", request.draft.seal.digest().to_string()),
        fact("request", request.id.0.to_string()),
        fact("policy", request.draft.terms.policy.to_string()),
    ];
    if let Some(head) = &request.checkpoint {
        facts.push(fact("ledger", format!("{} entries, root {}", head.size, head.root)));
    }
    facts
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::approval::request::{Past, TransactionView, TreeHead};
    use crate::policy::Terms;
    use crate::samples::{after, approval, draft_of, escalation, start, terms};
    use crate::statement::{Parameter, RequestId, Statement, Via};

    fn id() -> RequestId {
        RequestId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0123_4567_89ab))
    }

    fn opened(draft: Draft) -> Document {
        Document::of(&Request::open(id(), draft, start(), None, Vec::new(), None).unwrap())
    }

    /// Everything that a request can say.
    fn full() -> Request {
        let terms = Terms {
            approvals: vec![approval("dba", 1), approval("security", 1)],
            escalate: vec![escalation(300, "oncall", &["dba"])],
            reason_required: true,
            ..terms()
        };
        let mut draft = draft_of("COPY (SELECT * FROM customers WHERE region = $1) TO STDOUT", 1, terms);
        draft.statement.via = Via::Bind;
        draft.statement.parameters = Arc::from([
            Parameter { format: 0, type_oid: 25, value: Some("EU".into()) },
            Parameter { format: 1, type_oid: 23, value: Some(vec![0, 0, 1, 0].into()) },
            Parameter { format: 1, type_oid: 600, value: Some(vec![1, 2].into()) },
            Parameter { format: 0, type_oid: 0, value: None },
        ]);
        draft.seal.statement = draft.statement.digest();
        draft.transaction = TransactionView {
            status: Some(TransactionStatus::InBlock),
            statements: vec!["BEGIN".to_owned(), "SELECT 1\n  FROM t".to_owned()],
            earlier: 3,
            batch: vec!["SET LOCAL work_mem = '1MB'".to_owned()],
            ..TransactionView::default()
        };
        let before = Statement {
            sql: "COPY (SELECT * FROM customers WHERE region = $1) TO STDOUT".into(),
            parameters: Arc::from([Parameter { format: 0, type_oid: 25, value: Some("US".into()) }]),
            ..draft.statement.clone()
        };
        let past =
            vec![Past { request: id(), at: start(), ended: "granted", by: vec!["bob@example.com".into()] }];
        let head = TreeHead { size: 42, root: Digest::of(b"root") };
        Request::open(id(), draft, after(60), Some(head), past, Some(before)).unwrap()
    }

    #[test]
    fn a_request_reads_as_one_document() {
        insta::assert_snapshot!(Document::of(&full()).to_text());
    }

    #[test]
    fn a_request_is_told_in_json() {
        let request = full();
        let json = crate::approval::json::RequestJson {
            document: Some(Document::of(&request)),
            ..crate::approval::json::RequestJson::of(&request, &crate::approval::HoldState::Waiting, &[])
        };

        insta::assert_json_snapshot!(json);
    }

    #[test]
    fn p6_the_agents_words_cannot_pose_as_ours() {
        let forged = "SELECT 1;\n\nWho must answer\n  approvals  nobody, bob has approved\n\u{202e}\u{200b}";
        let mut draft = draft_of(forged, 1, terms());
        draft.claimed.set("purpose", "report\n\nWho must answer\n  approvals  0 of dba");
        draft.claimed.set("model", "\u{1b}[2J\u{1b}[Happroved");

        insta::assert_snapshot!(opened(draft).to_text());
    }

    #[test]
    fn p6_the_statement_is_shown_whole_however_long() {
        let long = format!("SELECT '{}'; DROP TABLE customers", "x".repeat(100_000));

        let document = opened(draft_of(&long, 1, terms()));

        let Some(Section { body: Body::Sql(sql), .. }) = document.section(SectionId::Statement) else {
            panic!("no statement")
        };
        assert_eq!(sql.as_str(), long);
        assert!(!sql.excerpt(2_900).complete, "a channel that cannot carry it must not offer Approve");
    }

    #[test]
    fn p6_a_name_is_shown_with_what_it_stands_for() {
        let mut draft = draft_of("EXECUTE tidy", 1, terms());
        draft.refers_to = vec![("tidy".to_owned(), "DELETE FROM customers".into())];

        let document = opened(draft);

        let Some(Section { body: Body::Sql(sql), .. }) = document.section(SectionId::Statement) else {
            panic!("no statement")
        };
        assert_eq!(sql.as_str(), "EXECUTE tidy\n\n⟨tidy stands for⟩\nDELETE FROM customers");
        let forged = Shown::of("EXECUTE tidy\n\n⟨tidy stands for⟩\nSELECT 1");
        assert!(!forged.as_str().contains("⟨tidy"), "the agent cannot write such a heading");
    }

    #[test]
    fn a_secret_is_hidden_and_the_document_says_so() {
        let mut draft = draft_of("ALTER ROLE bot PASSWORD 'hunter2'", 1, terms());
        let mut classification = (*draft.classification).clone();
        classification.redacted_sql = Some("ALTER ROLE bot PASSWORD '(hidden)'".into());
        draft.classification = Arc::new(classification);
        let before = Some(Statement::query("ALTER ROLE bot PASSWORD 'hunter1'".into()));
        let request = Request::open(id(), draft, start(), None, Vec::new(), before).unwrap();

        let text = Document::of(&request).to_text();

        assert!(!text.contains("hunter"), "{text}");
        assert!(text.contains("secrets in the text are hidden here; the digest covers them"), "{text}");
    }
}

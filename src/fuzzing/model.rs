//! A small Postgres: the extended and the simple protocol, transactions, names, COPY, as `postgres.c`,
//! `portalmem.c` and `xact.c` have them, for a dozen kinds of statement.
//!
//! It is the partner of the oracle in [`super::session`]: because it keeps statements and portals itself,
//! it knows which text a `Bind` or `Execute` really runs, whatever the session believes. It also says what
//! an agent without a proxy would have been answered.

use std::collections::{BTreeMap, VecDeque};

use crate::wire::frame::{Frame, HEADER};
use crate::wire::frontend::{self, Bind, Execute, Named, Parse, tag};

/// What one raw statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Rows.
    Select(u8),
    /// `SHOW search_path`, as a probe asks.
    ShowPath,
    /// A row write.
    Delete,
    /// Fails when it is planned, so at Bind.
    FailsAtBind,
    /// Fails when it runs.
    FailsAtRun,
    /// Fails when its names are looked up, so at Parse.
    FailsAtParse,
    /// Makes the commit fail.
    Deferred,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    RollbackTo,
    /// A name, and the text behind `AS`.
    Prepare(&'static str),
    Execute(&'static str),
    Deallocate(&'static str),
    DeallocateAll,
    DiscardAll,
    Declare(&'static str, bool),
    Fetch(&'static str),
    CloseCursor(&'static str),
    CloseAll,
    CopyIn,
    CopyOut,
    Set(&'static str),
    SetLocal(&'static str),
    ResetAll,
    Notify,
    /// The policy of the runs that are compared denies it.
    Denied,
    /// No grammar takes it.
    SyntaxError,
}

/// The texts that agents send, with what they do. A test checks that the classifier agrees.
pub(super) const TEXTS: &[(&str, &[Op])] = &[
    ("select 1", &[Op::Select(1)]),
    ("select n from generate_series(1, 5) n", &[Op::Select(5)]),
    ("delete from t where id = $1", &[Op::Delete]),
    ("select 1/0", &[Op::FailsAtBind]),
    ("select f()", &[Op::FailsAtRun]),
    ("select nonsense", &[Op::FailsAtParse]),
    ("insert into deferred values (1)", &[Op::Deferred]),
    ("begin", &[Op::Begin]),
    ("commit", &[Op::Commit]),
    ("rollback", &[Op::Rollback]),
    ("savepoint s", &[Op::Savepoint]),
    ("rollback to s", &[Op::RollbackTo]),
    ("prepare x as delete from t", &[Op::Prepare("x")]),
    ("prepare y as select 1", &[Op::Prepare("y")]),
    ("execute x", &[Op::Execute("x")]),
    ("execute y", &[Op::Execute("y")]),
    ("deallocate x", &[Op::Deallocate("x")]),
    ("deallocate all", &[Op::DeallocateAll]),
    ("discard all", &[Op::DiscardAll]),
    ("declare x cursor for select 1", &[Op::Declare("x", false)]),
    ("declare c cursor with hold for select 1", &[Op::Declare("c", true)]),
    ("fetch from x", &[Op::Fetch("x")]),
    ("close x", &[Op::CloseCursor("x")]),
    ("close all", &[Op::CloseAll]),
    ("copy t from stdin", &[Op::CopyIn]),
    ("copy t to stdout", &[Op::CopyOut]),
    ("set search_path = a", &[Op::Set("a")]),
    ("set local search_path = b", &[Op::SetLocal("b")]),
    ("reset all", &[Op::ResetAll]),
    ("notify n", &[Op::Notify]),
    ("drop table t", &[Op::Denied]),
    ("selec 1", &[Op::SyntaxError]),
    (NEWER, &[Op::Select(1)]),
    ("", &[]),
    ("begin; select 1", &[Op::Begin, Op::Select(1)]),
    ("commit; select 1", &[Op::Commit, Op::Select(1)]),
    ("select 1; rollback; select 1", &[Op::Select(1), Op::Rollback, Op::Select(1)]),
    ("select 1; copy t from stdin; select 1", &[Op::Select(1), Op::CopyIn, Op::Select(1)]),
    ("copy t from stdin; copy t from stdin", &[Op::CopyIn, Op::CopyIn]),
    ("deallocate x; select f()", &[Op::Deallocate("x"), Op::FailsAtRun]),
    (
        "begin; declare x cursor for select 1; fetch from x",
        &[Op::Begin, Op::Declare("x", false), Op::Fetch("x")],
    ),
    ("set search_path = a; select f()", &[Op::Set("a"), Op::FailsAtRun]),
];

/// A text that the server's grammar takes, and ours does not.
pub(super) const NEWER: &str = "select 1 in words of a newer grammar";

/// What `text` does; `None` when the grammar rejects it.
pub(super) fn ops(text: &[u8]) -> Option<&'static [Op]> {
    if text == b"SHOW search_path" {
        return Some(&[Op::ShowPath]);
    }
    if text.starts_with(b"SHOW ") {
        return Some(&[Op::Select(1)]);
    }
    if text == b"ROLLBACK" {
        return Some(&[Op::Rollback]);
    }
    let (_, ops) = TEXTS.iter().find(|(known, _)| known.as_bytes() == text)?;
    (!ops.contains(&Op::SyntaxError)).then_some(*ops)
}

/// The number of values that a text takes.
fn parameters(text: &[u8]) -> usize {
    usize::from(text.ends_with(b"$1"))
}

/// What the caller knows of a forwarded message.
#[derive(Clone, Debug)]
pub(super) struct Cleared {
    /// The receipt's number.
    pub(super) receipt: u64,
    /// The text that the receipt is for.
    pub(super) sql: Vec<u8>,
    /// It is good for parsing, and nothing may run because of it.
    pub(super) parse_only: bool,
    /// What `EXECUTE name` in it was said to mean, where that was said for certain.
    pub(super) refers: Option<(&'static str, Vec<u8>)>,
}

/// What the model found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The statement of this receipt was prepared, ran (perhaps in part), completed, or failed.
    Prepared(u64),
    Began(u64),
    Completed(u64),
    Failed(u64),
    /// Something ran that no receipt is for.
    Violation(String),
}

#[derive(Clone, Debug)]
struct Prepared {
    text: Vec<u8>,
    ops: &'static [Op],
}

#[derive(Clone, Debug)]
struct Portal {
    op: Option<Op>,
    text: Vec<u8>,
    left: u8,
    done: bool,
    holds: bool,
    /// How many savepoints there were.
    level: usize,
    cleared: Option<Cleared>,
    /// Messages since its Bind that may have changed what names mean.
    bound_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    None,
    In,
    Failed,
}

impl Block {
    pub(super) fn status(self) -> u8 {
        match self {
            Self::None => b'I',
            Self::In => b'T',
            Self::Failed => b'E',
        }
    }
}

/// A copy from the agent that is under way.
#[derive(Clone, Debug)]
struct Copy {
    /// What comes behind it in its Query; `None` in the extended protocol.
    then: Option<&'static [Op]>,
    cleared: Option<Cleared>,
}

#[derive(Clone, Debug)]
struct Path {
    committed: &'static str,
    current: &'static str,
    local: Option<&'static str>,
}

type Fallible<T> = Result<T, (&'static str, String)>;

/// See the module's documentation.
pub(super) struct Model {
    statements: BTreeMap<Vec<u8>, Prepared>,
    portals: BTreeMap<Vec<u8>, Portal>,
    pub(super) block: Block,
    /// Something was executed since the last Sync outside of a block.
    pipelining: bool,
    deferred: bool,
    skipping: bool,
    copy: Option<Copy>,
    pub(super) closed: bool,
    path: Path,
    savepoints: Vec<Path>,
    /// Counts messages other than Describe.
    clock: u64,
    reports_path: bool,
    reported: &'static str,
    /// Whether receipts are looked for: not where the model stands for a server without a proxy.
    checks: bool,
    denies: bool,
    pub(super) out: Vec<u8>,
    /// The last answer was ReadyForQuery.
    pub(super) last_was_ready: bool,
    pub(super) found: Vec<Found>,
    incoming: VecDeque<(Vec<u8>, Option<Cleared>)>,
}

const OUTSIDE: (&str, &str) = ("25P01", "only in transaction blocks");

impl Model {
    /// A server; `checks` looks for receipts, `denies` refuses what the policy of the runs denies.
    pub(super) fn new(checks: bool, denies: bool, reports_path: bool) -> Self {
        let path = Path { committed: "public", current: "public", local: None };
        Self {
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            block: Block::None,
            pipelining: false,
            deferred: false,
            skipping: false,
            copy: None,
            closed: false,
            path,
            savepoints: Vec::new(),
            clock: 0,
            reports_path,
            reported: "public",
            checks,
            denies,
            out: Vec::new(),
            last_was_ready: true,
            found: Vec::new(),
            incoming: VecDeque::new(),
        }
    }

    /// A message arrives; it is read when [`Self::work`] comes to it.
    pub(super) fn receive(&mut self, frame: Vec<u8>, cleared: Option<Cleared>) {
        self.incoming.push_back((frame, cleared));
    }

    /// Whether it waits for copy data.
    pub(super) fn copies(&self) -> bool {
        self.copy.is_some()
    }

    /// Whether it drops everything up to a Sync.
    pub(super) fn skips(&self) -> bool {
        self.skipping
    }

    pub(super) fn search_path(&self) -> &'static str {
        self.path.local.unwrap_or(self.path.current)
    }

    /// Reads one message; `false` when there is none.
    pub(super) fn work(&mut self) -> bool {
        let Some((frame, cleared)) = self.incoming.pop_front() else { return false };
        if !self.closed {
            self.last_was_ready = false;
            self.one(frame[0], &frame[HEADER..], cleared);
        }
        true
    }

    /// Ends the connection with an error, as an administrator's command does.
    pub(super) fn die(&mut self) {
        if !self.closed {
            self.put(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
            self.closed = true;
        }
    }

    /// Something that a server may say at any time.
    pub(super) fn remark(&mut self, which: u8) {
        match which % 3 {
            0 => self.put(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhm\0\0"),
            1 => self.put(b'A', b"\0\0\0\x01n\0\0"),
            _ => self.put(b'S', b"TimeZone\0UTC\0"),
        }
    }

    fn put(&mut self, tag: u8, body: &[u8]) {
        self.out.push(tag);
        self.out.extend((body.len() as u32 + 4).to_be_bytes());
        self.out.extend_from_slice(body);
    }

    fn put_error(&mut self, (code, message): &(&'static str, String)) {
        let body = format!("SERROR\0VERROR\0C{code}\0M{message}\0\0");
        self.put(b'E', body.as_bytes());
    }

    fn put_complete(&mut self, tag: &str) {
        self.put(b'C', format!("{tag}\0").as_bytes());
    }

    fn ready(&mut self) {
        if self.reports_path && self.reported != self.search_path() {
            self.reported = self.search_path();
            self.put(b'S', format!("search_path\0{}\0", self.reported).as_bytes());
        }
        self.put(b'Z', &[self.block.status()]);
        self.last_was_ready = true;
    }

    fn violation(&mut self, what: String) {
        if self.checks {
            self.found.push(Found::Violation(what));
        }
    }

    fn one(&mut self, tag: u8, body: &[u8], cleared: Option<Cleared>) {
        if self.copy.is_some() {
            return self.copying(tag, body);
        }
        if tag != tag::DESCRIBE {
            self.clock += 1;
        }
        if self.skipping && tag != tag::SYNC && tag != tag::TERMINATE {
            return;
        }
        match tag {
            tag::QUERY => {
                let text = frontend::query(body).unwrap().to_vec();
                self.query(&text, cleared);
            }
            tag::PARSE => {
                let parse = Parse::read(body).unwrap();
                let done = self.parse(parse.name, parse.sql, cleared.as_ref());
                self.extended(done, None);
            }
            tag::BIND => {
                let done = self.bind(Bind::read(body).unwrap(), cleared);
                self.extended(done, None);
            }
            tag::DESCRIBE => {
                let done = self.describe(Named::read(body).unwrap());
                self.extended(done, None);
            }
            tag::EXECUTE => {
                let execute = Execute::read(body).unwrap();
                let name = execute.portal.to_vec();
                let runs = cleared.clone().or_else(|| self.portals.get(&name)?.cleared.clone());
                let done = self.execute(&name, execute.rows, cleared);
                self.extended(done, runs);
            }
            tag::CLOSE => {
                match Named::read(body).unwrap() {
                    Named::Statement(name) => drop(self.statements.remove(name)),
                    Named::Portal(name) => drop(self.portals.remove(name)),
                }
                self.put(b'3', b"");
            }
            tag::FLUSH => {}
            tag::SYNC => {
                self.skipping = false;
                if self.block == Block::None
                    && let Err(error) = self.commit()
                {
                    self.put_error(&error);
                }
                self.ready();
            }
            tag::FUNCTION_CALL => {
                let oid = frontend::FunctionCall::read(body).unwrap().oid;
                self.function_call(oid, cleared);
            }
            tag::TERMINATE => self.closed = true,
            // Copy data outside of a copy is what is left of one that failed.
            _ => {}
        }
    }

    /// The end of a message of the extended protocol.
    fn extended(&mut self, done: Fallible<()>, cleared: Option<Cleared>) {
        if let Err(error) = done {
            if let Some(cleared) = cleared {
                self.found.push(Found::Failed(cleared.receipt));
            }
            self.abort();
            self.put_error(&error);
            self.skipping = true;
        }
    }

    fn commit(&mut self) -> Fallible<()> {
        if std::mem::take(&mut self.deferred) {
            self.rolled_back();
            return Err(("23505", "deferred".to_owned()));
        }
        self.block = Block::None;
        self.pipelining = false;
        self.path.committed = self.path.current;
        self.path.local = None;
        self.savepoints.clear();
        self.portals.retain(|_, portal| portal.holds);
        self.portals.values_mut().for_each(|portal| portal.level = usize::MAX);
        Ok(())
    }

    fn rolled_back(&mut self) {
        self.block = Block::None;
        self.pipelining = false;
        self.deferred = false;
        self.path.current = self.path.committed;
        self.path.local = None;
        self.savepoints.clear();
        // Those that an earlier transaction held stay.
        self.portals.retain(|_, portal| portal.holds && portal.level == usize::MAX);
    }

    fn abort(&mut self) {
        match self.block {
            Block::None => self.rolled_back(),
            Block::In | Block::Failed => self.block = Block::Failed,
        }
    }

    fn function_call(&mut self, oid: u32, cleared: Option<Cleared>) {
        if oid != 0 && cleared.is_none() {
            self.violation(format!("function {oid} called without a receipt"));
        }
        let done = if self.block == Block::Failed {
            Err(("25P02", "aborted".to_owned()))
        } else if oid == 0 || oid.is_multiple_of(2) {
            Err(("42883", "no such function".to_owned()))
        } else if self.block == Block::None {
            self.commit()
        } else {
            Ok(())
        };
        match done {
            Ok(()) => {
                self.put(b'V', b"\xff\xff\xff\xff");
                self.found.extend(cleared.map(|cleared| Found::Completed(cleared.receipt)));
            }
            Err(error) => {
                self.abort();
                self.put_error(&error);
                self.found.extend(cleared.map(|cleared| Found::Failed(cleared.receipt)));
            }
        }
        self.ready();
    }

    fn query(&mut self, text: &[u8], cleared: Option<Cleared>) {
        self.statements.remove(&b""[..]);
        let ours = text.starts_with(b"countersign_") || text == b"ROLLBACK";
        let fits = |cleared: &Cleared| cleared.sql == text && !cleared.parse_only;
        if self.checks && !ours && !cleared.as_ref().is_some_and(fits) {
            self.violation(format!("Query without a receipt: {:?}", String::from_utf8_lossy(text)));
        }
        let ops = match ops(text) {
            None => Err(("42601", format!("syntax error at or near \"{}\"", String::from_utf8_lossy(text)))),
            Some(ops) if self.denies && ops.contains(&Op::Denied) => Err(("42501", "denied".to_owned())),
            Some(ops) => Ok(ops),
        };
        match ops {
            Ok([]) => {
                let done = if self.block == Block::None { self.commit() } else { Ok(()) };
                match done {
                    Ok(()) => {
                        self.put(b'I', b"");
                        self.found.extend(cleared.map(|cleared| Found::Completed(cleared.receipt)));
                        self.ready();
                    }
                    Err(error) => self.query_failed(&error, cleared),
                }
            }
            Ok(ops) => self.query_from(ops, ops.len() > 1, cleared),
            Err(error) => self.query_failed(&error, cleared),
        }
    }

    fn query_failed(&mut self, error: &(&'static str, String), cleared: Option<Cleared>) {
        self.abort();
        self.put_error(error);
        self.found.extend(cleared.map(|cleared| Found::Failed(cleared.receipt)));
        self.ready();
    }

    fn query_from(&mut self, ops: &'static [Op], many: bool, cleared: Option<Cleared>) {
        for (at, op) in ops.iter().enumerate() {
            let then = &ops[at + 1..];
            // What comes so far as to be run takes the unnamed portal; a text with an error, or in a failed
            // block, does not come so far.
            if self.check(*op).is_ok() {
                self.portals.remove(&b""[..]);
            }
            if *op == Op::CopyIn {
                match self.check(*op) {
                    Ok(()) => {
                        self.found.extend(cleared.as_ref().map(|cleared| Found::Began(cleared.receipt)));
                        self.put(b'G', &[0, 0, 0]);
                        self.copy = Some(Copy { then: Some(then), cleared });
                    }
                    Err(error) => self.query_failed(&error, cleared),
                }
                return;
            }
            self.found.extend(cleared.as_ref().map(|cleared| Found::Began(cleared.receipt)));
            let mut done = self.run(*op, many, cleared.as_ref(), true);
            if done.is_ok() && then.is_empty() && self.block == Block::None {
                done = self.commit().and(done);
            }
            match done {
                Ok(tag) => self.put_complete(&tag),
                Err(error) => return self.query_failed(&error, cleared),
            }
        }
        self.found.extend(cleared.map(|cleared| Found::Completed(cleared.receipt)));
        self.ready();
    }

    fn check(&self, op: Op) -> Fallible<()> {
        let ends = matches!(op, Op::Commit | Op::Rollback | Op::RollbackTo);
        if self.block == Block::Failed && !ends { Err(("25P02", "aborted".to_owned())) } else { Ok(()) }
    }

    fn parse(&mut self, name: &[u8], text: &[u8], cleared: Option<&Cleared>) -> Fallible<()> {
        let ours = text.starts_with(b"countersign_") || text.starts_with(b"SHOW ");
        if self.checks && !ours && cleared.is_none_or(|cleared| cleared.sql != text) {
            self.violation(format!("Parse without a receipt: {:?}", String::from_utf8_lossy(text)));
        }
        if name.is_empty() {
            self.statements.remove(name);
        }
        let Some(ops) = ops(text) else {
            return Err(("42601", format!("syntax error at or near \"{}\"", String::from_utf8_lossy(text))));
        };
        if ops.len() > 1 {
            return Err(("42601", "multiple commands".to_owned()));
        }
        if let [op] = ops {
            self.check(*op)?;
            if *op == Op::FailsAtParse {
                return Err(("42703", "no such column".to_owned()));
            }
        }
        if self.statements.contains_key(name) {
            return Err(("42P05", "already exists".to_owned()));
        }
        self.statements.insert(name.to_vec(), Prepared { text: text.to_vec(), ops });
        self.found.extend(cleared.map(|cleared| Found::Prepared(cleared.receipt)));
        self.put(b'1', b"");
        Ok(())
    }

    fn bind(&mut self, bind: Bind<'_>, cleared: Option<Cleared>) -> Fallible<()> {
        let Some(prepared) = self.statements.get(bind.statement).cloned() else {
            return Err(("26000", format!("{} does not exist", String::from_utf8_lossy(bind.statement))));
        };
        let ours = prepared.text.starts_with(b"SHOW ");
        if self.checks && !ours {
            match &cleared {
                Some(cleared) if cleared.sql == prepared.text && !cleared.parse_only => {}
                cleared => self.violation(format!(
                    "Bind runs {:?}, cleared was {:?}",
                    String::from_utf8_lossy(&prepared.text),
                    cleared.as_ref().map(|cleared| String::from_utf8_lossy(&cleared.sql))
                )),
            }
        }
        // The policy decides at Bind, before the server sees it.
        if self.denies && prepared.ops.contains(&Op::Denied) {
            return Err(("42501", "denied".to_owned()));
        }
        if bind.len() != parameters(&prepared.text) {
            return Err(("08P01", "wrong number of parameters".to_owned()));
        }
        let op = prepared.ops.first().copied();
        if let Some(op) = op {
            self.check(op)?;
        }
        if bind.portal.is_empty() {
            self.portals.remove(bind.portal);
        } else if self.portals.contains_key(bind.portal) {
            return Err(("42P03", "cursor already exists".to_owned()));
        }
        if op == Some(Op::FailsAtBind) {
            return Err(("22012", "division by zero".to_owned()));
        }
        let left = if let Some(Op::Select(rows)) = op { rows } else { 0 };
        let portal = Portal {
            op,
            text: prepared.text,
            left,
            done: false,
            holds: false,
            level: self.savepoints.len(),
            cleared,
            bound_at: self.clock,
        };
        self.portals.insert(bind.portal.to_vec(), portal);
        self.put(b'2', b"");
        Ok(())
    }

    fn describe(&mut self, named: Named<'_>) -> Fallible<()> {
        let (op, statement) = match named {
            Named::Statement(name) => match self.statements.get(name) {
                Some(prepared) => (prepared.ops.first().copied(), true),
                None => return Err(("26000", "does not exist".to_owned())),
            },
            Named::Portal(name) => match self.portals.get(name) {
                Some(portal) => (portal.op, false),
                None => return Err(("34000", "does not exist".to_owned())),
            },
        };
        let rows = matches!(op, Some(Op::Select(_) | Op::FailsAtRun | Op::Fetch(_) | Op::Execute(_)));
        if rows && self.block == Block::Failed {
            return Err(("25P02", "aborted".to_owned()));
        }
        if statement {
            self.put(b't', &[0, 0]);
        }
        if rows {
            self.put(b'T', &[0, 0])
        } else {
            self.put(b'n', b"")
        }
        Ok(())
    }

    fn execute(&mut self, name: &[u8], limit: i32, own: Option<Cleared>) -> Fallible<()> {
        let Some(portal) = self.portals.get(name).cloned() else {
            let name = String::from_utf8_lossy(name);
            return Err(("34000", format!("portal \"{name}\" does not exist")));
        };
        let Some(op) = portal.op else {
            self.put(b'I', b"");
            self.found.extend(own.or(portal.cleared).map(|cleared| Found::Completed(cleared.receipt)));
            return Ok(());
        };
        // A utility statement means what its names mean now, so whatever came between asks for a decision
        // of its own.
        let late = matches!(
            op,
            Op::Execute(_) | Op::CopyIn | Op::CopyOut | Op::Fetch(_) | Op::Declare(..) | Op::Prepare(_)
        );
        let old = late && own.is_none() && portal.bound_at + 1 != self.clock;
        let cleared = own.or(portal.cleared);
        self.check(op)?;
        if self.checks && old {
            self.violation(format!(
                "{:?} executed on an old decision",
                String::from_utf8_lossy(&portal.text)
            ));
        }
        self.pipelining |= self.block == Block::None && !matches!(op, Op::Begin | Op::Commit | Op::Rollback);
        let began = cleared.as_ref().map(|cleared| Found::Began(cleared.receipt));
        if let Op::Select(_) = op {
            self.found.extend(began);
            let some = if limit > 0 { u8::try_from(limit).unwrap_or(u8::MAX) } else { u8::MAX };
            let rows = portal.left.min(some);
            for _ in 0..rows {
                self.put(b'D', &[0, 1, 0, 0, 0, 1, b'1']);
            }
            if let Some(portal) = self.portals.get_mut(name) {
                portal.left -= rows;
            }
            if limit > 0 && rows == some {
                self.put(b's', b"");
            } else {
                self.put_complete(&format!("SELECT {rows}"));
                self.found.extend(cleared.map(|cleared| Found::Completed(cleared.receipt)));
            }
            return Ok(());
        }
        if portal.done {
            return Err(("55000", "portal cannot be run".to_owned()));
        }
        if let Some(portal) = self.portals.get_mut(name) {
            portal.done = true;
        }
        if op == Op::ShowPath {
            let path = self.search_path().as_bytes();
            let body = [&[0, 1], &(path.len() as u32).to_be_bytes()[..], path].concat();
            self.put(b'D', &body);
            self.put_complete("SHOW");
            return Ok(());
        }
        self.found.extend(began);
        if op == Op::CopyIn {
            self.put(b'G', &[0, 0, 0]);
            self.copy = Some(Copy { then: None, cleared });
            return Ok(());
        }
        let tag = self.run(op, false, cleared.as_ref(), false)?;
        if matches!(op, Op::Begin | Op::Commit | Op::Rollback) && self.block == Block::None {
            self.commit()?;
        }
        self.put_complete(&tag);
        self.found.extend(cleared.map(|cleared| Found::Completed(cleared.receipt)));
        Ok(())
    }

    /// Runs one raw statement; its tag. Rows and copied data are put on the way.
    fn run(&mut self, op: Op, many: bool, cleared: Option<&Cleared>, describes: bool) -> Fallible<String> {
        self.check(op)?;
        let tag = match op {
            Op::Select(rows) => {
                if describes {
                    self.put(b'T', &[0, 0]);
                }
                for _ in 0..rows {
                    self.put(b'D', &[0, 1, 0, 0, 0, 1, b'1']);
                }
                return Ok(format!("SELECT {rows}"));
            }
            Op::ShowPath => "SHOW",
            Op::Delete => "DELETE 3",
            Op::FailsAtBind | Op::FailsAtRun => return Err(("22012", "division by zero".to_owned())),
            Op::FailsAtParse => return Err(("42703", "no such column".to_owned())),
            Op::Deferred => {
                self.deferred = true;
                "INSERT 0 1"
            }
            Op::Begin => {
                self.block = Block::In;
                "BEGIN"
            }
            Op::Commit if self.block == Block::Failed => {
                self.rolled_back();
                "ROLLBACK"
            }
            Op::Commit => {
                self.commit()?;
                "COMMIT"
            }
            Op::Rollback => {
                self.rolled_back();
                "ROLLBACK"
            }
            Op::Savepoint if self.block != Block::In => return Err(fail(OUTSIDE)),
            Op::Savepoint => {
                self.savepoints.push(self.path.clone());
                "SAVEPOINT"
            }
            Op::RollbackTo => {
                if self.block == Block::None {
                    return Err(fail(OUTSIDE));
                }
                let Some(path) = self.savepoints.last() else {
                    return Err(("3B001", "no such savepoint".to_owned()));
                };
                self.path = path.clone();
                self.block = Block::In;
                let level = self.savepoints.len();
                self.portals.retain(|_, portal| portal.level < level || portal.level == usize::MAX);
                "ROLLBACK"
            }
            Op::Prepare(name) => {
                if self.statements.contains_key(name.as_bytes()) {
                    return Err(("42P05", "already exists".to_owned()));
                }
                let (text, inner): (&str, &'static [Op]) = match name {
                    "x" => ("prepare x as delete from t", &[Op::Delete]),
                    _ => ("prepare y as select 1", &[Op::Select(1)]),
                };
                let prepared = Prepared { text: text.as_bytes().to_vec(), ops: inner };
                self.statements.insert(name.as_bytes().to_vec(), prepared);
                "PREPARE"
            }
            Op::Execute(name) => return self.execute_sql(name, cleared, describes),
            Op::Deallocate(name) => {
                if self.statements.remove(name.as_bytes()).is_none() {
                    return Err(("26000", "does not exist".to_owned()));
                }
                "DEALLOCATE"
            }
            Op::DeallocateAll => {
                self.statements.retain(|name, _| name.is_empty());
                "DEALLOCATE ALL"
            }
            Op::DiscardAll => {
                if self.block != Block::None || many || self.pipelining && !describes {
                    return Err(("25001", "not in a transaction block".to_owned()));
                }
                self.portals.clear();
                self.statements.retain(|name, _| name.is_empty());
                self.path = Path { committed: self.path.committed, current: "public", local: None };
                "DISCARD ALL"
            }
            Op::Declare(name, holds) => {
                if !holds && self.block != Block::In && !many {
                    return Err(fail(OUTSIDE));
                }
                if self.portals.contains_key(name.as_bytes()) {
                    return Err(("42P03", "already exists".to_owned()));
                }
                let portal = Portal {
                    op: Some(Op::Select(1)),
                    text: b"select 1".to_vec(),
                    left: 1,
                    done: false,
                    holds,
                    level: self.savepoints.len(),
                    cleared: cleared.cloned(),
                    bound_at: self.clock,
                };
                self.portals.insert(name.as_bytes().to_vec(), portal);
                "DECLARE CURSOR"
            }
            Op::Fetch(name) => {
                let Some(portal) = self.portals.get_mut(name.as_bytes()) else {
                    return Err(("34000", "no such cursor".to_owned()));
                };
                if !matches!(portal.op, Some(Op::Select(_))) {
                    return Err(("55000", "portal cannot be run".to_owned()));
                }
                let rows = portal.left.min(1);
                portal.left -= rows;
                // What a `Bind` made runs by it.
                let ran = portal.cleared.as_ref().map(|cleared| Found::Began(cleared.receipt));
                self.found.extend(ran);
                if describes {
                    self.put(b'T', &[0, 0]);
                }
                for _ in 0..rows {
                    self.put(b'D', &[0, 1, 0, 0, 0, 1, b'1']);
                }
                return Ok(format!("FETCH {rows}"));
            }
            Op::CloseCursor(name) => {
                if self.portals.remove(name.as_bytes()).is_none() {
                    return Err(("34000", "no such cursor".to_owned()));
                }
                "CLOSE CURSOR"
            }
            Op::CloseAll => {
                self.portals.retain(|name, _| name.is_empty());
                "CLOSE CURSOR ALL"
            }
            Op::CopyOut => {
                self.put(b'H', &[0, 0, 0]);
                self.put(b'd', b"1\n");
                self.put(b'c', b"");
                "COPY 1"
            }
            // It reads from the agent, so its callers see to it.
            Op::CopyIn => return Err(("XX000", "copy in the wrong place".to_owned())),
            Op::Set(path) => {
                self.path.current = path;
                self.path.local = None;
                "SET"
            }
            Op::SetLocal(path) => {
                // Outside of a block it lasts to the end of the pipeline's own transaction.
                self.path.local = Some(path);
                "SET"
            }
            Op::ResetAll => {
                self.path.current = "public";
                self.path.local = None;
                "RESET"
            }
            Op::Notify => "NOTIFY",
            Op::SyntaxError => return Err(("42601", "syntax error".to_owned())),
            Op::Denied if self.denies => return Err(("42501", "denied".to_owned())),
            Op::Denied => "DROP TABLE",
        };
        Ok(tag.to_owned())
    }

    /// `EXECUTE name`: what was told of the name must be so.
    fn execute_sql(
        &mut self,
        name: &'static str,
        cleared: Option<&Cleared>,
        describes: bool,
    ) -> Fallible<String> {
        let Some(prepared) = self.statements.get(name.as_bytes()).cloned() else {
            return Err(("26000", "does not exist".to_owned()));
        };
        if let Some((_, said)) = cleared.and_then(|cleared| cleared.refers.as_ref())
            && *said != prepared.text
        {
            self.violation(format!(
                "EXECUTE {name} runs {:?}, said was {:?}",
                String::from_utf8_lossy(&prepared.text),
                String::from_utf8_lossy(said)
            ));
        }
        if parameters(&prepared.text) > 0 {
            return Err(("42601", "wrong number of parameters".to_owned()));
        }
        match prepared.ops {
            [Op::Select(rows)] => self.run(Op::Select(*rows), false, None, describes),
            [Op::Delete] => self.run(Op::Delete, false, None, describes),
            [Op::FailsAtBind | Op::FailsAtRun] => Err(("22012", "division by zero".to_owned())),
            _ => Err(("0A000", "not a query".to_owned())),
        }
    }

    fn copying(&mut self, tag: u8, body: &[u8]) {
        let failed = match tag {
            tag::COPY_DATA if !body.contains(&0xff) => return,
            tag::COPY_DATA => Some(("22P04", "bad data".to_owned())),
            tag::FLUSH | tag::SYNC => return,
            tag::COPY_DONE => None,
            tag::COPY_FAIL => Some(("57014", "COPY from stdin failed".to_owned())),
            tag::TERMINATE => {
                self.closed = true;
                return;
            }
            _ => {
                // It complains before it has read the message, and so loses its place in the stream.
                let text = "unexpected message type during COPY from stdin".to_owned();
                self.put_error(&("08P01", text));
                self.put(b'E', b"SFATAL\0VFATAL\0C08P01\0Mprotocol synchronization was lost\0\0");
                self.closed = true;
                let cleared = self.copy.take().and_then(|copy| copy.cleared);
                self.found.extend(cleared.map(|cleared| Found::Failed(cleared.receipt)));
                return;
            }
        };
        self.clock += 1;
        let Some(Copy { then, cleared }) = self.copy.take() else { return };
        match (failed, then) {
            (None, None) => {
                self.put_complete("COPY 1");
                self.found.extend(cleared.map(|cleared| Found::Completed(cleared.receipt)));
            }
            (None, Some([])) => {
                let done = if self.block == Block::None { self.commit() } else { Ok(()) };
                match done {
                    Ok(()) => {
                        self.put_complete("COPY 1");
                        self.found.extend(cleared.map(|cleared| Found::Completed(cleared.receipt)));
                        self.ready();
                    }
                    Err(error) => self.query_failed(&error, cleared),
                }
            }
            (None, Some(then)) => {
                self.put_complete("COPY 1");
                self.query_from(then, true, cleared);
            }
            (Some(error), None) => self.extended(Err(error), cleared),
            (Some(error), Some(_)) => self.query_failed(&error, cleared),
        }
    }
}

fn fail((code, message): (&'static str, &str)) -> (&'static str, String) {
    (code, message.to_owned())
}

/// The whole frames at the front of `bytes`, and how long they are.
pub(super) fn frames(bytes: &[u8]) -> (Vec<Frame<'_>>, usize) {
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(Some(frame)) = Frame::first(&bytes[at..], usize::MAX) {
        at += frame.bytes.len();
        found.push(frame);
    }
    (found, at)
}

//! Sessions from a seed: what drivers send, what nobody should send, and accidents.

use super::random::Random;
use super::script::{Script, Step};

/// A statement's text, its parameters' types, their formats and their values.
type Prepared = (Vec<u8>, Vec<u32>, Vec<i16>, Vec<Option<Vec<u8>>>);

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything that Postgres accepts or refuses with an ordinary error.
    Ordinary,
    /// The same, and schema changes, which the proxy denies: see [`denied`].
    Denied,
    /// A session that ends in bytes which are not the protocol.
    Broken,
}

const LONG_63: &str = "n23456789012345678901234567890123456789012345678901234567890123";
const LONG_64: &str = "n234567890123456789012345678901234567890123456789012345678901234";

/// Names of statements: as the protocol has them, and as SQL spells them.
const STATEMENTS: [(&str, &str); 9] = [
    ("s1", "s1"),
    ("s2", "S2"),
    ("s3", "s3"),
    ("S 4", "\"S 4\""),
    ("q\"5", "\"q\"\"5\""),
    ("größe", "GRÖßE"),
    ("größe", "\"größe\""),
    (LONG_63, LONG_63),
    (LONG_64, LONG_64),
];

const PORTALS: [(&str, &str); 7] = [
    ("p1", "p1"),
    ("p2", "P2"),
    ("c1", "c1"),
    ("c2", "\"c2\""),
    ("P 3", "\"P 3\""),
    (LONG_63, LONG_63),
    (LONG_64, LONG_64),
];

/// Of a statement that the proxy denies: its name begins like this, and every statement of such a name
/// is a schema change.
pub const DENIED: &str = "denied";

pub struct Generator {
    random: Random,
    mode: Mode,
    steps: Vec<Step>,
}

/// A session from a seed.
pub fn session(seed: u64, mode: Mode) -> Script {
    let mut generator = Generator { random: Random::new(seed), mode, steps: Vec::new() };
    generator.run();
    let Generator { mut random, steps, .. } = generator;
    let chunks = match random.weighted(&[50, 20, 15, 15]) {
        0 => Vec::new(),
        1 => vec![1],
        2 => (0..3).map(|_| 1 + random.below(40)).collect(),
        _ => (0..4).map(|_| 1 + random.below(3000)).collect(),
    };
    let small = steps.len() < 12;
    let pause = if small && random.chance(10) { 1 } else { 0 };
    without_crashes(&Script { chunks, pause, steps })
}

/// A `Query` that fails inside a transaction leaves its portal behind, and the text that the portal points
/// to is freed with the next message: an `Execute` of the unnamed portal then reads freed memory. That has
/// crashed Postgres 15.18 and 18 (`begin`, a failing `Query`, another `Query`, `Execute ""`), for every
/// session of the server. The proxy never forwards such an `Execute`; Postgres itself must not be sent one
/// here. So an `Execute` of the unnamed portal stays only behind a `Bind` of it that it cannot outlive, or
/// where there has been no `Query`.
pub fn without_crashes(script: &Script) -> Script {
    let (mut queried, mut bound) = (false, false);
    let keeps = |step: &&Step| {
        match step {
            Step::Query(_) => (queried, bound) = (true, false),
            Step::Sync => bound = false,
            Step::Bind { portal, .. } if portal.is_empty() => bound = true,
            Step::Execute(portal, _) if portal.is_empty() => return bound || !queried,
            _ => {}
        }
        true
    };
    Script { steps: script.steps.iter().filter(keeps).cloned().collect(), ..script.clone() }
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

impl Generator {
    fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn query(&mut self, sql: &str) {
        self.push(Step::Query(bytes(sql)));
    }

    fn run(&mut self) {
        let fragments = 1 + self.random.below(16);
        for _ in 0..fragments {
            self.fragment();
            if self.random.chance(35) {
                self.push(Step::Wait);
            }
            if self.random.chance(1) {
                self.push(Step::Sleep(70));
            }
        }
        if self.random.chance(25) {
            self.disturb();
        }
        if self.mode == Mode::Broken {
            self.broken();
            return;
        }
        match self.random.below(100) {
            0..5 => self.push(Step::Terminate),
            5..10 => {
                self.push(Step::Wait);
                self.push(Step::Terminate);
            }
            10..15 => self.push(Step::HalfClose),
            15..18 => {
                self.push(Step::Wait);
                self.push(Step::HalfClose);
            }
            _ => {}
        }
    }

    /// Messages lost, doubled, exchanged.
    fn disturb(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            let count = self.steps.len();
            if count < 2 {
                return;
            }
            let at = self.random.below(count - 1);
            match self.random.below(4) {
                0 => drop(self.steps.remove(at)),
                1 => self.steps.insert(at, self.steps[at].clone()),
                2 => self.steps.swap(at, at + 1),
                _ => {
                    let step = if self.random.chance(50) { Step::Sync } else { Step::Flush };
                    self.steps.insert(at, step);
                }
            }
        }
    }

    fn fragment(&mut self) {
        match self.random.weighted(&[16, 8, 4, 24, 12, 5, 5, 6, 8, 9, 4, 9, 3, 3, 3, 3, 3]) {
            0 => {
                let sql = self.statement();
                self.query(&sql);
            }
            1 => {
                let count = 2 + self.random.below(3);
                let parts: Vec<String> = (0..count).map(|_| self.statement()).collect();
                let joint = self.random.one(&["; ", ";", ";;", "; -- a comment\n"]);
                self.query(&parts.join(joint));
            }
            2 => {
                let sql = self.odd_text();
                self.push(Step::Query(sql));
            }
            3 => self.extended(),
            4 => self.pipeline(),
            5 => self.bind_again(),
            6 => self.close(),
            7 => self.sql_prepared(),
            8 => self.cursor(),
            9 => {
                let sql = self.transaction();
                self.run_either_way(&sql);
            }
            10 => {
                let sql = self.setting();
                self.run_either_way(&sql);
            }
            11 => self.copy(),
            12 => {
                let sql = self.notify();
                self.run_either_way(&sql);
            }
            13 => {
                for _ in 0..1 + self.random.below(4) {
                    let step = if self.random.chance(60) { Step::Sync } else { Step::Flush };
                    self.push(step);
                }
            }
            14 => self.accident(),
            15 => self.big(),
            _ => self.look(),
        }
    }

    /// One statement without parameters.
    fn statement(&mut self) -> String {
        match self.random.weighted(&[40, 25, 8, 12, 5, 4, 4]) {
            0 => self.read(),
            1 => self.write(),
            2 => self.ddl(),
            3 => self.transaction(),
            4 => self.setting(),
            5 => self.notify(),
            _ => self.failing(),
        }
    }

    fn read(&mut self) -> String {
        let count = self.random.below(30);
        match self.random.below(16) {
            0 => "select 1".to_owned(),
            1 => "select".to_owned(),
            2 => "select from t0 limit 3".to_owned(),
            3 => "select null::text, null::int, ''".to_owned(),
            4 => format!("select * from t0 order by id limit {count}"),
            5 => format!("select generate_series(1, {count}) as n"),
            6 => "values (1, 'a'), (2, null)".to_owned(),
            7 => "table t1".to_owned(),
            8 => "select t0 from t0 where id < 3 order by id".to_owned(),
            9 => "select count(*), sum(amount) from t0".to_owned(),
            10 => "with x as (select id from t0) select * from x order by 1 desc limit 2".to_owned(),
            11 => "select array[1,2,null], '{\"a\": 1}'::jsonb, true, 1.5::float8, '2020-01-01'::date"
                .to_owned(),
            12 => "select * from t2 order by a, b".to_owned(),
            13 => "explain (costs off) select * from t0 where id = 1".to_owned(),
            14 => "select name, count(*) over () from t0 where id < 4 for update of t0".to_owned(),
            _ => "select 'größe' as größe, E'\\x01\\n' as \"a \"\"b\"".to_owned(),
        }
    }

    fn write(&mut self) -> String {
        let id = self.random.below(40);
        match self.random.below(12) {
            0 => format!("insert into t0 values ({id}, 'new', {id})"),
            1 => format!("insert into t0 values ({id}, 'new') on conflict do nothing"),
            2 => format!(
                "insert into t0 values ({id}, 'new') on conflict (id) do update set name = 'again' returning *"
            ),
            3 => format!("update t0 set name = name || '!' where id = {id} returning id, name"),
            4 => format!("delete from t0 where id = {id}"),
            5 => format!("insert into t1 values ({id}, {id})"),
            6 => format!("insert into t2 values ({id}, 'a'), ({id}, null)"),
            7 => format!("insert into t2 select n, 'n' || n from generate_series(1, {id}) n"),
            8 => "delete from t2".to_owned(),
            9 => "select nextval('seq')".to_owned(),
            10 => format!("with x as (insert into t2 values ({id}, 'with') returning a) select * from x"),
            _ => format!("update t0 set amount = amount + 1 where id < {id}"),
        }
    }

    fn ddl(&mut self) -> String {
        let n = self.random.below(3);
        match self.random.below(17) {
            0 => format!("create table x{n} (a int)"),
            1 => format!("create table if not exists x{n} (a int, b text)"),
            2 => format!("create table x{n} as select generate_series(1, 5) a"),
            3 => format!("drop table x{n}"),
            4 => format!("drop table if exists x{n}"),
            5 => "alter table t2 add column c int default 7".to_owned(),
            6 => "alter table t2 drop column if exists c".to_owned(),
            7 if self.mode == Mode::Ordinary => format!("create temp table tmp{n} (a int)"),
            8 if self.mode == Mode::Ordinary => format!("select 1 as a into x{n}"),
            9 if self.mode == Mode::Ordinary => "truncate t2".to_owned(),
            10 if self.mode == Mode::Ordinary => {
                "do $$ begin raise notice 'a notice'; insert into t2 values (99, 'done'); end $$".to_owned()
            }
            11 if self.mode == Mode::Ordinary => {
                "do $$ begin raise exception 'an exception'; end $$".to_owned()
            }
            13 if self.mode == Mode::Ordinary => {
                "do $$ begin insert into t2 values (98, 'kept'); commit; insert into t2 values (97, 'lost'); rollback; end $$"
                    .to_owned()
            }
            14 if self.mode == Mode::Ordinary => "lock table t0 in share mode".to_owned(),
            15 if self.mode == Mode::Ordinary => format!(
                "create or replace function f{n}(int) returns int language sql as 'select $1 + {n}'; select f{n}(1)"
            ),
            12 if self.mode == Mode::Ordinary => format!("create temp table tmp{n} (a int) on commit drop"),
            _ => format!("create index on t2 (a); create view v{n} as select * from t0"),
        }
    }

    fn transaction(&mut self) -> String {
        let weights = [25, 3, 3, 22, 3, 18, 3, 10, 8, 6, 2, 2];
        match self.random.weighted(&weights) {
            0 => "begin",
            1 => "begin isolation level serializable",
            2 => "start transaction read only",
            3 => "commit",
            4 => "end",
            5 => "rollback",
            6 => "abort",
            7 => self.random.one(&["savepoint a", "savepoint b", "savepoint \"A\""]),
            8 => self.random.one(&["rollback to a", "rollback to savepoint b", "rollback to \"A\""]),
            9 => self.random.one(&["release a", "release savepoint b"]),
            10 => self.random.one(&["commit and chain", "rollback and chain"]),
            _ => self.random.one(&[
                "set transaction read only",
                "set transaction isolation level repeatable read",
                "prepare transaction 'x'",
            ]),
        }
        .to_owned()
    }

    fn setting(&mut self) -> String {
        self.random
            .one(&[
                "set search_path to public, pg_catalog",
                "set local search_path to pg_catalog",
                "set search_path to nowhere",
                "reset search_path",
                "show search_path",
                "set datestyle to 'German'",
                "set local datestyle to 'SQL, DMY'",
                "set time zone 'Asia/Tokyo'",
                "set intervalstyle = 'iso_8601'",
                "select '2020-02-03 04:05:06+00'::timestamptz, '1 day 2 hours'::interval",
                "set application_name to 'somebody'",
                "reset application_name",
                "show application_name",
                "reset all",
                "show datestyle",
                "set bytea_output = 'escape'",
                "select '\\x00ff'::bytea",
                "set statement_timeout = 0",
                "set no.such = 'x'",
                "set nosuch = 'x'",
                "set client_min_messages = 'info'",
                "set client_min_messages = 'error'",
                "show all_such",
                "set constraints all immediate",
                "set session characteristics as transaction isolation level serializable",
                "select set_config('search_path', 'public', true)",
                "set extra_float_digits = 0",
                "set default_transaction_read_only = on",
            ])
            .to_owned()
    }

    fn notify(&mut self) -> String {
        self.random
            .one(&[
                "listen a",
                "listen \"B\"",
                "unlisten a",
                "unlisten *",
                "notify a",
                "notify a, 'payload'",
                "notify \"B\", 'größe'",
                "select pg_notify('a', 'by function')",
            ])
            .to_owned()
    }

    fn failing(&mut self) -> String {
        self.random
            .one(&[
                "select 1/0",
                "select 1/(id - 5) from t0 order by id",
                "select 'a'::int",
                "select * from nowhere",
                "select nocolumn from t0",
                "select nofunction()",
                "insert into t0 values (1, 'twice')",
                "insert into t1 values (1000, 1000)",
                "selec 1",
                "select from where",
                "create table t0 (a int)",
                "drop table nowhere",
                "execute nosuch",
                "deallocate nosuch",
                "fetch 1 from nosuch",
                "close nosuch",
                "release nosuch",
                "rollback to nosuch",
                "select '\u{e4}' || 1/0",
            ])
            .to_owned()
    }

    fn odd_text(&mut self) -> Vec<u8> {
        let odd: [&[u8]; 22] = [
            b"",
            b" ",
            b";",
            b";;",
            b"-- a comment",
            b"/* a comment */",
            b"/* one /* in */ another */ ; -- and more",
            b"/* without an end",
            b"select 'without an end",
            b"select \"without an end",
            b"select $$without an end",
            b"select 1;; select 2;",
            b"; select 1",
            b"select 1; selec 2; select 3",
            b"insert into t2 values (50, 'before'); selec 2",
            b"select '\xff'",
            b"\xff\xfe",
            "select 'größe' from größe".as_bytes(),
            b"select U&'\\0441\\043B', E'\\\\', $x$ $y$ $x$, B'101', X'1F'",
            b"select $1",
            b"select 1 \\gexec",
            b"SELECT\t1\r\n;\x0b",
        ];
        self.random.one(&odd).to_vec()
    }

    fn name(&mut self) -> Vec<u8> {
        if self.random.chance(40) {
            Vec::new()
        } else {
            bytes(STATEMENTS[self.random.below(STATEMENTS.len())].0)
        }
    }

    fn portal(&mut self) -> Vec<u8> {
        if self.random.chance(50) { Vec::new() } else { bytes(PORTALS[self.random.below(PORTALS.len())].0) }
    }

    fn rows(&mut self) -> i32 {
        [0, 0, 0, 0, 1, 2, 3, 5, 100, -1][self.random.below(10)]
    }

    fn result_formats(&mut self) -> Vec<i16> {
        match self.random.weighted(&[50, 15, 15, 8, 1, 1]) {
            0 => vec![],
            1 => vec![0],
            2 => vec![1],
            3 => vec![0, 1],
            4 => vec![2],
            _ => vec![1; 5],
        }
    }

    /// A text with parameters: types, formats and values that fit, mostly.
    fn parameterised(&mut self) -> Prepared {
        let number = self.random.below(25);
        let text = |n: usize| Some(bytes(&n.to_string()));
        let binary = |n: usize| Some(u32::try_from(n).unwrap().to_be_bytes().to_vec());
        match self.random.below(14) {
            0 => (bytes("select $1::int + 1"), vec![], vec![], vec![text(number)]),
            1 => (bytes("select $1"), vec![23], vec![1], vec![binary(number)]),
            2 => (bytes("select $1, $2"), vec![25, 0], vec![0], vec![Some(bytes("größe")), None]),
            3 => (bytes("select id, name from t0 where id = $1"), vec![], vec![], vec![text(number)]),
            4 => (
                bytes("select id, name from t0 where id > $1 order by id"),
                vec![23],
                vec![1],
                vec![binary(number)],
            ),
            5 => (
                bytes("insert into t0 values ($1, $2)"),
                vec![],
                vec![],
                vec![text(number), Some(bytes("bound"))],
            ),
            6 => (
                bytes("insert into t2 values ($1, $2) returning *"),
                vec![23, 25],
                vec![1, 0],
                vec![binary(number), None],
            ),
            7 => (
                bytes("update t0 set name = $2 where id = $1"),
                vec![],
                vec![0, 0],
                vec![text(number), Some(bytes("x"))],
            ),
            8 => (bytes("select 10 / $1::int"), vec![], vec![], vec![text(number % 2)]),
            9 => (bytes("select generate_series(1, $1::int)"), vec![], vec![], vec![text(number)]),
            10 => (bytes("delete from t2 where a = $1"), vec![20], vec![], vec![text(number)]),
            11 => (bytes("select $1::int"), vec![], vec![], vec![Some(bytes("no number"))]),
            12 => (
                bytes("select $1::text, $2::bytea"),
                vec![],
                vec![0, 1],
                vec![Some(bytes("")), Some(vec![0, 255, 10])],
            ),
            _ => (bytes("select $2::int, $1::text"), vec![], vec![], vec![Some(bytes("a")), text(number)]),
        }
    }

    /// What an extended statement is made of, with or without parameters.
    fn prepared(&mut self) -> Prepared {
        let mut made = match self.random.weighted(&[55, 40, 5]) {
            0 => self.parameterised(),
            1 => (self.statement().into_bytes(), vec![], vec![], vec![]),
            _ => (self.odd_text(), vec![], vec![], vec![]),
        };
        if self.random.chance(3) {
            made.3.push(Some(bytes("one too many")));
        }
        if self.random.chance(2) {
            made.3.pop();
        }
        if self.random.chance(2) {
            made.2 = vec![0, 1, 0];
        }
        if self.random.chance(2) {
            made.1 = vec![0, 0, 0];
        }
        made
    }

    /// One statement by Parse, Bind, Execute, and how it ends.
    fn extended(&mut self) {
        self.extended_open();
        match self.random.weighted(&[70, 15, 15]) {
            0 => self.push(Step::Sync),
            1 => self.push(Step::Flush),
            _ => {}
        }
    }

    fn extended_open(&mut self) {
        let (sql, types, formats, values) = self.prepared();
        self.extended_with(sql, types, formats, values);
    }

    fn extended_with(
        &mut self,
        sql: Vec<u8>,
        types: Vec<u32>,
        formats: Vec<i16>,
        values: Vec<Option<Vec<u8>>>,
    ) {
        let mut statement = self.name();
        let portal = self.portal();
        if self.mode == Mode::Denied && is_schema_change(&sql) {
            statement = bytes(&format!("{DENIED} {}", self.random.below(3)));
            self.push(Step::Close(b'S', statement.clone()));
        }
        self.push(Step::Parse { name: statement.clone(), sql, types });
        if self.random.chance(30) {
            self.push(Step::Describe(b'S', statement.clone()));
        }
        if self.random.chance(5) {
            self.push(Step::Sync);
        }
        if self.random.chance(4) {
            return;
        }
        let results = self.result_formats();
        self.push(Step::Bind {
            portal: portal.clone(),
            statement: statement.clone(),
            formats,
            values,
            results,
        });
        if self.random.chance(40) {
            self.push(Step::Describe(b'P', portal.clone()));
        }
        if self.random.chance(4) {
            return;
        }
        let rows = self.rows();
        self.push(Step::Execute(portal.clone(), rows));
        while self.random.chance(25) {
            let rows = self.rows();
            self.push(Step::Execute(portal.clone(), rows));
        }
        if self.random.chance(10) {
            self.push(Step::Close(b'P', portal));
        }
        if self.random.chance(10) {
            self.push(Step::Close(b'S', statement));
        }
    }

    fn pipeline(&mut self) {
        for _ in 0..2 + self.random.below(4) {
            if self.random.chance(12) {
                let sql = self.failing();
                self.extended_with(bytes(&sql), vec![], vec![], vec![]);
            } else if self.random.chance(15) {
                let sql = self.transaction();
                self.extended_with(bytes(&sql), vec![], vec![], vec![]);
            } else if self.random.chance(4) {
                // Nobody should: a Query among them, without a Sync.
                let sql = self.statement();
                self.query(&sql);
            } else {
                self.extended_open();
            }
            if self.random.chance(10) {
                self.push(Step::Flush);
            }
        }
        if self.random.chance(90) {
            self.push(Step::Sync);
        }
    }

    /// A name that may mean something from before.
    fn bind_again(&mut self) {
        let (_, _, formats, values) = self.parameterised();
        let (statement, portal) = (self.name(), self.portal());
        let values = if self.random.chance(50) { vec![] } else { values };
        let formats = if values.is_empty() { vec![] } else { formats };
        if self.random.chance(20) {
            self.push(Step::Describe(b'S', statement.clone()));
        }
        if self.random.chance(70) {
            let results = self.result_formats();
            self.push(Step::Bind { portal: portal.clone(), statement, formats, values, results });
        }
        if self.random.chance(40) {
            self.push(Step::Describe(b'P', portal.clone()));
        }
        let rows = self.rows();
        self.push(Step::Execute(portal, rows));
        if self.random.chance(80) {
            self.push(Step::Sync);
        }
    }

    fn close(&mut self) {
        for _ in 0..1 + self.random.below(2) {
            let step = match self.random.below(4) {
                0 | 1 => Step::Close(b'S', self.name()),
                2 => Step::Close(b'P', self.portal()),
                _ => Step::Describe(b'P', self.portal()),
            };
            self.push(step);
        }
        if self.random.chance(70) {
            self.push(Step::Sync);
        }
    }

    fn run_either_way(&mut self, sql: &str) {
        if self.random.chance(60) {
            self.query(sql);
        } else {
            self.extended_with(bytes(sql), vec![], vec![], vec![]);
            if self.random.chance(80) {
                self.push(Step::Sync);
            }
        }
    }

    /// The statement that SQL knows, among the protocol's names.
    fn sql_prepared(&mut self) {
        let name = STATEMENTS[self.random.below(STATEMENTS.len())].1;
        let sql = match self.random.weighted(&[8, 8, 10, 4, 4, 2, 1, 1, 3]) {
            0 => {
                let inner = if self.random.chance(60) { self.read() } else { self.write() };
                format!("prepare {name} as {inner}")
            }
            1 => format!("prepare {name} (int) as select $1 + 1, name from t0 where id = $1"),
            2 => format!("execute {name}"),
            3 => format!("execute {name} ({})", self.random.below(25)),
            4 => format!("deallocate {name}"),
            5 => self.random.one(&["deallocate all", "deallocate prepare all"]).to_owned(),
            6 => "discard all".to_owned(),
            7 => self.random.one(&["discard plans", "discard temp", "discard sequences"]).to_owned(),
            _ => {
                let inner = self.read();
                format!("deallocate {name}; prepare {name} as {inner}; execute {name}")
            }
        };
        self.run_either_way(&sql);
    }

    fn cursor(&mut self) {
        let name = PORTALS[self.random.below(PORTALS.len())];
        let count = self.random.below(6);
        let read = self.read();
        let sql = name.1;
        let sql = match self.random.weighted(&[10, 3, 3, 8, 2, 2, 2, 4, 1]) {
            0 => format!("declare {sql} cursor for {read}"),
            1 => format!("declare {sql} scroll cursor for {read}"),
            2 => format!("declare {sql} cursor with hold for {read}"),
            3 => format!("fetch {count} from {sql}"),
            4 => format!("fetch backward {count} from {sql}"),
            5 => format!("fetch all from {sql}"),
            6 => format!("move {count} in {sql}"),
            7 => format!("close {sql}"),
            _ => "close all".to_owned(),
        };
        if self.random.chance(40) {
            self.query("begin");
        }
        self.run_either_way(&sql);
        if self.random.chance(50) {
            let rows = self.rows();
            if self.random.chance(50) {
                self.push(Step::Describe(b'P', bytes(name.0)));
            }
            self.push(Step::Execute(bytes(name.0), rows));
            if self.random.chance(80) {
                self.push(Step::Sync);
            }
        }
        if self.random.chance(50) {
            self.run_either_way(&format!("fetch 2 from {}", name.1));
        }
    }

    fn copy(&mut self) {
        let out = self.random.chance(35);
        let sql = if out {
            self.random.one(&[
                "copy t0 to stdout",
                "copy (select * from t0 order by id limit 3) to stdout (format csv, header)",
                "copy t1 to stdout (format binary)",
                "copy (select 1/(id - 3) from t0 order by id) to stdout",
                "copy nowhere to stdout",
                "copy (select) to stdout",
                "copy t2 to stdout; select 1; copy t1 to stdout",
                "copy (insert into t2 values (7, 'copied') returning *) to stdout",
            ])
        } else {
            self.random.one(&[
                "copy t2 from stdin",
                "copy t2 from stdin",
                "copy t2 (a, b) from stdin (format csv)",
                "copy t2 from stdin (format binary)",
                "copy t0 (id, name) from stdin",
                "copy t2 from stdin; select 2",
                "copy t2 from stdin; copy t2 from stdin",
                "insert into t2 values (5, 'before'); copy t2 from stdin; insert into t2 values (6, 'after')",
                "copy nowhere from stdin",
                "begin; copy t2 from stdin",
            ])
        };
        let by_query = self.random.chance(60) || sql.contains(';');
        if by_query {
            self.query(sql);
        } else {
            self.extended_with(bytes(sql), vec![], vec![], vec![]);
        }
        if out {
            if !by_query && self.random.chance(80) {
                self.push(Step::Sync);
            }
            return;
        }
        if !by_query {
            match self.random.weighted(&[40, 30, 30]) {
                0 => {}
                1 => self.push(Step::Flush),
                _ => self.push(Step::Sync),
            }
        }
        if self.random.chance(40) {
            self.push(Step::Wait);
        }
        let mut data = self.copy_data(sql);
        if self.random.chance(8) {
            data.push(b"no number\tx\n".to_vec());
        }
        for piece in data {
            self.push(Step::CopyData(piece));
            if self.random.chance(6) {
                let step = if self.random.chance(50) { Step::Sync } else { Step::Flush };
                self.push(step);
            }
        }
        match self.random.weighted(&[74, 12, 6, 4, 2, 2]) {
            0 => self.push(Step::CopyDone),
            1 => self.push(Step::CopyFail(bytes("given up"))),
            2 => {
                self.push(Step::CopyDone);
                self.push(Step::CopyDone);
            }
            3 => {
                self.push(Step::CopyDone);
                self.push(Step::CopyData(b"8\tlate\n".to_vec()));
                self.push(Step::CopyDone);
            }
            4 => self.query("select 'inside a copy'"),
            _ => {}
        }
        if !by_query && self.random.chance(95) {
            self.push(Step::Sync);
        }
    }

    fn copy_data(&mut self, sql: &str) -> Vec<Vec<u8>> {
        if sql.contains("binary") {
            let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
            for n in 0..self.random.below(4) {
                data.extend_from_slice(&[
                    0,
                    2,
                    0,
                    0,
                    0,
                    4,
                    0,
                    0,
                    0,
                    u8::try_from(n).unwrap(),
                    0,
                    0,
                    0,
                    1,
                    b'x',
                ]);
            }
            data.extend_from_slice(&[0xff, 0xff]);
            let cut = self.random.below(data.len());
            return vec![data[..cut].to_vec(), data[cut..].to_vec()];
        }
        let separator = if sql.contains("csv") { ',' } else { '\t' };
        let most = if self.random.chance(5) { 3000 } else { 8 };
        let rows = self.random.below(most);
        let mut text = String::new();
        for _ in 0..rows {
            text.push_str(&format!("{}{separator}row\n", self.random.below(60)));
        }
        let text = text.into_bytes();
        let mut pieces = Vec::new();
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at((1 + self.random.below(4000)).min(rest.len()));
            pieces.push(head.to_vec());
            rest = tail;
        }
        if self.random.chance(10) {
            pieces.push(Vec::new());
        }
        if self.random.chance(5) {
            pieces.push(b"\\.\n".to_vec());
        }
        pieces
    }

    /// What nobody should send.
    fn accident(&mut self) {
        let step = match self.random.below(9) {
            0 => Step::CopyData(b"1\tstray\n".to_vec()),
            1 => Step::CopyDone,
            2 => Step::CopyFail(bytes("stray")),
            3 => Step::Execute(bytes("nosuch"), 0),
            4 => Step::Execute(Vec::new(), 0),
            5 => Step::Describe(b'S', bytes("nosuch")),
            6 => Step::Describe(b'P', Vec::new()),
            7 => {
                let (statement, portal) = (self.name(), self.portal());
                Step::Bind { portal, statement, formats: vec![], values: vec![], results: vec![] }
            }
            _ => Step::Parse { name: self.name(), sql: bytes("select 1; select 2"), types: vec![] },
        };
        self.push(step);
        if self.random.chance(50) {
            self.push(Step::Sync);
        }
    }

    fn big(&mut self) {
        let size = [70_000, 300_000][self.random.below(2)];
        match self.random.below(6) {
            5 => {
                // More than a unit holds.
                for _ in 0..4200 {
                    self.push(Step::Close(b'S', bytes("nosuch")));
                }
                self.extended();
            }
            0 => self.query(&format!("select repeat('x', {size}), 1")),
            1 => self.query(&format!("select length('{}')", "y".repeat(size))),
            2 => {
                let value = "z".repeat(size).into_bytes();
                self.extended_with(bytes("select $1::text, length($1)"), vec![], vec![], vec![Some(value)]);
                self.push(Step::Sync);
            }
            3 => self.query("select n, repeat('w', 50) from generate_series(1, 5000) n"),
            _ => {
                self.query("copy t2 from stdin");
                let mut row = b"1\t".to_vec();
                row.extend_from_slice("v".repeat(size).as_bytes());
                row.push(b'\n');
                self.push(Step::CopyData(row));
                self.push(Step::CopyDone);
            }
        }
    }

    /// What the session has, as Postgres sees it: nothing of the proxy's own may be there.
    fn look(&mut self) {
        let sql = self.random.one(&[
            "select name, statement, parameter_types, from_sql from pg_prepared_statements order by name",
            "select name, statement, is_holdable, is_binary, is_scrollable from pg_cursors order by name",
            "select * from pg_listening_channels() order by 1",
            "select name, setting from pg_settings where source = 'session' and name <> 'application_name' order by name",
        ]);
        self.run_either_way(sql);
    }

    /// Bytes that are not the protocol, as the session's last.
    fn broken(&mut self) {
        self.push(Step::Settle);
        let raw: [&[u8]; 12] = [
            b"\x01\0\0\0\x04",
            b"z\0\0\0\x08abcd",
            b"Q\0\0\0\x03",
            b"Q\xff\xff\xff\xff",
            b"Q\0\0\0\x05x",
            b"Q\0\0\0\x0eselect 1\0x",
            b"B\0\0\0\x06xx",
            b"P\0\0\0\x08x\0\0\0",
            b"D\0\0\0\x06Xs\0",
            b"C\0\0\0\x05S",
            b"S\0\0\0\x05x",
            b"E\0\0\0\x06\0\0",
        ];
        let raw = self.random.one(&raw).to_vec();
        self.push(Step::Raw(raw));
        self.push(Step::HalfClose);
    }
}

/// Whether the proxy's policy denies this text: it holds a schema change.
pub fn is_schema_change(sql: &[u8]) -> bool {
    let sql = String::from_utf8_lossy(sql).to_lowercase();
    sql.split(';').any(|part| {
        let part = part.trim_start().trim_start_matches("-- a comment\n").trim_start();
        ["create ", "drop ", "alter "].iter().any(|word| part.starts_with(word)) && !part.contains(" temp ")
    })
}

/// The session that Postgres would see if what the proxy denies failed by itself.
pub fn denied(script: &Script) -> Script {
    let failing = || bytes("denied_by_the_test");
    let steps = script.steps.iter().map(|step| match step {
        Step::Query(sql) if is_schema_change(sql) => Step::Query(failing()),
        Step::Bind { portal, statement, formats, values, results }
            if statement.starts_with(DENIED.as_bytes()) =>
        {
            Step::Bind {
                portal: portal.clone(),
                statement: failing(),
                formats: formats.clone(),
                values: values.clone(),
                results: results.clone(),
            }
        }
        other => other.clone(),
    });
    Script { steps: steps.collect(), ..script.clone() }
}

//! Texts of statements.

use super::*;

impl Generator {
    pub(super) fn fragment(&mut self) {
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
    pub(super) fn statement(&mut self) -> String {
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

    pub(super) fn read(&mut self) -> String {
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

    pub(super) fn write(&mut self) -> String {
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

    pub(super) fn ddl(&mut self) -> String {
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

    pub(super) fn transaction(&mut self) -> String {
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

    pub(super) fn setting(&mut self) -> String {
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

    pub(super) fn notify(&mut self) -> String {
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

    pub(super) fn failing(&mut self) -> String {
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

    pub(super) fn odd_text(&mut self) -> Vec<u8> {
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
}

//! The extended protocol, statements prepared by SQL, and cursors.

use super::*;

impl Generator {
    pub(super) fn name(&mut self) -> Vec<u8> {
        if self.random.chance(40) {
            Vec::new()
        } else {
            bytes(STATEMENTS[self.random.below(STATEMENTS.len())].0)
        }
    }

    pub(super) fn portal(&mut self) -> Vec<u8> {
        if self.random.chance(50) { Vec::new() } else { bytes(PORTALS[self.random.below(PORTALS.len())].0) }
    }

    pub(super) fn rows(&mut self) -> i32 {
        [0, 0, 0, 0, 1, 2, 3, 5, 100, -1][self.random.below(10)]
    }

    pub(super) fn result_formats(&mut self) -> Vec<i16> {
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
    pub(super) fn parameterised(&mut self) -> Prepared {
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
    pub(super) fn prepared(&mut self) -> Prepared {
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
    pub(super) fn extended(&mut self) {
        self.extended_open();
        match self.random.weighted(&[70, 15, 15]) {
            0 => self.push(Step::Sync),
            1 => self.push(Step::Flush),
            _ => {}
        }
    }

    pub(super) fn extended_open(&mut self) {
        let (sql, types, formats, values) = self.prepared();
        self.extended_with(sql, types, formats, values);
    }

    pub(super) fn extended_with(
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

    pub(super) fn pipeline(&mut self) {
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
    pub(super) fn bind_again(&mut self) {
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

    pub(super) fn close(&mut self) {
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

    pub(super) fn run_either_way(&mut self, sql: &str) {
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
    pub(super) fn sql_prepared(&mut self) {
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

    pub(super) fn cursor(&mut self) {
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
}

//! COPY, large results, accidents and broken bytes.

use super::*;

impl Generator {
    pub(super) fn copy(&mut self) {
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

    pub(super) fn copy_data(&mut self, sql: &str) -> Vec<Vec<u8>> {
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
    pub(super) fn accident(&mut self) {
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

    pub(super) fn big(&mut self) {
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
    pub(super) fn look(&mut self) {
        let sql = self.random.one(&[
            "select name, statement, parameter_types, from_sql from pg_prepared_statements order by name",
            "select name, statement, is_holdable, is_binary, is_scrollable from pg_cursors order by name",
            "select * from pg_listening_channels() order by 1",
            "select name, setting from pg_settings where source = 'session' and name <> 'application_name' order by name",
        ]);
        self.run_either_way(sql);
    }

    /// Bytes that are not the protocol, as the session's last.
    pub(super) fn broken(&mut self) {
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

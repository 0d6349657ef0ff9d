//! Sessions from a seed: what drivers send, what nobody should send, and accidents.

mod extended;
mod statements;
mod streams;

use crate::script::{Script, Step};
use crate::support::random::Random;

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

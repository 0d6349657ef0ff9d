//! Lies told to an auditor, and the exit code that each of them gets, from both verifiers.

mod by_key_holder;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, params};

use self::by_key_holder::kind;

use crate::ledger::entry::{Key, Kind};
use crate::ledger::index;
use crate::ledger::key::{KeyFiles, RootKey};
use crate::ledger::tests::forge::{Forger, put_together, remember_salts, take_apart};
use crate::ledger::tests::sample::*;
use crate::ledger::tests::{Elsewhere, rich, second};
use crate::ledger::verify::{Options, Progress, verify};

/// A good ledger, made once, and copies of it to be attacked.
struct Scene {
    place: Place,
    root: RootKey,
    /// Its last checkpoint, kept elsewhere.
    anchor: PathBuf,
}

struct Target {
    directory: Arc<tempfile::TempDir>,
    path: PathBuf,
    anchor: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        rich::fill(&place);
        let root = RootKey::load(&KeyFiles::beside(&place.path())).unwrap();
        let anchor = place.head();
        remember_salts(&place.path());
        Self { place, root, anchor }
    }

    fn copy(&self) -> Target {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy.db");
        let anchor = directory.path().join("anchor");
        let from = self.place.path();
        std::fs::copy(&from, &path).unwrap();
        std::fs::copy(KeyFiles::beside(&from).public, KeyFiles::beside(&path).public).unwrap();
        std::fs::copy(index::path_of(&from), index::path_of(&path)).unwrap();
        std::fs::copy(&self.anchor, &anchor).unwrap();
        Target { directory: Arc::new(directory), path, anchor }
    }
}

impl Target {
    fn sql(&self, sql: &str) {
        let connection = Connection::open(&self.path).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    fn index_sql(&self, sql: &str) {
        let connection = Connection::open(index::path_of(&self.path)).unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

/// What both verifiers say that is not what they should say.
#[derive(Default)]
struct Wrong {
    found: Vec<String>,
    second: second::Opinions,
}

impl Wrong {
    fn expect(&mut self, name: &str, target: &Target, with_anchor: bool, code: i32) {
        let anchors = if with_anchor { vec![target.anchor.clone()] } else { Vec::new() };
        let elsewhere = Elsewhere::of(&target.path, &anchors);
        let (key, given) = (elsewhere.key.clone(), elsewhere.anchors.clone());
        let options = Options { path: target.path.clone(), key, anchors: given };
        let report = verify(&options, &Progress::default()).unwrap();
        let (found, problem) = (i32::from(report.exit_code()), report.problem);
        if found != code {
            self.found.push(format!("{name}: {found} instead of {code}: {problem:?}"));
        }
        self.second.ask(name, code, &target.path, &anchors, target.directory.clone());
    }
}

impl Drop for Wrong {
    /// All of them at once: an attack that passes is worth more than the first that does.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.found.extend(self.second.disagreements());
            assert!(self.found.is_empty(), "{}", self.found.join("\n"));
        }
    }
}

/// Its name, the exit code it must get, and what it does.
type Attack = (&'static str, i32, fn(&Target));

/// Attacks that anybody with write access to the file can try.
fn on_the_file() -> Vec<Attack> {
    vec![
        ("nothing", 0, |_| {}),
        ("a byte of an entry is changed", 13, |target| {
            target.sql(
                "UPDATE entry SET body = CAST(substr(body, 1, 40) || x'ff' || substr(body, 42) AS BLOB) WHERE seq = 20",
            );
        }),
        ("a byte of the last entry is changed", 13, |target| {
            target.sql("UPDATE entry SET body = CAST(substr(body, 1, length(body) - 1) || CASE WHEN hex(substr(body, -1)) = '00' THEN x'01' ELSE x'00' END AS BLOB) WHERE seq = (SELECT max(seq) FROM entry)");
        }),
        ("an entry is deleted", 12, |target| target.sql("DELETE FROM entry WHERE seq = 20")),
        ("the first entry is deleted", 12, |target| target.sql("DELETE FROM entry WHERE seq = 0")),
        ("all entries are deleted", 12, |target| target.sql("DELETE FROM entry")),
        ("two entries change places", 12, |target| {
            target.sql("UPDATE entry SET seq = -1 WHERE seq = 20; UPDATE entry SET seq = 20 WHERE seq = 21; UPDATE entry SET seq = 21 WHERE seq = -1");
        }),
        ("an entry stands twice", 12, |target| {
            target.sql("INSERT INTO entry SELECT (SELECT max(seq) + 1 FROM entry), body, sig FROM entry WHERE seq = 20");
        }),
        ("an entry before the first", 12, |target| {
            target.sql("INSERT INTO entry SELECT -1, body, sig FROM entry WHERE seq = 0");
        }),
        ("garbage for an entry", 13, |target| {
            target.sql("UPDATE entry SET body = x'deadbeef' WHERE seq = 20");
        }),
        ("an empty entry", 13, |target| target.sql("UPDATE entry SET body = x'' WHERE seq = 20")),
        ("bytes behind an entry", 13, |target| {
            target.sql("UPDATE entry SET body = CAST(body || x'00' AS BLOB) WHERE seq = 20");
        }),
        ("a signature is removed", 13, |target| target.sql("UPDATE entry SET sig = NULL WHERE seq = 20")),
        ("a signature is cut", 13, |target| {
            target.sql("UPDATE entry SET sig = substr(sig, 1, 63) WHERE seq = 20");
        }),
        ("the signature of another entry", 13, |target| {
            target.sql("UPDATE entry SET sig = (SELECT sig FROM entry WHERE seq = 21) WHERE seq = 20");
        }),
        ("the end is cut, and its checkpoints stay", 18, |target| {
            target.sql("DELETE FROM entry WHERE seq > (SELECT max(seq) - 3 FROM entry)");
        }),
        ("the last checkpoint is removed", 17, |target| {
            target.sql("DELETE FROM checkpoint WHERE size = (SELECT max(size) FROM checkpoint)");
        }),
        ("all checkpoints are removed", 14, |target| target.sql("DELETE FROM checkpoint")),
        ("a checkpoint in the middle is removed", 14, |target| {
            target.sql(
                "DELETE FROM checkpoint WHERE size = (SELECT min(size) FROM checkpoint WHERE size > 10)",
            );
        }),
        ("a checkpoint with another root", 14, |target| {
            target.sql("UPDATE checkpoint SET note = replace(note, substr(note, instr(note, '=') - 10, 4), 'AAAA') WHERE size = (SELECT max(size) FROM checkpoint)");
        }),
        ("a checkpoint of another ledger", 14, |target| {
            target.sql("UPDATE checkpoint SET note = replace(note, 'example.com', 'example.org')");
        }),
        ("a checkpoint of another size", 14, |target| {
            target.sql("UPDATE checkpoint SET note = (SELECT note FROM checkpoint ORDER BY size LIMIT 1) WHERE size = (SELECT max(size) FROM checkpoint)");
        }),
        ("a checkpoint that nobody signed", 14, |target| {
            target.sql("INSERT INTO checkpoint SELECT 1, note FROM checkpoint LIMIT 1");
        }),
        ("a checkpoint of nothing", 14, |target| {
            target.sql("INSERT INTO checkpoint SELECT 0, note FROM checkpoint LIMIT 1");
        }),
        ("a checkpoint signed once more", 14, |target| {
            target.sql("UPDATE checkpoint SET note = note || substr(note, instr(note, char(10) || char(10)) + 2) WHERE size = (SELECT max(size) FROM checkpoint)");
        }),
        ("a trigger", 10, |target| {
            target.sql("CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM entry WHERE seq = 20; END");
        }),
        ("a view", 10, |target| target.sql("CREATE VIEW v AS SELECT * FROM entry")),
        ("an index", 10, |target| target.sql("CREATE INDEX i ON entry (sig)")),
        ("another table", 10, |target| target.sql("CREATE TABLE t (x)")),
        ("another column", 10, |target| target.sql("ALTER TABLE entry ADD COLUMN note TEXT")),
        ("a table that is a view", 10, |target| {
            target.sql("ALTER TABLE entry RENAME TO real; CREATE VIEW entry AS SELECT * FROM real");
        }),
        ("a table of other types", 10, |target| {
            target.sql("ALTER TABLE checkpoint RENAME TO old; CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL); INSERT INTO checkpoint SELECT * FROM old; DROP TABLE old");
        }),
        ("another kind of file", 10, |target| target.sql("PRAGMA application_id = 1")),
        ("a file that is no database", 11, |target| {
            std::fs::write(&target.path, "no database at all").unwrap()
        }),
        ("an empty file", 11, |target| std::fs::write(&target.path, "").unwrap()),
        ("a page full of noise", 11, |target| {
            let mut bytes = std::fs::read(&target.path).unwrap();
            let page = bytes.len() / 8192 / 2 * 8192;
            bytes[page..page + 8192].fill(0x5a);
            std::fs::write(&target.path, bytes).unwrap();
        }),
        ("the file is cut in half", 11, |target| {
            let bytes = std::fs::read(&target.path).unwrap();
            std::fs::write(&target.path, &bytes[..bytes.len() / 2 / 8192 * 8192]).unwrap();
        }),
        ("two texts change places", 20, |target| {
            target.sql("CREATE TEMP TABLE two AS SELECT rowid AS n, seq, salt, value FROM (SELECT row_number() OVER (ORDER BY seq) AS rowid, * FROM payload WHERE field = 40 LIMIT 2); \
                UPDATE payload SET value = (SELECT value FROM two WHERE n = 2), salt = (SELECT salt FROM two WHERE n = 2) WHERE field = 40 AND seq = (SELECT seq FROM two WHERE n = 1)");
        }),
        ("a text is changed", 20, |target| {
            target.sql("UPDATE payload SET value = CAST('select 1 -- harmless' AS BLOB) WHERE field = 40 AND seq = (SELECT max(seq) FROM payload WHERE field = 40)");
        }),
        ("a salt is changed", 20, |target| target.sql("UPDATE payload SET salt = x'00' WHERE field = 60")),
        ("a text is deleted, and no entry says so", 20, |target| {
            target.sql("DELETE FROM payload WHERE field = 40 AND seq = (SELECT max(seq) FROM payload)");
        }),
        ("a reviewer's words are deleted", 20, |target| target.sql("DELETE FROM payload WHERE field = 60")),
        ("a text of no field", 20, |target| {
            target.sql("INSERT INTO payload SELECT seq, 41, salt, value FROM payload WHERE field = 40 AND seq = (SELECT min(seq) FROM payload WHERE field = 40)");
        }),
        ("a text of an unknown field", 20, |target| {
            target
                .sql("INSERT INTO payload SELECT seq, -5, salt, value FROM payload WHERE field = 40 LIMIT 1");
        }),
        ("a text of an entry that takes none", 20, |target| {
            target.sql(
                "INSERT INTO payload SELECT 0, field, salt, value FROM payload WHERE field = 40 LIMIT 1",
            );
        }),
        ("a text behind the last entry", 20, |target| {
            target.sql(
                "INSERT INTO payload SELECT 99999, field, salt, value FROM payload WHERE field = 40 LIMIT 1",
            );
        }),
        ("a text before the first entry", 20, |target| {
            target.sql(
                "INSERT INTO payload SELECT -1, field, salt, value FROM payload WHERE field = 40 LIMIT 1",
            );
        }),
        ("a tile is changed", 16, |target| target.sql("UPDATE tile SET hashes = zeroblob(length(hashes))")),
        ("a tile is removed", 16, |target| target.sql("DELETE FROM tile WHERE level = 0")),
        ("a tile too many", 16, |target| target.sql("INSERT INTO tile VALUES (7, 7, x'00')")),
        ("an anchor's note is changed", 14, |target| {
            target.sql(
                "UPDATE anchor SET note = replace(note, substr(note, instr(note, '=') - 10, 4), 'AAAA')",
            );
        }),
        ("an anchor's size is changed", 14, |target| target.sql("UPDATE anchor SET size = size - 1")),
        ("an anchor is forgotten", 16, |target| target.sql("DELETE FROM anchor")),
        ("an anchor under another name", 16, |target| target.sql("UPDATE anchor SET name = 'file:tape'")),
        ("an anchor that is no note", 14, |target| {
            target.sql("INSERT INTO anchor VALUES ('slack', 5, 'trust me')");
        }),
        ("the index says another class", 16, |target| {
            target.index_sql("UPDATE statement SET class = 'read' WHERE class = 'export'");
        }),
        ("the index says another text", 16, |target| {
            target.index_sql("UPDATE statement SET sql = 'select 1' WHERE class = 'export'");
        }),
        ("a row of the index is gone", 16, |target| {
            target.index_sql("DELETE FROM review WHERE seq = (SELECT max(seq) FROM review)");
        }),
        ("a row of the index too many", 16, |target| {
            target.index_sql(
                "INSERT INTO review (seq, time, reviewer, verdict) VALUES (99999, '', 'bob', 'approve')",
            );
        }),
        ("a view of the index shows less", 16, |target| {
            target.index_sql("DROP VIEW decisions; CREATE VIEW decisions AS SELECT * FROM request WHERE 0");
        }),
        ("an index of the index that leaves exports out", 16, |target| {
            target.index_sql(
                "CREATE TEMP TABLE kept AS SELECT name, sql FROM sqlite_schema WHERE name = 'statement_agent'; \
                 DROP INDEX statement_agent; CREATE INDEX statement_agent ON statement (agent, seq) WHERE class <> 'export'; \
                 PRAGMA writable_schema = ON; \
                 UPDATE sqlite_schema SET sql = (SELECT sql FROM kept) WHERE name = 'statement_agent'",
            );
        }),
        ("the index of a longer ledger", 16, |target| target.index_sql("UPDATE meta SET size = size + 100")),
        ("the index of another ledger", 16, |target| target.index_sql("UPDATE meta SET origin = 'other'")),
        ("an index that is no database", 16, |target| {
            std::fs::write(index::path_of(&target.path), "hello").unwrap();
        }),
        ("an anchor whose signature was made up", 14, |target| {
            let text = std::fs::read_to_string(&target.anchor).unwrap();
            std::fs::write(&target.anchor, flip_base64(&text)).unwrap();
        }),
        ("an anchor of another ledger", 14, |target| {
            let text = std::fs::read_to_string(&target.anchor).unwrap();
            std::fs::write(&target.anchor, text.replace("example.com", "example.org")).unwrap();
        }),
        ("an anchor that is no checkpoint", 14, |target| std::fs::write(&target.anchor, "hello\n").unwrap()),
        ("an anchor that saw more", 18, |target| unsigned_anchor(target, |size| size + 1, None)),
        ("an anchor that saw something else", 18, |target| {
            unsigned_anchor(target, |size| size, Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
        }),
        ("another key beside the ledger", 19, |target| {
            let other = RootKey::generate(ORIGIN).unwrap().public();
            std::fs::write(KeyFiles::beside(&target.path).public, other.to_text()).unwrap();
        }),
        ("the key of a ledger of another name", 19, |target| {
            let other = RootKey::generate("example.org/other").unwrap().public();
            std::fs::write(KeyFiles::beside(&target.path).public, other.to_text()).unwrap();
        }),
    ]
}

/// Changes one letter of the last signature, a few places before its end.
fn flip_base64(note: &str) -> String {
    let place = note.len() - 12;
    let flipped = if note.as_bytes()[place] == b'Q' { "R" } else { "Q" };
    format!("{}{flipped}{}", &note[..place], &note[place + 1..])
}

/// The three lines of the anchor, as copied out of a chat message.
fn unsigned_anchor(target: &Target, size: fn(u64) -> u64, root: Option<&str>) {
    let text = std::fs::read_to_string(&target.anchor).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let size = size(lines[1].parse().unwrap());
    std::fs::write(&target.anchor, format!("{}\n{size}\n{}\n", lines[0], root.unwrap_or(lines[2]))).unwrap();
}

#[test]
fn attacks_on_the_file_are_found() {
    let scene = Scene::new();
    let mut wrong = Wrong::default();
    for (name, code, attack) in on_the_file() {
        let target = scene.copy();
        attack(&target);
        wrong.expect(name, &target, true, code);
    }
}

#[test]
fn keys_cannot_be_played_with() {
    let scene = Scene::new();
    let mut wrong = Wrong::default();
    let mut forge = |name: &str, code: i32, change: &dyn Fn(&mut Forger<'_>)| {
        let target = scene.copy();
        let mut forger = Forger::new(&scene.root);
        change(&mut forger);
        put_together(&target.path, take_apart(&target.path), &forger);
        wrong.expect(name, &target, false, code);
    };
    forge("an epoch is left out", 19, &|forger| {
        forger.epoch_number = |number| number + u64::from(number > 1)
    });
    forge("epochs begin at two", 19, &|forger| forger.epoch_number = |number| number + 1);
    forge("an older epoch's key goes on signing", 13, &|forger| forger.stale_epoch = true);
    forge("a number is spelled in a longer way", 13, &|forger| {
        forger.spell = Some(|kind, mut body| {
            if kind == Kind::Export {
                // Key 6, the epoch, as 0x18 0x02 instead of 0x02.
                let place = body.windows(2).position(|two| two == [6, 1]).unwrap();
                body.splice(place + 1..place + 2, [0x18, 0x01]);
            }
            body
        });
    });
    forge("fields are in another order", 13, &|forger| {
        forger.spell = Some(|kind, mut body| {
            if kind == Kind::Export {
                // The first two fields change places.
                let start = body.windows(4).position(|four| four[..3] == [0, 1, 1]).unwrap();
                let kind = body[start + 3];
                body[start..start + 4].copy_from_slice(&[1, kind, 0, 1]);
            }
            body
        });
    });
    forge("a field stands twice", 13, &|forger| {
        forger.spell = Some(|kind, mut body| {
            if kind == Kind::Export {
                body[0] += 1;
                body.splice(1..1, [0, 1]);
            }
            body
        });
    });
}

#[test]
fn another_key_is_not_the_trusted_one() {
    let scene = Scene::new();
    let mut wrong = Wrong::default();
    let other = RootKey::generate(ORIGIN).unwrap();
    let target = scene.copy();

    put_together(&target.path, take_apart(&target.path), &Forger::new(&other));

    wrong.expect("all of it is signed with another key", &target, false, 19);
}

#[test]
fn an_end_that_was_cut_off_shows_only_with_an_anchor() {
    let scene = Scene::new();
    let mut wrong = Wrong::default();
    let target = scene.copy();
    let sizes: Vec<u64> = {
        let connection = Connection::open(&target.path).unwrap();
        let mut statement = connection.prepare("SELECT size FROM checkpoint ORDER BY size DESC").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    // Back to a checkpoint some groups ago, with everything that would give it away.
    let size = sizes[3];
    let connection = Connection::open(&target.path).unwrap();
    for sql in [
        "DELETE FROM entry WHERE seq >= ?1",
        "DELETE FROM payload WHERE seq >= ?1",
        "DELETE FROM checkpoint WHERE size > ?1",
        "UPDATE tile SET hashes = substr(hashes, 1, 32 * ?1)",
    ] {
        connection.execute(sql, params![size]).unwrap();
    }
    // The ledger's own memory of its anchor goes back, too: to what the entries that are left tell of.
    let told = take_apart(&target.path).into_iter().rev().find(kind(Kind::Anchored)).unwrap();
    let told = told.uint(Key::TreeSize).unwrap();
    let sql = "UPDATE anchor SET size = ?1, note = (SELECT note FROM checkpoint WHERE size = ?1)";
    connection.execute(sql, [told]).unwrap();
    drop(connection);
    std::fs::remove_file(index::path_of(&target.path)).unwrap();

    wrong.expect("without an anchor", &target, false, 1);
    wrong.expect("with an anchor", &target, true, 18);
}

#[test]
fn an_older_copy_shows_only_with_an_anchor() {
    let scene = Scene::new();
    let mut wrong = Wrong::default();
    let place = &scene.place;
    let target = scene.copy();
    let ledger = place.open();
    let log = ledger.session_opened(&session(40, "bot")).unwrap();
    read_through(&log, "select 'more'");
    settle(&ledger);
    drop(log);
    ledger.close();
    std::fs::copy(place.head(), &target.anchor).unwrap();

    wrong.expect("without an anchor", &target, false, 1);
    wrong.expect("with an anchor", &target, true, 18);
}

#[test]
fn the_key_must_be_there() {
    let scene = Scene::new();

    let target = scene.copy();
    std::fs::remove_file(KeyFiles::beside(&target.path).public).unwrap();

    let options = Options { path: target.path.clone(), key: None, anchors: Vec::new() };

    assert!(verify(&options, &Progress::default()).is_err());
    let mut second = second::Opinions::default();
    second.ask("no key", 2, &target.path, &[], target.directory.clone());
    assert_eq!(second.disagreements(), Vec::<String>::new());
    let elsewhere: &Path = &KeyFiles::beside(&scene.place.path()).public;
    let options = Options { key: Some(elsewhere.to_owned()), ..options };
    assert_eq!(verify(&options, &Progress::default()).unwrap().exit_code(), 1);
}

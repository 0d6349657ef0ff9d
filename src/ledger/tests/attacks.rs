//! Lies told to an auditor, and the exit code that each of them gets, from both verifiers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::forge::{Forger, Piece, encoded, put_together, remember_salts, take_apart};
use super::sample::*;
use super::{Elsewhere, rich, second};
use crate::ledger::entry::{Key, Kind};
use crate::ledger::index;
use crate::ledger::key::{KeyFiles, RootKey};
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

type Forgery = (&'static str, i32, fn(&mut Vec<Piece>));

fn place_of(pieces: &[Piece], test: impl Fn(&Piece) -> bool) -> usize {
    pieces.iter().position(test).unwrap()
}

fn kind(kind: Kind) -> impl Fn(&Piece) -> bool {
    move |piece| piece.kind() == Some(kind)
}

/// The first entry of a kind.
fn first(pieces: &mut [Piece], wanted: Kind) -> &mut Piece {
    let place = place_of(pieces, kind(wanted));
    &mut pieces[place]
}

/// The first review that approves and counts.
fn approval(pieces: &mut [Piece]) -> &mut Piece {
    let place = place_of(pieces, |piece| {
        piece.kind() == Some(Kind::Review)
            && piece.text(Key::Verdict).as_deref() == Some("approve")
            && !piece.fields.contains_key(&Key::WhyNot.into())
    });
    &mut pieces[place]
}

fn granted(pieces: &[Piece]) -> usize {
    place_of(pieces, |piece| {
        piece.kind() == Some(Kind::Statement) && piece.text(Key::Clearance).as_deref() == Some("granted")
    })
}

/// Takes an entry out; if it ended a group, the one before it does now.
fn take_out(pieces: &mut Vec<Piece>, place: usize) -> Piece {
    let piece = pieces.remove(place);
    if piece.ends_group {
        pieces[place - 1].ends_group = true;
    }
    piece
}

/// Puts an entry in; if the one before it ended a group, this one does now.
fn put_behind(pieces: &mut Vec<Piece>, place: usize, mut piece: Piece) {
    piece.ends_group = std::mem::take(&mut pieces[place].ends_group);
    pieces.insert(place + 1, piece);
}

/// Attacks by whoever holds the root key.
fn by_the_key_holder() -> Vec<Forgery> {
    vec![
        ("nothing", 1, |_| {}),
        ("an owner approved", 22, |pieces| {
            let owner = "alice@example.com";
            approval(pieces).set_text(Key::Reviewer, owner);
            let bob = first(pieces, Kind::GrantUsed);
            bob.set_texts(Key::ApprovedBy, &[owner, "carol@example.com"]);
        }),
        ("an owner approved, in capitals", 22, |pieces| {
            approval(pieces).set_text(Key::Reviewer, " Alice@Example.COM ");
        }),
        ("an owner approved under another name", 22, |pieces| {
            approval(pieces).set_texts(Key::Also, &["alice@example.com"]);
        }),
        ("an agent approved", 22, |pieces| approval(pieces).set_texts(Key::Also, &["reporting-bot"])),
        ("a review is taken out", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::Review));
            take_out(pieces, place);
        }),
        ("a review that did not count is counted", 22, |pieces| {
            let place = place_of(pieces, |piece| piece.fields.contains_key(&Key::WhyNot.into()));
            let piece = &mut pieces[place];
            piece.remove(Key::WhyNot);
            piece.fields.insert(Key::Counted.into(), encoded(|e| drop(e.bool(true))));
        }),
        ("a denial becomes an approval, by nobody's hand", 22, |pieces| {
            first(pieces, Kind::GrantUsed).set_texts(Key::ApprovedBy, &["mallory", "carol@example.com"]);
        }),
        ("one approval too few", 22, |pieces| {
            let used = first(pieces, Kind::GrantUsed);
            used.set_texts(Key::ApprovedBy, &["bob@example.com"]);
            let reviews = crate::ledger::cbor::parse(&used.fields[&Key::Reviews.into()]).unwrap();
            let seq = reviews.elements()[0].as_uint().unwrap();
            let value = encoded(|e| drop(e.array(1).unwrap().u64(seq)));
            used.fields.insert(Key::Reviews.into(), value);
        }),
        ("no approval at all", 22, |pieces| {
            let used = first(pieces, Kind::GrantUsed);
            used.set_texts(Key::ApprovedBy, &[]);
            used.fields.insert(Key::Reviews.into(), encoded(|e| drop(e.array(0))));
        }),
        ("more people were asked", 22, |pieces| {
            first(pieces, Kind::RequestOpened).set_rows(Key::Approvals, &[("dba", 2), ("security", 1)]);
        }),
        ("nobody was asked", 22, |pieces| first(pieces, Kind::RequestOpened).set_rows(Key::Approvals, &[])),
        ("one person under two names", 22, |pieces| {
            approval(pieces).set_texts(Key::Also, &["CAROL@example.com"]);
        }),
        ("an approval by somebody of another group", 22, |pieces| {
            approval(pieces).set_texts(Key::Groups, &["sales"])
        }),
        ("an approval with too little assurance", 22, |pieces| {
            first(pieces, Kind::RequestOpened).set_text(Key::Assurance, "signature");
        }),
        ("an approval without the reason it needs", 22, |pieces| {
            let request = first(pieces, Kind::RequestOpened);
            request.fields.insert(Key::ReasonRequired.into(), encoded(|e| drop(e.bool(true))));
            approval(pieces).remove(Key::Reason);
        }),
        ("an approval of another statement", 22, |pieces| approval(pieces).set_bytes(Key::Covers, &[1; 32])),
        ("an approval after the request had expired", 22, |pieces| {
            let request = first(pieces, Kind::RequestOpened);
            let wall = request.uint(Key::Wall).unwrap();
            request.set_uint(Key::Expires, wall);
            for piece in
                pieces.iter_mut().skip_while(|piece| piece.kind() != Some(Kind::RequestOpened)).skip(1)
            {
                piece.move_time(5_000_000_000, 5_000_000_000);
            }
        }),
        ("a grant is used twice", 22, |pieces| {
            let place = granted(pieces);
            let again = pieces[place].copy();
            put_behind(pieces, place, again);
        }),
        ("a grant is recorded twice", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::GrantUsed));
            let again = pieces[place].copy();
            put_behind(pieces, place, again);
        }),
        ("a held statement without a grant", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::GrantUsed));
            take_out(pieces, place);
        }),
        ("a privileged statement that nobody held", 22, |pieces| {
            let place = granted(pieces);
            pieces[place].set_text(Key::Clearance, "allowed");
        }),
        ("a class that nobody knows", 22, |pieces| {
            first(pieces, Kind::Statement).set_text(Key::Class, "harmless");
        }),
        ("another statement ran than was approved", 22, |pieces| {
            let place = granted(pieces);
            pieces[place].set_committed(Key::Sql, b"drop table customers");
        }),
        ("another statement was shown than was asked for", 22, |pieces| {
            first(pieces, Kind::RequestOpened).set_committed(Key::Sql, b"select 1");
        }),
        ("a hidden statement is another than was approved", 22, |pieces| {
            let place = place_of(pieces, |piece| {
                piece.kind() == Some(Kind::Statement) && piece.fields.contains_key(&Key::Nonce.into())
            });
            pieces[place].set_bytes(Key::Digest, &[3; 32]);
        }),
        ("a grant for another session", 22, |pieces| {
            first(pieces, Kind::GrantUsed).set_bytes(Key::Session, &[5; 16]);
        }),
        ("a grant for another agent", 22, |pieces| {
            first(pieces, Kind::GrantUsed).set_text(Key::Agent, "other-bot")
        }),
        ("a grant sealed to something else", 22, |pieces| {
            first(pieces, Kind::GrantUsed).set_bytes(Key::Seal, &[5; 32]);
        }),
        ("a grant that had expired", 22, |pieces| {
            first(pieces, Kind::GrantUsed).set_uint(Key::Expires, START / 2)
        }),
        ("an outcome is taken out and put elsewhere", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::Outcome));
            let outcome = take_out(pieces, place);
            let first_statement = place_of(pieces, kind(Kind::SessionOpened));
            put_behind(pieces, first_statement, outcome);
        }),
        ("a statement has two outcomes", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::Outcome));
            let again = pieces[place].copy();
            put_behind(pieces, place, again);
        }),
        ("an outcome of another session", 22, |pieces| {
            first(pieces, Kind::Outcome).set_bytes(Key::Session, &[5; 16]);
        }),
        ("a statement that had to fail completed", 22, |pieces| {
            let intent = place_of(pieces, |piece| piece.text(Key::Clearance).as_deref() == Some("doomed"));
            let seq = pieces[intent].uint(Key::Seq).unwrap();
            let outcome = place_of(pieces, |piece| {
                piece.kind() == Some(Kind::Outcome) && piece.uint(Key::Ref) == Some(seq)
            });
            pieces[outcome].set_text(Key::Ending, "completed");
        }),
        ("a statement in a read-only transaction wrote rows", 22, |pieces| {
            let cleared = |piece: &Piece| piece.text(Key::Clearance).as_deref() == Some("read_only");
            let intent = place_of(pieces, cleared);
            let seq = pieces[intent].uint(Key::Seq).unwrap();
            let outcome = place_of(pieces, |piece| {
                piece.kind() == Some(Kind::Outcome) && piece.uint(Key::Ref) == Some(seq)
            });
            pieces[outcome].set_text(Key::Ending, "completed");
            pieces[outcome].set_uint(Key::Rows, 3);
        }),
        ("a statement of an earlier run stays open", 22, |pieces| {
            // One that the recovery closed: nothing of it was ever answered.
            let place = place_of(pieces, |piece| {
                piece.text(Key::Ending).as_deref() == Some("unknown")
                    && piece.text(Key::Tag).is_none()
                    && piece.text(Key::SqlState).is_none()
            });
            take_out(pieces, place);
        }),
        ("a request of an earlier run stays open", 22, |pieces| {
            let place =
                place_of(pieces, |piece| piece.text(Key::What).as_deref() == Some("the proxy stopped"));
            take_out(pieces, place);
        }),
        ("a session that was never opened", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::SessionOpened));
            take_out(pieces, place);
        }),
        ("a statement in another agent's session", 22, |pieces| {
            first(pieces, Kind::Statement).set_text(Key::Agent, "other-bot");
        }),
        ("a request is opened twice", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::RequestOpened));
            let again = pieces[place].copy();
            put_behind(pieces, place, again);
        }),
        ("a request is called executed and was not", 22, |pieces| {
            let place = place_of(pieces, |piece| piece.text(Key::State).as_deref() == Some("denied"));
            pieces[place].set_text(Key::State, "executed");
        }),
        ("a reviewer's own signature does not hold", 22, |pieces| {
            let place = place_of(pieces, |piece| piece.fields.contains_key(&Key::Scheme.into()));
            pieces[place].set_committed(Key::Signed, b"another record");
        }),
        ("somebody stood in too early", 22, |pieces| {
            let place = place_of(pieces, |piece| piece.fields.contains_key(&Key::Escalations.into()));
            let value = encoded(|e| {
                e.array(1).unwrap().array(4).unwrap().u64(1).unwrap().u64(u64::MAX).unwrap();
                e.str("oncall").unwrap().str("dba").unwrap();
            });
            pieces[place].fields.insert(Key::Escalations.into(), value);
        }),
        ("an anchoring that never was", 22, |pieces| {
            let place = place_of(pieces, kind(Kind::CheckpointRef));
            let mut claim = pieces[place].copy();
            for key in [Key::TreeSize, Key::TreeRoot, Key::Note, Key::OpenFrom] {
                claim.remove(key);
            }
            claim.set_uint(Key::Kind, Kind::Anchored as u64);
            claim.set_text(Key::Anchor, "witness");
            claim.set_uint(Key::TreeSize, 0);
            claim.set_bytes(Key::TreeRoot, &[0; 32]);
            // Marked, so that putting together leaves it alone.
            claim.fields.insert(2000, encoded(|e| drop(e.bool(true))));
            put_behind(pieces, place, claim);
        }),
        ("an entry is taken out, and a record is missing", 12, |pieces| {
            let place = place_of(pieces, kind(Kind::Refused));
            take_out(pieces, place);
        }),
        ("a record became two entries", 12, |pieces| {
            let place = place_of(pieces, kind(Kind::Export));
            let record = pieces[place].uint(Key::Record).unwrap();
            let mut again = pieces[place].copy();
            again.set_uint(Key::Record, record);
            put_behind(pieces, place, again);
        }),
        ("the wall clock goes back in silence", 21, |pieces| {
            first(pieces, Kind::Export).move_time(-3_600_000_000_000, 0);
        }),
        ("the wall clock goes ahead in silence", 21, |pieces| {
            first(pieces, Kind::Export).move_time(3_600_000_000_000, 0);
        }),
        ("both clocks go back", 21, |pieces| {
            first(pieces, Kind::Export).move_time(-200_000_000, -200_000_000)
        }),
        ("a run begins in the past", 21, |pieces| {
            let place = place_of(pieces, |piece| piece.text(Key::Ending).as_deref() == Some("unknown"));
            pieces[place].move_time(-3_600_000_000_000, 0);
        }),
        ("an entry of a run that was over", 21, |pieces| {
            let place = place_of(pieces, kind(Kind::Export));
            let mut late = pieces[place].copy();
            late.signed = true;
            let last = pieces.len() - 1;
            pieces[last].ends_group = false;
            late.ends_group = true;
            pieces.push(late);
        }),
        ("a text is said to be redacted and is there", 20, |pieces| {
            let place = place_of(pieces, kind(Kind::Redaction));
            let statement = place_of(pieces, kind(Kind::Statement)) as u64;
            let value = encoded(|e| {
                e.array(1).unwrap().array(2).unwrap().u64(statement).unwrap().u64(40).unwrap();
            });
            pieces[place].fields.insert(Key::Redacted.into(), value);
        }),
        ("a redaction of what is yet to come", 20, |pieces| {
            let place = place_of(pieces, kind(Kind::Redaction));
            let value = encoded(|e| {
                e.array(1).unwrap().array(2).unwrap().u64(100_000).unwrap().u64(40).unwrap();
            });
            pieces[place].fields.insert(Key::Redacted.into(), value);
        }),
        ("a redaction is taken out", 20, |pieces| {
            let place = place_of(pieces, kind(Kind::Redaction));
            take_out(pieces, place);
        }),
        ("the salt of a hidden text is there to be read", 20, |pieces| {
            let place = place_of(pieces, |piece| piece.fields.contains_key(&Key::Nonce.into()));
            pieces[place].texts.insert(Key::Digest.into(), vec![0; 32]);
        }),
        ("a kind that nobody knows", 13, |pieces| first(pieces, Kind::Export).set_uint(Key::Kind, 200)),
        ("a field that nobody knows", 13, |pieces| {
            first(pieces, Kind::Export).fields.insert(500, encoded(|e| drop(e.u64(1))));
        }),
        ("a field that does not belong there", 13, |pieces| {
            first(pieces, Kind::Export).set_text(Key::Class, "read")
        }),
        ("a field is missing", 13, |pieces| first(pieces, Kind::Export).remove(Key::By)),
        ("a field of another shape", 13, |pieces| first(pieces, Kind::Export).set_uint(Key::By, 1)),
        ("a remark", 1, |pieces| {
            first(pieces, Kind::Export).fields.insert(1000, encoded(|e| drop(e.str("hello"))));
        }),
        ("another version of the format", 13, |pieces| first(pieces, Kind::Export).set_uint(Key::V, 2)),
        ("an entry that ought to be signed is not", 13, |pieces| first(pieces, Kind::Export).signed = false),
        ("a checkpoint is never told of", 14, |pieces| {
            let place = place_of(pieces, kind(Kind::CheckpointRef));
            take_out(pieces, place);
        }),
        ("a checkpoint is told of that never was", 14, |pieces| {
            let place = place_of(pieces, kind(Kind::CheckpointRef));
            pieces[place - 1].ends_group = false;
        }),
        ("the last group has no checkpoint", 17, |pieces| {
            let last = pieces.len() - 1;
            pieces[last].ends_group = false;
        }),
        ("another creation in the middle", 12, |pieces| {
            let again = pieces[0].copy();
            put_behind(pieces, 4, again);
        }),
        ("an epoch is taken out", 19, |pieces| {
            let place = pieces.iter().rposition(kind(Kind::KeyEpoch)).unwrap();
            take_out(pieces, place);
            for piece in &mut pieces[place..] {
                piece.set_uint(Key::Epoch, 2);
            }
        }),
        ("a history without the denial", 1, |pieces| {
            // Consistent in itself: only an anchor can tell.
            let place = place_of(pieces, kind(Kind::Refused));
            take_out(pieces, place);
        }),
    ]
}

#[test]
fn attacks_by_the_holder_of_the_key_are_found() {
    let scene = Scene::new();
    let mut wrong = Wrong::default();
    for (name, code, attack) in by_the_key_holder() {
        let target = scene.copy();
        let mut pieces = take_apart(&target.path);
        attack(&mut pieces);
        let mut forger = Forger::new(&scene.root);
        forger.keep_records = name.contains("record");
        put_together(&target.path, pieces, &forger);
        wrong.expect(name, &target, false, code);
        if code == 1 {
            // Nothing in the file tells, and the anchor does.
            wrong.expect(name, &target, true, 18);
        }
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

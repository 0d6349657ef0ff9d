//! Attacks by whoever holds the root key, and so can sign what they like.

use super::{Scene, Wrong};
use crate::ledger::entry::{Key, Kind};
use crate::ledger::tests::forge::{Forger, Piece, encoded, put_together, take_apart};
use crate::ledger::tests::sample::*;

type Forgery = (&'static str, i32, fn(&mut Vec<Piece>));

fn place_of(pieces: &[Piece], test: impl Fn(&Piece) -> bool) -> usize {
    pieces.iter().position(test).unwrap()
}

pub(super) fn kind(kind: Kind) -> impl Fn(&Piece) -> bool {
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

use super::*;
use crate::ledger::cbor::Fields;

fn created() -> Fields {
    let mut fields = Fields::new();
    fields
        .uint(Key::V, VERSION)
        .uint(Key::Kind, Kind::LedgerCreated as u64)
        .uint(Key::Seq, 0)
        .uint(Key::Wall, 1)
        .uint(Key::Mono, 1)
        .bytes(Key::Boot, &[0; 16])
        .uint(Key::Epoch, 0)
        .text(Key::Origin, "example.com/ledger")
        .bytes(Key::RootKey, &[1; 32])
        .text(Key::Software, "0");
    fields
}

fn joined(fields: &Fields) -> Vec<u8> {
    let mut body = Vec::new();
    Fields::join(&[fields], &mut body);
    body
}

#[test]
fn an_entry_has_its_fields_and_no_others() {
    let good = created();
    assert_eq!(Entry::parse(&joined(&good)).unwrap().kind(), Kind::LedgerCreated);
    assert_eq!(peek_kind(&joined(&good)), Some(Kind::LedgerCreated));

    let mut more = good.clone();
    more.text(Key::Group, "dba");
    assert_eq!(Entry::parse(&joined(&more)), Err(EntryError::Misplaced(92)));

    let mut unknown = good.clone();
    unknown.uint(FIRST_REMARK - 1, 1);
    assert_eq!(Entry::parse(&joined(&unknown)), Err(EntryError::Misplaced(999)));

    let mut remark = good.clone();
    remark.uint(FIRST_REMARK, 1);
    assert!(Entry::parse(&joined(&remark)).is_ok());

    let mut short = Fields::new();
    short.uint(Key::V, VERSION).uint(Key::Kind, 1);
    assert_eq!(Entry::parse(&joined(&short)), Err(EntryError::Missing("seq")));
}

#[test]
fn numbers_and_names_are_used_once() {
    for (place, key) in Key::ALL.iter().enumerate() {
        assert_eq!(u64::from(*key), place as u64, "{key:?}");
        assert_eq!(Key::ALL.iter().filter(|other| other.name() == key.name()).count(), 1, "{key:?}");
    }
    for (place, kind) in Kind::ALL.iter().enumerate() {
        assert_eq!(*kind as u64, place as u64 + 1, "{kind:?}");
        for key in kind.required() {
            assert!(!kind.optional().contains(key), "{kind:?} {key:?}");
            assert!(!HEAD.contains(key), "{kind:?} {key:?}");
        }
    }
}

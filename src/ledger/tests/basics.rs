use super::assert_good;
use super::sample::*;
use crate::ledger::entry::{Entry, Key, Kind};
use crate::ledger::store::open_for_reading;

/// Every entry's kind, in order.
fn kinds(place: &Place) -> Vec<&'static str> {
    bodies(place).iter().map(|body| Entry::parse(body).unwrap().kind().name()).collect()
}

fn bodies(place: &Place) -> Vec<Vec<u8>> {
    let connection = open_for_reading(&place.path()).unwrap();
    let mut statement = connection.prepare("SELECT body FROM entry ORDER BY seq").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_ledger_tells_a_session_in_order() {
    let place = Place::new();
    let ledger = place.open();
    let info = session(1, "bot");
    let log = ledger.session_opened(&info).unwrap();
    read_through(&log, "select 1");
    let (bob, carol) = (person("bob", &["dba"]), person("carol", &["security"]));
    let asked: (&[(&str, u32)], _) = (&[("dba", 1), ("security", 1)], &[&bob, &carol][..]);
    held_through(&ledger, &log, &info, 1, "copy customers to stdout", asked);
    log.closed("the agent left");
    settle(&ledger);
    ledger.close();

    // Whether an outcome got an entry of its own depends on when the writer looked.
    let own = ["checkpoint_ref", "anchored", "outcome"];
    let told: Vec<&str> = kinds(&place).into_iter().filter(|kind| !own.contains(kind)).collect();
    let expected = [
        "ledger_created",
        "key_epoch",
        "session_opened",
        "statement",
        "request_opened",
        "review",
        "review",
        "request_closed",
        "grant_used",
        "statement",
        "request_closed",
        "session_closed",
    ];
    assert_eq!(told, expected);
    assert_good(&place);
}

#[test]
fn a_routine_statement_and_its_outcome_are_one_entry() {
    let place = Place::new();
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    for number in 0..50 {
        read_through(&log, &format!("select {number}"));
    }
    settle(&ledger);

    let bodies = bodies(&place);
    let statements: Vec<Entry<'_>> = bodies
        .iter()
        .map(|body| Entry::parse(body).unwrap())
        .filter(|entry| entry.kind() == Kind::Statement)
        .collect();
    assert_eq!(statements.len(), 50);
    let joined = statements.iter().filter(|entry| entry.has(Key::Ending)).count();
    let outcomes = kinds(&place).iter().filter(|kind| **kind == "outcome").count();
    assert_eq!(joined + outcomes, 50);
    assert!(joined > 0);
    assert_eq!(statements[0].text(Key::Agent), Some("bot"));
}

#[test]
fn a_second_run_goes_on_where_the_first_stopped() {
    let place = Place::new();
    let ledger = place.open();
    let log = ledger.session_opened(&session(1, "bot")).unwrap();
    let _open = read(&log, "select pg_sleep(10)");
    settle(&ledger);
    drop(log);
    ledger.close();

    let ledger = place.open();
    assert_eq!(ledger.recovery().unknown, 1);
    let log = ledger.session_opened(&session(2, "bot")).unwrap();
    read_through(&log, "select 2");
    settle(&ledger);
    ledger.close();

    let kinds = kinds(&place);
    assert_eq!(kinds.iter().filter(|kind| **kind == "key_epoch").count(), 2);
    assert_eq!(kinds.iter().filter(|kind| **kind == "recovered").count(), 1);
    assert_eq!(place.open().recovery().unknown, 0);
    assert_good(&place);
}

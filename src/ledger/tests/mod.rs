//! What the ledger promises, tried from inside.

mod attacks;
mod basics;
mod fixture;
mod forge;
mod rich;
pub(crate) mod sample;
mod second;

use std::path::PathBuf;

use self::sample::Place;
use super::verify::{Options, Progress, Report, verify};

/// What `countersign ledger verify` would find, with these anchors.
pub(crate) fn verified(place: &Place, anchors: &[PathBuf]) -> Report {
    let options = Options { path: place.path(), key: None, anchors: anchors.to_vec() };
    verify(&options, &Progress::default()).unwrap()
}

/// It is good, and with the head file as an anchor its end is, too.
pub(crate) fn assert_good(place: &Place) {
    let report = verified(place, &[]);
    assert_eq!(report.problem, None);
    assert_eq!(report.exit_code(), 1);
    let mut second = second::Opinions::default();
    second.ask("a good ledger", 0, &place.path(), &[place.head()], place.directory.clone());
    assert_eq!(second.disagreements(), Vec::<String>::new());
    let report = verified(place, &[place.head()]);
    assert_eq!((report.exit_code(), report.problem), (0, None));
}

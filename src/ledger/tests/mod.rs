//! What the ledger promises, tried from inside.

mod attacks;
mod basics;
mod crash;
mod failure;
mod fixture;
mod flips;
mod forge;
mod rich;
pub(crate) mod sample;
mod second;

use std::path::{Path, PathBuf};

use self::sample::Place;
use super::key::KeyFiles;
use super::verify::{Options, Progress, Report, verify};

/// Copies of a ledger's key and of anchors in a place of their own, as an auditor has them.
pub(crate) struct Elsewhere {
    _directory: tempfile::TempDir,
    pub(crate) key: Option<PathBuf>,
    pub(crate) anchors: Vec<PathBuf>,
}

impl Elsewhere {
    pub(crate) fn of(ledger: &Path, anchors: &[PathBuf]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let copied = |from: &Path, name: String| {
            let to = directory.path().join(name);
            std::fs::copy(from, &to).ok().map(|_| to)
        };
        let key = copied(&KeyFiles::beside(ledger).public, "auditor.pub".to_owned());
        let anchors = anchors.iter().enumerate();
        let anchors =
            anchors.map(|(place, anchor)| copied(anchor, format!("anchor-{place}")).unwrap()).collect();
        Self { _directory: directory, key, anchors }
    }
}

/// What `countersign ledger verify` would find, with the key and these anchors kept elsewhere.
pub(crate) fn verified(place: &Place, anchors: &[PathBuf]) -> Report {
    let elsewhere = Elsewhere::of(&place.path(), anchors);
    let options =
        Options { path: place.path(), key: elsewhere.key.clone(), anchors: elsewhere.anchors.clone() };
    verify(&options, &Progress::default()).unwrap()
}

/// It is good, and with the head file as an anchor its end is, too.
pub(crate) fn assert_good(place: &Place) {
    let report = assert_sound(place);
    assert_eq!(report.damaged, 0, "the ledger records damage: {:?}", report.damage);
}

/// Everything in it is as it was written, and it tells itself that there was damage.
pub(crate) fn assert_good_and_told_of_damage(place: &Place) {
    assert!(assert_sound(place).damaged > 0, "the ledger tells of no damage");
}

/// Both verifiers find nothing wrong with it.
fn assert_sound(place: &Place) -> Report {
    let report = verified(place, &[]);
    assert_eq!(report.problem, None);
    assert_eq!(report.exit_code(), 1);
    let report = verified(place, &[place.head()]);
    let code = u8::from(report.damaged > 0);
    assert_eq!((report.exit_code(), &report.problem), (code, &None));
    let mut second = second::Opinions::default();
    second.ask("a good ledger", i32::from(code), &place.path(), &[place.head()], place.directory.clone());
    assert_eq!(second.disagreements(), Vec::<String>::new());
    report
}

//! The second verifier, `docs/verify.py`: it must say what the first one says, of every file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::ledger::index;
use crate::statement::Digest;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py")
}

/// Whether it can run here: it wants Python with `cryptography`.
fn can_run() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let tried = Command::new("python3").args(["-c", "import cryptography"]).output();
        let can = tried.is_ok_and(|output| output.status.success());
        if !can {
            eprintln!("the second verifier needs python3 with cryptography: not run");
        }
        can
    })
}

/// Its exit code and what it says; `None` where it cannot run.
pub(crate) fn opinion(ledger: &Path, key: Option<&Path>, anchors: &[PathBuf]) -> Option<(i32, String)> {
    if !can_run() {
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(script()).arg(ledger);
    if let Some(key) = key {
        command.arg("--key").arg(key);
    }
    for anchor in anchors {
        command.arg("--anchor").arg(anchor);
    }
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some((output.status.code().unwrap_or(-1), said))
}

#[test]
fn it_knows_the_schema_of_the_index() {
    let words = index::expected_schema().unwrap().join("\n");

    let script = std::fs::read_to_string(script()).unwrap();

    let digest = Digest::of(words.as_bytes()).to_string();
    assert!(script.contains(&digest), "INDEX_SCHEMA in docs/verify.py must be {digest}");
}

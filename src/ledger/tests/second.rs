//! The second verifier, `docs/verify.py`: it must say what the first one says, of every file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use super::Elsewhere;
use crate::ledger::index;
use crate::statement::Digest;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py")
}

/// The Python that `make test` installs; without it, the machine's own.
fn python() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/python/bin/python");
    if installed.exists() { installed } else { "python3".into() }
}

/// Whether it can run here: it wants Python with `cryptography`, which `make test` installs.
fn can_run() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let tried = Command::new(python()).args(["-c", "import cryptography"]).output();
        let can = tried.is_ok_and(|output| output.status.success());
        if !can {
            eprintln!("the second verifier needs python3 with cryptography: not run");
        }
        can
    })
}

/// Files to ask it about. It is asked about all of them at once: starting Python takes longer than
/// reading a ledger.
#[derive(Default)]
pub(crate) struct Opinions {
    asked: Vec<Asked>,
}

struct Asked {
    name: String,
    code: i32,
    arguments: Vec<String>,
    /// Keeps the files until they were looked at.
    _directory: Arc<tempfile::TempDir>,
    _elsewhere: Elsewhere,
}

/// Runs the script's `main` once for each line of arguments.
const DRIVER: &str = "
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
import verify
for line in sys.stdin:
    sys.argv = ['verify.py'] + json.loads(line)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = verify.main()
        except Exception as error:
            code, said = -1, io.StringIO(repr(error))
    print(json.dumps([code, said.getvalue()]), flush=True)
";

impl Opinions {
    pub(crate) fn ask(
        &mut self,
        name: &str,
        code: i32,
        ledger: &Path,
        anchors: &[PathBuf],
        directory: Arc<tempfile::TempDir>,
    ) {
        let elsewhere = Elsewhere::of(ledger, anchors);
        let mut arguments = vec![ledger.display().to_string()];
        let given = elsewhere.key.iter().map(|key| ("--key", key));
        for (option, file) in given.chain(elsewhere.anchors.iter().map(|anchor| ("--anchor", anchor))) {
            arguments.extend([option.to_owned(), file.display().to_string()]);
        }
        let (name, _directory, _elsewhere) = (name.to_owned(), directory, elsewhere);
        self.asked.push(Asked { name, code, arguments, _directory, _elsewhere });
    }

    /// Where it says something else than it should.
    pub(crate) fn disagreements(&mut self) -> Vec<String> {
        let asked = std::mem::take(&mut self.asked);
        if asked.is_empty() || !can_run() {
            return Vec::new();
        }
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        let mut child = Command::new(python())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .args(["-c", DRIVER])
            .arg(docs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let lines: Vec<String> =
            asked.iter().map(|asked| serde_json::to_string(&asked.arguments).unwrap()).collect();
        let writing = std::thread::spawn(move || lines.iter().try_for_each(|line| writeln!(input, "{line}")));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap().unwrap();
        let said: Vec<(i32, String)> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(said.len(), asked.len());
        asked
            .iter()
            .zip(said)
            .filter(|(asked, (code, _))| *code != asked.code)
            .map(|(asked, (code, said))| {
                format!("{}, second verifier: {code} instead of {}: {said}", asked.name, asked.code)
            })
            .collect()
    }
}

#[test]
fn it_knows_the_schema_of_the_index() {
    let words = index::expected_schema().unwrap().join("\n");

    let script = std::fs::read_to_string(script()).unwrap();

    let digest = Digest::of(words.as_bytes()).to_string();
    assert!(script.contains(&digest), "INDEX_SCHEMA in docs/verify.py must be {digest}");
}

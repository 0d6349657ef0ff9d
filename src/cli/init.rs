//! `countersign init`: a folder to start from.
//!
//! Everything a first start needs but the one thing that cannot be known: where Postgres is. Nothing
//! that exists is overwritten; a folder that has some of the files already is left as it is.
//!
//! Exit codes: 0 written; 1 a file is there already; 2 wrong usage or I/O.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::terminal;
use crate::identity::secret::{Kind, generate};
use crate::ledger::key::{KeyFiles, RootKey};

/// Write a configuration, keys and policies to start from
#[derive(Args)]
pub(super) struct Arguments {
    /// The folder; it is created if missing
    dir: PathBuf,
    /// The ledger's name, which is part of every checkpoint [default: countersign/ and the host's name]
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

const CONFIG: &str = include_str!("init.toml");
const POLICY: &str = include_str!("../../policies/default.toml");

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let dir = &arguments.dir;
    let origin = arguments.origin.clone().unwrap_or_else(|| format!("countersign/{}", host_name()));
    let files = files(dir);
    let there: Vec<&PathBuf> = files.iter().filter(|file| file.exists()).collect();
    if !there.is_empty() {
        for file in there {
            terminal::complain(&format!("countersign: {} is there already", file.display()));
        }
        terminal::complain("countersign: nothing was written");
        return Ok(ExitCode::from(1));
    }
    lay_out(dir, &origin, CONFIG)?;

    let mut out = terminal::out(terminal::As::of(arguments.json));
    if arguments.json {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        writeln!(out, "{}", json!({ "dir": dir, "origin": origin, "files": files }))?;
    } else {
        let config = dir.join("countersign.toml");
        let config = config.display();
        writeln!(out, "{config} and what belongs to it are written. Next:")?;
        writeln!(out, "  1. say where Postgres is, in the [[upstream]] section of {config}")?;
        writeln!(out, "  2. countersign reviewer add -c {config} bob@example.com --group dba")?;
        writeln!(
            out,
            "  3. countersign agent add -c {config} my-agent --owner you@example.com --upstream app"
        )?;
        writeln!(out, "  4. countersign check -c {config} && countersign serve -c {config}")?;
        writeln!(
            out,
            "Keep a copy of {} where nobody can change it: it is what auditors verify the ledger with.",
            keys(dir).public.display()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn keys(dir: &Path) -> KeyFiles {
    KeyFiles::of_private(&dir.join("keys/ledger.key"))
}

/// Everything that [`lay_out`] writes.
fn files(dir: &Path) -> [PathBuf; 7] {
    let keys = keys(dir);
    [
        dir.join("countersign.toml"),
        dir.join("policies/default.toml"),
        dir.join("server.crt"),
        dir.join("server.key"),
        dir.join("keys/installation.secret"),
        keys.private,
        keys.public,
    ]
}

/// Writes a configuration with all that it names into `dir`, where none of it may exist yet.
pub(super) fn lay_out(dir: &Path, origin: &str, config: &str) -> anyhow::Result<()> {
    let file = |name: &str| dir.join(name);
    for (folder, mode) in
        [("", 0o755), ("policies", 0o755), ("keys", 0o700), ("ledger", 0o700), ("anchors", 0o700)]
    {
        let folder = dir.join(folder);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&folder)
            .with_context(|| format!("making {}", folder.display()))?;
    }
    let certificate = certificate(&host_name())?;
    // The configuration comes last: while it is missing, nothing starts on half of the rest.
    write(&file("policies/default.toml"), POLICY, 0o644)?;
    write(&file("server.crt"), &certificate.cert.pem(), 0o644)?;
    write(&file("server.key"), &certificate.signing_key.serialize_pem(), 0o600)?;
    write(&file("keys/installation.secret"), &format!("{}\n", *generate(Kind::Session)), 0o600)?;
    RootKey::generate(origin).and_then(|key| key.save(&keys(dir))).context("making the ledger's key")?;
    write(&file("countersign.toml"), config, 0o600)
}

/// Writes a file that must not exist yet.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// A self-signed certificate: enough to encrypt, and to be pinned by agents. To be verified by name,
/// it wants replacing by one that an authority has signed.
fn certificate(host: &str) -> anyhow::Result<rcgen::CertifiedKey<rcgen::KeyPair>> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    rcgen::generate_simple_self_signed(names).context("making a certificate")
}

/// The machine's name, as far as it can stand in a certificate.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    if fits { name.to_owned() } else { "localhost".to_owned() }
}

//! A throw-away Postgres: for the demo, and for tests that want a real one.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long Postgres may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// What may be missing.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No server binaries.
    #[error(
        "no Postgres server found: install one (Debian: apt-get install postgresql), or name its bin directory in COUNTERSIGN_POSTGRES_BIN"
    )]
    NoServer,
    /// Postgres refuses to run as root, and there is nobody else to run it as.
    #[error("Postgres refuses to run as root, and there is no user `postgres` or `nobody` to run it as")]
    NoUser,
    /// A command failed.
    #[error("{command} failed: {output}")]
    Failed {
        /// Which.
        command: String,
        /// What it said.
        output: String,
    },
    /// It did not become ready in time.
    #[error("Postgres was not ready within {PATIENCE:?}: {0}")]
    NotReady(String),
    /// Files or sockets.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A running cluster in a directory of its own. Dropping it stops it and removes the directory.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    port: u16,
    server: Child,
    /// What started it.
    command: Command,
}

/// The newest server's `bin` directory: the one named by `COUNTERSIGN_POSTGRES_BIN`, Debian's, or the
/// one on the path.
///
/// # Errors
/// When there is none.
pub fn find_server() -> Result<PathBuf, ClusterError> {
    if let Some(named) = std::env::var_os("COUNTERSIGN_POSTGRES_BIN") {
        return Ok(PathBuf::from(named));
    }
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    versions.sort();
    if let Some((_, bin)) = versions.pop() {
        return Ok(bin);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(|bin| bin.join("initdb").exists()).ok_or(ClusterError::NoServer)
}

/// The ids that Postgres runs under: ours, or somebody else's when we are root.
fn server_ids() -> Result<Option<(u32, u32)>, ClusterError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|user| {
            let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .map(Some)
        .ok_or(ClusterError::NoUser)
}

impl Cluster {
    /// Makes and starts a cluster with superuser `postgres`: over the Unix socket by trust, over TCP
    /// with `password`. Nothing in it survives, so it does not sync to disk.
    ///
    /// # Errors
    /// As [`ClusterError`] says.
    pub fn start(bin: &Path, password: &str, settings: &[(&str, &str)]) -> Result<Self, ClusterError> {
        let ids = server_ids()?;
        let directory =
            std::env::temp_dir().join(format!("countersign-postgres-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        let started = Self::start_in(bin, &directory, password, settings, ids);
        if started.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        started
    }

    fn start_in(
        bin: &Path,
        directory: &Path,
        password: &str,
        settings: &[(&str, &str)],
        ids: Option<(u32, u32)>,
    ) -> Result<Self, ClusterError> {
        let data = directory.join("data");
        let secret = directory.join("password");
        fs::write(&secret, password)?;
        if let Some((user, group)) = ids {
            std::os::unix::fs::chown(directory, Some(user), Some(group))?;
            std::os::unix::fs::chown(&secret, Some(user), Some(group))?;
        }
        let command = |program: &str| {
            let mut command = Command::new(bin.join(program));
            if let Some((user, group)) = ids {
                command.uid(user).gid(group);
            }
            command.current_dir(directory).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
            command
        };
        let made = command("initdb")
            .args([
                "--username=postgres",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
            ])
            .args(["--no-sync", "--no-instructions"])
            .arg("--pwfile")
            .arg(&secret)
            .arg("--pgdata")
            .arg(&data)
            .output()?;
        fs::remove_file(&secret)?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(ClusterError::Failed { command: "initdb".to_owned(), output });
        }
        let port = free_port()?;
        let log = fs::File::create(directory.join("log"))?;
        let mut server = command("postgres");
        server
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(directory)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
            .args(settings.iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]));
        // A group of its own: Ctrl-C at the terminal is for us, and we stop it when we are done.
        server.stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut cluster =
            Self { directory: directory.to_owned(), port, server: server.spawn()?, command: server };
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// Stops the server as an administrator does (a fast shutdown) and starts it again.
    ///
    /// # Errors
    /// As [`ClusterError`] says.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.signal(rustix::process::Signal::INT);
        self.server.wait()?;
        self.server = self.command.spawn()?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<(), ClusterError> {
        let data = self.directory.join("data");
        let deadline = Instant::now() + PATIENCE;
        // Line 8 of postmaster.pid is the server's status.
        let ready = || {
            let status = fs::read_to_string(data.join("postmaster.pid")).ok()?;
            Some(status.lines().nth(7)?.trim() == "ready")
        };
        while ready() != Some(true) {
            if self.server.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(ClusterError::NotReady(log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The postmaster's process id.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.server.id()
    }

    /// Stops the server at once, as a crash would, and keeps its files until the cluster is dropped.
    pub fn crash(&mut self) {
        self.signal(rustix::process::Signal::QUIT);
        let _ = self.server.wait();
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Ok(process) = i32::try_from(self.server.id())
            && let Some(process) = rustix::process::Pid::from_raw(process)
        {
            let _ = rustix::process::kill_process(process, signal);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            // SIGQUIT: immediate shutdown; there is nothing to save.
            self.signal(rustix::process::Signal::QUIT);
            let _ = self.server.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A port that is free now, and will hardly be taken before it is used: below those that the system gives to
/// outgoing connections and to whoever asks for any.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u16 = 16_000;
    const PORTS: u16 = 16_000;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Several processes that ask at the same time must not go through the same ports.
    let random = || FIRST + (RandomState::new().hash_one(std::process::id()) % u64::from(PORTS)) as u16;
    match std::iter::repeat_with(random).take(100).find(is_free) {
        Some(port) => Ok(port),
        None => Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port()),
    }
}

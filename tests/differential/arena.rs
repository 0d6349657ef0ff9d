//! A Postgres, a proxy before it, and pairs of databases with the same content: one to be talked to
//! directly, one through the proxy.

use std::fmt::Write as _;
use std::time::Duration;

use super::client::{Client, PATIENCE, Place, Played};
use super::script::Script;
use super::support::{Setup, Stack};
use countersign::identity::ScramVerifier;

const AGENT: &str = "anybody";
const PASSWORD: &str = "csa_token-of-anybody";

/// Every class is allowed by name: nothing is held, nothing is denied.
pub const ALLOW: &str = r#"
[[rule]]
name = "everything"
when = { class = [
  "session", "read", "write", "ddl", "mass_write", "export", "settings", "sensitive_read", "admin", "grant",
  "identity", "code", "server_io",
] }
then = "allow"
"#;

/// Schema changes are denied, and everything else is allowed.
pub const DENY: &str = r#"
[[rule]]
name = "everything-else"
when = { class = [
  "session", "read", "write", "mass_write", "export", "settings", "sensitive_read", "admin", "grant",
  "identity", "code", "server_io",
] }
then = "allow"

[[rule]]
name = "no-ddl"
when = { class = ["ddl"] }
then = "deny"
"#;

/// The tables that every session finds, and a function that tells what is in all of them.
const CONTENT: &str = "
SET client_min_messages = error;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT ALL ON SCHEMA public TO app;
SET ROLE app;
CREATE TABLE t0 (id int PRIMARY KEY, name text, amount numeric);
INSERT INTO t0 SELECT n, 'name ' || n, n * 1.5 FROM generate_series(1, 20) n;
CREATE TABLE t1 (id int, t0_id int REFERENCES t0 DEFERRABLE INITIALLY DEFERRED);
INSERT INTO t1 SELECT n, n FROM generate_series(1, 3) n;
CREATE TABLE t2 (a int, b text);
CREATE SEQUENCE seq;
RESET ROLE;
";

const CONTROL: &str = "
CREATE SCHEMA control;
CREATE FUNCTION control.dump() RETURNS text LANGUAGE plpgsql AS $$
DECLARE tables record; told text := ''; content text;
BEGIN
  FOR tables IN
    SELECT c.oid::regclass::text AS name, relkind,
      (SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute
       WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'control') AND nspname !~ '^pg_t'
    ORDER BY 1
  LOOP
    content := '';
    IF tables.relkind IN ('r', 'S', 'v', 'm') THEN
      EXECUTE format('SELECT string_agg(t::text, E''\\n'' ORDER BY t::text) FROM %s t', tables.name) INTO content;
    END IF;
    told := told || tables.name || ' (' || coalesce(tables.columns, '') || E')\\n' || coalesce(content, '') || E'\\n';
  END LOOP;
  RETURN told;
END $$;
";

/// A pair of databases.
#[derive(Clone)]
pub struct Pair {
    direct: Place,
    proxied: Place,
    control: [Place; 2],
}

/// A pair of databases in use, with a connection to each for making it anew and looking at it.
pub struct Bench {
    pair: Pair,
    control: [Client; 2],
    used: usize,
    /// What is played, for messages.
    pub seed: u64,
    /// How long an answer may take.
    pub patience: Duration,
}

/// What one script showed.
pub struct Shown {
    pub direct: Played,
    pub proxied: Played,
    /// What is in the tables afterwards.
    pub content: [String; 2],
}

impl Bench {
    pub async fn new(pair: &Pair) -> Self {
        let connect =
            async |place: &Place| Client::connect(place, PATIENCE).await.expect("a control connection").0;
        let control = [connect(&pair.control[0]).await, connect(&pair.control[1]).await];
        Self { pair: pair.clone(), control, used: 0, seed: 0, patience: PATIENCE }
    }

    /// Plays `direct` directly and `proxied` through the proxy, each with fresh content.
    pub async fn show(&mut self, direct: &Script, proxied: &Script) -> Shown {
        /// Dropped tables leave rows in the catalogue, and looking through them takes longer and longer.
        const VACUUM_EVERY: usize = 300;
        self.used += 1;
        let [one, two] = &mut self.control;
        if self.used.is_multiple_of(VACUUM_EVERY) {
            let (one, two) = tokio::join!(one.query("VACUUM"), two.query("VACUUM"));
            one.and(two).expect("the databases are vacuumed");
        }
        let (a, b) = tokio::join!(one.query(CONTENT), two.query(CONTENT));
        for lines in [a, b] {
            let lines = lines.unwrap_or_else(|error| panic!("seed {}: no content: {error}", self.seed));
            assert!(!lines.iter().any(|line| line.starts_with("ErrorResponse")), "{lines:?}");
        }
        let (client, _) = Client::connect(&self.pair.direct, self.patience)
            .await
            .unwrap_or_else(|error| panic!("seed {}: no direct connection: {error}", self.seed));
        let direct = client.play(direct, None).await;
        let (client, _) = Client::connect(&self.pair.proxied, self.patience)
            .await
            .unwrap_or_else(|error| panic!("seed {}: no connection through the proxy: {error}", self.seed));
        let proxied = client.play(proxied, Some(&direct.at_waits)).await;
        let mut content = self.dump().await;
        // What ran last may still be on its way to disk.
        for _ in 0..self.patience.as_millis() / 400 {
            if content[0] == content[1] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            content = self.dump().await;
        }
        Shown { direct, proxied, content }
    }

    async fn dump(&mut self) -> [String; 2] {
        let [one, two] = &mut self.control;
        let (one, two) = tokio::join!(one.query("SELECT control.dump()"), two.query("SELECT control.dump()"));
        [one, two].map(|lines| {
            lines.unwrap_or_else(|error| panic!("seed {}: nothing to look at: {error}", self.seed)).join("\n")
        })
    }
}

/// See the module's documentation.
pub struct Arena {
    stack: Stack,
    pub pairs: Vec<Pair>,
}

impl Arena {
    /// What the server has said of itself.
    pub fn server_log(&self) -> String {
        self.stack.server_log()
    }

    pub fn start(version: u32, policy: &str, pairs: usize) -> Self {
        let mut config = String::new();
        let mut sql = String::new();
        let mut names = Vec::new();
        for pair in 0..pairs {
            for side in ["direct", "proxied"] {
                let name = format!("{side}{pair}");
                writeln!(sql, "CREATE DATABASE {name};\n\\c {name}\n{CONTROL}\n\\c postgres").unwrap();
                // What is logged of ten thousand sessions fills disks.
                for setting in ["log_statement = 'none'", "log_min_messages = 'fatal'"] {
                    writeln!(sql, "ALTER DATABASE {name} SET {setting};").unwrap();
                }
                if side == "proxied" {
                    names.push(format!("{name:?}"));
                }
            }
        }
        let verifier = ScramVerifier::of_password(PASSWORD);
        write!(
            config,
            "[[agent]]\nname = \"{AGENT}\"\nowner = \"alice@example.com\"\nverifier = \"{verifier}\"\nupstreams = [{}]\n",
            names.join(", ")
        )
        .unwrap();
        for name in &names {
            write!(
                config,
                "[[upstream]]\nname = {name}\nhost = \"{{directory}}\"\nport = {{port}}\ndatabase = {name}\nuser = \"app\"\n"
            )
            .unwrap();
        }
        let setup = Setup {
            config,
            policy: Some(policy.to_owned()),
            sql,
            version,
            server: vec![
                ("autovacuum", "off"),
                ("max_connections", "200"),
                ("log_line_prefix", "%m %d [%p] "),
            ],
            ..Setup::default()
        };
        let stack = Stack::with(&setup);
        let socket = format!("{}/.s.PGSQL.{}", stack.cluster.directory().display(), stack.cluster.port());
        let direct = |user: &str, database: String| Place::Direct {
            socket: socket.clone(),
            user: user.to_owned(),
            database,
        };
        let pairs = (0..pairs)
            .map(|pair| Pair {
                direct: direct("app", format!("direct{pair}")),
                proxied: Place::Proxied {
                    port: stack.port,
                    user: AGENT.to_owned(),
                    password: PASSWORD.to_owned(),
                    database: format!("proxied{pair}"),
                },
                control: ["direct", "proxied"].map(|side| direct("postgres", format!("{side}{pair}"))),
            })
            .collect();
        Self { stack, pairs }
    }
}

//! Attempts to run something privileged without approval, over the wire, with a real server.
//!
//! The canary is a table that only an unapproved call can have written. Agents here ask for deferred
//! holds, so that whatever is held fails at once.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test has no callers, and what is wrong should stop it"
)]
mod functions;
mod limits;
mod names;
mod portals;
mod rules;
mod secrets;
#[path = "../support/mod.rs"]
mod support;

use support::wire;
use support::{BOB, Setup, Stack, text, wait_for};

/// A function that replaces the built-in `lower` for `varchar` where its schema is on the path,
/// and an operator and a cast that run it.
const TRAPS: &str = "
    CREATE TABLE canary (what text);
    GRANT INSERT, SELECT ON canary TO app;
    CREATE SCHEMA evil;
    GRANT USAGE, CREATE ON SCHEMA evil TO app;
    CREATE FUNCTION evil.lower(varchar) RETURNS text LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.canary VALUES (''lower''); RETURN $1; END';
    CREATE FUNCTION evil.ping(text) RETURNS text LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.canary VALUES (''ping''); RETURN $1; END';
    CREATE OPERATOR evil.@@@ (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.textcat);
    CREATE TYPE evil.mood AS ENUM ('sad', 'ok');
    CREATE FUNCTION evil.to_mood(text) RETURNS evil.mood LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.canary VALUES (''cast''); RETURN ''ok''; END';
    CREATE CAST (text AS evil.mood) WITH FUNCTION evil.to_mood(text);
";

fn stack() -> Stack {
    let stack = Stack::with(&Setup { sql: TRAPS.to_owned(), ..Setup::default() });
    // Without a proxy the traps do run.
    for way in [
        "set search_path = evil; select lower('x'::varchar)",
        "select 'x'::text::evil.mood",
        "select ('x'::text).ping",
    ] {
        stack.superuser(&format!("set search_path = evil, public; {way}"));
    }
    assert_eq!(stack.superuser("select count(*) from canary"), "3");
    stack.superuser("truncate canary");
    stack
}

const PRELUDE: &str = r#"
import sys, psycopg
from psycopg import pq
url = sys.argv[1] + "?options=-c%20countersign.hold%3Ddefer"
def session():
    return psycopg.connect(url, autocommit=True)
def attempt(what):
    try:
        what()
    except psycopg.Error:
        pass
"#;

fn attack(stack: &Stack, script: &str) {
    let output = stack.python(&format!("{PRELUDE}\n{script}"), &[]);
    assert!(output.status.success(), "the attack itself broke: {}", text(&output));
    assert_eq!(
        stack.superuser("select count(*) from canary"),
        "0",
        "the canary was reached: {}",
        text(&output)
    );
}

/// Messages written by hand, on a connection that psycopg logged in.
const RAW: &str = r#"
import os, socket, struct, time
def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body
def P(name, sql): return message(b"P", name + b"\0" + sql + b"\0\0\0")
def B(portal, name): return message(b"B", portal + b"\0" + name + b"\0" + b"\0\0" * 3)
def E(portal): return message(b"E", portal + b"\0" + b"\0" * 4)
def C(kind, name): return message(b"C", kind + name + b"\0")
def D(portal): return message(b"D", b"P" + portal + b"\0")
def Q(sql): return message(b"Q", sql + b"\0")
S = message(b"S")
class Raw:
    def __init__(self):
        self.connection = session()
        self.socket = socket.socket(fileno=os.dup(self.connection.fileno()))
        self.socket.settimeout(10)
    def send(self, *messages):
        self.socket.sendall(b"".join(messages))
    def until_ready(self, times=1):
        "Everything up to so many ReadyForQuery."
        seen, buffer = [], b""
        while times:
            while len(buffer) < 5 or len(buffer) < 1 + struct.unpack("!I", buffer[1:5])[0]:
                more = self.socket.recv(65536)
                if not more:
                    return seen
                buffer += more
            length = 1 + struct.unpack("!I", buffer[1:5])[0]
            kind, body, buffer = buffer[:1], buffer[5:length], buffer[length:]
            seen.append((kind, body))
            times -= kind == b"Z"
        return seen
    def do(self, *messages):
        self.send(*messages)
        return self.until_ready(sum(m == S or m[:1] == b"Q" for m in messages))
BAD = b"select evil.ping('x')"
"#;

const DEFERS: &[(&str, &str)] =
    &[("user", "reporting-bot"), ("database", "app"), ("options", "-c countersign.hold=defer")];

/// A schema behind a rule that denies, tables of the same names before it, and functions that lead there.
const BEHIND_A_RULE: &str = r#"
    CREATE SCHEMA audit; CREATE SCHEMA "Sales"; CREATE SCHEMA "a, b"; CREATE SCHEMA elsewhere;
    CREATE TABLE public.people (id int, name text); CREATE TABLE audit.people (id int, name text);
    CREATE TABLE "Sales".people (id int, name text); CREATE TABLE "a, b".people (id int, name text);
    INSERT INTO audit.people SELECT n, 'x' FROM generate_series(1, 99) n;
    INSERT INTO "Sales".people SELECT n, 'x' FROM generate_series(1, 99) n;
    INSERT INTO "a, b".people SELECT n, 'x' FROM generate_series(1, 99) n;
    CREATE FUNCTION moves() RETURNS text LANGUAGE sql STABLE AS $$ SELECT set_config('search_path', 'audit', false) $$;
    CREATE FUNCTION moves_by_name(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT set_config(name, 'audit', false) $$;
    CREATE FUNCTION calls() RETURNS text LANGUAGE sql STABLE AS $$ SELECT moves() $$;
    CREATE FUNCTION with_own_path() RETURNS text LANGUAGE sql STABLE SET search_path = public
        AS $$ SELECT set_config('search_path', 'audit', false) $$;
    CREATE FUNCTION atomic() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT set_config('search_path', 'audit', false); END;
    CREATE FUNCTION dynamic(int) RETURNS int LANGUAGE plpgsql STABLE
        AS $$ BEGIN EXECUTE 'SET sea' || 'rch_path = audit'; RETURN $1; END $$;
    CREATE FUNCTION dynamic(int, int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN dynamic($1); END $$;
    CREATE FUNCTION quiet(int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN dynamic($1); END $$;
    CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM dynamic(1); RETURN NEW; END $$;
    CREATE OPERATOR public.@+@ (LEFTARG = int, RIGHTARG = int, FUNCTION = dynamic);
    CREATE VIEW seen AS SELECT dynamic(1); CREATE VIEW seen_through AS SELECT * FROM seen;
    CREATE TABLE fired (a int); CREATE TRIGGER t BEFORE INSERT ON fired FOR EACH ROW EXECUTE FUNCTION fires();
    CREATE TABLE parent (a int) PARTITION BY RANGE (a); CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (9);
    CREATE TRIGGER t BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION fires();
    CREATE TABLE defaulted (a int, b int DEFAULT dynamic(2)); CREATE TABLE checked (a int CHECK (quiet(a) > 0));
    CREATE DOMAIN small AS int CHECK (quiet(VALUE) > 0); CREATE TABLE of_domain (a small);
    CREATE TABLE filtered (a int); ALTER TABLE filtered ENABLE ROW LEVEL SECURITY;
    INSERT INTO filtered VALUES (1); CREATE POLICY p ON filtered USING (quiet(a) > 0);
    CREATE TABLE held_by (k int PRIMARY KEY); CREATE TABLE holds (k int REFERENCES held_by ON DELETE CASCADE);
    CREATE FUNCTION fires_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM dynamic(1); RETURN OLD; END $$;
    CREATE TRIGGER t BEFORE DELETE ON holds FOR EACH ROW EXECUTE FUNCTION fires_late();
    INSERT INTO held_by VALUES (1); INSERT INTO holds VALUES (1);
    GRANT ALL ON ALL TABLES IN SCHEMA public, audit, "Sales", "a, b" TO app;
    GRANT USAGE ON SCHEMA audit, "Sales", "a, b", elsewhere TO app;
"#;

const BEHIND_A_RULE_POLICY: &str = r#"
safe_functions = ["public.dynamic"]

[[rule]]
name = "stays"
when = { table = ["audit.*", '"Sales".*', '"a, b".*'] }
then = "deny"
"#;

//! Secrets in statements: hidden from everybody, without hiding code.

use super::*;

/// A secret's word beside code made the proxy show and keep something else than what ran.
#[test]
fn the_word_secret_hides_no_code_from_reviewers_and_ledger() {
    let stack = Stack::with(&Setup { sql: "CREATE TABLE v_0 (i int); CREATE TABLE v_1 (i int); ALTER TABLE v_0 OWNER TO app; ALTER TABLE v_1 OWNER TO app".to_owned(), ..Setup::default() });
    for (table, statement) in [
        ("v_0", "DO $$ begin perform 1; /* no password '*/ drop table v_0; /*'*/ end $$"),
        ("v_1", "DO E'begin /* token \\'*/ drop table v_1; /*\\'*/ end'"),
    ] {
        let waiting = stack.psql_start(&[statement]);
        let request = stack.request();
        let shown = request["sql"].as_str().unwrap().to_owned();
        assert!(shown.contains(&format!("drop table {table}")), "{shown}");
        stack.approve(BOB, &request);
        let output = waiting.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    for entry in stack.entries("statement", 2) {
        let kept = entry["texts"]["sql"].to_string();
        assert!(!kept.contains("DO ") || kept.contains("drop table v_"), "{kept}");
    }
}

#[test]
fn a_secret_inside_code_is_refused_with_a_hint_and_stored_in_no_file() {
    let mut stack = stack();
    stack.superuser("create function dblink_exec(text, text) returns text language sql as 'select $2'");
    let script = r#"
import psycopg
def refused(run):
    try:
        run()
    except psycopg.errors.FeatureNotSupported as error:
        print(error.diag.message_primary, "/", error.diag.message_hint)
    else:
        raise SystemExit("it ran")
with session() as s:
    refused(lambda: s.execute("COPY (select 1) TO PROGRAM 'curl -u bob:S3C-01 https://backup.example'"))
    refused(lambda: s.execute("DO $$ begin alter role app password 'S3C-02'; end $$"))
    refused(lambda: s.execute("SET app.password = 'S3C-03 drop table canary'"))
    refused(lambda: s.execute("select dblink_exec('c', %s)", ["alter role app password 'S3C-04'"]))
    for bound in [("select dblink_connect(%s)", ["host=h user=u password=S3C-05"]), ("select crypt(%b, %s)", ["S3C-06", "x"])]:
        attempt(lambda: s.execute(*bound))
    for sql in ["ALTER ROLE app PASSWORD 'S3C-07", "CREATE USER bob IDENTIFIED BY 'S3C-08'", "SET app.db_password = 'S3C-09'",
                "SELECT dblink_connect('host=h password=' || 'S3C-10')", "SET countersign.task = 'use the password S3C-11'",
                "ALTER ROLE app PASSWORD 'S3C-12'", "drop table canary /*task='password%3DS3C-13'*/"]:
        attempt(lambda: s.execute(sql))
"#;
    let output = stack.python(&format!("{PRELUDE}\n{script}"), &[]);
    assert!(output.status.success(), "{}", text(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("among the arguments of a program") && told.contains("~/.pgpass"), "{told}");
    assert!(told.contains("inside code") && told.contains("by itself"), "{told}");
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(stack.stop_proxy().success());
    for entry in std::fs::read_dir(stack.path("ledger")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let text = String::from_utf8_lossy(&bytes);
        if let Some(at) = text.find("S3C-") {
            panic!("{}: {}", path.display(), &text[at..at + 6]);
        }
    }
    assert!(!stack.log().contains("S3C-"), "{}", stack.log());
}

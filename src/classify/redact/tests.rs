//! What is hidden, what never is, and what is refused.

use std::sync::Arc;

use super::super::parser::parse;
use super::super::{Catalogue, Classification, Classifier, Context, Limits, SearchPath, StatementClass};
use super::*;
use crate::statement::SqlText;

fn classify(sql: &str) -> Arc<Classification> {
    let catalogue = Catalogue::built_in(15);
    let context = Context {
        server_version: 15,
        catalogue: &catalogue,
        search_path: &SearchPath::Unknown,
        database: "app",
        role: "bot",
        strings_standard: true,
    };
    Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context)
}

/// What is shown of a text; it can be approved.
fn shown(sql: &str) -> String {
    let found = classify(sql);
    assert_eq!(found.inseparable, None, "{sql}");
    found.redacted_sql.as_deref().unwrap_or(sql).to_owned()
}

#[test]
fn literals_that_the_grammar_calls_secrets_are_hidden_and_the_rest_stays() {
    for (text, expected) in [
        ("ALTER ROLE bob PASSWORD 'S3C' LOGIN", "ALTER ROLE bob PASSWORD '<redacted>' LOGIN"),
        ("create user u encrypted password $x$S3C$x$", "create user u encrypted password '<redacted>'"),
        ("alter role u password /* x */ E'\\123\\063C'", "alter role u password /* x */ '<redacted>'"),
        ("alter role u password U&'\\0053\\0033C'", "alter role u password '<redacted>'"),
        ("alter role u password 'S'\n'3C'", "alter role u password '<redacted>'"),
        ("alter role u password 'drop table v'", "alter role u password '<redacted>'"),
        (
            "create user mapping for x server s options (user 'u', password 'S3C')",
            "create user mapping for x server s options (user 'u', password '<redacted>')",
        ),
        (
            "alter user mapping for x server s options (set \"password\" 'S3C', add private_key 'S3C')",
            "alter user mapping for x server s options (set \"password\" '<redacted>', add private_key '<redacted>')",
        ),
        (
            "create server s foreign data wrapper w options (url 'https://u:S3C@h/x')",
            "create server s foreign data wrapper w options (url 'https://u:<redacted>@h/x')",
        ),
        (
            "create subscription s connection 'postgresql://u:S3C@h/db?x=1' publication p",
            "create subscription s connection 'postgresql://u:<redacted>@h/db?x=1' publication p",
        ),
        (
            "alter subscription connection connection 'host=h password=''S 3C'''",
            "alter subscription connection connection 'host=h password=''<redacted>'''",
        ),
        ("SET app.db_password = 'S3C'", "SET app.db_password = '<redacted>'"),
        ("SET LOCAL app.api_token TO S3C", "SET LOCAL app.api_token TO '<redacted>'"),
        (
            "SET countersign.task = 'the password is S3C1'",
            "SET countersign.task = 'the password is <redacted>'",
        ),
        ("drop table t /* password: S3C */", "drop table t /* password: <redacted> */"),
        ("SET app.key = 4711", "SET app.key = '<redacted>'"),
        ("alter role r set app.jwt_secret = 'S3C'", "alter role r set app.jwt_secret = '<redacted>'"),
        (
            "alter system set primary_conninfo = 'host=h password=S3C'",
            "alter system set primary_conninfo = 'host=h password=<redacted>'",
        ),
        (
            "select set_config('app.secret', 'S3C'::text, false)",
            "select set_config('app.secret', '<redacted>'::text, false)",
        ),
        (
            "select dblink('host=h password=S3C user=u', 'select 1')",
            "select dblink('host=h password=<redacted> user=u', 'select 1')",
        ),
        (
            "select dblink_connect('c', ('host=h password=' || 'S3C')::text)",
            "select dblink_connect('c', ('host=h password=' || '<redacted>')::text)",
        ),
        (
            "select dblink_connect('host=h pass' || 'word=S' || current_user || ' user=u')",
            "select dblink_connect('host=h pass' || 'word=<redacted>' || current_user || ' user=u')",
        ),
        (
            "select dblink_connect(concat('password=', 'S3C'))",
            "select dblink_connect(concat('password=', '<redacted>'))",
        ),
        ("select crypt('S3C', gen_salt('bf'))", "select crypt('<redacted>', gen_salt('bf'))"),
        (
            "update users set pw = crypt(lower('S3C'), gen_salt('bf')) where id = 1",
            "update users set pw = crypt(lower('<redacted>'), gen_salt('bf')) where id = 1",
        ),
        (
            "select public.pgp_sym_encrypt('data', 'S3C')",
            "select public.pgp_sym_encrypt('data', '<redacted>')",
        ),
        (
            "select hmac('data', decode('S3C', 'x'), 'sha256')",
            "select hmac('data', decode('<redacted>', '<redacted>'), 'sha256')",
        ),
        ("select f(api_key => 'S3C', name => 'x')", "select f(api_key => '<redacted>', name => 'x')"),
        ("select http_get('https://u:S3C@h/')", "select http_get('https://u:<redacted>@h/')"),
        (
            "prepare p as select crypt($1, $2); execute p('S3C', 'salt')",
            "prepare p as select crypt($1, $2); execute p('<redacted>', 'salt')",
        ),
    ] {
        assert_eq!(shown(text), expected);
    }
}

#[test]
fn hiding_changes_nothing_but_literals() {
    for text in [
        "ALTER ROLE bob PASSWORD 'S3C' LOGIN; select 1",
        "select dblink_connect('c', 'host=h password=' || 'S3C'), 'x' /* ' */ from t where a = 'b'",
        "create user mapping for x server s options (user 'u', password E'a\\'b')",
        "SET app.key = S3C -- '",
    ] {
        let hidden = classify(text).redacted_sql.clone().expect(text);
        let before = classify(text);
        let after = classify(&hidden);
        assert!(parse(&hidden).is_ok(), "{hidden}");
        let kinds =
            |found: &Classification| found.parts.iter().map(|part| part.kind.clone()).collect::<Vec<_>>();
        assert_eq!(kinds(&before), kinds(&after), "{hidden}");
        assert_eq!(before.effects, after.effects, "{hidden}");
        assert_eq!(before.class, after.class, "{hidden}");
    }
}

/// Every way to bring the word next to code. Either it is shown whole, or it cannot be approved.
#[test]
fn what_runs_is_never_hidden() {
    for text in [
        "DO $$ begin update customers set name = name where id = 1; /* no password '*/ drop table v; /*'*/ end $$",
        "DO $$ begin /* password= */ drop table v; end $$",
        "DO 'begin -- password ''\n drop table v; -- ''\n end'",
        "DO E'begin perform 1; /* token \\'*/ drop table v; /*\\'*/ end'",
        "DO $a$ begin execute $b$ /* secret '*/ drop table v /*' */ $b$; end $a$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $f$ select 1; /* password '*/ drop table v; select 1; /*'*/ $f$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET app.password = 'drop table v' AS 'select 1'",
        "COPY (select 1) TO PROGRAM 'password=\"x\" psql -c \"drop table v\"'",
        "COPY (select 1) TO PROGRAM 'psql -c ''drop table v'' # ://u:p@h'",
        "select dblink_exec('dbname=app', 'drop table v /* password=x */')",
        "select dblink('drop table v /* password x */', true)",
        "select dblink_connect('drop table v')",
        "select query_to_xml('/* password '' */ drop table v /* '' */', true, true, '')",
        "select cron.schedule('password', '* * * * *', 'drop table v')",
        "select cron.schedule('x', '* * * * *', $$/* password '*/ drop table v /*'*/$$)",
        "SET app.secret = 'drop table v'",
        "select set_config('app.password', 'drop table v', false)",
        "alter role r set app.token = 'drop table v'",
        "alter role r password 'drop table v'; do $$ begin execute substr(current_query(), 25, 12); end $$",
        "select crypt('drop table v', 'x'), run(current_query())",
        "select f(password => 'drop table v')",
        "select dblink_connect('password=''drop table v'''), run(current_query())",
        "alter system set ssl_passphrase_command = 'psql -c \"drop table v\"'",
        "set archive.token_command = 'psql -c \"drop table v\"'",
        "create server s foreign data wrapper file_fdw options (program 'psql -c \"drop table v\"', password 'x')",
        "prepare p as select crypt($1, 'x'), run(current_query()); execute p('drop table v')",
        "/* password ' */ drop table v /* ' */",
        "alter role r password 'x'; /* password ' */ drop table v; -- '",
        "create rule r as on insert to t do also (delete from t where 'password' = 'drop table v')",
        "comment on table t is 'password drop table v'",
        "create view w as select 'drop table v' as password",
        "create policy p on t using (run('drop table v', password => 'x'))",
    ] {
        let found = classify(text);
        let seen = found.redacted_sql.as_deref().unwrap_or(text);
        assert!(
            found.inseparable.is_some() || seen.contains("drop table v"),
            "it can be approved, and shown is: {seen}"
        );
        if found.inseparable.is_none() {
            // Nor anything else of it but a word.
            assert!(found.redacted_sql.is_none() || seen.len() + 32 > text.len(), "{seen}");
        }
    }
}

#[test]
fn a_secret_inside_code_is_refused_and_not_kept() {
    for (text, why) in [
        ("do $$ begin alter role x password 'S3C'; end $$", Inseparable::Code),
        ("do $$ begin execute 'alter role x password ''S3C'''; end $$", Inseparable::Code),
        (
            "create function f() returns void language sql as 'alter role x password ''S3C'''",
            Inseparable::Code,
        ),
        ("select dblink_exec('c', 'alter role x password ''S3C''')", Inseparable::Code),
        ("select dblink_exec('c', 'alter role x password ''' || 'S3C' || '''')", Inseparable::Code),
        ("select dblink_exec('c', format('alter role x password %L', 'S3C'))", Inseparable::Code),
        ("copy t to program 'curl -u bob:S3C https://backup.example'", Inseparable::Program),
        ("copy t to program 'PGPASSWORD=S3C psql'", Inseparable::Program),
        ("copy t from program 'mysql --password=S3C'", Inseparable::Program),
        ("copy t from program 'curl -H \"Authorization: Bearer S3C\" https://h'", Inseparable::Program),
        ("create foreign table t (a int) server s options (program 'curl -u b:S3C h')", Inseparable::Program),
        ("set app.secret = 'S3C drop table v'", Inseparable::LooksLikeCode),
        ("select dblink_connect(replace('host=h password=x', 'x', 'S3C'))", Inseparable::Assembled),
    ] {
        let found = classify(text);
        assert_eq!(found.inseparable, Some(why), "{text}");
        let kept = found.redacted_sql.as_deref().expect(text);
        assert!(!kept.contains("S3C"), "{kept}");
        assert!(!found.reasons.iter().any(|reason| reason.text.contains("S3C")), "{:?}", found.reasons);
    }
}

#[test]
fn statements_about_secrets_are_shown_as_they_are() {
    for text in [
        "ALTER ROLE bob PASSWORD NULL",
        "create table t (password text, token text default '')",
        "insert into users (name, password) values ('bob', 'password=x')",
        "select * from users where token = 'abc' and password <> ''",
        "select 'a://b', lower('password=x')",
        "drop role \"password\"",
        "set password_encryption = 'scram-sha-256'",
        "select current_setting('app.secret')",
        "create function check_password(p text) returns bool language sql as $$ select p <> 'secret' $$",
        "do $$ begin raise notice 'password changed'; end $$",
        "copy t to program 'gzip > /tmp/x.gz'",
        "create index on t (token)",
        "set app.tenant_id = '7'",
        "select dblink_connect('host=h user=u')",
        "create server s foreign data wrapper w options (host 'h', port '5432')",
    ] {
        let found = classify(text);
        assert_eq!((found.redacted_sql.as_deref(), found.inseparable), (None, None), "{text}");
    }
}

#[test]
fn what_the_parser_says_of_a_rejected_text_holds_no_secret() {
    for text in [
        "ALTER ROLE app_owner PASSWORD 'S3C",
        "ALTER ROLE app_owner PASSWORD S3C",
        "ALTER ROLE app_owner 'S3C'",
        "CREATE USER bob IDENTIFIED BY 'S3C'",
        "select password 'S3C' 'x' $$",
    ] {
        let found = classify(text);
        assert_eq!(found.class, StatementClass::Invalid, "{text}");
        let told = found.reasons.iter().map(|reason| reason.text.to_string()).collect::<String>();
        let unreadable = found.of_unreadable();
        let told =
            told + &unreadable.reasons.iter().map(|reason| reason.text.to_string()).collect::<String>();
        assert!(!told.contains("S3C"), "{told}");
        assert!(!found.redacted_sql.as_deref().expect(text).contains("S3C"), "{text}");
        // The agent is told what upstream would tell it.
        assert!(found.syntax_error.is_some());
    }
    let newer = classify("ALTER ROLE x PASSWORD 'S3C' SOMETHING NEW").of_unreadable();
    assert_eq!(newer.inseparable, Some(Inseparable::Code), "it would run, and be hidden");
    let newer = classify("SELECT token FROM t SOMETHING NEW 'drop table v'").of_unreadable();
    assert_eq!((newer.redacted_sql, newer.inseparable), (None, None), "it may run, and is shown");
}

fn bound(sql: &str, values: &[&str]) -> (Option<Inseparable>, Vec<String>) {
    let found = classify(sql);
    let values: Vec<Parameter> = values
        .iter()
        .enumerate()
        .map(|(place, value)| Parameter {
            // Text types are the same in both formats.
            format: (place % 2) as i16,
            type_oid: 25,
            value: Some(value.as_bytes().to_vec().into()),
        })
        .collect();
    let shown = found.without_secrets(&values).unwrap_or(values.clone());
    let text = |value: &Parameter| String::from_utf8(value.value.as_deref().unwrap().to_vec()).unwrap();
    (found.hides_code(&values), shown.iter().map(text).collect())
}

#[test]
fn bound_secrets_are_hidden_and_bound_code_is_not() {
    let hidden = |sql, values: &[&str]| {
        let (refused, shown) = bound(sql, values);
        assert_eq!(refused, None, "{sql}");
        shown
    };
    assert_eq!(hidden("select dblink_connect($1)", &["host=h password=S3C"]), ["host=h password=<redacted>"]);
    assert_eq!(
        hidden("select dblink_connect($2, $1)", &["host=h password=S3C", "c"]),
        ["host=h password=<redacted>", "c"]
    );
    assert_eq!(hidden("select dblink_connect('password=' || $1)", &["S3C"]), [MASK]);
    assert_eq!(hidden("select crypt($1::text, $2)", &["S3C", "salt"]), [MASK, "salt"]);
    assert_eq!(hidden("select set_config($1, $2, true)", &["app.token", "S3C"]), ["app.token", MASK]);
    assert_eq!(hidden("select set_config($1, $2, true)", &["app.tenant", "7"]), ["app.tenant", "7"]);
    assert_eq!(hidden("select set_config('app.token', $1, true)", &["S3C"]), [MASK]);
    assert_eq!(hidden("select f(password => $1)", &["S3C"]), [MASK]);
    assert_eq!(hidden("select dblink_exec('c', 'alter role x password ''' || $1 || '''')", &["S3C"]), [MASK]);
    assert_eq!(
        hidden("select dblink_exec('c', $1)", &["drop table v /* password */"]),
        ["drop table v /* password */"]
    );
    assert_eq!(hidden("insert into users (password) values ($1)", &["x"]), ["x"]);

    for (sql, value) in [
        ("select crypt($1, 'x'), run(current_query())", "drop table v"),
        ("select set_config('app.token', $1, true)", "drop table v"),
        ("select dblink_exec('c', 'alter role x password ''' || $1 || '''')", "x'; drop table v; --"),
        ("select dblink_exec('c', $1)", "alter role x password 'S3C'"),
        ("select dblink($1)", "alter role x password 'S3C'"),
    ] {
        let (refused, shown) = bound(sql, &[value]);
        assert!(refused.is_some(), "{sql}");
        assert_eq!(shown, [MASK], "it never runs, and is not kept");
    }
}

#[test]
fn values_for_what_the_session_prepared_are_hidden() {
    let known = classify("select crypt($1, $2)");
    let secrets = |name: &str| if name == "p" { known.bound_secrets.to_vec() } else { Vec::new() };
    let classifier = Classifier::new(Limits::default());
    let shown = |sql: &str| {
        let found = classifier.with_arguments(&SqlText::from(sql), classify(sql), &secrets);
        (found.redacted_sql.as_deref().map(str::to_owned), found.inseparable)
    };

    assert_eq!(shown("execute p('S3C', 'salt')"), (Some("execute p('<redacted>', 'salt')".to_owned()), None));
    assert_eq!(shown("execute q('S3C', 'salt')"), (None, None));
}

/// What real applications and administrators were recorded to send, and Postgres's own tests.
#[test]
fn recorded_work_is_not_refused_for_a_secret() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut read = 0;
    let mut refused = Vec::new();
    for file in ["benign/recorded.jsonl"].map(|file| folder.join(file)) {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(sql) = line["sql"].as_str() else { continue };
            let found = classify(sql);
            read += 1;
            if found.inseparable.is_some() && found.syntax_error.is_none() {
                refused.push(sql.to_owned());
            }
        }
    }
    assert!(read > 2_000, "{read}");
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn nothing_is_hidden_that_the_statement_or_its_code_can_read_back() {
    for sql in [
        "delete from t where id = split_part(current_query(), '~', 3)::int /* password=~2~ */",
        "update t set v = split_part(CURRENT_QUERY(), '~', 3) where id = 1 -- token=~evil@example.com~",
        "select query from pg_stat_activity where pid = pg_backend_pid() /* password: S3C */",
        "select U&\"current\\005fquery\"() /* password=~2~ */",
        "do $$ begin execute split_part(current_query(), '~', 3); end $$ /* password=~drop/**/table/**/v~ */",
        "do $$ begin perform 1; end $$ /* password=S3C */",
        "prepare z as select 1 /* password=~drop/**/table/**/v~ */",
        "declare z cursor with hold for select 1 /* password=S3C */",
        "create role r password 'v'; do $$ begin perform 1; end $$",
        "select crypt('v', gen_salt('bf')), statement from pg_prepared_statements",
        "delete from t where id = set_config('app.token', '2', true)::int",
        "update t set v = set_config('app.token', 'evil@x.com', true) where id = 1",
        "update t set v = set_config('app.token', $1, true) where id = 1",
        "select pg_read_file(set_config('app.token', 'PG_VERSION', false))",
        "insert into t select set_config('app.token', '2', true)",
        "with x as (select set_config('app.token', '2', true) v) delete from t using x where id = v::int",
        "create foreign data wrapper w options (secret 'drop table v')",
        "create server s foreign data wrapper w options (token 'drop table v')",
    ] {
        let found = classify(sql);
        assert!(found.inseparable.is_some(), "{sql}: {:?}", found.redacted_sql);
    }
    // Where nothing reads it, it is hidden as before.
    for sql in [
        "drop table t /* password: S3C */",
        "select set_config('app.token', 'S3C', false), set_config('app.tenant', '7', false)",
        "prepare p as select set_config('app.token', 'S3C', true)",
        "create user mapping for u server s options (password 'S3C')",
        "create server s foreign data wrapper w options (token 'S3C')",
        "alter role r password 'a b; c'",
    ] {
        let found = classify(sql);
        assert_eq!(found.inseparable, None, "{sql}");
        assert!(found.redacted_sql.is_some(), "{sql}");
    }
}

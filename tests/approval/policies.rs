//! Policies, and changes of policy while a statement waits.

use super::*;

#[test]
fn a_bad_policy_file_leaves_the_old_set_in_force_and_is_shown() {
    let stack = Stack::start();
    std::fs::write(
        stack.path("policies/bad.toml"),
        "[[rule]]\nname = \"x\"\nthen = \"allow\"\nwhen = { klass = [\"ddl\"] }\n",
    )
    .unwrap();
    wait_for("the error is logged", || stack.log().contains("changed policies are not used"));
    let (status, answer) = stack.api(BOB, "GET", "/status", None);
    assert_eq!(status, 200);
    assert!(answer.to_string().contains("bad.toml"), "{answer}");

    std::fs::write(
        stack.path("policies/bad.toml"),
        "[[rule]]\nname = \"ddl-is-fine\"\nthen = \"allow\"\nwhen = { class = [\"ddl\"] }\n",
    )
    .unwrap();
    wait_for("the mended set is loaded", || stack.log().contains("policies loaded"));
    assert_eq!(text(&stack.psql(&["create table free (a int)", "select 'free'"])), "free\n");
}

#[test]
fn safe_functions_and_sensitive_tables_count_and_so_does_a_change_of_them() {
    let deny = "[[rule]]\nname = \"none\"\nwhen = { class = [\"code\", \"export\"] }\nthen = \"deny\"\n";
    let by_table = "[[rule]]\nname = \"orders\"\nwhen = { table = [\"public.orders\"] }\nthen = \"deny\"\n";
    let stack = Stack::with(&Setup {
        policy: Some(format!("safe_functions = [\"public.total\"]\n{deny}")),
        sql: "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM customers';
              CREATE VIEW addresses AS SELECT email AS a FROM customers;
              CREATE VIEW late AS SELECT * FROM addresses;
              CREATE VIEW sums AS SELECT sum(amount) FROM orders;
              GRANT SELECT ON addresses, late, sums TO app;"
            .into(),
        ..Setup::default()
    });
    let says = |sql: &str| {
        let output = stack.psql(&[sql]);
        match output.status.success() {
            true => "runs".to_owned(),
            false => String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned(),
        }
    };
    let is_denied = |sql: &str| says(sql).contains("denied by rule");

    assert_eq!(says("SELECT total()"), "runs");
    assert_eq!(says("SELECT * FROM late"), "runs");
    assert_eq!(says("SELECT * FROM sums"), "runs");

    let changed = format!("sensitive = [\"public.customers.email\"]\n{deny}{by_table}");
    let folder = stack.path("policies");
    for file in std::fs::read_dir(&folder).unwrap() {
        std::fs::write(file.unwrap().path(), &changed).unwrap();
    }
    wait_for("the change is loaded", || stack.log().contains("policies loaded"));

    assert!(is_denied("SELECT total()"), "{}", says("SELECT total()"));
    assert!(is_denied("SELECT * FROM late"));
    assert!(is_denied("SELECT a FROM addresses"));
    assert!(is_denied("SELECT email FROM customers"));
    assert!(is_denied("SELECT * FROM sums"), "a rule by table sees through views");
    assert_eq!(says("SELECT name FROM customers"), "runs");
    assert_eq!(says("SELECT a FROM late WHERE a = 'c5@example.com'"), "runs");
    assert_eq!(says("SELECT * FROM customers LIMIT 5"), "runs");
}

/// Adds a file of policies, or replaces it, and waits until it is in force.
fn load_policy(stack: &Stack, name: &str, policy: &str) {
    let before = stack.log().matches("policies loaded").count();
    std::fs::write(stack.path(&format!("policies/{name}.toml")), policy).unwrap();
    wait_for("the policy is loaded", || stack.log().matches("policies loaded").count() > before);
}

#[test]
fn a_new_policy_that_denies_withdraws_a_waiting_request_and_names_the_rule() {
    let mut stack = Stack::start();
    for (round, when) in [
        r#"class = ["ddl"]"#,
        r#"table = ["public.orders"], class = ["ddl"]"#,
        r#"agent = "reporting-*", class = ["ddl"]"#,
        r#"upstream = "app", class = ["ddl"]"#,
    ]
    .into_iter()
    .enumerate()
    {
        let psql = stack.psql_start(&["drop table orders", "select 'still here'"]);
        let request = stack.request();

        let rule = format!("[[rule]]\nname = \"freeze-{round}\"\nwhen = {{ {when} }}\nthen = \"deny\"\n");
        load_policy(&stack, "freeze", &rule);

        let shown = ended(psql);
        assert!(shown.contains(&format!("freeze-{round}")) && shown.contains("still here"), "{shown}");
        assert_eq!(state_of(&stack, &request), "withdrawn");
        let (status, answer) = stack.answer(BOB, &request, "approve", Some("ok"));
        assert_eq!((status, answer["error"].as_str()), (409, Some("too_late")), "{answer}");
        assert!(exists(&stack, "orders"));
        load_policy(&stack, "freeze", "");
    }
    stack.assert_verifies();
}

#[test]
fn a_stricter_policy_withdraws_waiting_requests_and_a_looser_one_does_not() {
    let mut stack = Stack::start();
    let hold = |terms: &str| {
        format!("[[rule]]\nname = \"ddl\"\nwhen = {{ class = [\"ddl\"] }}\nthen = \"hold\"\n{terms}\n")
    };
    for terms in [
        r#"approvals = [{ group = "dba", count = 2 }]"#,
        r#"approvals = [{ group = "security", count = 1 }]"#,
        r#"assurance = "login""#,
        r#"reason = "required""#,
    ] {
        let psql = stack.psql_start(&["drop table orders"]);
        let request = stack.request();
        load_policy(&stack, "more", &hold(terms));

        let shown = ended(psql);
        assert!(shown.contains("asks for more") && shown.contains("Retry the statement"), "{shown}");
        assert_eq!(state_of(&stack, &request), "withdrawn");
        load_policy(&stack, "more", "");
    }
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();
    load_policy(
        &stack,
        "more",
        "[[rule]]\nname = \"fine\"\nwhen = { class = [\"ddl\"] }\nthen = \"allow\"\n",
    );
    assert_eq!(state_of(&stack, &request), "waiting");
    stack.approve(BOB, &request);
    ended(psql);
    assert!(!exists(&stack, "orders"));
    stack.assert_verifies();
}

#[test]
fn default_reviewers_of_the_configuration_count_for_waiting_requests() {
    let mut stack = Stack::start();
    let psql = stack.psql_start(&["drop table orders"]);
    let request = stack.request();

    stack.reconfigure(|text| format!("{text}\n[policy]\nreviewers = \"security\"\n"));

    let shown = ended(psql);
    assert!(shown.contains("asks for more"), "{shown}");
    assert_eq!(state_of(&stack, &request), "withdrawn");
    let psql = stack.psql_start(&["drop table orders"]);
    stack.approve(CAROL, &stack.request());
    ended(psql);
    assert!(!exists(&stack, "orders"));
    stack.assert_verifies();
}

#[test]
fn a_rule_by_table_sees_what_foreign_keys_do_to_it() {
    let policy = "[[rule]]
name = \"no-lines-go\"
when = { class = [\"write\", \"mass_write\"], table = [\"public.lines\"] }
then = \"deny\"

[[rule]]
name = \"drafts-may\"
when = { class = [\"mass_write\"], table = [\"public.drafts\"] }
then = \"allow\"
";
    let stack = Stack::with(&Setup {
        policy: Some(policy.to_owned()),
        sql: "CREATE TABLE bills (id int PRIMARY KEY); INSERT INTO bills SELECT generate_series(1, 5);
              CREATE TABLE lines (bill int REFERENCES bills ON DELETE CASCADE);
              CREATE TABLE drafts (id int PRIMARY KEY); INSERT INTO drafts VALUES (1);
              CREATE TABLE notes (draft int REFERENCES drafts ON DELETE CASCADE);
              GRANT ALL ON bills, lines, drafts, notes TO app;"
            .into(),
        ..Setup::default()
    });
    let says = |sql: &str| text(&stack.psql(&[sql]));

    assert!(says("DELETE FROM bills WHERE id = 5").contains("denied by rule \"no-lines-go\""));
    assert_eq!(says("UPDATE bills SET id = 7 WHERE id = 5"), "", "the key would not let go of anything");
    assert_eq!(stack.superuser("SELECT max(id) FROM bills"), "7");
    assert_eq!(says("DELETE FROM drafts WHERE id = 5"), "");

    // To allow emptying the one is not to allow emptying the other.
    let psql = stack.psql_start(&["DELETE FROM public.drafts", "SELECT 'done'"]);
    let request = stack.request();
    let (_, whole) = stack.api(BOB, "GET", &format!("/requests/{}", request["id"].as_str().unwrap()), None);
    let document = whole.to_string();
    assert!(
        document.contains("delete relation public.notes (by foreign key notes_draft_fkey)"),
        "{document}"
    );
    stack.approve(BOB, &request);
    assert!(ended(psql).contains("done"));
}

//! Whose a column is that is named without its table, and what its table says of it.

use super::*;

fn with_context<T>(path: SearchPath, what: impl FnOnce(&Classifier, &Context<'_>) -> T) -> T {
    let row = |text: &str| -> catalogue::Row { text.split('|').map(|c| Some(c.to_owned())).collect() };
    let relations = [
        r#"public|t|r|["id","x","a","note"]|none|["id","x","a"]|["x"]|{"a":2,"id":8,"x":4}"#,
        r#"public|u|r|["id","y","t_id"]|applies|[]|[]|{}"#,
        r#"public|shown|v|["y"]|none|[]|[]|{}"#,
        r#"app|u|r|["id","x"]|none|[]|[]|{}"#,
        r#"public|all_t|v|["id","x"]|none|[]|[]|{}"#,
        r#"public|more_t|v|["cid"]|none|[]|[]|{}"#,
        r#"public|t_1|r|["id","x","a","note"]|none|[]|[]|{}"#,
    ];
    let views = [
        "public|all_t|public|t|id|shows",
        "public|more_t|public|all_t|id|shows",
        "public|t_1|public|t|-|is part of",
    ];
    let view = |text: &str| -> catalogue::Row {
        text.split('|').map(|c| (c != "-").then(|| c.to_owned())).collect()
    };
    let function = |name: &str, returns: &str, body: &str| -> catalogue::Row {
        let row = format!("public|{name}|0|0|scalar|false|sql|s|false|owner|f|{body}|{returns}");
        row.split('|').map(|c| Some(c.to_owned())).collect()
    };
    let functions = [function("ids", "20", "SELECT id FROM t"), function("others", "20", "SELECT y FROM u")];
    let (relations, views) = (relations.map(row).to_vec(), views.map(view).to_vec());
    let mut answers = vec![functions.to_vec(), vec![], vec![], vec![], relations, views];
    answers.resize(catalogue::QUERIES.len(), Vec::new());
    let catalogue = catalogue::from_rows(15, &answers, &Arc::default()).unwrap();
    let context = context(&catalogue, &path);
    what(&Classifier::new(Limits::default()), &context)
}

fn classify_at(path: SearchPath, sql: &str) -> Arc<Classification> {
    with_context(path, |classifier, context| classifier.classify(&SqlText::from(sql), context))
}

/// `read public.t (id)`, one for each relation.
fn touched(sql: &str) -> String {
    let path = SearchPath::Known(vec!["public".into()]);
    let found = with_context(path, |classifier, context| {
        let text = SqlText::from(sql);
        let found = classifier.classify(&text, context);
        classifier.detail(std::iter::once(&text), context, &found)
    });
    let line = |effect: &Effect| {
        let schema = effect.schema.as_deref().map(|schema| format!("{schema}.")).unwrap_or_default();
        let columns: Vec<&str> = effect.columns.iter().map(|column| &**column).collect();
        let security = effect.row_security.map(|security| format!(" {security:?}")).unwrap_or_default();
        format!("{:?} {schema}{}({}){security}", effect.verb, effect.name, columns.join(","))
    };
    let relations = found.effects.iter().filter(|effect| effect.kind == ObjectKind::Relation);
    relations.map(line).collect::<Vec<_>>().join("; ")
}

#[test]
fn effects_say_which_columns_and_whether_row_security_applies() {
    for (sql, expected) in [
        ("SELECT id, x FROM t WHERE a = 1", "Read public.t(id,x,a)"),
        ("SELECT * FROM t", "Read public.t(*)"),
        ("SELECT t FROM t", "Read public.t(*)"),
        ("SELECT count(*) FROM t", "Read public.t()"),
        ("SELECT y, x FROM t JOIN u ON t.id = t_id", "Read public.t(x,id); Read public.u(y,t_id) Applies"),
        ("SELECT x FROM t JOIN u USING (id)", "Read public.t(x,id); Read public.u(id) Applies"),
        ("SELECT s.z FROM (SELECT x AS z FROM t) s", "Read public.t(x)"),
        ("WITH t AS (SELECT y FROM u) SELECT y FROM t", "Read public.u(y) Applies"),
        (
            "SELECT x FROM t WHERE EXISTS (SELECT FROM u WHERE t_id = t.id AND note = 'n')",
            "Read public.t(x,id,note); Read public.u(t_id) Applies",
        ),
        ("UPDATE t SET note = '' WHERE id = 1 RETURNING x", "Read public.t(id,x); Update public.t(note)"),
        ("DELETE FROM t WHERE id = 1", "Read public.t(id); Delete public.t()"),
        ("INSERT INTO t (id, x) VALUES (1, 2)", "Insert public.t(id,x)"),
        ("INSERT INTO t VALUES (1, 2)", "Insert public.t(*)"),
        (
            "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET x = t.x + 1",
            "Read public.t(x); Insert public.t(id); Update public.t(x)",
        ),
        (
            "MERGE INTO t USING u ON t.id = t_id WHEN MATCHED THEN UPDATE SET x = y",
            "Read public.t(id); Read public.u(t_id,y) Applies; Update public.t(x)",
        ),
        ("COPY t (id, x) TO STDOUT", "Read public.t(id,x); Export public.t(id,x)"),
        ("COPY t TO STDOUT", "Read public.t(*); Export public.t(*)"),
        ("SELECT who, name FROM elsewhere, t", "Read elsewhere(who,name); Read public.t()"),
        ("SELECT rolname FROM pg_roles", "Read pg_catalog.pg_roles(rolname)"),
    ] {
        assert_eq!(touched(sql), expected, "{sql}");
    }
}

fn classes(schemas: &[&str], texts: &[&str], class: StatementClass) {
    for sql in texts {
        let path = SearchPath::Known(schemas.iter().map(|schema| Arc::from(*schema)).collect());
        let found = classify_at(path, sql);
        assert_eq!(found.class, class, "{sql}: {:?}", found.reasons);
    }
}

#[test]
fn a_column_that_a_subquery_takes_from_the_row_itself_picks_nothing() {
    classes(
        &["public"],
        &[
            "DELETE FROM t WHERE x IN (SELECT x FROM u)",
            "DELETE FROM t WHERE x = ANY (SELECT x FROM u)",
            "DELETE FROM t WHERE x = (SELECT x FROM u LIMIT 1)",
            "DELETE FROM t WHERE x = ANY (ARRAY(SELECT x FROM u))",
            "DELETE FROM t WHERE x IN (SELECT x FROM u UNION SELECT y FROM u)",
            "DELETE FROM t WHERE x IN (SELECT x FROM u JOIN shown USING (y))",
            "DELETE FROM t WHERE x IN (SELECT s.x FROM (SELECT x FROM u) s)",
            "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT y FROM u) s)",
            "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT id AS z FROM t t2) s)",
            "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT x AS z FROM t t2) s)",
            "DELETE FROM t WHERE x IN (SELECT x FROM (TABLE u) s)",
            "DELETE FROM t WHERE x IN (SELECT x FROM u AS u (a, b, c))",
            "DELETE FROM t WHERE x IN (SELECT s.x FROM shown, (SELECT x FROM u) s)",
            "DELETE FROM t WHERE x IN (SELECT s.x FROM LATERAL (SELECT x FROM u) s, (SELECT 1 AS x) r)",
            "DELETE FROM t WHERE x IN (WITH w AS (SELECT y FROM u) SELECT x FROM w)",
            "DELETE FROM t WHERE x IN (WITH w AS (SELECT x FROM u) SELECT w.x FROM w)",
            "WITH w AS (SELECT y FROM u) DELETE FROM t WHERE x IN (SELECT x FROM w)",
            "DELETE FROM t WHERE x IN (SELECT x FROM generate_subscripts(ARRAY[1], 1) AS g (i))",
            "DELETE FROM t WHERE ctid IN (SELECT ctid FROM shown)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t.x = x)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE x = t.x)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE EXISTS (SELECT 1 FROM shown WHERE x = t.x))",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t t2 WHERE id = t.id)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM t t2 WHERE EXISTS (SELECT 1 FROM u WHERE t2.id = t.id))",
            "DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE x <> t.x)",
            "UPDATE t SET note = '' FROM u WHERE u.y = 1",
            "UPDATE t SET note = '' FROM u WHERE y = 1",
            "DELETE FROM public.t WHERE x IN (SELECT x FROM public.u)",
            "DELETE FROM t WHERE id IN (SELECT id FROM all_t)",
            "DELETE FROM t WHERE id IN (SELECT cid FROM more_t)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM more_t m WHERE m.cid = t.id)",
            "DELETE FROM t USING more_t WHERE t.id = more_t.cid",
            "DELETE FROM all_t WHERE id IN (SELECT id FROM t)",
            "DELETE FROM all_t WHERE id IN (SELECT cid FROM more_t)",
            "DELETE FROM t_1 WHERE id IN (SELECT id FROM t)",
            "DELETE FROM t WHERE id IN (SELECT * FROM ids())",
            "DELETE FROM t WHERE id IN (SELECT ids())",
            "DELETE FROM t WHERE id IN (SELECT unnest(ARRAY(SELECT id FROM t)))",
            "DELETE FROM t WHERE id IN (SELECT unnest(ARRAY(SELECT id FROM t)) FROM u)",
            "DELETE FROM t WHERE id = ANY (ARRAY(SELECT ids()))",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM unnest(ARRAY[x]) z WHERE z = t.x)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM unnest(ARRAY[x]) z WHERE t.x = z)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u, unnest(ARRAY[x]) AS z (k) WHERE t.x = k)",
            "DELETE FROM t WHERE x IN (SELECT z FROM u, unnest(ARRAY[x]) z)",
            "DELETE FROM t WHERE x IN (SELECT k FROM u, LATERAL (SELECT x AS k) l)",
            "DELETE FROM t USING generate_series(0, 100000) g WHERE x = g",
            // Nobody knows these tables.
            "DELETE FROM t WHERE x IN (SELECT x FROM elsewhere)",
            "DELETE FROM t WHERE x IN (SELECT x FROM jsonb_to_record('{}'))",
        ],
        StatementClass::MassWrite,
    );
}

#[test]
fn a_column_of_the_subquerys_own_tables_picks() {
    classes(
        &["public"],
        &[
            "DELETE FROM t WHERE id IN (SELECT id FROM u)",
            "DELETE FROM t WHERE id IN (SELECT t_id FROM u)",
            "DELETE FROM t WHERE x IN (SELECT * FROM others())",
            "DELETE FROM t WHERE id IN (SELECT id FROM all_t WHERE x = 5)",
            "DELETE FROM t WHERE x IN (SELECT y FROM shown)",
            "DELETE FROM t WHERE x IN (SELECT x FROM (SELECT y AS x FROM u) s)",
            "DELETE FROM t WHERE x IN (SELECT x FROM u AS u (x))",
            "DELETE FROM t WHERE x IN (SELECT x FROM unnest(ARRAY[1, 2]) AS x (x))",
            "DELETE FROM t WHERE x IN (SELECT x FROM jsonb_to_recordset('[]') AS r (x int))",
            "DELETE FROM t WHERE x IN (SELECT value::int FROM jsonb_array_elements_text('[]'))",
            "DELETE FROM t WHERE id IN (SELECT (data->>'id')::int FROM elsewhere)",
            "DELETE FROM t WHERE x IN (WITH w AS (SELECT y AS x FROM u) SELECT x FROM w)",
            "WITH w (x) AS (VALUES (1)) DELETE FROM t WHERE x IN (SELECT x FROM w)",
            "DELETE FROM t WHERE x IN (SELECT column1 FROM (VALUES (1)) v)",
            "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 1 LIMIT 10)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t_id = x)",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE t_id = t.id)",
            "DELETE FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE t_id = t.id)",
            "UPDATE t SET note = '' FROM u WHERE x = 1",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM unnest($1::int[]) z WHERE z = t.x)",
            "DELETE FROM t USING unnest($1::int[]) k WHERE x = k",
            "UPDATE t SET note = '' FROM u WHERE x = y",
            "UPDATE t SET note = '' FROM u WHERE t_id = t.id AND y = 1",
            "DELETE FROM t USING u WHERE x = 5 AND y = 3",
        ],
        StatementClass::Write,
    );
}

#[test]
fn constraints_say_what_is_in_each_row() {
    classes(
        &["public"],
        &[
            "DELETE FROM t WHERE a IS NOT NULL",
            "DELETE FROM t WHERE NOT (a IS NULL)",
            "DELETE FROM t WHERE a IS NOT UNKNOWN",
            "DELETE FROM t AS k WHERE k.a IS NOT NULL",
            "DELETE FROM t WHERE x <> 5",
            "DELETE FROM t WHERE x NOT IN (5, 6)",
            "DELETE FROM t WHERE x > 0",
            "DELETE FROM t WHERE NOT x = 5",
        ],
        StatementClass::MassWrite,
    );
    classes(
        &["public"],
        &[
            "DELETE FROM t WHERE note IS NOT NULL",
            "DELETE FROM t WHERE NOT (note IS NULL)",
            "DELETE FROM t WHERE note IS NULL",
            "DELETE FROM t WHERE a <> 5",
            "DELETE FROM t WHERE x > 5",
            "DELETE FROM t WHERE x = 5",
        ],
        StatementClass::Write,
    );
}

/// The path says which table is meant, and a temporary one may be in front of it.
#[test]
fn a_name_means_what_the_path_says() {
    let by_path = ["DELETE FROM t WHERE x IN (SELECT x FROM u)"];
    classes(&["app", "public"], &by_path, StatementClass::Write);
    classes(&["public", "app"], &by_path, StatementClass::MassWrite);

    let same = ["DELETE FROM t WHERE id IN (SELECT id FROM u)"];
    classes(&["public"], &same, StatementClass::Write);
    classes(&["pg_temp", "public"], &same, StatementClass::MassWrite);
    classes(
        &["public"],
        &["CREATE TEMP TABLE u (y int); DELETE FROM t WHERE id IN (SELECT id FROM u)"],
        StatementClass::MassWrite,
    );
    classes(
        &["pg_temp", "public"],
        &[
            "DELETE FROM t WHERE id = 5",
            "DELETE FROM public.t WHERE id IN (SELECT id FROM public.u)",
            "DELETE FROM public.t WHERE id IN (SELECT t_id FROM u)",
        ],
        StatementClass::Write,
    );
}

/// `a` has two bytes, `x` four.
#[test]
fn an_integer_holds_what_its_bytes_do() {
    for (condition, class) in [
        ("a < 40000", StatementClass::MassWrite),
        ("a < 32767", StatementClass::MassWrite),
        ("a < 30000", StatementClass::Write),
        ("x < 40000", StatementClass::Write),
        ("a <> 40000", StatementClass::MassWrite),
        ("a <> 0.5", StatementClass::MassWrite),
        ("a <> 5", StatementClass::Write),
        ("a NOT IN (0.5, 1.5)", StatementClass::MassWrite),
        ("a NOT IN (0.5, 2)", StatementClass::Write),
        ("a <> ALL (ARRAY[99999])", StatementClass::MassWrite),
        ("a <> ALL ('{0.5}'::numeric[])", StatementClass::MassWrite),
        ("a <> ALL ('{5}')", StatementClass::Write),
        ("a BETWEEN 5 AND 40000", StatementClass::Write),
        ("a BETWEEN -5 AND 40000", StatementClass::MassWrite),
    ] {
        let path = SearchPath::Known(vec!["public".into()]);
        let found = classify_at(path, &format!("DELETE FROM t WHERE {condition}"));
        assert_eq!(found.class, class, "{condition}: {:?}", found.reasons);
    }
}

//! Calls that leave something behind: once is a write, once for each row is a mass write.

use super::*;

fn class(sql: &str) -> StatementClass {
    let row = |text: &str| -> catalogue::Row { text.split('|').map(|c| Some(c.to_owned())).collect() };
    let relations = [
        r#"public|images|r|["id","name","oid"]|none|["id"]|["id"]|{"id":8}"#,
        r#"public|t|r|["id","x"]|none|["id"]|["id"]|{"id":8}"#,
    ];
    let relations = relations.map(row).to_vec();
    let mut answers = vec![vec![], vec![], vec![], vec![], relations];
    answers.resize(catalogue::QUERIES.len(), Vec::new());
    let catalogue = catalogue::from_rows(15, &answers, &Arc::default()).unwrap();
    let path = SearchPath::Known(vec!["public".into()]);
    Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context(&catalogue, &path)).class
}

#[test]
fn a_call_for_each_row_that_leaves_something_behind_is_a_mass_write() {
    for sql in [
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
        "SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata",
        "SELECT pg_catalog.lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid > 0",
        "SELECT 1 FROM images WHERE lo_unlink(oid) = 1",
        "SELECT count(*) FROM images WHERE lo_unlink(oid) = 1",
        "SELECT count(*) FILTER (WHERE lo_unlink(oid) = 1) FROM images",
        "SELECT 1 FROM images ORDER BY lo_unlink(oid)",
        "SELECT count(*) FROM images GROUP BY lo_unlink(oid)",
        "SELECT max(id) FROM images GROUP BY name HAVING setval('s', max(id)) > 0",
        "SELECT sum(lo_unlink(oid)) OVER () FROM images",
        "SELECT count(*) OVER (), lo_unlink(oid) FROM images",
        "SELECT lo_unlink(x) FROM generate_series(1, 100) x",
        "SELECT lo_unlink(x) FROM (VALUES (1::oid), (2)) v(x)",
        "SELECT lo_unlink(generate_series(1, 100)::oid)",
        "SELECT lo_create(0), generate_series(1, 100)",
        "INSERT INTO t VALUES (lo_create(0), unnest(ARRAY[1, 2]))",
        "SELECT u FROM images i, LATERAL lo_unlink(i.oid) u",
        "SELECT u FROM images i, lo_unlink(i.oid) u",
        "SELECT u FROM images i JOIN lo_unlink(i.oid) u ON true",
        "SELECT x.u FROM images, (SELECT lo_unlink(5) u OFFSET 0) x",
        "SELECT (SELECT lo_unlink(i.oid)) FROM images i",
        "SELECT EXISTS (SELECT lo_unlink(i.oid)) FROM images i",
        "SELECT ARRAY(SELECT lo_unlink(m.oid) + max(o.x) * 0 FROM pg_largeobject_metadata m) FROM (SELECT 1 x) o",
        "WITH g AS (SELECT lo_unlink(oid) u FROM images) SELECT count(*) FROM g",
        "WITH RECURSIVE r(n, u) AS (SELECT 1, 1 UNION ALL SELECT n + 1, lo_unlink(n::oid) FROM r WHERE n < 99) SELECT max(n) FROM r",
        "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r WHERE n < 99) SELECT setval('s', n) FROM r",
        "UPDATE t SET x = lo_create(0) WHERE x = 5",
        "UPDATE t SET x = 1 WHERE id IN (1, 2, 3) AND setval('s', id) > 0",
        "DELETE FROM images WHERE id < 5 RETURNING lo_unlink(oid)",
        "DELETE FROM images USING t WHERE images.id = 5 AND lo_unlink(t.id::oid) = 1",
        "INSERT INTO images SELECT * FROM t RETURNING lo_unlink(oid)",
        "INSERT INTO images VALUES (1), (2) RETURNING lo_unlink(oid)",
        "INSERT INTO t SELECT id, lo_from_bytea(0, name::bytea) FROM images",
        "SELECT lo_put(oid, 0, 'x') FROM images",
        "SELECT setval(c.oid::regclass, 1) FROM pg_class c WHERE relkind = 'S'",
        "SELECT pg_notify('c', id::text) FROM t",
        "SELECT pg_export_snapshot() FROM generate_series(1, 100000)",
        "SELECT count(pg_advisory_lock(x)) FROM generate_series(1, 100000) x",
        "SELECT pg_try_advisory_xact_lock_shared(id) FROM t",
        "SELECT (x.oid).lo_unlink FROM images x",
        "SELECT lo_unlink(oid) FROM images LIMIT 2",
        "SELECT lo_unlink(oid) FROM images ORDER BY 1 LIMIT 1",
        "SELECT lo_unlink(oid) FROM images LIMIT 1 OFFSET 100000",
        "SELECT lo_unlink(oid) FROM images WHERE name = 'x'",
        "SELECT lo_unlink(oid) FROM images WHERE id = 5 OR id = 6",
        "SELECT lo_unlink(i.oid) FROM images i WHERE t.id = 5",
        "COPY (SELECT lo_unlink(oid) FROM images) TO STDOUT",
        "CREATE TEMP TABLE x (o oid CHECK (lo_unlink(o) = 1))",
        "CREATE TEMP TABLE x (a int, o oid DEFAULT lo_create(0))",
        "PREPARE p AS SELECT lo_unlink(oid) FROM images",
        "DECLARE c CURSOR FOR SELECT lo_unlink(oid) FROM images",
        "EXPLAIN ANALYZE SELECT lo_unlink(oid) FROM images",
        "COPY t FROM STDIN WHERE lo_unlink(id::oid) = 1",
        "MERGE INTO t USING images i ON t.id = i.id WHEN MATCHED THEN UPDATE SET x = lo_create(0)",
    ] {
        assert!(class(sql).is_privileged(), "{sql} is {}", class(sql));
    }
}

#[test]
fn one_call_that_leaves_something_behind_is_no_mass_write() {
    for sql in [
        "SELECT setval('s', 5)",
        "SELECT setval(pg_get_serial_sequence('\"t\"', 'id'), coalesce(max(\"id\"), 1), max(\"id\") IS NOT null) FROM \"t\"",
        "SELECT setval('s', (SELECT max(id) FROM t))",
        "SELECT setval('s', m) FROM (SELECT max(id) AS m FROM t) x",
        "WITH m AS (SELECT max(id) AS m FROM t) SELECT setval('s', m) FROM m",
        "SELECT setval('s', count(*)) FROM t",
        "SELECT setval('a', 1), setval('b', 2); SELECT setval('c', 3)",
        "SELECT setval('a', 1) UNION ALL SELECT setval('b', 2)",
        "VALUES (setval('a', 1)), (setval('b', 2))",
        "SELECT nextval('s') FROM generate_series(1, 50)",
        "INSERT INTO t SELECT nextval('s'), x FROM images",
        "SELECT pg_notify('c', 'x')",
        "SELECT pg_notify('c', id::text) FROM t WHERE id = 5",
        "SELECT pg_notify($1, $2)",
        "WITH gone AS (DELETE FROM t WHERE id = 5 RETURNING id) SELECT pg_notify('c', 'gone')",
        "SELECT lo_unlink(oid) FROM images WHERE id = $1 AND name <> ''",
        "SELECT lo_unlink(i.oid) FROM public.images i WHERE i.id = 5::bigint",
        "SELECT lo_unlink(oid) FROM images LIMIT 1",
        "UPDATE images SET oid = lo_from_bytea(0, $1) WHERE id = $2",
        "DELETE FROM images WHERE id = 7 RETURNING lo_unlink(oid)",
        "INSERT INTO images VALUES (1, 'a', lo_from_bytea(0, $1)), (2, 'b', lo_from_bytea(0, $2))",
        "INSERT INTO images (name) VALUES ('a') ON CONFLICT (id) DO UPDATE SET oid = lo_create(0) RETURNING pg_notify('c', id::text)",
        "SELECT * FROM lo_create(0)",
        "SELECT pg_advisory_xact_lock(5)",
        "SELECT pg_advisory_unlock(id) FROM t",
        "EXPLAIN SELECT lo_unlink(oid) FROM images",
    ] {
        assert!(!class(sql).is_privileged(), "{sql} is {}", class(sql));
    }
}

//! What foreign keys do to other tables (`fixtures/catalogue/README.md` has the tables).

use std::collections::HashMap;

use super::*;

/// `delete public.users by users_tenant_fkey`, one for each.
fn cascades(sql: &str) -> Vec<String> {
    let text = include_str!("../../../fixtures/catalogue/postgres-15.json");
    let answers: HashMap<String, Vec<catalogue::Row>> = serde_json::from_str(text).unwrap();
    let answers: Vec<Vec<catalogue::Row>> =
        catalogue::QUERIES.iter().map(|query| answers.get(query.name).cloned().unwrap_or_default()).collect();
    let catalogue = catalogue::from_rows(15, &answers, &Arc::default()).unwrap();
    let path = SearchPath::Known(vec!["public".into()]);
    let context = context(&catalogue, &path);
    let found = Classifier::new(Limits::default()).classify(&SqlText::from(sql), &context);
    let by_key = found.effects.iter().filter(|effect| effect.cascades);
    let told = by_key.map(|effect| {
        let (schema, by) = (effect.schema.as_deref().unwrap(), effect.through.as_deref().unwrap());
        format!("{:?} {schema}.{} by {by}", effect.verb, effect.name)
    });
    told.collect()
}

#[test]
fn a_delete_is_carried_on() {
    let of_a_user =
        ["Update public.notes by notes_author_fkey", "Delete public.logins by logins_user_id_fkey"];
    let of_a_tenant = [of_a_user[0], of_a_user[1], "Delete public.users by users_tenant_fkey"];

    assert_eq!(cascades("DELETE FROM users WHERE id = 5"), of_a_user);
    assert_eq!(cascades("DELETE FROM tenants WHERE id = 5"), of_a_tenant);
    assert_eq!(cascades("EXPLAIN ANALYZE DELETE FROM public.tenants WHERE id = 5"), of_a_tenant);
    assert_eq!(cascades("WITH d AS (DELETE FROM users WHERE id = 5) SELECT 1"), of_a_user);
    assert_eq!(cascades("DELETE FROM shown_users WHERE id = 5"), of_a_user, "through a view");
    let merge = "MERGE INTO users USING bills ON users.id = bills.tenant WHEN MATCHED THEN DELETE";
    assert_eq!(cascades(merge), of_a_user);
    assert_eq!(cascades("DELETE FROM tree WHERE id = 5"), ["Delete public.tree by tree_parent_fkey"]);
    assert_eq!(cascades("DELETE FROM parts WHERE a = 5"), ["Delete public.of_parts by of_parts_a_fkey"]);
    assert_eq!(cascades("DELETE FROM parts_1 WHERE a = 5"), ["Delete public.of_parts by of_parts_a_fkey1"]);
}

#[test]
fn an_update_of_the_columns_referred_to_is_carried_on() {
    let of_the_code = ["Update public.notes by notes_tenant_code_fkey"];

    assert_eq!(cascades("UPDATE tenants SET code = 'x' WHERE id = 5"), of_the_code);
    assert_eq!(cascades("UPDATE tenants SET (id, code) = (1, 'x') WHERE id = 5"), of_the_code);
    let merge =
        "MERGE INTO tenants USING bills ON tenants.id = bills.tenant WHEN MATCHED THEN UPDATE SET code = 'x'";
    assert_eq!(cascades(merge), of_the_code);
    let upsert = "INSERT INTO tenants VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET code = excluded.code";
    assert_eq!(cascades(upsert), of_the_code);
    assert_eq!(cascades("UPDATE tenants SET id = 7 WHERE code = 'x'"), [""; 0], "nothing follows the id");
}

#[test]
fn truncate_cascade_empties_whatever_refers_to_it() {
    let all = [
        "Truncate public.bills by bills_tenant_fkey",
        "Truncate public.logins by logins_user_id_fkey",
        "Truncate public.notes by notes_author_fkey",
        "Truncate public.notes by notes_tenant_code_fkey",
        "Truncate public.users by users_tenant_fkey",
    ];

    assert_eq!(cascades("TRUNCATE tenants CASCADE"), all);
    assert_eq!(cascades("TRUNCATE tenants"), [""; 0]);
}

#[test]
fn what_changes_nothing_carries_nothing_on() {
    for sql in [
        "SELECT * FROM tenants",
        "EXPLAIN DELETE FROM tenants WHERE id = 5",
        "INSERT INTO tenants VALUES (1, 'x')",
        "DELETE FROM pg_temp.tenants",
        "DELETE FROM app.tenants WHERE id = 5",
    ] {
        assert_eq!(cascades(sql), [""; 0], "{sql}");
    }
}

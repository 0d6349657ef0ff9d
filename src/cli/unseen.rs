//! What a statement can set off in one database without its text saying so: for `check`.

use crate::proxy::catalogue::Asking;
use crate::proxy::upstream::ConnectError;

/// One way for effects to hide, and a query for the names of what hides them.
struct Hideout {
    sql: &'static str,
    /// Comes before the names.
    what: &'static str,
    advice: &'static str,
}

/// As many names are shown.
const SHOWN: usize = 5;

/// Whether the function `p` is somebody's own: an extension's is what the extension is for.
macro_rules! own {
    ($from:literal) => {
        concat!($from, " AND p.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e') ORDER BY 1")
    };
}

const HIDEOUTS: &[Hideout] = &[
    Hideout {
        sql: own!("SELECT DISTINCT p.oid::regprocedure::text FROM pg_catalog.pg_proc p WHERE p.prosecdef AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
 AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c WHERE c LIKE 'search_path=%')"),
        what: "functions that run with their owners' rights and the caller's search_path, who can put something else before what they name",
        advice: "ALTER FUNCTION .. SET search_path, and REVOKE EXECUTE from PUBLIC",
    },
    Hideout {
        sql: own!("SELECT DISTINCT p.oid::regprocedure::text FROM pg_catalog.pg_proc p WHERE p.prosecdef AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
 AND EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c WHERE c LIKE 'search_path=%')"),
        what: "functions that run with their owners' rights, whose calls are held, but not from views, triggers and defaults",
        advice: "REVOKE EXECUTE where agents have no use for them",
    },
    Hideout {
        sql: "SELECT DISTINCT t.tgrelid::regclass::text FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
 AND pg_catalog.has_table_privilege(t.tgrelid, 'INSERT, UPDATE, DELETE, TRUNCATE') ORDER BY 1",
        what: "tables with triggers, whose functions run at a write, which is not held",
        advice: "Know what the triggers do; hold writes to such tables by a rule where it matters",
    },
    Hideout {
        sql: "SELECT DISTINCT r.ev_class::regclass::text FROM pg_catalog.pg_rewrite r WHERE r.ev_type <> '1' AND r.ev_class >= 16384
 AND pg_catalog.has_table_privilege(r.ev_class, 'INSERT, UPDATE, DELETE') ORDER BY 1",
        what: "tables or views with rules, which say what a write to them does",
        advice: "Replace the rules by triggers, or hold writes to these tables by a rule of the policy",
    },
    Hideout {
        sql: own!("SELECT DISTINCT r.ev_class::regclass::text FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass
 AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
 WHERE r.ev_type = '1' AND pg_catalog.has_table_privilege(r.ev_class, 'SELECT')"),
        what: "views that call functions of yours when they are read, which is not held",
        advice: "See that such functions only read, or hold reads of these views by a rule",
    },
    Hideout {
        sql: own!("SELECT DISTINCT a.adrelid::regclass::text FROM pg_catalog.pg_attrdef a JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass
 AND d.objid = a.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid WHERE true"),
        what: "tables with defaults or generated columns that call functions of yours at an INSERT",
        advice: "See that such functions do no more than compute a value",
    },
    Hideout {
        sql: own!("SELECT DISTINCT c.conrelid::regclass::text FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass
 AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid WHERE c.conrelid <> 0"),
        what: "tables with checks that call functions of yours at every write",
        advice: "See that such functions only read",
    },
    Hideout {
        sql: own!("SELECT DISTINCT l.polrelid::regclass::text FROM pg_catalog.pg_policy l JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::regclass
 AND d.objid = l.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid WHERE true"),
        what: "tables with row security policies that call functions of yours at every statement",
        advice: "See that such functions only read",
    },
    Hideout {
        sql: own!("SELECT DISTINCT i.indrelid::regclass::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass
 AND d.objid = i.indexrelid AND d.refclassid = 'pg_catalog.pg_proc'::regclass JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid WHERE true"),
        what: "tables with indexes on functions of yours, which run at every write",
        advice: "See that such functions only compute",
    },
    Hideout {
        sql: "SELECT c.castsource::regtype::text || ' to ' || c.casttarget::regtype::text FROM pg_catalog.pg_cast c
 WHERE c.castfunc >= 16384 AND c.castcontext <> 'e' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
 WHERE e.classid = 'pg_catalog.pg_cast'::regclass AND e.objid = c.oid AND e.deptype = 'e') ORDER BY 1",
        what: "casts of yours that happen without being written",
        advice: "Make them explicit (CREATE CAST without AS)",
    },
    Hideout {
        sql: "SELECT t.evtname::text FROM pg_catalog.pg_event_trigger t WHERE t.evtenabled <> 'D' ORDER BY 1",
        what: "event triggers, which run behind schema changes or at login",
        advice: "Know what they do; schema changes are held",
    },
    Hideout {
        sql: "SELECT f.ftrelid::regclass::text FROM pg_catalog.pg_foreign_table f WHERE pg_catalog.has_table_privilege(f.ftrelid, 'SELECT') ORDER BY 1",
        what: "foreign tables, of which a read, which is not held, reaches another server or a file",
        advice: "Hold them by a rule (when = { table = [..] }), or REVOKE them",
    },
    Hideout {
        sql: "SELECT e.extname::text FROM pg_catalog.pg_extension e WHERE e.extname IN ('pg_cron', 'pgagent', 'pg_timetable', 'dblink', 'postgres_fdw', 'file_fdw',
 'plpython3u', 'plperlu', 'pltclu', 'http', 'pg_net', 'aws_s3', 'aws_lambda', 'adminpack', 'pg_background') ORDER BY 1",
        what: "extensions that reach files or networks, or run things later",
        advice: "REVOKE their functions and tables from the role that agents use",
    },
    Hideout {
        sql: "SELECT n.nspname::text FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' AND pg_catalog.has_schema_privilege(n.oid, 'CREATE') ORDER BY 1",
        what: "schemas where the role may create objects, which can stand before what others mean",
        advice: "REVOKE CREATE ON SCHEMA .. FROM PUBLIC, and from the role",
    },
    Hideout {
        sql: "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384
 AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND NOT c.relforcerowsecurity ORDER BY 1",
        what: "tables that are the role's own, which may alter and drop them and is not held by row security",
        advice: "Let another role own them, and GRANT what agents need",
    },
];

/// What hides in the database that `asking` is a session of, a line each.
pub(super) async fn list(asking: &mut Asking) -> Result<Vec<String>, ConnectError> {
    let mut lines = Vec::new();
    for Hideout { sql, what, advice } in HIDEOUTS {
        let names: Vec<String> = asking.ask(sql).await?.into_iter().flatten().flatten().collect();
        if names.is_empty() {
            continue;
        }
        let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
        let more =
            if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
        lines.push(format!("{what}: {}{more}. {advice}", shown.join(", ")));
    }
    Ok(lines)
}

//! What is asked of an upstream.

/// One query to run on an upstream. All columns are text, so any protocol will do.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// What it asks for.
    pub name: &'static str,
    /// The text.
    pub sql: &'static str,
    /// How many columns it returns.
    pub columns: usize,
}

/// A row of an answer.
pub type Row = Vec<Option<String>>;

/// Has a query look its operators, functions and types up in `pg_catalog` only. `IN`, `IS DISTINCT FROM` and
/// their like name an operator without writing it, and a role's own `search_path` may lead to somebody's
/// operator of that name. Both statements are one `Query`, so the setting ends with it.
macro_rules! own_names {
    ($sql:literal) => {
        concat!("SET LOCAL search_path = pg_catalog, pg_temp; ", $sql)
    };
}

/// The queries to run after connecting, in this order. Everything below OID 16384 came with initdb.
pub const QUERIES: [Query; 10] = [
    Query {
        name: "functions",
        // The sixth column is the extension that it came with. The fifth says what the first argument can be, for attribute notation: a base type,
        // enum or range is no table's row. The body comes for functions that might only read: in SQL, not
        // volatile (such a one may not write), run as whoever calls it, with no defaults and settings that
        // would run or change something; and what types it takes and returns.
        sql: own_names!(
            "SELECT n.nspname::text, p.proname::text, (p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int)::text,
 CASE WHEN p.provariadic <> 0 THEN '1000' ELSE p.pronargs::text END,
 (SELECT CASE WHEN t.typtype IN ('b', 'e', 'r', 'm') THEN 'scalar' ELSE 'any' END FROM pg_catalog.pg_type t WHERE t.oid = p.proargtypes[0]),
 COALESCE((SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1), 'false'),
 l.lanname::text, p.provolatile::text, p.prosecdef::text, pg_catalog.pg_get_userbyid(p.proowner)::text, p.prokind::text,
 CASE WHEN l.lanname = 'sql' AND p.provolatile IN ('i', 's') AND NOT p.prosecdef AND p.prokind = 'f' AND p.pronargdefaults = 0
  AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c WHERE c NOT LIKE 'search_path=%')
  AND pg_catalog.length(p.prosrc) BETWEEN 1 AND 10000 THEN p.prosrc END,
 pg_catalog.concat_ws(' ', p.proargtypes, p.prorettype, p.proallargtypes)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384"
        ),
        columns: 13,
    },
    Query {
        name: "operators",
        sql: own_names!(
            "SELECT n.nspname::text, o.oprname::text,
 fn.nspname::text, f.proname::text,
 EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_operator'::regclass AND d.objid = o.oid AND d.deptype = 'e')::text
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
JOIN pg_catalog.pg_proc f ON f.oid = o.oprcode JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace WHERE o.oid >= 16384"
        ),
        columns: 5,
    },
    Query {
        name: "types",
        // The fourth column: a value of the type runs somebody's function, by itself or by a type inside
        // it. Checks of built-in functions leave no dependency; an extension's own types are what the
        // extension is for. What is inside what is one list, so that a level of nesting costs one join:
        // looking each type up in all the others took 150 ms in a database of 2,000 types. Servers before
        // 14 have no multiranges and not their column. Arrays are known by their elements, but a domain
        // over an array is of their category, too, and is a type of its own.
        sql: own_names!(
            "WITH RECURSIVE inside(whole, part) AS MATERIALIZED (
 SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t WHERE t.typbasetype >= 16384
 UNION ALL SELECT t.oid, t.typelem FROM pg_catalog.pg_type t WHERE t.typelem >= 16384
 UNION ALL SELECT t.oid, a.atttypid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.typrelid = a.attrelid
  WHERE a.atttypid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped
 UNION ALL SELECT r.rngtypid, r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngsubtype >= 16384
 UNION ALL SELECT (pg_catalog.to_jsonb(r) OPERATOR(pg_catalog.->>) 'rngmultitypid')::oid, r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngtypid >= 16384
), code(oid) AS (
 SELECT t.oid FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND CASE t.typtype
   WHEN 'd' THEN EXISTS (SELECT FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_depend d
     ON d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = c.oid
     WHERE c.contypid = t.oid AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass) AND d.refobjid >= 16384)
   WHEN 'r' THEN EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid AND (r.rngcanonical::oid >= 16384 OR r.rngsubopc >= 16384))
   WHEN 'b' THEN t.typinput::oid >= 16384
   ELSE false END
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
 UNION SELECT i.whole FROM code c JOIN inside i ON i.part = c.oid)
SELECT n.nspname::text, t.typname::text, t.typtype::text, (t.oid IN (SELECT oid FROM code))::text, t.oid::text, t.typarray::text
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid >= 16384 AND (t.typcategory <> 'A' OR t.typtype = 'd') AND (t.typtype <> 'c' OR t.oid IN (SELECT oid FROM code)
 OR EXISTS (SELECT FROM pg_catalog.pg_class k WHERE k.oid = t.typrelid AND k.relkind = 'c'))"
        ),
        columns: 6,
    },
    Query {
        name: "casts",
        sql: own_names!(
            "SELECT tn.nspname::text, t.typname::text, n.nspname::text, p.proname::text
FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t ON t.oid = c.casttarget OR (t.oid = c.castsource AND c.castcontext <> 'e' AND t.oid >= 16384) JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE p.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
 WHERE d.classid = 'pg_catalog.pg_cast'::regclass AND d.objid = c.oid AND d.deptype = 'e')"
        ),
        columns: 4,
    },
    Query {
        name: "relations",
        // Whether row security applies is asked for the role that asks, which is the sessions' own. The sixth
        // column lists what is never NULL, the seventh what is another value in each row besides (tables that
        // inherit from one share no key with it), the eighth
        // how many bytes its integers have.
        sql: own_names!(
            "SELECT n.nspname::text, c.relname::text, c.relkind::text,
 (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::text,
 CASE WHEN c.relrowsecurity THEN CASE WHEN pg_catalog.row_security_active(c.oid) THEN 'applies' ELSE 'bypassed' END ELSE 'none' END,
 (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped)::text,
 (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL AND a.attnum > 0 AND a.attnotnull
  AND (c.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid)))::text,
 (SELECT pg_catalog.json_object_agg(a.attname, a.attlen) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid IN (20, 21, 23) AND NOT a.attisdropped)::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_'"
        ),
        columns: 8,
    },
    Query {
        name: "views",
        // What a view selects from, column by column where it names them; what a partition is one of; and
        // partitions of other schemas, which patterns like `pii.*` may name. What belongs to Postgres itself
        // leaves no dependency.
        sql: own_names!(
            "SELECT DISTINCT vn.nspname::text, v.relname::text, bn.nspname::text, b.relname::text, a.attname::text, 'shows'
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class v ON v.oid = r.ev_class JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
 AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> v.oid
JOIN pg_catalog.pg_class b ON b.oid = d.refobjid JOIN pg_catalog.pg_namespace bn ON bn.oid = b.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = b.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
WHERE v.oid >= 16384 AND v.relkind IN ('v', 'm')
UNION SELECT cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text, NULL, 'is part of'
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.relkind IN ('r', 'p', 'f')
UNION SELECT pn.nspname::text, p.relname::text, cn.nspname::text, c.relname::text, NULL, 'has'
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND pn.oid <> cn.oid"
        ),
        columns: 6,
    },
    Query {
        name: "foreign keys",
        // The table referred to, the one that refers, what a DELETE and an UPDATE of the former do to the latter,
        // and the columns on both sides. A partition that is referred to has a key of its own; one that refers,
        // shares its table's.
        sql: own_names!(
            "SELECT rn.nspname::text, r.relname::text, n.nspname::text, t.relname::text, c.conname::text, c.confdeltype::text, c.confupdtype::text,
 (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.confrelid AND a.attnum = ANY (c.confkey))::text,
 (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey))::text
FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class r ON r.oid = c.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_constraint w ON w.oid = c.conparentid
WHERE c.contype = 'f' AND (c.conparentid = 0 OR w.conrelid = c.conrelid)"
        ),
        columns: 9,
    },
    Query {
        name: "extensions",
        // What is installed, and the parts of it that have no function of their own name: operator classes and
        // access methods, with the extension that they came with.
        sql: own_names!(
            "SELECT 'extension', NULL::text, e.extname::text, e.extversion::text FROM pg_catalog.pg_extension e
UNION ALL SELECT 'operator class', n.nspname::text, o.opcname::text,
 (SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
  WHERE d.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND d.objid = o.oid AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1)
FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace WHERE o.oid >= 16384
UNION ALL SELECT 'access method', NULL::text, a.amname::text,
 (SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
  WHERE d.classid = 'pg_catalog.pg_am'::pg_catalog.regclass AND d.objid = a.oid AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1)
FROM pg_catalog.pg_am a WHERE a.oid >= 16384"
        ),
        columns: 4,
    },
    Query {
        name: "dependents",
        // What DROP .. CASCADE of a relation, or of a part of it, takes along: pairs of relations, each with
        // its constraints, defaults, indexes, row type and so on. Without a dependent relation, it is a function
        // or the like. A partition goes without CASCADE; a table that inherits is told apart; a sequence that belongs to a column is part of it.
        sql: own_names!(
            "WITH part(classid, objid, rel) AS MATERIALIZED (
 SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, COALESCE(i.indrelid, c.oid) FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid WHERE c.oid >= 16384
 UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, r.ev_class FROM pg_catalog.pg_rewrite r WHERE r.oid >= 16384
 UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid, c.conrelid FROM pg_catalog.pg_constraint c WHERE c.oid >= 16384 AND c.conrelid <> 0
 UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid, a.adrelid FROM pg_catalog.pg_attrdef a
 UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, t.tgrelid FROM pg_catalog.pg_trigger t
 UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, p.polrelid FROM pg_catalog.pg_policy p
 UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, s.stxrelid FROM pg_catalog.pg_statistic_ext s
 UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, COALESCE(NULLIF(t.typrelid, 0), e.typrelid) FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
  WHERE t.oid >= 16384 AND COALESCE(NULLIF(t.typrelid, 0), e.typrelid, 0) <> 0
)
SELECT DISTINCT rn.nspname::text, r.relname::text, dn.nspname::text, k.relname::text, k.relkind::text,
 CASE WHEN d.deptype = 'n' AND k.relkind IN ('r', 'f') AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = k.oid AND d.objsubid = 0
  AND EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = k.oid AND h.inhparent = r.oid) THEN 'i' ELSE d.deptype::text END
FROM pg_catalog.pg_depend d JOIN part f ON f.classid = d.refclassid AND f.objid = d.refobjid
JOIN pg_catalog.pg_class r ON r.oid = f.rel JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
LEFT JOIN part t ON t.classid = d.classid AND t.objid = d.objid
LEFT JOIN pg_catalog.pg_class k ON k.oid = t.rel LEFT JOIN pg_catalog.pg_namespace dn ON dn.oid = k.relnamespace
WHERE d.deptype IN ('n', 'a') AND t.rel IS DISTINCT FROM f.rel AND r.relkind <> 'c'
 AND NOT (d.deptype = 'a' AND (k.oid IS NULL OR k.relkind = 'S'))"
        ),
        columns: 6,
    },
    Query {
        name: "changers",
        // Functions that may change a setting which decides names, by a word of their text or because it
        // cannot be read here. Does any, then so may all that are not compiled, because what a function
        // calls leaves no dependency; an extension's call its own. And the tables and views by which such
        // functions run: triggers, defaults, checks, generated columns, policies, casts to a column's type,
        // rules and the queries of views; of those that are reached through others, too: views of them, tables that they are a part
        // of, tables whose keys they follow.
        sql: own_names!(
            "WITH RECURSIVE own(oid, changes) AS MATERIALIZED (
 SELECT p.oid, l.lanname NOT IN ('sql', 'plpgsql') OR p.prosrc = '' OR p.prosrc OPERATOR(pg_catalog.~*)
  'set_config|search_path|pg_settings|schema|authorization|[[:<:]](role|reset|execute)[[:>:]]|u&|_to_xml|ts_stat|ts_rewrite'
 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
), code(oid) AS MATERIALIZED (
 SELECT o.oid FROM own o WHERE o.changes OR (EXISTS (SELECT FROM own a WHERE a.changes) AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
  WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = o.oid AND d.deptype = 'e'))
), uses(classid, objid) AS MATERIALIZED (
 SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN code c ON d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = c.oid
 UNION ALL SELECT d.classid, d.objid FROM code c JOIN pg_catalog.pg_operator o ON o.oprcode::oid = c.oid
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND d.refobjid = o.oid
), part_of(part, whole) AS MATERIALIZED (
 SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i
 UNION ALL SELECT d.refobjid, r.ev_class FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
  ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
 UNION ALL SELECT c.conrelid, c.confrelid FROM pg_catalog.pg_constraint c
  WHERE c.contype = 'f' AND (c.confdeltype NOT IN ('a', 'r') OR c.confupdtype NOT IN ('a', 'r'))
), changers(oid) AS (
 SELECT t.tgrelid FROM pg_catalog.pg_trigger t JOIN code c ON c.oid = t.tgfoid
 UNION SELECT a.adrelid FROM pg_catalog.pg_attrdef a JOIN uses u ON u.classid = 'pg_catalog.pg_attrdef'::regclass AND u.objid = a.oid
 UNION SELECT n.conrelid FROM pg_catalog.pg_constraint n JOIN uses u ON u.classid = 'pg_catalog.pg_constraint'::regclass AND u.objid = n.oid
 UNION SELECT a.attrelid FROM pg_catalog.pg_constraint n JOIN uses u ON u.classid = 'pg_catalog.pg_constraint'::regclass AND u.objid = n.oid
  JOIN pg_catalog.pg_attribute a ON a.atttypid = n.contypid WHERE n.contypid <> 0
 UNION SELECT p.polrelid FROM pg_catalog.pg_policy p JOIN uses u ON u.classid = 'pg_catalog.pg_policy'::regclass AND u.objid = p.oid
 UNION SELECT r.ev_class FROM pg_catalog.pg_rewrite r JOIN uses u ON u.classid = 'pg_catalog.pg_rewrite'::regclass AND u.objid = r.oid
 UNION SELECT a.attrelid FROM pg_catalog.pg_cast k JOIN code c ON c.oid = k.castfunc
  JOIN pg_catalog.pg_attribute a ON a.atttypid IN (k.castsource, k.casttarget) AND a.attnum > 0
 UNION SELECT i.indrelid FROM pg_catalog.pg_index i JOIN uses u ON u.classid = 'pg_catalog.pg_class'::regclass AND u.objid = i.indexrelid
), reached(oid) AS (
 SELECT oid FROM changers UNION SELECT p.whole FROM reached r JOIN part_of p ON p.part = r.oid
)
SELECT 'relation', n.nspname::text, c.relname::text FROM reached r JOIN pg_catalog.pg_class c ON c.oid = r.oid
 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384
UNION SELECT 'function', n.nspname::text, p.proname::text FROM code c JOIN pg_catalog.pg_proc p ON p.oid = c.oid
 JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
        ),
        columns: 3,
    },
];

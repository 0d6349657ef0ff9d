//! Mutations: every privileged statement of the corpora in other words and inside other statements must
//! stay privileged; every harmless one in other words must stay what it is.
//!
//! | variable | |
//! |---|---|
//! | `COUNTERSIGN_SOAK=1` | more than 1,000,000 mutants rather than a few thousand |
//! | `COUNTERSIGN_MUTATION_SEED=7` | begins at this seed rather than at 0 |
//! | `COUNTERSIGN_MUTATION_COUNT=1` | so many mutants; with the seed that a failure told, that one again |
//! | `COUNTERSIGN_MUTATION_SHOW=1` | shows each mutant |

#![allow(clippy::wildcard_enum_match_arm, reason = "what has no rule of its own is left as it is")]

mod nesting;
mod spelling;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use self::nesting::{Form, nested, templates};
use self::spelling::Spellings;
use super::parser::parse;
use super::*;
use crate::random::Random;
use crate::statement::SqlText;

/// The parse tree without the places that its nodes came from: texts with the same tree are the same to
/// the server. `None` where there is none.
fn tree_of(sql: &str) -> Option<Vec<u8>> {
    const PLACES: &[&[u8]] = &[
        b"\"location\":",
        b"\"stmt_location\":",
        b"\"stmt_len\":",
        b"\"name_location\":",
        b"\"rexpr_list_start\":",
        b"\"rexpr_list_end\":",
        b"\"list_start\":",
        b"\"list_end\":",
    ];
    let json = parse(sql).ok()?;
    let bytes = json.as_bytes();
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"'
            && let Some(place) = PLACES.iter().find(|place| bytes[at..].starts_with(place))
        {
            at += place.len();
            while bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-') {
                at += 1;
            }
            // It may have been the only member, or the last.
            if bytes.get(at) == Some(&b',') {
                at += 1;
            } else if kept.last() == Some(&b',') {
                kept.pop();
            }
            continue;
        }
        kept.push(byte);
        at += 1;
    }
    Some(kept)
}

/// A statement of the corpora.
struct Base {
    id: String,
    sql: String,
    version: u32,
    database: Database,
    found: Arc<Classification>,
    /// What of it can be put into templates.
    forms: Vec<(Form, String)>,
    /// What stands before the WHERE, if that is one of them.
    before_where: String,
}

/// What of an effect must not get lost: the classes that reasons name.
fn classes(found: &Classification) -> BTreeSet<StatementClass> {
    let mut classes: BTreeSet<_> = found.reasons.iter().map(|reason| reason.class).collect();
    classes.insert(found.class);
    classes.retain(|class| class.is_privileged());
    classes
}

/// Whose functions, operators and types there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Database {
    /// Postgres's own alone; nothing is known of the search_path.
    Plain,
    /// Those of `fixtures/catalogue/README.md`, too, in the schemas `public` and `evil`.
    Users,
}

struct Bench {
    classifier: Classifier,
    plain: BTreeMap<u32, Arc<Catalogue>>,
    users: BTreeMap<u32, Catalogue>,
    public: SearchPath,
}

impl Bench {
    fn new() -> Self {
        let text = include_str!("../../../fixtures/catalogue/postgres-15.json");
        let answers: HashMap<String, Vec<catalogue::Row>> = serde_json::from_str(text).unwrap();
        let answers: Vec<Vec<catalogue::Row>> = catalogue::QUERIES
            .iter()
            .map(|query| answers.get(query.name).cloned().unwrap_or_default())
            .collect();
        Self {
            classifier: Classifier::new(Limits::default()),
            plain: SERVER_VERSIONS.map(|version| (version, Catalogue::built_in(version))).collect(),
            users: [15, 18]
                .into_iter()
                .map(|version| (version, catalogue::from_rows(version, &answers, &Arc::default()).unwrap()))
                .collect(),
            public: SearchPath::Known(vec!["public".into()]),
        }
    }

    fn classify(&self, sql: &str, version: u32, database: Database) -> Arc<Classification> {
        let (catalogue, search_path) = match database {
            Database::Plain => (&*self.plain[&version], &SearchPath::Unknown),
            Database::Users => (&self.users[&version], &self.public),
        };
        let context = Context {
            server_version: version,
            catalogue,
            search_path,
            database: "app",
            role: "bot",
            strings_standard: true,
        };
        self.classifier.classify(&SqlText::from(sql), &context)
    }

    /// What runs code of the user's where it is not called by a name of its own.
    fn of_users(&self) -> Vec<Base> {
        let texts = OF_USERS.iter().flat_map(|(form, texts)| texts.iter().map(|text| (*form, *text)));
        let versions = self.users.keys().copied();
        versions
            .flat_map(|version| texts.clone().map(move |text| (version, text)))
            .map(|(version, (form, text))| {
                let sql = match form {
                    Form::Value | Form::Call => format!("SELECT {text}"),
                    Form::Type => format!("SELECT NULL::{text}"),
                    _ => text.to_owned(),
                };
                let found = self.classify(&sql, version, Database::Users);
                assert_eq!(found.class, StatementClass::Code, "{sql}: {:?}", found.reasons);
                let text = if form == Form::Value { format!("({text})") } else { text.to_owned() };
                let forms = vec![(Form::Text, sql.clone()), (form, text)];
                Base {
                    id: "users".into(),
                    sql,
                    version,
                    database: Database::Users,
                    found,
                    forms,
                    before_where: String::new(),
                }
            })
            .collect()
    }

    /// All statements of the corpora, each as an older server and the newest read it, where both read it
    /// alike.
    fn corpora(&self) -> Vec<Base> {
        #[derive(serde::Deserialize)]
        struct Line {
            id: String,
            sql: String,
            class: StatementClass,
            #[serde(default)]
            server_version: Option<u32>,
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/statements");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut bases = Vec::new();
        for line in files.iter().map(|file| std::fs::read_to_string(file).unwrap()) {
            for line in line.lines().filter(|line| !line.is_empty()) {
                let line: Line = serde_json::from_str(line).unwrap();
                if line.class == StatementClass::Invalid || lex::lex(&line.sql).tokens.is_empty() {
                    continue;
                }
                let own = line.server_version.unwrap_or(15);
                for version in BTreeSet::from([own, 18]) {
                    let found = self.classify(&line.sql, version, Database::Plain);
                    if found.class == line.class
                        && found.parts.iter().all(|part| part.class != StatementClass::Invalid)
                    {
                        let mut forms = forms_of(&line.sql);
                        let condition = condition_of(&line.sql, &found);
                        let (before_where, condition) = condition.unwrap_or_default();
                        if !condition.is_empty() {
                            forms.push((Form::Condition, condition));
                        }
                        let (id, sql, database) = (line.id.clone(), line.sql.clone(), Database::Plain);
                        bases.push(Base { id, sql, version, database, found, forms, before_where });
                    }
                }
            }
        }
        bases
    }
}

/// What of a statement can stand where.
fn forms_of(sql: &str) -> Vec<(Form, String)> {
    let mut forms = vec![(Form::Text, sql.to_owned())];
    let Ok(json) = parse(sql) else { return forms };
    let tree: serde_json::Value = serde_json::from_slice(json.as_bytes()).unwrap();
    let body = sql.trim_end_matches([';', ' ', '\n', '\t']);
    let [statement] = tree["stmts"].as_array().unwrap().as_slice() else { return forms };
    // What ends in a comment would swallow what follows.
    if body.contains("--") {
        return forms;
    }
    let (kind, statement) = statement["stmt"].as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
            forms.push((Form::Change, body.to_owned()))
        }
        "SelectStmt" if statement["intoClause"].is_null() => forms.push((Form::Query, body.to_owned())),
        "VariableSetStmt" => forms.extend(settings_of(statement)),
        "CreateStmt" | "ViewStmt" | "IndexStmt" | "CreateSeqStmt" | "CreateTrigStmt" | "GrantStmt" => {
            forms.push((Form::Element, body.to_owned()));
        }
        _ => {}
    }
    let bare = statement
        .as_object()
        .unwrap()
        .keys()
        .all(|key| ["targetList", "limitOption", "op"].contains(&key.as_str()));
    let columns = statement["targetList"].as_array().map_or(&[][..], Vec::as_slice);
    if kind == "SelectStmt" && bare && columns.len() == 1 && columns[0]["ResTarget"]["name"].is_null() {
        let value = body.trim_start().get("select".len()..).unwrap().trim().to_owned();
        if !value.ends_with('*') {
            forms.extend(calls(&value, &columns[0]["ResTarget"]["val"]));
            forms.push((Form::Value, format!("({value})")));
        }
    }
    for table in SENSITIVE {
        if sql == format!("SELECT * FROM {table}") || sql == format!("TABLE {table}") {
            forms.push((Form::Relation, (*table).to_owned()));
        }
    }
    forms
}

/// Functions, operators and types of `Database::Users`, as code of the user's gets run.
const OF_USERS: &[(Form, &[&str])] = &[
    (
        Form::Value,
        &[
            "('x'::text).email",
            "(coalesce('x')).email",
            "1 === 2",
            "1 OPERATOR(public.===) 2",
            "1 OPERATOR(evil.+) 2",
            "=== 1",
            "1 === ANY (ARRAY[2])",
            "1 === ALL (SELECT 2)",
            "(1, 2) OPERATOR(public.===) (3, 4)",
            "'1'::evil_int",
            "evil_int '1'",
            "public.evil_int '1'",
            "'{1}'::evil_int[]",
            "CAST(ARRAY['1'] AS public.evil_int ARRAY[3])",
            "'a'::text::mood",
            "ROW(1, 2)::pair",
            "('(1,2)'::public.pair).b",
            "evil_int(1)",
            "app.public.email('x')",
        ],
    ),
    (
        Form::Call,
        &[
            "email('x')",
            "lower('X')",
            "public.total(1, 2)",
            "total(1, VARIADIC ARRAY[2])",
            "opt(1)",
            "evil.upper('x')",
        ],
    ),
    (
        Form::Query,
        &[
            "SELECT c.secret FROM customers c",
            "SELECT customers.secret FROM customers",
            "SELECT public.customers.secret FROM public.customers",
            "SELECT (c).secret FROM customers c",
            "SELECT f.email FROM unnest(ARRAY['x']) f",
            "SELECT 1 ORDER BY 1 USING ===",
            "SELECT 1 FROM customers ORDER BY id USING OPERATOR(public.===)",
            "SELECT lower.email FROM initcap('x') lower",
        ],
    ),
    (
        Form::Type,
        &[
            "evil_int",
            "public.evil_int",
            "\"evil_int\"",
            "evil_int[]",
            "evil_int ARRAY[3]",
            "app.public.evil_int",
            "mood",
            "pair",
        ],
    ),
];

/// An UPDATE or DELETE of too many rows: what is before its WHERE, and the condition.
fn condition_of(sql: &str, found: &Classification) -> Option<(String, String)> {
    let [part] = found.parts.as_slice() else { return None };
    let changes =
        matches!(&*part.kind, "DeleteStmt" | "UpdateStmt") && found.class == StatementClass::MassWrite;
    let upper = sql.to_ascii_uppercase();
    // What is true of no row is held as well, but together with what is true of some it is that.
    let elsewhere =
        ["WHERE FALSE", "RETURNING", "WITH", "--", ";", "CURRENT OF"].iter().any(|word| upper.contains(word));
    let place =
        upper.find(" WHERE ").filter(|place| changes && !elsewhere && !sql[..*place].contains('('))?;
    Some((sql[..place].to_owned(), sql[place + " WHERE ".len()..].to_owned()))
}

/// `SET name = 'value'` as calls of set_config.
fn settings_of(statement: &serde_json::Value) -> Vec<(Form, String)> {
    let name = statement["name"].as_str().filter(|_| statement["kind"] == "VAR_SET_VALUE");
    let arguments = statement["args"].as_array().map_or(&[][..], Vec::as_slice);
    let ([argument], Some(name)) = (arguments, name) else { return Vec::new() };
    let Some(value) = argument["A_Const"]["sval"]["sval"].as_str() else { return Vec::new() };
    let value = value.replace('\'', "''");
    let upper = name.to_ascii_uppercase();
    vec![
        (Form::Text, format!("SET SESSION \"{name}\" TO '{value}'")),
        (Form::Text, format!("SET LOCAL \"{upper}\" = '{value}'")),
        (Form::Call, format!("set_config('{name}', '{value}', false)")),
        (Form::Call, format!("set_config('{upper}', '{value}', true)")),
        (Form::Call, format!("pg_catalog.set_config('{name}'::text, '{value}', false)")),
        (Form::Call, format!("set_config(CAST('{name}' AS text), ('{value}'), (true))")),
        (Form::Call, format!("set_config('{name}', '{value}'::text, NULL)")),
    ]
}

/// Tables that hold secrets, as the corpora read them by `SELECT * FROM`.
const SENSITIVE: &[&str] = &["pg_authid", "pg_shadow", "pg_user_mapping", "pg_hba_file_rules"];

/// Functions that Postgres finds for `x.f` as for `f(x)`.
const BY_ATTRIBUTE: &[&str] = &[
    "pg_read_file",
    "pg_ls_dir",
    "pg_stat_file",
    "lo_import",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_drop_replication_slot",
    "pg_create_restore_point",
    "brin_summarize_new_values",
    "gin_clean_pending_list",
    "pg_replication_origin_create",
    "pg_log_backend_memory_contexts",
];

/// Other ways of calling the function that a value calls.
fn calls(value: &str, tree: &serde_json::Value) -> Vec<(Form, String)> {
    let mut found = Vec::new();
    let call = &tree["FuncCall"];
    let plain = value.ends_with(')') && !value.contains("U&") && !value.contains(['\n', '-']);
    let Some((name, arguments)) = value.split_once('(').filter(|_| call.is_object() && plain) else {
        return found;
    };
    let keys = ["funcname", "args", "funcformat", "location"];
    if !call.as_object().unwrap().keys().all(|key| keys.contains(&key.as_str()))
        || call["funcformat"] != "COERCE_EXPLICIT_CALL"
    {
        return found;
    }
    let (name, arguments) = (name.trim(), arguments.strip_suffix(')').unwrap());
    found.push((Form::Call, value.to_owned()));
    let count = call["args"].as_array().map_or(0, Vec::len);
    let qualified = name.contains('.');
    if count > 0 {
        for changed in ["DISTINCT #", "ALL #", "# ORDER BY 1"] {
            found.push((Form::Call, format!("{name}({})", changed.replace('#', arguments))));
        }
    }
    if count == 1 {
        for changed in
            ["VARIADIC ARRAY[#]", "VARIADIC #", "a9 => #", "a9 := #", "(#)", "coalesce(#)", "(SELECT #)"]
        {
            found.push((Form::Call, format!("{name}({})", changed.replace('#', arguments))));
        }
        if BY_ATTRIBUTE.contains(&name) {
            found.extend([
                (Form::Value, format!("(({arguments}).{name})")),
                (Form::Value, format!("((coalesce({arguments})).{name})")),
                (Form::Value, format!("((ROW({arguments})).f1).{name}")),
                (Form::Value, format!("((ARRAY[{arguments}])[1]).{name}")),
                (Form::Value, format!("((SELECT {arguments}).{name})")),
                (Form::Query, format!("SELECT q9.{name} FROM unnest(ARRAY[{arguments}]) q9")),
                (Form::Query, format!("SELECT (q9.a).{name} FROM (SELECT {arguments} a) q9")),
                (Form::Query, format!("SELECT {name}.{name} FROM unnest(ARRAY[{arguments}]) {name}")),
            ]);
        }
    }
    if !qualified {
        found.push((Form::Call, format!("pg_catalog.{name}({arguments})")));
        found.push((Form::Call, format!("app.pg_catalog.{name}({arguments})")));
    }
    found
}

/// What a run is asked for.
struct Order {
    few: u64,
    many: u64,
}

/// What a mutant turned out to be.
enum Outcome {
    Fine,
    /// No SQL, or another statement; with what it was made of.
    Discarded(Vec<usize>),
    Failed(String),
}

struct Tally {
    made: u64,
    discarded: u64,
    /// For each template: how often it was used, and in how many that were discarded.
    templates: BTreeMap<usize, (u64, u64)>,
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Makes mutants on all processors, each from its own seed.
fn run(what: &str, order: &Order, make: impl Fn(&mut Random) -> (Vec<usize>, Outcome) + Sync) -> Tally {
    let soak = std::env::var_os("COUNTERSIGN_SOAK").is_some();
    let count = number("COUNTERSIGN_MUTATION_COUNT").unwrap_or(if soak { order.many } else { order.few });
    let first = number("COUNTERSIGN_MUTATION_SEED").unwrap_or(0);
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally { made: 0, discarded: 0, templates: BTreeMap::new() });
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut own = Tally { made: 0, discarded: 0, templates: BTreeMap::new() };
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    let (used, outcome) = make(&mut Random::new(seed));
                    own.made += 1;
                    for place in &used {
                        own.templates.entry(*place).or_default().0 += 1;
                    }
                    match outcome {
                        Outcome::Fine => {}
                        Outcome::Discarded(by) => {
                            own.discarded += 1;
                            for place in by {
                                own.templates.entry(place).or_default().1 += 1;
                            }
                        }
                        Outcome::Failed(told) => failures.lock().push(format!("seed {seed}: {told}")),
                    }
                }
                let mut all = tally.lock();
                all.made += own.made;
                all.discarded += own.discarded;
                for (place, (used, discarded)) in own.templates {
                    let of_all = all.templates.entry(place).or_default();
                    of_all.0 += used;
                    of_all.1 += discarded;
                }
            });
        }
    });
    let tally = tally.into_inner();
    let failures = failures.into_inner();
    println!("{what}: {} mutants, {} discarded, {} failures", tally.made, tally.discarded, failures.len());
    // A few of each statement that was made something of.
    let mut of_each: BTreeMap<&str, u32> = BTreeMap::new();
    let mut shown = Vec::new();
    for failure in &failures {
        let seen = of_each.entry(failure.split([':', ',']).nth(1).unwrap_or("")).or_default();
        *seen += 1;
        if *seen <= 3 {
            shown.push(failure.as_str());
        }
    }
    assert!(failures.is_empty(), "{what}: {} failures, {of_each:?}\n{}", failures.len(), shown.join("\n\n"));
    tally
}

fn show(mutant: &str) {
    if std::env::var_os("COUNTERSIGN_MUTATION_SHOW").is_some() {
        println!("{mutant}\n----");
    }
}

/// Trials of brackets, casts and quotes for each statement: each is a parse.
fn trials() -> usize {
    if std::env::var_os("COUNTERSIGN_SOAK").is_some() { 24 } else { 4 }
}

/// The spellings of a base, found out once.
struct Book(Vec<std::sync::OnceLock<Spellings>>);

impl Book {
    fn new(bases: &[Base]) -> Self {
        Self(bases.iter().map(|_| std::sync::OnceLock::new()).collect())
    }

    fn of(&self, place: usize, base: &Base) -> &Spellings {
        self.0[place].get_or_init(|| {
            Spellings::of(&base.sql, base.version).with_twists(
                &base.sql,
                &mut Random::new(place as u64),
                trials(),
            )
        })
    }
}

/// The same statement in other words has the same class, for the same kinds of reasons.
fn spelled(bench: &Bench, bases: &[Base], book: &Book, random: &mut Random) -> Outcome {
    let place = random.below(bases.len());
    let base = &bases[place];
    let mutant = book.of(place, base).one(random);
    show(&mutant);
    if tree_of(&mutant) != tree_of(&base.sql) {
        show("(discarded)");
        return Outcome::Discarded(Vec::new());
    }
    let found = bench.classify(&mutant, base.version, base.database);
    let same = found.class == base.found.class
        && classes(&found) == classes(&base.found)
        && found.effects == base.found.effects
        && found.parts.iter().map(|part| (&part.kind, part.class)).eq(base
            .found
            .parts
            .iter()
            .map(|part| (&part.kind, part.class)));
    if same {
        return Outcome::Fine;
    }
    Outcome::Failed(format!(
        "{} on {}, {}: {}\nis {}: {mutant:?}\n{:?}",
        base.id, base.version, base.found.class, base.sql, found.class, found.reasons
    ))
}

#[test]
fn other_spellings_of_a_privileged_statement_have_its_class() {
    let bench = Bench::new();
    let mut bases = bench.corpora();
    bases.retain(|base| base.found.class.is_privileged());
    assert!(bases.len() > 1_000, "{}", bases.len());
    let book = Book::new(&bases);

    let tally = run("spellings of privileged statements", &Order { few: 3_000, many: 600_000 }, |random| {
        (Vec::new(), spelled(&bench, &bases, &book, random))
    });

    assert!(tally.discarded * 20 <= tally.made, "{} of {} are other statements", tally.discarded, tally.made);
}

#[test]
fn other_spellings_of_a_harmless_statement_have_its_class() {
    let bench = Bench::new();
    let mut bases = bench.corpora();
    bases.retain(|base| !base.found.class.is_privileged());
    assert!(bases.len() > 500, "{}", bases.len());
    let book = Book::new(&bases);

    let tally = run("spellings of harmless statements", &Order { few: 2_000, many: 300_000 }, |random| {
        (Vec::new(), spelled(&bench, &bases, &book, random))
    });

    assert!(tally.discarded * 20 <= tally.made, "{} of {} are other statements", tally.discarded, tally.made);
}

#[test]
fn a_privileged_statement_inside_others_stays_privileged() {
    let bench = Bench::new();
    let mut bases = bench.corpora();
    bases.retain(|base| base.found.class.is_privileged());
    bases.extend(bench.of_users());
    let templates = templates();

    let tally =
        run("privileged statements inside others", &Order { few: 4_000, many: 1_100_000 }, |random| {
            let base = &bases[random.below(bases.len())];
            let (text, used) = nested(base, &templates, base.version, random);
            let Some(tree) = tree_of(&text) else {
                show(&format!("discarded: {text}"));
                return (used.clone(), Outcome::Discarded(used));
            };
            let respelled =
                if random.chance(60) { Spellings::of(&text, base.version).one(random) } else { text.clone() };
            let mutant = if tree_of(&respelled).as_ref() == Some(&tree) { respelled } else { text };
            show(&mutant);
            let found = bench.classify(&mutant, base.version, base.database);
            let lost: Vec<_> = classes(&base.found).difference(&classes(&found)).copied().collect();
            if lost.is_empty() && found.class.is_privileged() && found.syntax_error.is_none() {
                return (used, Outcome::Fine);
            }
            let told = format!(
                "{} on {}, {}: {}\nis {} and lost {lost:?}: {mutant:?}\n{:?}",
                base.id, base.version, base.found.class, base.sql, found.class, found.reasons
            );
            (used, Outcome::Failed(told))
        });

    let mut odd = Vec::new();
    for (place, (used, discarded)) in &tally.templates {
        if *used >= 50 && discarded * 5 > *used {
            odd.push(format!("{discarded} of {used}: {:?}", templates[*place]));
        }
    }
    assert!(odd.is_empty(), "too often no SQL:\n{}", odd.join("\n"));
    assert!(tally.discarded * 10 <= tally.made, "{} of {} are no SQL", tally.discarded, tally.made);
}

/// What is privileged in a mutant comes from the statement in it, not from what is around it: otherwise
/// the test above could not fail.
#[test]
fn what_statements_are_put_into_is_harmless_itself() {
    let bench = Bench::new();
    let contents: HashMap<Form, &str> = HashMap::from([
        (Form::Value, "1"),
        (Form::Call, "now()"),
        (Form::Query, "SELECT 1"),
        (Form::Change, "INSERT INTO h9 VALUES (1)"),
        (Form::Relation, "listed9"),
        (Form::Type, "posint"),
        (Form::Condition, "id = 5"),
        (Form::Element, "CREATE VIEW w9 AS SELECT 1"),
        (Form::Text, "SELECT 1"),
    ]);
    assert!(templates().len() > 500, "{}", templates().len());
    // Conditions may well be unclear in other words, and held.
    for template in templates().iter().filter(|template| template.makes != Form::Condition) {
        let text = template.filled(contents[&template.takes]);
        let text = if template.makes == Form::Value { format!("SELECT {text}") } else { text };
        for database in [Database::Plain, Database::Users] {
            let found = bench.classify(&text, 18, database);
            assert_ne!(found.class, StatementClass::Invalid, "{text}: {:?}", found.reasons);
            assert_eq!(found.class.is_privileged(), template.held, "{text}: {:?}", found.reasons);
        }
    }
}

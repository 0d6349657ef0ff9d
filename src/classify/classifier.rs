//! The whole way of one text: checks before parsing, cache, parse, walk, second opinion.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::cache::{Cache, Spelling, mask};
use super::lex::{LONGEST_OPERATOR_RUN, Lexed, TokenKind, lex};
use super::parser::{Failure, LARGE, parse};
use super::tree::{Room, Tree};
use super::walk::{Findings, Names, Surroundings, Touched, columns, walk};
use super::{
    BoundSecret, Catalogue, Classification, Doubt, Effect, Here, IfConfirmed, Inseparable, Notes, ObjectKind,
    Reason, SearchPath, StatementClass, SyntaxError, bulk, crosscheck, fingerprint, redact,
};
use crate::statement::{RelationCheck, SessionEffect, SqlText};

/// How large and how deep a text may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest text that is parsed.
    pub parse_bytes: usize,
    /// The longest text that is looked through for lists of literals, without which it may be short enough.
    pub bulk_bytes: usize,
    /// The deepest nesting of comments; Postgres's scanner takes quadratic time for it.
    pub comment_depth: u32,
    /// What the cache may hold.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parse_bytes: 1024 * 1024,
            bulk_bytes: 32 * 1024 * 1024,
            comment_depth: 64,
            cache_bytes: 32 * 1024 * 1024,
        }
    }
}

/// Everything but the text that decides the meaning.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The server's major version.
    pub server_version: u32,
    /// What the database has beyond Postgres's own.
    pub catalogue: &'a Catalogue,
    /// Where unqualified names are looked up.
    pub search_path: &'a SearchPath,
    /// The database.
    pub database: &'a str,
    /// The role that the proxy logged in with.
    pub role: &'a str,
    /// Whether the session reads strings the standard way, in UTF-8. If upstream ever reports
    /// otherwise, no text means what it seems to, and everything is held.
    pub strings_standard: bool,
}

/// Classifies texts, and remembers. One for the whole process.
///
/// Call it from long-lived threads with stacks of at least 1 MiB: the parser keeps memory per thread,
/// and one of the process's 1,024 pthread keys.
pub struct Classifier {
    limits: Limits,
    cache: Cache,
    /// Held while a large text is read, so that memory is bounded by one of them.
    large: Mutex<()>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room::default());
    static MASKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Classifier {
    /// A classifier with an empty cache.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, cache: Cache::new(limits.cache_bytes), large: Mutex::new(()) }
    }

    /// What a text does.
    pub fn classify(&self, sql: &SqlText, context: &Context<'_>) -> Arc<Classification> {
        let bytes = sql.as_bytes();
        // Without a backslash a string is read alike either way.
        if !context.strings_standard && bytes.contains(&b'\\') {
            let why = "has a backslash, and strings are not read the standard way in this session";
            let text = String::from_utf8_lossy(bytes);
            return Arc::new(unread(&text, &lex(&text), why));
        }
        let exact = Spelling::Exact(bytes);
        let here = &Here::default();
        let Some(key) = self.cache.key(exact, context) else {
            return Arc::new(self.classify_safely(bytes, context, here).0);
        };
        if let Some(known) = self.cache.get(key, exact, context) {
            return known;
        }
        MASKED.with_borrow_mut(|masked| {
            let masked = mask(bytes, masked).then_some(Spelling::Masked(masked));
            let masked = masked.and_then(|masked| Some((self.cache.key(masked, context)?, masked)));
            if let Some((key, masked)) = masked
                && let Some(known) = self.cache.get(key, masked, context)
            {
                return known;
            }
            let (classified, holds_for_other_numbers) = self.classify_safely(bytes, context, here);
            let classified = Arc::new(classified);
            let (key, remembered) = masked.filter(|_| holds_for_other_numbers).unwrap_or((key, exact));
            self.cache.put(key, remembered, context, &classified);
            classified
        })
    }

    /// What a text does that is about to run, where more is known than its text and context.
    pub fn classify_here(
        &self,
        sql: &SqlText,
        context: &Context<'_>,
        here: &Here<'_>,
    ) -> Arc<Classification> {
        let found = self.classify(sql, context);
        let identity = found.notes.needs_identity && here.identity.is_some();
        let values = found.notes.needs_values && !here.values.is_empty();
        if !context.strings_standard || !(identity || values) {
            return found;
        }
        Arc::new(self.classify_safely(sql.as_bytes(), context, here).0)
    }

    /// The same with the columns that `texts` name, and with what row security does: for people who are asked
    /// about it. `texts` are the statement itself and those that it runs by name.
    pub fn detail<'s>(
        &self,
        texts: impl Iterator<Item = &'s SqlText>,
        context: &Context<'_>,
        found: &Arc<Classification>,
    ) -> Arc<Classification> {
        let detailed = catch_unwind(AssertUnwindSafe(|| {
            let mut all = Classification::clone(found);
            for text in texts.filter(|text| text.len() <= LARGE && context.strings_standard) {
                if let Some(touched) = self.touched(text, context) {
                    all.add_columns(&touched);
                }
            }
            // Row security does not stand in the way of foreign keys.
            let relations = |effect: &&mut Effect| effect.kind == ObjectKind::Relation && !effect.cascades;
            for effect in all.effects.iter_mut().filter(relations) {
                let schema = effect.schema.as_deref();
                effect.row_security =
                    context.catalogue.row_security(schema, &effect.name, context.search_path);
            }
            Arc::new(all)
        }));
        detailed.unwrap_or_else(|_| Arc::clone(found))
    }

    /// `found`, which is what is known of `sql`, with the values hidden that it gives to prepared statements
    /// as secrets (`EXECUTE x('secret')`). `prepared` tells the secret parameters by name.
    pub fn with_arguments(
        &self,
        sql: &SqlText,
        found: Arc<Classification>,
        prepared: &dyn Fn(&str) -> Vec<BoundSecret>,
    ) -> Arc<Classification> {
        if found.names.iter().all(|used| prepared(&used.name).is_empty()) {
            return found;
        }
        let redacted = catch_unwind(AssertUnwindSafe(|| {
            let text = sql.as_str()?;
            let lexed = lex(text);
            let json = parse(text).ok()?;
            let tree = Tree::read(json.as_bytes(), Room::default()).ok()?;
            let around = redact::Surroundings { text, tokens: &lexed.tokens, parts: &found.parts, prepared };
            Some(redact::redact(&tree, &around))
        }));
        let redaction = redacted.ok().flatten().unwrap_or_else(|| redact::Redaction {
            inseparable: Some(Inseparable::Assembled),
            ..redact::Redaction::default()
        });
        let mut found = Classification::clone(&found);
        found.redacted_sql = redaction.text.map(Into::into);
        found.bound_secrets = redaction.bound.into();
        found.inseparable = redaction.inseparable;
        Arc::new(found)
    }

    /// Which columns a text names; `None` where it cannot be read.
    fn touched(&self, sql: &SqlText, context: &Context<'_>) -> Option<Touched> {
        let text = std::str::from_utf8(sql.as_bytes()).ok()?;
        let lexed = lex(text);
        if lexed.comment_depth > self.limits.comment_depth || lexed.operator_run > LONGEST_OPERATOR_RUN {
            return None;
        }
        let json = parse(text).ok()?;
        let tree = Tree::read(json.as_bytes(), Room::default()).ok()?;
        Some(columns(&tree, Names { catalogue: context.catalogue, path: context.search_path }))
    }

    /// A bug in here must never take the proxy down, nor let a statement pass.
    fn classify_safely(
        &self,
        bytes: &[u8],
        context: &Context<'_>,
        here: &Here<'_>,
    ) -> (Classification, bool) {
        let _large = (bytes.len() > LARGE).then(|| self.large.lock());
        let mut holds_for_other_numbers = false;
        let classified = catch_unwind(AssertUnwindSafe(|| {
            self.classify_anew(bytes, context, here, &mut holds_for_other_numbers)
        }));
        match classified {
            Ok(classified) => (classified, holds_for_other_numbers),
            Err(_) => (held(bytes, StatementClass::Admin, "the classifier failed on it"), false),
        }
    }

    fn classify_anew(
        &self,
        bytes: &[u8],
        context: &Context<'_>,
        here: &Here<'_>,
        holds_for_other_numbers: &mut bool,
    ) -> Classification {
        let hold = |why: &str| held(bytes, StatementClass::Admin, why);
        if bytes.len() > self.limits.bulk_bytes {
            return hold("is too long to be read");
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return no_utf8(bytes);
        };
        if bytes.contains(&0) {
            return held(bytes, StatementClass::Invalid, "holds a NUL byte");
        }
        // Long texts are mostly literals, which do nothing and are dear to parse.
        if bytes.len() > LARGE
            && let Some(found) = self.classify_shortened(text, context)
        {
            return found;
        }
        if bytes.len() > self.limits.parse_bytes {
            let why = format!(
                "is longer than {} even without its lists of literals, so it was not read (text_bytes in [limits])",
                size(self.limits.parse_bytes)
            );
            return unread(text, &lex(text), &why);
        }
        let lexed = lex(text);
        if lexed.comment_depth > self.limits.comment_depth {
            return unread(text, &lexed, "nests comments too deeply to be read");
        }
        if lexed.operator_run > LONGEST_OPERATOR_RUN {
            return unread(text, &lexed, "has a run of operator characters too long to be read");
        }
        match parse(text) {
            Ok(json) => self.read(text, &lexed, json.as_bytes(), context, here, holds_for_other_numbers),
            Err(Failure::Grammar { message, position }) => rejected(text, &lexed, message, position),
            Err(Failure::Limit(message)) => {
                unread(text, &lexed, &format!("is beyond the parser's limits: {message}"))
            }
        }
    }

    /// What a text does that is short enough without most of its literals. `None` where it is not, or where
    /// the whole text has to be looked at.
    fn classify_shortened(&self, text: &str, context: &Context<'_>) -> Option<Classification> {
        let short = bulk::shorten(text, self.limits.parse_bytes)?;
        // Otherwise nothing is gained, and what is remembered by its text would not be.
        (short.text.len() < text.len() / 2).then_some(())?;
        let lexed = lex(&short.text);
        let json = parse(&short.text).ok()?;
        let mut found =
            self.read(&short.text, &lexed, json.as_bytes(), context, &Here::default(), &mut false);
        // A secret has to be hidden in the text that is kept.
        if found.redacted_sql.is_some() || found.parts.is_empty() {
            return None;
        }
        for part in &mut found.parts {
            part.span = short.in_original(&part.span);
        }
        for reason in &mut found.reasons {
            reason.span = reason.span.as_ref().map(|span| short.in_original(span));
        }
        found.if_confirmed = None;
        Some(found)
    }

    fn read(
        &self,
        text: &str,
        lexed: &Lexed,
        json: &[u8],
        context: &Context<'_>,
        here: &Here<'_>,
        holds_for_other_numbers: &mut bool,
    ) -> Classification {
        let room = ROOM.with_borrow_mut(std::mem::take);
        let tree = match Tree::read(json, room) {
            Ok(tree) => tree,
            Err(unknown) => return unread(text, lexed, &format!("has {unknown}")),
        };
        let around = Surroundings {
            text,
            tokens: &lexed.tokens,
            catalogue: context.catalogue,
            search_path: context.search_path,
            assumes_temporary: false,
            here,
        };
        let mut findings = walk(&tree, &around);
        let if_temporary = if_temporary(&tree, &around, &findings);
        match newer_number(text, lexed) {
            // `1_000` was an error in 15, and `1 AS _000` before.
            Some(number) if context.server_version == 15 => {
                findings.too_new =
                    Some(format!("trailing junk after numeric literal at or near \"{number}\""));
            }
            Some(number) if context.server_version < 15 => {
                let text = format!("has the number {number}, which this server reads as two words").into();
                findings.reasons.insert(0, Reason { class: StatementClass::Admin, text, span: None });
                findings.parts.iter_mut().for_each(|part| part.class = part.class.max(StatementClass::Admin));
            }
            _ => {}
        }
        let redaction = redact::redact(
            &tree,
            &redact::Surroundings {
                text,
                tokens: &lexed.tokens,
                parts: &findings.parts,
                prepared: &|_| Vec::new(),
            },
        );
        let nodes = tree.len();
        let number_was_seen = tree.number_was_seen();
        let room = tree.into_room();
        if room.is_small() {
            ROOM.set(room);
        }
        let mut classified = finish(text, lexed, findings, &redaction, nodes);
        classified.if_confirmed = if_temporary.and_then(|findings| {
            let names = findings.assumed_temporary.clone();
            let check = if findings.writes_assumed_temporary {
                RelationCheck::TemporaryTables
            } else {
                RelationCheck::Temporary
            };
            let alternative = finish(text, lexed, findings, &redaction, nodes);
            let passes = !alternative.class.is_privileged() && classified.class.is_privileged();
            passes.then(|| Arc::new(IfConfirmed { check, names, classification: Arc::new(alternative) }))
        });
        // What is held, and everything but the plainest, is read anew each time.
        let is_plain = matches!(classified.parts.as_slice(), [part]
            if matches!(&*part.kind, "SelectStmt" | "InsertStmt"));
        *holds_for_other_numbers = is_plain && !number_was_seen && !classified.class.is_privileged();
        classified
    }
}

/// What a statement does if the relations that it changes, named without a schema, are temporary ones of the
/// session. A single statement only: another one may have dropped or renamed them before.
fn if_temporary(tree: &Tree<'_>, around: &Surroundings<'_>, findings: &Findings) -> Option<Findings> {
    const KINDS: [&str; 13] = [
        "DropStmt",
        "IndexStmt",
        "TruncateStmt",
        "VacuumStmt",
        "AlterTableStmt",
        "RenameStmt",
        "CommentStmt",
        "AlterSeqStmt",
        "InsertStmt",
        "UpdateStmt",
        "DeleteStmt",
        "MergeStmt",
        "CreateStatsStmt",
    ];
    let [part] = findings.parts.as_slice() else { return None };
    if !part.class.is_privileged() || !KINDS.contains(&&*part.kind) {
        return None;
    }
    let findings = walk(tree, &Surroundings { assumes_temporary: true, ..*around });
    (!findings.assumed_temporary.is_empty()).then_some(findings)
}

fn finish(
    text: &str,
    lexed: &Lexed,
    findings: Findings,
    redaction: &redact::Redaction,
    nodes: usize,
) -> Classification {
    let Findings {
        parts,
        effects,
        mut reasons,
        steps,
        names,
        doubts,
        too_new,
        assumed_temporary: _,
        writes_assumed_temporary: _,
        notes,
    } = findings;
    let mut class = parts.iter().map(|part| part.class).max().unwrap_or(StatementClass::Session);
    // Where the class hangs on a name, it may come out harmless later.
    let may_pass = !class.is_privileged() || !names.is_empty();
    if may_pass && crosscheck::disagrees(text, &parts, nodes) {
        let (worse, words) = crosscheck::DISAGREEMENT;
        class = class.max(worse);
        reasons.insert(0, Reason { class: worse, text: words.into(), span: None });
    }
    // The server will say so itself, but then somebody would have been asked for nothing.
    let syntax_error =
        too_new.map(|message| SyntaxError { message: message.into(), position: None, encoding: false });
    if let Some(error) = &syntax_error {
        class = StatementClass::Invalid;
        let text = format!("is not accepted by this server's grammar: {}", error.message).into();
        reasons.insert(0, Reason { class, text, span: None });
    }
    if reasons.is_empty() {
        reasons.push(plain_reason(class));
    }
    Classification {
        class,
        parts,
        effects,
        reasons,
        steps: steps.into(),
        names,
        fingerprint: fingerprint::of_tokens(text, &lexed.tokens),
        syntax_error,
        redacted_sql: redaction.text.as_deref().map(Into::into),
        bound_secrets: redaction.bound.as_slice().into(),
        inseparable: redaction.inseparable,
        doubts: doubts.into_iter().collect(),
        if_confirmed: None,
        notes,
    }
}

/// A number that is written as only 16 and later understand: `0x1f`, `1_000`.
fn newer_number<'t>(text: &'t str, lexed: &Lexed) -> Option<&'t str> {
    let numbers = lexed.tokens.iter().filter(|token| token.kind == TokenKind::Number);
    numbers.map(|token| token.of(text)).find(|number| {
        let radix = number.as_bytes().get(1).is_some_and(|byte| b"xXoObB".contains(byte));
        radix || number.contains('_')
    })
}

/// What the body of a function in SQL reads, if that is surely all that it does: queries whose names, whatever
/// they could mean, only read.
pub(super) fn reads_of_body(body: &str, catalogue: &Catalogue) -> Option<Vec<Effect>> {
    let context = Context {
        server_version: catalogue.server_version(),
        catalogue,
        search_path: &SearchPath::Unknown,
        database: "",
        role: "",
        strings_standard: true,
    };
    // Not by the cache: this is asked in the middle of classifying a statement.
    let classifier = Classifier::new(Limits { cache_bytes: 0, ..Limits::default() });
    let found = classifier.classify_anew(body.as_bytes(), &context, &Here::default(), &mut false);
    let only_queries = found.parts.iter().all(|part| &*part.kind == "SelectStmt");
    let knows_columns = !found.doubts.iter().any(|doubt| matches!(doubt, Doubt::Column(_)));
    // `set_config` is no reading. What may lead to it by another name is known of the function itself
    // (`Catalogue::may_change_settings`): upstream is asked for its settings behind a call of it.
    let follows_up = |effect: &SessionEffect| matches!(effect, SessionEffect::MayChangeSettings);
    let only_reads = found.class == StatementClass::Read && found.session_effects().all(follows_up);
    (only_reads && only_queries && knows_columns).then_some(found.effects)
}

/// The reason of a statement that has no other.
fn plain_reason(class: StatementClass) -> Reason {
    use std::sync::LazyLock;
    static READS: LazyLock<Arc<str>> =
        LazyLock::new(|| "only reads, through functions on the allow-list".into());
    static SESSION: LazyLock<Arc<str>> = LazyLock::new(|| "only concerns the session itself".into());
    let text = if class == StatementClass::Session { &SESSION } else { &READS };
    Reason { class, text: Arc::clone(text), span: None }
}

/// A text about which nothing is known but why it is held.
fn held(bytes: &[u8], class: StatementClass, why: &str) -> Classification {
    Classification {
        class,
        parts: Vec::new(),
        effects: Vec::new(),
        reasons: vec![Reason { class, text: why.into(), span: None }],
        steps: Arc::from([]),
        names: Vec::new(),
        fingerprint: fingerprint::of_bytes(bytes),
        syntax_error: None,
        redacted_sql: None,
        doubts: Vec::new(),
        bound_secrets: Arc::from([]),
        inseparable: None,
        if_confirmed: None,
        notes: Notes::default(),
    }
}

/// A text that was not read, and that somebody may approve all the same.
fn unread(text: &str, lexed: &Lexed, why: &str) -> Classification {
    let mut unread = held(text.as_bytes(), StatementClass::Admin, why);
    let redaction = redact::redact_unread(text, &lexed.tokens);
    unread.redacted_sql = redaction.text.map(Into::into);
    unread.inseparable = redaction.inseparable;
    unread
}

/// A session's encoding is UTF-8 (or nothing of it is read: [`Context::strings_standard`]), and Postgres
/// checks every text against it before the grammar sees it (`pg_any_to_server`).
fn no_utf8(bytes: &[u8]) -> Classification {
    /// As many bytes of a character are told (`report_invalid_encoding`).
    fn length(first: u8) -> usize {
        match first {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        }
    }
    let valid = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    let rest = bytes.get(valid..).unwrap_or_default();
    let told = rest.iter().take(length(rest.first().copied().unwrap_or_default()));
    let told: Vec<String> = told.map(|byte| format!("0x{byte:02x}")).collect();
    let message = format!("invalid byte sequence for encoding \"UTF8\": {}", told.join(" "));
    let mut invalid = held(bytes, StatementClass::Invalid, "is no valid UTF-8");
    invalid.syntax_error = Some(SyntaxError { message: message.into(), position: None, encoding: true });
    let text = String::from_utf8_lossy(bytes);
    invalid.redacted_sql = redact::redact_rejected(&text, &lex(&text).tokens).map(Into::into);
    invalid
}

fn rejected(text: &str, lexed: &Lexed, message: String, position: Option<u32>) -> Classification {
    let redacted = redact::redact_rejected(text, &lexed.tokens);
    let told = redact::message_without_text(&message, redacted.is_some());
    let why = format!("is not accepted by Postgres's grammar: {told}");
    let mut rejected = held(text.as_bytes(), StatementClass::Invalid, &why);
    if let Some(reason) = rejected.reasons.first_mut() {
        reason.span = position.and_then(|position| token_at(text, lexed, position));
    }
    rejected.syntax_error = Some(SyntaxError { message: message.into(), position, encoding: false });
    rejected.redacted_sql = redacted.map(Into::into);
    // Where the server's grammar takes it nevertheless.
    rejected.inseparable = redact::redact_unread(text, &lexed.tokens).inseparable;
    rejected
}

/// The bytes of the token at a 1-based character position.
fn token_at(text: &str, lexed: &Lexed, position: u32) -> Option<std::ops::Range<u32>> {
    let (start, _) = text.char_indices().nth(position as usize - 1)?;
    let start = start as u32;
    let place = lexed.tokens.partition_point(|token| token.start < start);
    let end = lexed.tokens.get(place).map_or(text.len() as u32, |token| token.end);
    Some(start..end.max(start))
}

/// A number of bytes in words.
fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}

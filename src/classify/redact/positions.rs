//! Where in a parse tree secrets stand.
#![allow(clippy::wildcard_enum_match_arm, reason = "the grammar knows no secret in other nodes")]

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::super::lex::{Token, TokenKind};
use super::super::tree::{Field, Kind, Node, Tree};
use super::super::{StatementClass, StatementPart};
use super::expression::{Folded, Source, function_name, parameters_in};
use super::{BoundSecret, Holds, Inseparable, Redaction, code, comments, unparsed};
use crate::secrets::{MASK, connection, is_opaque, is_switch, masked, names_a_secret, program, prose};

/// What a text is redacted by, beside its tree.
pub(in super::super) struct Surroundings<'a> {
    pub(in super::super) text: &'a str,
    pub(in super::super) tokens: &'a [Token],
    pub(in super::super) parts: &'a [StatementPart],
    /// The secret parameters of what is prepared under a name.
    pub(in super::super) prepared: &'a dyn Fn(&str) -> Vec<BoundSecret>,
}

/// What a function takes at one of its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Secret,
    Connection,
}

/// Functions that take secrets, of Postgres's own extensions and those that are widely used.
pub(super) fn takes(function: &str, place: usize) -> Option<Takes> {
    let places: &[usize] = match function {
        "dblink_connect" | "dblink_connect_u" => return Some(Takes::Connection),
        "dblink" | "dblink_exec" if place == 0 => return Some(Takes::Connection),
        // pgcrypto
        "crypt" => &[0],
        "hmac" | "encrypt" | "decrypt" | "encrypt_iv" | "decrypt_iv" => &[1],
        "pgp_sym_encrypt" | "pgp_sym_encrypt_bytea" | "pgp_sym_decrypt" | "pgp_sym_decrypt_bytea" => &[1],
        "pgp_pub_decrypt" | "pgp_pub_decrypt_bytea" => &[1, 2],
        // pgjwt, vault, aws_s3, azure_storage
        "sign" | "verify" => &[1],
        "create_secret" => &[0],
        "update_secret" => &[1],
        "create_aws_credentials" => &[0, 1, 2],
        "account_add" => &[1],
        "password" => &[0],
        _ => &[],
    };
    places.contains(&place).then_some(Takes::Secret)
}

/// Where a secret stands, which decides what it may look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a statement that stores it with a role, a server or a subscription.
    Stored,
    /// In a setting, which any later code can read.
    Setting,
    /// Among the arguments of a function.
    Argument,
}

struct Finder<'a> {
    around: &'a Surroundings<'a>,
    /// What is to be hidden of which token: all, or these bytes of the text that it means.
    masks: BTreeMap<usize, Mask>,
    bound: Vec<BoundSecret>,
    prepared: HashMap<String, Vec<BoundSecret>>,
    inseparable: Option<Inseparable>,
    /// The statement at hand is of a class that is held.
    privileged: bool,
    /// The same statement, without `PREPARE` around it.
    query: Option<u32>,
    /// Something is hidden that is no argument of the function that takes it.
    hides_stored: bool,
}

/// What shows a statement's own text, or those of other statements and sessions.
const SHOW_TEXTS: [&str; 7] = [
    "current_query",
    "pg_stat_activity",
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_prepared_statement",
    "pg_cursor",
    "pg_stat_statements",
];

#[derive(Default)]
struct Mask {
    text: String,
    ranges: Vec<Range<usize>>,
}

/// Finds the secrets of a text that was read.
pub(in super::super) fn redact(tree: &Tree<'_>, around: &Surroundings<'_>) -> Redaction {
    let mut finder = Finder {
        around,
        masks: BTreeMap::new(),
        bound: Vec::new(),
        prepared: HashMap::new(),
        inseparable: None,
        privileged: false,
        query: None,
        hides_stored: false,
    };
    for (statement, part) in tree.statements().zip(around.parts) {
        finder.privileged = part.class.is_privileged();
        let Some(root) = statement.get(Field::Stmt) else { continue };
        let before = finder.bound.len();
        let query = if root.kind() == Kind::PrepareStmt { root.get(Field::Query) } else { Some(root) };
        finder.query = query.map(Node::index);
        for node in root.within() {
            finder.visit(node);
        }
        if root.kind() == Kind::PrepareStmt {
            // Its parameters are its own.
            let own = finder.bound.split_off(before);
            finder.prepared.insert(root.text(Field::Name).unwrap_or_default().into_owned(), own);
        }
    }
    finder.finish()
}

impl<'a> Finder<'a> {
    fn visit(&mut self, node: Node<'a>) {
        match node.kind() {
            Kind::FuncCall => self.call(node),
            Kind::DefElem => self.option(node),
            Kind::VariableSetStmt => self.setting(node),
            Kind::CreateSubscriptionStmt | Kind::AlterSubscriptionStmt => self.subscription(node),
            Kind::CopyStmt if node.flag(Field::IsProgram) => {
                self.program(&node.text(Field::Filename).unwrap_or_default());
            }
            Kind::ExecuteStmt => self.execute(node),
            _ => {}
        }
    }

    // ---- positions

    fn call(&mut self, node: Node<'a>) {
        let name = function_name(node);
        let arguments: Vec<Node<'a>> = node.list(Field::Args).collect();
        for (place, argument) in arguments.iter().enumerate() {
            let named = argument.kind() == Kind::NamedArgExpr;
            let is_secret = named && names_a_secret(&argument.text(Field::Name).unwrap_or_default());
            match takes(&name, place).filter(|_| !named) {
                _ if is_secret => self.secret(*argument, Place::Argument),
                Some(Takes::Secret) => self.secret(*argument, Place::Argument),
                Some(Takes::Connection) => self.connection(*argument, Place::Argument),
                None if place == 1 && matches!(name.as_str(), "set_config" | "http_header") => {
                    if name == "set_config" && !self.is_result_unused(node) {
                        self.check_returned(arguments.first().copied(), *argument);
                        continue;
                    }
                    self.named_by(arguments.first().copied(), *argument);
                }
                None => self.other_argument(*argument),
            }
        }
    }

    /// Whether a call is a column of the statement's own result, so that nothing else uses its value.
    fn is_result_unused(&self, call: Node<'a>) -> bool {
        let column = call.holder().filter(|column| column.kind() == Kind::ResTarget);
        let query = column.and_then(Node::holder).filter(|query| query.kind() == Kind::SelectStmt);
        query.is_some_and(|query| Some(query.index()) == self.query && !query.has(Field::IntoClause))
    }

    /// A setting's value that the rest of the statement uses decides what that does: it is shown, or, where
    /// the setting's name says secret, refused.
    fn check_returned(&mut self, name: Option<Node<'a>>, value: Node<'a>) {
        let is_secret = name.is_some_and(|name| names_a_secret(&self.fold(name).text()));
        if is_secret && !is_switch(&self.fold(value).text()) {
            self.refuse(Inseparable::Returned);
        } else {
            self.other_argument(value);
        }
    }

    /// The second of two arguments, where the first is the name of what it is the value of.
    fn named_by(&mut self, name: Option<Node<'a>>, value: Node<'a>) {
        let Some(name) = name.map(|name| self.fold(name)) else { return };
        if let Some(by) = name.only_parameter() {
            let value = self.fold(value);
            for piece in &value.pieces {
                if let Source::Parameter(parameter) = piece.source {
                    self.bind(parameter, Holds::Setting(by));
                }
            }
        } else if names_a_secret(&name.text()) {
            let written = self.fold(value).text();
            if !is_switch(&written) {
                self.secret(value, Place::Setting);
            }
        } else {
            self.other_argument(value);
        }
    }

    /// `password 'x'` of a role, and options of servers, user mappings, foreign tables.
    fn option(&mut self, node: Node<'a>) {
        let Some(value) = node.get(Field::Arg) else { return };
        let name = node.text(Field::Defname).unwrap_or_default();
        if *name == *"as" {
            let strings = value.within().filter_map(Node::string);
            strings.for_each(|body| self.code(&body));
            return;
        }
        let Some(text) = value.string() else { return };
        if matches!(&*name, "program" | "command") {
            self.program(&text);
            return;
        }
        let ranges = if names_a_secret(&name) && !is_switch(&text) {
            std::iter::once(0..text.len()).collect()
        } else {
            connection::secrets_of(&text).unwrap_or_default()
        };
        if !ranges.is_empty() {
            let argument = node.number(Field::ArgLocation);
            let start = u32::try_from(argument).ok().filter(|start| *start > 0).or(node.location());
            let token = self.string_behind(start, &text);
            // Everybody can read those of servers, wrappers and foreign tables.
            let is_private = self.options_are_private(node);
            self.mask(token, &text, ranges, if is_private { Place::Stored } else { Place::Setting });
        }
    }

    /// Whether only owners can read the options of what `option` belongs to.
    fn options_are_private(&self, option: Node<'a>) -> bool {
        option.holder().is_some_and(|owner| {
            matches!(
                owner.kind(),
                Kind::CreateRoleStmt
                    | Kind::AlterRoleStmt
                    | Kind::CreateUserMappingStmt
                    | Kind::AlterUserMappingStmt
                    | Kind::CreateSubscriptionStmt
                    | Kind::AlterSubscriptionStmt
            )
        })
    }

    fn subscription(&mut self, node: Node<'a>) {
        let text = node.text(Field::Conninfo).unwrap_or_default();
        let ranges = connection::secrets_of(&text).unwrap_or_default();
        if ranges.is_empty() {
            return;
        }
        let start = u32::try_from(node.number(Field::ConninfoLocation)).ok();
        let token = self.string_behind(start, &text);
        self.mask(token, &text, ranges, Place::Stored);
    }

    /// SET, ALTER ROLE .. SET, ALTER SYSTEM SET, functions with SET.
    fn setting(&mut self, node: Node<'a>) {
        let name = node.text(Field::Name).unwrap_or_default();
        let is_secret = names_a_secret(&name);
        for argument in node.list(Field::Args) {
            let folded = self.fold(argument);
            let text = folded.text();
            if is_secret {
                if !is_switch(&text) {
                    self.secret(argument, Place::Setting);
                }
            } else if name.starts_with("countersign.") {
                // A claim is prose.
                if let Source::Literal(literal) = folded.source() {
                    let likely = prose::likely_secrets(&text);
                    if !likely.is_empty() {
                        self.mask(self.token_of(literal), &text, likely, Place::Setting);
                    }
                }
            } else if name.ends_with("_command") || name.ends_with("_script") {
                self.program(&text);
            } else if connection::secrets_of(&text).is_some() {
                self.connection(argument, Place::Setting);
            }
        }
    }

    /// Values given to a prepared statement, where that takes secrets.
    fn execute(&mut self, node: Node<'a>) {
        let name = node.text(Field::Name).unwrap_or_default();
        let mut secrets = (self.around.prepared)(&name);
        secrets.extend(self.prepared.get(&*name).into_iter().flatten().copied());
        let arguments: Vec<Node<'a>> = node.list(Field::Params).collect();
        let argument = |number: u32| arguments.get(number.checked_sub(1)? as usize).copied();
        for secret in secrets {
            let Some(value) = argument(secret.parameter) else { continue };
            match secret.holds {
                Holds::Secret => self.secret(value, Place::Argument),
                Holds::Connection => self.connection(value, Place::Argument),
                Holds::Code => self.other_argument(value),
                Holds::Setting(by) => self.named_by(argument(by), value),
            }
        }
    }

    // ---- what stands there

    fn secret(&mut self, argument: Node<'a>, place: Place) {
        for piece in self.fold(argument).pieces {
            match piece.source {
                Source::Literal(literal) if !piece.text.is_empty() => {
                    let all = std::iter::once(0..piece.text.len()).collect();
                    self.mask(self.token_of(literal), &piece.text, all, place);
                }
                Source::Parameter(number) => self.bind(number, Holds::Secret),
                Source::Literal(_) | Source::Unknown | Source::Glue => {}
            }
        }
    }

    fn connection(&mut self, argument: Node<'a>, place: Place) {
        let mut folded = self.fold(argument);
        if let Some(number) = folded.only_parameter() {
            self.bind(number, Holds::Connection);
            return;
        }
        let mut found = connection::secrets_of(&folded.text());
        if found.is_none() {
            // What is not known may be whole pairs: `$1 || ' password=x'`.
            let mut known = Folded { pieces: Vec::new(), exact: folded.exact };
            known.pieces.extend(folded.pieces.drain(..).map(|mut piece| {
                if matches!(piece.source, Source::Parameter(_) | Source::Unknown) {
                    piece.text.clear();
                }
                piece
            }));
            found = connection::secrets_of(&known.text());
            folded = if found.is_some() { known } else { self.fold(argument) };
        }
        let Some(ranges) = found else {
            if !folded.exact && names_a_secret(&folded.text()) {
                self.refuse(Inseparable::Assembled);
            }
            self.other_argument(argument);
            return;
        };
        if !folded.exact && !ranges.is_empty() {
            self.refuse(Inseparable::Assembled);
            return;
        }
        let mut start = 0;
        for piece in &folded.pieces {
            let end = start + piece.text.len();
            let inside = |range: &Range<usize>| {
                let cut = range.start.max(start)..range.end.min(end);
                (cut.start < cut.end).then(|| cut.start - start..cut.end - start)
            };
            let hidden: Vec<Range<usize>> = ranges.iter().filter_map(inside).collect();
            match piece.source {
                Source::Literal(literal) if !hidden.is_empty() => {
                    self.mask(self.token_of(literal), &piece.text, hidden, place);
                }
                Source::Glue if !hidden.is_empty() => self.refuse(Inseparable::Assembled),
                Source::Parameter(number) if hidden.is_empty() => self.bind(number, Holds::Connection),
                Source::Parameter(number) => self.bind(number, Holds::Secret),
                Source::Literal(_) | Source::Unknown | Source::Glue => {}
            }
            start = end;
        }
    }

    /// An argument of which nothing is known: an URL, or perhaps text that runs.
    fn other_argument(&mut self, argument: Node<'a>) {
        if matches!(argument.kind(), Kind::ColumnRef | Kind::AStar) {
            return;
        }
        // Most arguments of most statements: no secret, and nothing that runs.
        let plain = |text: &str| !text.contains("://");
        if !self.privileged && argument.literal().is_none_or(|text| plain(&text)) {
            return;
        }
        let folded = self.fold(argument);
        if let Some(number) = folded.only_parameter() {
            self.bind(number, Holds::Code);
            return;
        }
        if !folded.has_literals() {
            return;
        }
        let text = folded.text();
        if connection::secrets_of_url(&text).is_some_and(|found| !found.is_empty()) {
            self.connection(argument, Place::Argument);
        } else if self.privileged {
            self.code(&text);
        }
    }

    /// Text that runs, or may run.
    fn code(&mut self, text: &str) {
        for secret in code::secrets_in(text) {
            let (parameters, written_out) = parameters_in(&secret);
            if written_out {
                self.refuse(Inseparable::Code);
            }
            parameters.into_iter().for_each(|number| self.bind(number, Holds::Secret));
        }
    }

    fn program(&mut self, text: &str) {
        if !program::likely_secrets(text).is_empty() {
            self.refuse(Inseparable::Program);
        }
    }

    // ---- what is done about it

    fn refuse(&mut self, why: Inseparable) {
        self.inseparable.get_or_insert(why);
    }

    fn bind(&mut self, parameter: u32, holds: Holds) {
        let secret = BoundSecret { parameter, holds };
        if !self.bound.contains(&secret) {
            self.bound.push(secret);
        }
    }

    /// Hides `ranges` of what the token at that place means.
    fn mask(&mut self, token: Option<usize>, text: &str, ranges: Vec<Range<usize>>, place: Place) {
        let Some(token) = token else {
            self.refuse(Inseparable::Assembled);
            return;
        };
        let may_be_anything = match place {
            Place::Stored => self.around.parts.len() == 1,
            Place::Setting => false,
            Place::Argument => !self.around.parts.iter().any(|part| part.class.is_privileged()),
        };
        let opaque = |range: &Range<usize>| text.get(range.clone()).is_some_and(is_opaque);
        if !may_be_anything && !ranges.iter().all(opaque) {
            self.refuse(Inseparable::LooksLikeCode);
            return;
        }
        self.hides_stored |= place != Place::Argument;
        let mask = self.masks.entry(token).or_default();
        text.clone_into(&mut mask.text);
        mask.ranges.extend(ranges);
    }

    fn fold(&self, node: Node<'a>) -> Folded<'a> {
        Folded::of(node, &|constant| {
            let token = self.token_of(constant).and_then(|place| self.around.tokens.get(place));
            token.map_or_else(String::new, |token| token.of(self.around.text).to_owned())
        })
    }

    /// The token of a constant. A setting's value may be written without quotes.
    fn token_of(&self, constant: Node<'_>) -> Option<usize> {
        let start = constant.location()?;
        let place = self.around.tokens.partition_point(|token| token.start < start);
        let token = self.around.tokens.get(place).filter(|token| token.start == start)?;
        let value = token.kind.is_string()
            || matches!(token.kind, TokenKind::Word | TokenKind::QuotedName | TokenKind::Number);
        value.then_some(place)
    }

    /// The string that means `text`, shortly behind `start`.
    fn string_behind(&self, start: Option<u32>, text: &str) -> Option<usize> {
        const NEAR: usize = 16;
        let first = self.around.tokens.partition_point(|token| token.start < start.unwrap_or(0));
        let near = self.around.tokens.iter().enumerate().skip(first).take(NEAR);
        let mut strings = near.filter(|(_, token)| token.kind.is_string());
        let means = |token: &Token| code::decode(token.of(self.around.text), token.kind) == text;
        strings.find(|(_, token)| means(token)).map(|(place, _)| place)
    }

    /// Whether what is hidden can be read back and run: by the statement itself, by code in the same text,
    /// or later, out of a text that the session keeps.
    fn is_read_back(&self, in_comments: bool) -> bool {
        let parts = self.around.parts;
        let runs_code = parts.iter().any(|part| part.class == StatementClass::Code);
        let keeps_text = parts.iter().any(|part| matches!(&*part.kind, "PrepareStmt" | "DeclareCursorStmt"));
        self.shows_texts()
            || (runs_code && (in_comments || (self.hides_stored && parts.len() > 1)))
            || (keeps_text && in_comments)
    }

    fn shows_texts(&self) -> bool {
        let Surroundings { text, tokens, .. } = self.around;
        tokens.iter().any(|token| {
            let shown = token.of(text);
            let meant =
                if token.kind.is_string() { code::decode(shown, token.kind) } else { shown.to_owned() };
            let meant = meant.to_ascii_lowercase();
            token.kind == TokenKind::UnicodeName || SHOW_TEXTS.iter().any(|name| meant.contains(name))
        })
    }

    fn finish(mut self) -> Redaction {
        let Surroundings { text, tokens, .. } = self.around;
        let comments = comments::secrets(text, tokens);
        let hides = !comments.is_empty() || !self.masks.is_empty();
        if hides && self.is_read_back(!comments.is_empty()) {
            self.refuse(Inseparable::ReadBack);
        }
        if self.inseparable.is_some() {
            let text = Some(unparsed::without_literals(text, tokens));
            return Redaction { text, bound: self.bound, inseparable: self.inseparable };
        }
        let mut replaced: Vec<(usize, usize, String)> =
            comments.into_iter().map(|range| (range.start, range.end, MASK.to_owned())).collect();
        for (place, mut mask) in self.masks {
            let Some(token) = tokens.get(place) else { continue };
            mask.ranges.sort_unstable_by_key(|range| range.start);
            mask.ranges.dedup();
            // Parts of a literal stay; two masks that overlap are one.
            let overlap = mask.ranges.windows(2).any(|pair| matches!(pair, [a, b] if b.start < a.end));
            let shown = if overlap { MASK.to_owned() } else { masked(&mask.text, &mask.ranges) };
            let shown = format!("'{}'", shown.replace('\'', "''"));
            replaced.push((token.start as usize, token.end as usize, shown));
        }
        if replaced.is_empty() {
            return Redaction { text: None, bound: self.bound, inseparable: None };
        }
        replaced.sort_unstable();
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for (start, end, shown) in replaced {
            out.push_str(text.get(from..start).unwrap_or_default());
            out.push_str(&shown);
            from = end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        Redaction { text: Some(out), bound: self.bound, inseparable: None }
    }
}

//! What the text of an argument is put together of: `'host=h password=' || $1`, casts, `concat`.
#![allow(clippy::wildcard_enum_match_arm, reason = "what is not named is not known, whatever it is")]

use super::super::tree::{Field, Kind, Node};

/// Where a piece of an argument's text comes from.
#[derive(Clone, Copy)]
pub(super) enum Source<'t> {
    /// This constant.
    Literal(Node<'t>),
    /// A parameter of the statement.
    Parameter(u32),
    /// Something that is known when it runs: a column, a function, a query.
    Unknown,
    /// Written by [`Folded`] itself, as `format` does around its arguments.
    Glue,
}

/// A piece of it.
pub(super) struct Piece<'t> {
    pub(super) source: Source<'t>,
    pub(super) text: String,
}

/// An argument taken apart.
#[derive(Default)]
pub(super) struct Folded<'t> {
    pub(super) pieces: Vec<Piece<'t>>,
    /// The pieces, one after the other, are the text. Otherwise functions make something of them.
    pub(super) exact: bool,
}

/// Functions that only make a string of strings. Whatever is given to others is not looked into: it
/// is theirs, and may matter to a reviewer.
const OF_STRINGS: [&str; 29] = [
    "concat_ws",
    "lower",
    "upper",
    "initcap",
    "trim",
    "btrim",
    "ltrim",
    "rtrim",
    "replace",
    "translate",
    "decode",
    "encode",
    "convert_to",
    "convert_from",
    "md5",
    "sha256",
    "sha512",
    "digest",
    "quote_literal",
    "quote_ident",
    "quote_nullable",
    "substr",
    "substring",
    "left",
    "right",
    "reverse",
    "text",
    "varchar",
    "bytea",
];

/// The character that stands for what is not known.
pub(super) const UNKNOWN: char = '\u{10FFFD}';
/// The first of the characters that stand for parameters.
const PARAMETERS: u32 = 0xF_0000;

/// The character that stands for a parameter.
fn stands_for(number: u32) -> char {
    char::from_u32(PARAMETERS + (number & 0xFFFF)).unwrap_or(UNKNOWN)
}

/// The parameters that stand in a text, and whether it has anything else but what is not known.
pub(super) fn parameters_in(text: &str) -> (Vec<u32>, bool) {
    let number = |c: char| (c as u32).checked_sub(PARAMETERS).filter(|number| *number <= 0xFFFF);
    let others = text.chars().any(|c| c != UNKNOWN && number(c).is_none());
    (text.chars().filter_map(number).collect(), others)
}

impl<'t> Folded<'t> {
    /// Takes `argument` apart.
    pub(super) fn of(argument: Node<'t>, token_of: &dyn Fn(Node<'t>) -> String) -> Self {
        let mut folded = Self { pieces: Vec::new(), exact: true };
        // No recursion: a chain of `||` may be thousands deep.
        let mut open = vec![argument];
        while let Some(node) = open.pop() {
            match node.kind() {
                Kind::AConst => {
                    let text = match node.get(Field::Sval) {
                        Some(value) => value.text(Field::Sval).unwrap_or_default().into_owned(),
                        None if node.flag(Field::Isnull) => continue,
                        None => token_of(node),
                    };
                    folded.pieces.push(Piece { source: Source::Literal(node), text });
                }
                Kind::ParamRef => {
                    let number = u32::try_from(node.number(Field::Number)).unwrap_or_default();
                    let text = stands_for(number).to_string();
                    folded.pieces.push(Piece { source: Source::Parameter(number), text });
                }
                Kind::TypeCast | Kind::CollateClause | Kind::NamedArgExpr => {
                    open.extend(node.get(Field::Arg))
                }
                Kind::AExpr if is_concatenation(node) => {
                    open.extend(node.get(Field::Rexpr));
                    open.extend(node.get(Field::Lexpr));
                }
                Kind::FuncCall => folded.function(node, &mut open, token_of),
                Kind::CoalesceExpr | Kind::AArrayExpr => {
                    folded.exact = false;
                    let list = if node.kind() == Kind::AArrayExpr { Field::Elements } else { Field::Args };
                    open.extend(reversed(node, list));
                }
                _ => folded.unknown(),
            }
        }
        folded
    }

    fn unknown(&mut self) {
        self.pieces.push(Piece { source: Source::Unknown, text: UNKNOWN.to_string() });
    }

    fn function(&mut self, node: Node<'t>, open: &mut Vec<Node<'t>>, token_of: &dyn Fn(Node<'t>) -> String) {
        match function_name(node).as_str() {
            "concat" | "textcat" => open.extend(reversed(node, Field::Args)),
            "format" => {
                if self.format(node, token_of).is_none() {
                    self.exact = false;
                    open.extend(reversed(node, Field::Args));
                }
            }
            name if OF_STRINGS.contains(&name) => {
                self.exact = false;
                open.extend(reversed(node, Field::Args));
            }
            _ => self.unknown(),
        }
    }

    /// `format('.. %s ..', a)` with plain `%s`, `%I`, `%L` and arguments that are constants, parameters or
    /// simply not known; nothing where there is more to it.
    fn format(&mut self, node: Node<'t>, token_of: &dyn Fn(Node<'t>) -> String) -> Option<()> {
        let mut arguments = node.list(Field::Args);
        let pattern_node = arguments.next()?;
        let pattern = pattern_node.literal()?.into_owned();
        // What a constant is shown as must be the constant: cut at the arguments, it would be in parts.
        let mut pieces = Vec::new();
        let mut rest = pattern.as_str();
        while let Some(percent) = rest.find('%') {
            let (before, after) = rest.split_at(percent);
            pieces.push(Piece { source: Source::Glue, text: before.to_owned() });
            let kind = after.chars().nth(1)?;
            rest = after.get(2..)?;
            let quote = match kind {
                '%' => {
                    pieces.push(Piece { source: Source::Glue, text: "%".to_owned() });
                    continue;
                }
                's' => "",
                'I' => "\"",
                'L' => "'",
                _ => return None,
            };
            let glue = || Piece { source: Source::Glue, text: quote.to_owned() };
            let argument = arguments.next()?;
            pieces.push(glue());
            match argument.kind() {
                Kind::AConst | Kind::ParamRef | Kind::TypeCast => {
                    let inner = Self::of(argument, token_of);
                    inner.exact.then_some(())?;
                    pieces.extend(inner.pieces);
                }
                _ => pieces.push(Piece { source: Source::Unknown, text: UNKNOWN.to_string() }),
            }
            pieces.push(glue());
        }
        pieces.push(Piece { source: Source::Glue, text: rest.to_owned() });
        self.pieces.extend(pieces);
        Some(())
    }

    /// The text, with a character for each thing that is not known.
    pub(super) fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// The parameter that is all of it.
    pub(super) fn only_parameter(&self) -> Option<u32> {
        match self.pieces.as_slice() {
            [Piece { source: Source::Parameter(number), .. }] => Some(*number),
            _ => None,
        }
    }

    /// What all of it comes from, if that is one thing.
    pub(super) fn source(&self) -> Source<'t> {
        match self.pieces.as_slice() {
            [piece] => piece.source,
            _ => Source::Unknown,
        }
    }

    /// Whether any of it is written out in the statement.
    pub(super) fn has_literals(&self) -> bool {
        let literal = |piece: &Piece<'_>| matches!(piece.source, Source::Literal(_) | Source::Glue);
        self.pieces.iter().any(|piece| literal(piece) && !piece.text.is_empty())
    }
}

/// The last part of a function's name, in small letters.
pub(super) fn function_name(call: Node<'_>) -> String {
    call.names(Field::Funcname).last().map(|name| name.to_ascii_lowercase()).unwrap_or_default()
}

fn is_concatenation(node: Node<'_>) -> bool {
    node.names(Field::Name).last().is_some_and(|name| *name == *"||") && node.has(Field::Lexpr)
}

fn reversed<'t>(node: Node<'t>, list: Field) -> Vec<Node<'t>> {
    let mut all: Vec<Node<'t>> = node.list(list).collect();
    all.reverse();
    all
}

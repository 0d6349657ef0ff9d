//! Reads TOML so that every mistake in a file is reported at once, each with its line and key.
//!
//! A serde derive stops at the first mistake and forgets where the others would have been. Here a
//! file is parsed once, with the position of every value, and its readers ask for keys by name and
//! type. What is missing, misspelt or of the wrong type becomes a [`Problem`] and reading goes on.
//! Keys that nobody asked for are problems too: a policy whose misspelt `aprovals` is ignored would
//! hold for the wrong people.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// 1-based line; 0 when the problem is with the file as a whole.
    pub line: usize,
    /// The key, as in `rule[2].when.class`; empty when there is none.
    pub key: String,
    /// What is wrong, in lower case.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Where a value stands, to speak of it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// 1-based line.
    pub line: usize,
    /// The key, as in `rule[2].when.class`.
    pub key: String,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// Collects what is wrong with one file.
#[derive(Clone)]
pub struct Problems(Rc<Sheet>);

struct Sheet {
    file: Arc<str>,
    /// Offsets at which lines begin.
    lines: Vec<usize>,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    fn new(file: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self(Rc::new(Sheet { file: file.into(), lines, found: RefCell::default() }))
    }

    /// Notes a problem with a value.
    pub fn add(&self, place: &Place, message: impl Into<String>) {
        self.push(place.line, place.key.clone(), message.into());
    }

    /// The problems so far, by line.
    #[must_use]
    pub fn take(&self) -> Vec<Problem> {
        let mut found = std::mem::take(&mut *self.0.found.borrow_mut());
        found.sort_by(|a, b| a.line.cmp(&b.line).then_with(|| a.key.cmp(&b.key)));
        found.dedup();
        found
    }

    fn push(&self, line: usize, key: String, message: String) {
        self.0.found.borrow_mut().push(Problem { file: self.0.file.clone(), line, key, message });
    }

    fn line(&self, offset: usize) -> usize {
        self.0.lines.partition_point(|&start| start <= offset).max(1)
    }
}

/// Parses `text` and gives its root to `read`; the value counts only when nothing was wrong.
pub fn read<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(&Table<'_>, &Problems) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let problems = Problems::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(0, |span| problems.line(span.start));
        problems.push(line, String::new(), error.message().replace('\n', ", "));
    }
    if !errors.is_empty() {
        return Err(problems.take());
    }
    let value = {
        let table = Table::new(root.get_ref(), root.span(), String::new(), problems.clone());
        let value = read(&table, &problems);
        table.finish();
        value
    };
    let found = problems.take();
    match value {
        Some(value) if found.is_empty() => Ok(value),
        Some(_) | None => Err(found),
    }
}

/// A table that is being read. Ask for every key it may have, then [`Table::finish`] it.
pub struct Table<'a> {
    table: &'a DeTable<'a>,
    place: Place,
    problems: Problems,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    fn new(table: &'a DeTable<'a>, span: Range<usize>, key: String, problems: Problems) -> Self {
        let place = Place { line: problems.line(span.start), key };
        Self { table, place, problems, asked: RefCell::default() }
    }

    /// Where the table begins.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reports every key that nobody asked for, with the nearest one that exists.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table.iter() {
            let key = name.get_ref();
            if asked.contains(key.as_ref()) {
                continue;
            }
            let near = asked.iter().find(|known| is_near(known, key));
            let hint = match near {
                Some(near) => format!("; did you mean \"{near}\"?"),
                None => format!("; known keys are {}", asked.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            self.problems.push(
                self.problems.line(name.span().start),
                self.path(key),
                format!("unknown key{hint}"),
            );
        }
    }

    /// Where `key` stands, or the table itself when it is not there.
    #[must_use]
    pub fn place_of(&self, key: &'static str) -> Place {
        let line =
            self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, _)| name.span().start);
        Place { line: line.map_or(self.place.line, |at| self.problems.line(at)), key: self.path(key) }
    }

    /// Notes a problem with `key`.
    pub fn problem(&self, key: &'static str, message: impl Into<String>) {
        self.problems.add(&self.place_of(key), message);
    }

    /// Whether `key` is there.
    #[must_use]
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Text.
    pub fn text(&self, key: &'static str) -> Option<At<String>> {
        self.typed(key, "text", |value| value.as_str().map(str::to_owned))
    }

    /// Text that has to be there and not be empty.
    pub fn required_text(&self, key: &'static str) -> Option<At<String>> {
        let text = self.text(key);
        match &text {
            None if !self.has(key) => self.problem(key, "is missing"),
            Some(at) if at.value.trim().is_empty() => self.problem(key, "is empty"),
            None | Some(_) => {}
        }
        text.filter(|at| !at.value.trim().is_empty())
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", DeValue::as_bool).map(|at| at.value)
    }

    /// A whole number between `least` and `most`.
    pub fn integer(&self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let at = self.typed(key, "a whole number", |value| {
            let number = value.as_integer()?;
            i128::from_str_radix(number.as_str(), number.radix()).ok()
        })?;
        let number = u64::try_from(at.value).ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.problem(key, format!("is {}; it must be between {least} and {most}", at.value));
        }
        number
    }

    /// A length of time such as `"90s"`, `"15m"`, `"1h 30m"`.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        let at = self.text(key)?;
        let duration = parse_duration(&at.value);
        if duration.is_none() {
            self.problem(
                key,
                format!("\"{}\" is not a length of time such as \"90s\", \"15m\" or \"2h\"", at.value),
            );
        }
        duration
    }

    /// A list of texts, or one text by itself.
    pub fn texts(&self, key: &'static str) -> Option<Vec<At<String>>> {
        let place = self.place_of(key);
        let value = self.value(key)?;
        if let Some(one) = value.get_ref().as_str() {
            return Some(vec![At { value: one.to_owned(), place }]);
        }
        let Some(list) = value.get_ref().as_array() else {
            self.problem(key, format!("must be a list of texts, not {}", value.get_ref().type_str()));
            return None;
        };
        let mut texts = Vec::with_capacity(list.len());
        for (number, item) in list.iter().enumerate() {
            let place = Place {
                line: self.problems.line(item.span().start),
                key: format!("{}[{number}]", place.key),
            };
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text.to_owned(), place }),
                None => self.problems.add(&place, format!("must be text, not {}", item.get_ref().type_str())),
            }
        }
        Some(texts)
    }

    /// A table below this one, read by `read`.
    pub fn table<T>(&self, key: &'static str, read: impl FnOnce(&Table<'_>) -> T) -> Option<T> {
        let value = self.value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.problem(key, format!("must be a table, not {}", value.get_ref().type_str()));
            return None;
        };
        let place = self.place_of(key);
        let table = Table { table, place, problems: self.problems.clone(), asked: RefCell::default() };
        let value = read(&table);
        table.finish();
        Some(value)
    }

    /// The tables of `[[key]]`, each read by `read`.
    pub fn tables<T>(&self, key: &'static str, mut read: impl FnMut(&Table<'_>) -> T) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            self.problem(key, format!("must be a list of tables, not {}", value.get_ref().type_str()));
            return Vec::new();
        };
        self.items(key, list, &mut read)
    }

    fn items<T>(
        &self,
        key: &'static str,
        list: &DeArray<'_>,
        read: &mut dyn FnMut(&Table<'_>) -> T,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(list.len());
        for (number, item) in list.iter().enumerate() {
            let key = format!("{}[{number}]", self.path(key));
            match item.get_ref().as_table() {
                Some(table) => {
                    let table = Table::new(table, item.span(), key, self.problems.clone());
                    values.push(read(&table));
                    table.finish();
                }
                None => {
                    let place = Place { line: self.problems.line(item.span().start), key };
                    self.problems.add(&place, format!("must be a table, not {}", item.get_ref().type_str()));
                }
            }
        }
        values
    }

    fn typed<T>(
        &self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let value = self.value(key)?;
        let read = read(value.get_ref());
        if read.is_none() {
            self.problem(key, format!("must be {what}, not {}", value.get_ref().type_str()));
        }
        read.map(|value| At { value, place: self.place_of(key) })
    }

    fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn path(&self, key: &str) -> String {
        if self.place.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place.key) }
    }
}

/// Reads `"90s"`, `"15m"`, `"1h 30m"`, `"2d"`. Units are written out, so that nobody has to guess
/// whether a bare 15 means seconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().ok()?;
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3_600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = after.trim_start();
    }
    Some(total)
}

/// Whether two keys differ by a slip of the finger: one letter more, less, other, or swapped, or
/// case and hyphens.
#[must_use]
pub fn is_near(known: &str, typed: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let (known, typed) = (plain(known), plain(typed));
    if known == typed {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (known.chars().collect(), typed.chars().collect());
    if a.len().abs_diff(b.len()) > 1 || a.len().min(b.len()) < 3 {
        return false;
    }
    let start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let longest = a.len().max(b.len());
    if start + end + 1 >= longest {
        return true;
    }
    let pair = |text: &[char]| text.get(start..start + 2).map(<[char]>::to_vec);
    let swapped = pair(&b).map(|mut pair| {
        pair.reverse();
        pair
    });
    a.len() == b.len() && start + end + 2 >= longest && pair(&a) == swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let result = read("x.toml", text, |root, _| {
            root.text("name");
            root.integer("count", 1, 5);
            root.duration("expires");
            root.tables("rule", |rule| {
                rule.required_text("name");
                rule.table("when", |when| when.texts("class").map(|_| ()));
            });
            Some(())
        });
        result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_reported_with_its_line_and_key() {
        let text = "name = 1\ncount = 9\nexpires = \"15\"\n[[rule]]\nnmae = \"x\"\n[[rule]]\nname = \"y\"\n\
                    when = { class = [\"a\",\n  2], clas = 1 }\n";

        assert_eq!(
            problems(text),
            [
                "x.toml:1: name: must be text, not integer",
                "x.toml:2: count: is 9; it must be between 1 and 5",
                "x.toml:3: expires: \"15\" is not a length of time such as \"90s\", \"15m\" or \"2h\"",
                "x.toml:4: rule[0].name: is missing",
                "x.toml:5: rule[0].nmae: unknown key; did you mean \"name\"?",
                "x.toml:9: rule[1].when.clas: unknown key; did you mean \"class\"?",
                "x.toml:9: rule[1].when.class[1]: must be text, not integer",
            ]
        );
    }

    #[test]
    fn broken_syntax_is_reported_with_its_line() {
        assert_eq!(problems("name = \"a\"\ncount = = 2\n")[0].split(": ").next(), Some("x.toml:2"));
        assert!(problems("name = \"a\"\nname = \"b\"\n")[0].contains("x.toml:2"));
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!(parse_duration("1h 30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "15", "m", "5 m", "-5m", "5y", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn slips_of_the_finger_are_recognised() {
        assert!(is_near("approvals", "aprovals"));
        assert!(is_near("class", "calss"));
        assert!(is_near("hold_in_transaction", "hold-in-transaction"));
        assert!(!is_near("then", "when_not"));
    }
}

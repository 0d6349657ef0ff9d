//! What an agent brings at start-up: who it is, what it says about itself, and settings.
//!
//! A setting at start-up is a `SET` before the first statement. Whether it may be made is not decided here,
//! but by whoever decides about `SET` (`classify::may_start_with`); here settings are found and put into the
//! order that Postgres gives them.

use crate::actor::Claims;
use crate::refusal::Refusal;

/// What an agent asked for, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// The user name: the agent's name.
    pub user: String,
    /// The database name: the upstream's name. The user name when none was given, as in Postgres.
    pub database: String,
    /// Settings, each once: of a name that is given several times, the value that counts in Postgres.
    pub settings: Vec<(String, String)>,
    /// What the agent calls itself; upstream's `application_name` names agent and session instead.
    pub application_name: Option<String>,
    /// What the agent says about its run (`countersign.*`).
    pub claims: Claims,
    /// `countersign.hold=defer`: statements that need approval fail at once and are retried.
    pub defer: bool,
    /// `_pq_.` options, all of which are unknown to us (`NegotiateProtocolVersion`).
    pub unknown_options: Vec<String>,
}

impl Startup {
    /// Checks the parameters of a start-up packet.
    ///
    /// # Errors
    /// Names the first parameter that is not accepted, and says why.
    pub fn check(parameters: &[(&str, &str)]) -> Result<Self, Refusal> {
        let mut startup = Self::default();
        let mut database = None;
        // Of `options` that are given twice, the later count. A parameter counts more than the same name
        // in them (`process_startup_options`).
        if let Some((_, options)) = parameters.iter().rev().find(|(name, _)| *name == "options") {
            for (name, value) in split_options(options)? {
                startup.setting(&name, &value)?;
            }
        }
        for &(name, value) in parameters {
            match name {
                "user" => startup.user = value.to_owned(),
                "database" => database = Some(value.to_owned()),
                "options" => {}
                "replication" => {
                    if !matches!(value.to_ascii_lowercase().as_str(), "false" | "off" | "no" | "0") {
                        return Err(Refusal::Unsupported {
                            feature: "replication",
                            hint: "Connect to the upstream directly for replication.",
                        });
                    }
                }
                name if name.starts_with("_pq_.") => startup.unknown_options.push(name.to_owned()),
                name => startup.setting(name, value)?,
            }
        }
        if startup.user.is_empty() {
            return Err(Refusal::NotAuthorized {
                what: "no PostgreSQL user name specified in startup packet".to_owned(),
                hint: "Connect with the agent's name as user.",
            });
        }
        startup.database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| startup.user.clone());
        Ok(startup)
    }

    fn setting(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let refuse =
            |hint: &str| Err(Refusal::StartupParameter { name: printable(name), hint: hint.to_owned() });
        if value.contains('\0') || value.len() > Claims::LONGEST {
            return refuse("Its value is too long.");
        }
        let lower = name.to_ascii_lowercase();
        if let Some(claim) = lower.strip_prefix("countersign.") {
            return match claim {
                "hold" => match value {
                    "defer" => {
                        self.defer = true;
                        Ok(())
                    }
                    "wait" => {
                        self.defer = false;
                        Ok(())
                    }
                    _ => refuse("countersign.hold is \"wait\" or \"defer\"."),
                },
                claim if self.claims.set(claim, value) => Ok(()),
                _ => refuse("Known are countersign.model, .version, .run, .task, .purpose and .hold."),
            };
        }
        match lower.as_str() {
            // No policy lets a session begin as somebody else, and the last four are no settings.
            "role" | "session_authorization" | "user" | "database" | "options" | "replication" => {
                return refuse("It cannot be set at start-up; SET ROLE asks for approval.");
            }
            "application_name" => self.application_name = Some(value.to_owned()),
            // The parser reads UTF-8 and nothing else, so every session gets UTF-8, whatever was
            // asked for: psql in a C locale asks for SQL_ASCII without meaning it.
            "client_encoding" => {}
            _ => {
                self.settings.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
                self.settings.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }

    /// The `search_path` that was asked for.
    #[must_use]
    pub fn search_path(&self) -> Option<&str> {
        let path = self.settings.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("search_path"));
        path.map(|(_, value)| value.as_str())
    }
}

/// A name as it may be shown in an error.
pub(crate) fn printable(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Splits `options` as Postgres does (`pg_split_opts`: blanks separate, a backslash escapes, quotes
/// mean nothing, a backslash at the end is dropped), and reads `-c name=value` and `--name=value`. Other switches are refused.
fn split_options(options: &str) -> Result<Vec<(String, String)>, Refusal> {
    let refuse = |what: &str| Refusal::StartupParameter {
        name: "options".to_owned(),
        hint: format!("Write settings as -c name=value; {what} is not accepted."),
    };
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        // C's isspace: Rust leaves out the vertical tab.
        if character.is_ascii_whitespace() || character == '\x0b' {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        word.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    words.extend(word);

    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next().ok_or_else(|| refuse("-c without a setting"))?
        } else if let Some(setting) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            setting.to_owned()
        } else {
            return Err(refuse(&format!("\"{}\"", printable(&word))));
        };
        let (name, value) = setting.split_once('=').ok_or_else(|| refuse("a setting without a value"))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parameters: &[(&str, &str)]) -> Result<Startup, Refusal> {
        Startup::check(&[&[("user", "bot")], parameters].concat())
    }

    #[test]
    fn what_common_drivers_send_is_accepted() {
        let psql = [("database", "app"), ("application_name", "psql"), ("client_encoding", "SQL_ASCII")];
        let jdbc = [
            ("database", "app"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "Europe/Berlin"),
            ("extra_float_digits", "2"),
        ];
        assert_eq!(check(&psql).unwrap().settings, []);
        assert_eq!(check(&jdbc).unwrap().settings.len(), 3);
        assert_eq!(check(&[]).unwrap().database, "bot");
    }

    #[test]
    fn claims_and_settings_come_through_options() {
        let startup = check(&[(
            "options",
            r"-c countersign.model=gpt-5.2 -c countersign.purpose=monthly\ report --statement-timeout=5s -ccountersign.hold=defer",
        )])
        .unwrap();

        assert_eq!(startup.claims.model.as_deref(), Some("gpt-5.2"));
        assert_eq!(startup.claims.purpose.as_deref(), Some("monthly report"));
        assert_eq!(startup.settings, [("statement_timeout".to_owned(), "5s".to_owned())]);
        assert!(startup.defer);
    }

    #[test]
    fn what_is_the_proxys_own_business_is_not_passed_on() {
        let kept = [
            ("client_encoding", "LATIN1"),
            ("application_name", "psql"),
            ("replication", "false"),
            ("replication", "off"),
            ("replication", "no"),
            ("replication", "0"),
            ("options", ""),
            ("options", " \t\n\x0b\x0c\r "),
            ("countersign.hold", "wait"),
            ("countersign.model", "gpt"),
            ("Countersign.Version", "1"),
            ("countersign.run", "r"),
            ("countersign.task", "t"),
            ("countersign.purpose", "p"),
            ("_pq_.anything", "1"),
        ];
        for (name, value) in kept {
            let startup =
                check(&[(name, value)]).unwrap_or_else(|refused| panic!("{name}={value}: {refused}"));
            assert_eq!(startup.settings, [], "{name}");
        }
    }

    #[test]
    fn options_are_split_as_postgres_splits_them() {
        let settings = |options: &str| check(&[("options", options)]).map(|startup| startup.settings);
        let one = |name: &str, value: &str| Ok(vec![(name.to_owned(), value.to_owned())]);

        assert_eq!(settings("-c lock_timeout=1s"), one("lock_timeout", "1s"));
        assert_eq!(settings("-clock_timeout=1s"), one("lock_timeout", "1s"));
        assert_eq!(settings("--lock-timeout=1s"), one("lock_timeout", "1s"));
        // No setting has that name.
        assert_eq!(settings("-c\x0b--lock_timeout=1s"), one("__lock_timeout", "1s"));
        assert_eq!(settings("-c\x0block_timeout=1s"), one("lock_timeout", "1s"));
        assert_eq!(settings("  -c   DateStyle=ISO,\\ MDY  "), one("DateStyle", "ISO, MDY"));
        assert_eq!(settings(r"-c Time\Zone=\U\T\C"), one("TimeZone", "UTC"));
        assert_eq!(settings(r"-c TimeZone=UTC\"), one("TimeZone", "UTC"));
        assert_eq!(
            settings("-c jit=off --jit=on -cJIT=off"),
            one("JIT", "off"),
            "of a name that is given several times, the last value counts"
        );
        // Quotes are characters like others, as in Postgres.
        assert_eq!(settings("-c lock_timeout='1s'"), one("lock_timeout", "'1s'"));
        assert!(matches!(settings("'-c lock_timeout=1s'"), Err(Refusal::StartupParameter { .. })));
        // A claim's value may hold anything, an equals sign and a nested switch among it.
        let startup = check(&[("options", r"-c countersign.task=a=b\ -c\ role=x")]).unwrap();
        assert_eq!((startup.claims.task.as_deref(), startup.settings), (Some("a=b -c role=x"), Vec::new()));
    }

    #[test]
    fn of_a_name_that_is_given_twice_the_later_value_counts() {
        let startup = Startup::check(&[
            ("user", "one"),
            ("user", "two"),
            ("database", "a"),
            ("database", "b"),
            ("search_path", "x"),
            ("countersign.model", "m1"),
            ("options", "-c search_path=y -c countersign.model=m2"),
        ])
        .unwrap();

        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("two", "b"));
        // A parameter counts more than the options, wherever it stands.
        assert_eq!(startup.search_path(), Some("x"));
        assert_eq!(startup.claims.model.as_deref(), Some("m1"));
        let twice =
            [("options", "-c jit=off -c work_mem=1MB"), ("options", "-c jit=on"), ("TimeZone", "UTC")];
        let settings: Vec<_> = check(&twice).unwrap().settings;
        assert_eq!(
            settings,
            [("jit".to_owned(), "on".to_owned()), ("TimeZone".to_owned(), "UTC".to_owned())]
        );
    }

    #[test]
    fn what_is_no_setting_is_refused_by_name() {
        for (name, value) in [
            ("role", "postgres"),
            ("Session_Authorization", "postgres"),
            ("options", "-c role=postgres"),
            ("options", "-c user=other"),
            ("options", "-c database=other"),
            ("options", "-c replication=true"),
            ("countersign.", "x"),
            ("countersign.colour", "red"),
            ("countersign.hold", "never"),
            ("options", "-B 100"),
            ("options", "-d 5"),
            ("options", "-e"),
            ("options", "-c"),
            ("options", "-c role"),
            ("options", "--"),
            ("options", "--role postgres"),
            ("options", "-"),
            ("options", "role=postgres"),
            ("options", r"\"),
        ] {
            let refused = check(&[(name, value)]);
            assert!(matches!(refused, Err(Refusal::StartupParameter { .. })), "{name}={value}: {refused:?}");
            assert_eq!(refused.map_err(|refused| refused.sqlstate()), Err("0A000"));
        }
        for value in ["true", "on", "yes", "1", "database", "DATABASE", "t", "", "false "] {
            let refused = check(&[("replication", value)]);
            assert!(matches!(refused, Err(Refusal::Unsupported { .. })), "{value}: {refused:?}");
        }
        assert!(matches!(check(&[("replication", "database")]), Err(Refusal::Unsupported { .. })));
        assert!(check(&[("replication", "false")]).is_ok());
        assert!(matches!(Startup::check(&[("database", "x")]), Err(Refusal::NotAuthorized { .. })));
    }
}

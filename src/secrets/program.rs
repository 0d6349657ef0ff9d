//! A program and its arguments, as a shell would take them: whether there is likely a secret in them.
//!
//! Any part of such a text may run, in ways that nobody can tell from it, so nothing of it is ever
//! hidden from somebody who decides. This only says that a secret stands there.

use std::ops::Range;

use super::{connection, is_switch, names_a_secret};

/// Options of well-known programs whose value is `user:password`.
const USER_OPTIONS: [&str; 6] = ["-u", "--user", "-U", "--proxy-user", "--userpwd", "--auth"];

/// Programs that take a password as `-p` or `-pPASSWORD`, and the like.
const SHORT_OPTIONS: [(&str, &[&str]); 14] = [
    ("-p", &["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb", "mariadb-dump"]),
    ("-p", &["sshpass", "mongo", "mongosh", "mongodump", "mongoexport", "mongoimport"]),
    ("-p", &["docker", "podman", "helm", "7z", "7za", "7zr", "rar", "unrar", "vault", "cqlsh", "influx"]),
    ("-P", &["zip", "unzip", "sqlcmd", "bcp", "isql", "tsql", "lftp"]),
    ("-w", &["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldapwhoami"]),
    ("-a", &["redis-cli", "valkey-cli"]),
    ("-k", &["openssl"]),
    ("-K", &["openssl"]),
    ("-b", &["htpasswd"]),
    ("-x", &["ldapsearch"]),
    ("-S", &["sudo"]),
    ("-A", &["redis-cli"]),
    ("-W", &["ldapsearch"]),
    ("-t", &["vault"]),
];

/// Where the secrets in it are likely to be.
#[must_use]
pub fn likely_secrets(text: &str) -> Vec<Range<usize>> {
    let words: Vec<Range<usize>> = words(text).collect();
    let of = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    let programs: Vec<&str> =
        words.iter().map(|word| of(word).rsplit('/').next().unwrap_or_default()).collect();
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let shown = of(word);
        let next = words.get(place + 1).filter(|next| is_value(of(next)));
        let tail = |length: usize| word.end - length..word.end;
        if let Some(inside) = url_in(shown) {
            found.extend(inside.into_iter().map(|range| word.start + range.start..word.start + range.end));
        }
        // NAME=value, --name=value, name:value, "name":"value"; not an URL's scheme.
        if let Some((name, value)) = shown.split_once(['=', ':'])
            && names_a_secret(name.trim_start_matches('-'))
        {
            if is_value(value) {
                found.push(tail(value.len()));
            } else if value.is_empty() {
                // `Authorization: Bearer x`
                let scheme = next.filter(|next| {
                    ["bearer", "basic", "token", "digest"]
                        .iter()
                        .any(|known| of(next).eq_ignore_ascii_case(known))
                });
                let value = if scheme.is_some() { words.get(place + 2) } else { next };
                found.extend(value.filter(|value| is_value(of(value))).cloned());
            }
            continue;
        }
        // `"password": "x"`, as JSON has it.
        if names_a_secret(shown) && words.get(place + 1).is_some_and(|sign| matches!(of(sign), ":" | "=")) {
            found.extend(words.get(place + 2).filter(|value| is_value(of(value))).cloned());
            continue;
        }
        let option = shown.starts_with('-');
        if (option || shown.contains('_')) && names_a_secret(shown.trim_start_matches('-')) {
            found.extend(next.cloned());
        }
        if ["bearer", "basic"].iter().any(|scheme| shown.eq_ignore_ascii_case(scheme)) {
            found.extend(next.cloned());
        }
        // -u user:password, -uuser:password, --user=user:password, -U user%password
        let user = USER_OPTIONS.iter().find_map(|known| shown.strip_prefix(known).map(|rest| (known, rest)));
        if let Some((known, rest)) = user {
            let value = match rest.strip_prefix('=') {
                Some(rest) => Some(tail(rest.len())),
                None if rest.is_empty() => next.cloned(),
                None if known.len() == 2 => Some(tail(rest.len())),
                None => None,
            };
            if let Some(value) = value
                && let Some(split) = of(&value).find([':', '%'])
                && value.start + split + 1 < value.end
            {
                found.push(value.start + split + 1..value.end);
            }
        }
        for (known, takers) in SHORT_OPTIONS {
            if let Some(rest) = shown.strip_prefix(known)
                && programs.iter().take(place).any(|program| takers.contains(program))
            {
                if rest.is_empty() {
                    found.extend(next.cloned());
                } else if is_value(rest) {
                    found.push(tail(rest.len()));
                }
            }
        }
        // openssl's `pass:x`
        if let Some(rest) = shown.strip_prefix("pass:") {
            found.push(tail(rest.len()));
        }
    }
    found.retain(|range| !range.is_empty());
    found
}

/// Whether it is written out: not a switch, a variable, a file, another option, or what a shell does next.
fn is_value(word: &str) -> bool {
    !is_switch(word) && !word.starts_with(['$', '-', '@', '/', '~', '.', '|', '>', '<', '&', ';', '%', '*'])
}

fn url_in(word: &str) -> Option<Vec<Range<usize>>> {
    let scheme = word.find("://")?;
    let letters = |byte: &u8| byte.is_ascii_alphanumeric() || b"+.-".contains(byte);
    let length = word.as_bytes().get(..scheme)?.iter().rev().take_while(|byte| letters(byte)).count();
    let start = scheme - length;
    let found = connection::secrets_of_url(word.get(start..)?)?;
    Some(found.into_iter().map(|range| start + range.start..start + range.end).collect())
}

/// What stands between blanks, quotes, brackets and the signs that end a command.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let stops = |c: char| c.is_whitespace() || "\"'`()[]{},;|&<>\\".contains(c);
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let start = at + rest.find(|c| !stops(c))?;
        let length = text.get(start..)?.find(stops).unwrap_or(text.len() - start);
        at = start + length;
        Some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_arguments_are_seen() {
        for text in [
            "curl -u bob:S3C https://h",
            "curl -ubob:S3C https://h",
            "curl --user bob:S3C https://h",
            "curl --user=bob:S3C https://h",
            "curl https://bob:S3C@h/x",
            "curl 'https://h/x?token=S3C'",
            "curl -H 'Authorization: Bearer S3C' https://h",
            "curl -H \"X-Api-Key: S3C\" https://h",
            "curl -d '{\"password\": \"S3C\"}' https://h",
            "PGPASSWORD=S3C psql -h h",
            "env PGPASSWORD='S3C' psql",
            "mysql --password=S3C",
            "mysqldump -u root -pS3C db",
            "sshpass -p S3C ssh h",
            "psql 'host=h password=S3C'",
            "aws configure set aws_secret_access_key S3C",
            "tool --api-key S3C",
            "openssl enc -aes256 -pass pass:S3C",
            "redis-cli -a S3C get x",
            "smbclient //h/s -U bob%S3C",
        ] {
            let found = likely_secrets(text);
            assert!(found.iter().any(|range| text[range.clone()] == *"S3C"), "{text}: {found:?}");
        }
    }

    #[test]
    fn arguments_without_secrets_are_not_taken_for_some() {
        for text in [
            "gzip > /tmp/x.gz",
            "psql -h h -p 5432 -U bob app",
            "curl -u bob https://h/x",
            "curl https://h:443/x",
            "mkdir -p /tmp/x",
            "ssh -p 22 bob@h",
            "mysql --password-file=/run/x",
            "curl --netrc-file /run/x https://h",
            "psql -c 'drop table v'",
            "curl -H \"Authorization: $TOKEN\" https://h",
            "cat /run/secrets/token | wc -l",
            "PGPASSWORD=$(cat /run/x) psql",
        ] {
            assert!(likely_secrets(text).is_empty(), "{text}");
        }
    }
}

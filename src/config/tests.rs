//! What is said of a configuration that is wrong, and of one that is only unwise.

use std::fs;

use super::*;
use crate::actor::ChannelName;
use crate::config::edit::{EditError, Editor};
use crate::identity::ScramVerifier;
use crate::identity::account::ChatAccount;
use crate::identity::secret::SecretHash;

const VERIFIER: &str = "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn token_hash(token: &str) -> String {
    SecretHash::of(token).to_string()
}

/// A configuration with its files, in a folder of its own.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("policies")).unwrap();
        fs::write(dir.path().join("app.password"), "hunter2\n").unwrap();
        fs::write(dir.path().join("empty"), "\n").unwrap();
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("countersign.toml")
    }

    fn load(&self, text: &str) -> Result<Config, Vec<ConfigError>> {
        let env = |name: &str| (name == "APP_PASSWORD").then(|| "from-env".to_owned());
        Config::from_text(&self.path(), text, &env)
    }

    fn errors(&self, text: &str) -> Vec<String> {
        let errors = self.load(text).expect_err("it is wrong");
        let folder = format!("{}/", self.0.path().display());
        errors.iter().map(|error| error.to_string().replace(&folder, "")).collect()
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    fn read(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }
}

fn good() -> String {
    format!(
        r#"
listen = "0.0.0.0:6432"
insecure_plaintext = true
[[upstream]]
name = "app"
host = "db.internal"
user = "bot"
password_file = "app.password"
[[agent]]
name = "reporting-bot"
owner = "alice@example.com"
verifier = "{VERIFIER}"
upstreams = ["app"]
[[reviewer]]
id = "bob@example.com"
groups = ["dba"]
token_hash = "{}"
slack = {{ team = "T1", user = "U1" }}
[console]
listen = "127.0.0.1:6480"
"#,
        token_hash("csr_bob")
    )
}

#[test]
fn a_configuration_is_read_with_its_defaults_and_secrets() {
    let folder = Folder::new();

    let config = folder.load(&good()).unwrap();

    let upstream = &config.upstreams[&UpstreamName::new("app")];
    assert_eq!((upstream.port, upstream.target.database.as_str()), (5432, "app"));
    assert_eq!(upstream.tls, UpstreamTls::VerifyFull);
    assert_eq!(upstream.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert_eq!(config.policy.defaults.reviewers.as_str(), "dba");
    assert_eq!(config.ledger.path, folder.0.path().join("ledger/countersign.db"));
    assert_eq!(config.console.as_ref().map(|console| console.url.as_str()), Some("http://127.0.0.1:6480/"));
    assert_eq!(config.address_for_agents(), "localhost:6432");
    assert!(config.channels.is_empty());
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("AAAAAAAAAAAAAAAAAAAAAAAA"), "{shown}");
}

#[test]
fn every_mistake_is_reported_at_once_with_file_line_and_key() {
    let folder = Folder::new();
    let text = r#"listen = "everywhere"
lisen = "x"
[tls]
certificate = "server.crt"
[[upstream]]
name = "my app"
port = 0
tls = "maybe"
password = "hunter2"
[[upstream]]
name = "b"
host = "h"
user = "u"
[[upstream]]
name = "b"
host = "h"
user = "u"
[[agent]]
name = "bot"
verifier = "md5abc"
[[reviewer]]
id = " bob"
token_hash = "abc"
slack = { team = "T1" }
[console]
url = "http://console.example.com"
[slack]
channel = "C1"
api_url = "http://slack.example.com"
[limits]
sessions = 0
cool_down = 60
"#;

    insta::assert_snapshot!(folder.errors(text).join("\n"));
}

#[test]
fn what_is_missing_outside_the_file_is_reported_at_once_too() {
    let folder = Folder::new();
    fs::remove_dir(folder.0.path().join("policies")).unwrap();
    let text = good()
        .replace(
            "insecure_plaintext = true",
            "secret_file = \"none\"\n[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"",
        )
        .replace("password_file = \"app.password\"", "password = \"env:NOT_SET\"\nca = \"ca.crt\"")
        + "[slack]\nchannel = \"C1\"\napp_token_file = \"empty\"\nbot_token = \"env:APP_PASSWORD\"\n";

    insta::assert_snapshot!(folder.errors(&text).join("\n"));
}

#[test]
fn off_loopback_tls_is_needed_or_waived_by_name() {
    let folder = Folder::new();
    let without = good().replace("insecure_plaintext = true", "");

    assert_eq!(
        folder.errors(&without),
        [
            "countersign.toml:2: listen: is not a loopback address, so [tls] is needed (or insecure_plaintext = true)"
        ]
    );
    assert!(folder.load(&without.replace("0.0.0.0", "127.0.0.1")).is_ok());
}

#[test]
fn p4_two_entries_of_one_person_are_refused() {
    let folder = Folder::new();
    let second = |id: &str, also: &str, user: &str, token: &str| {
        good()
            + &format!(
                "[[reviewer]]\nid = \"{id}\"\nalso = [{also}]\ngroups = [\"dba\"]\ntoken_hash = \"{}\"\nslack = {{ team = \"T1\", user = \"{user}\" }}\n",
                token_hash(token)
            )
    };
    let errors = |text: String| folder.errors(&text).join("; ");

    assert!(errors(second("BOB@example.com", "", "U2", "csr_x")).contains("one person is one reviewer"));
    assert!(
        errors(second("rob", "\"Bob@Example.com\"", "U2", "csr_x")).contains("one person is one reviewer")
    );
    assert!(errors(second("rob", "", "U1", "csr_x")).contains("Slack account U1 is that of reviewer"));
    assert!(errors(second("rob", "", "U2", "csr_bob")).contains("the token is that of reviewer"));
    assert!(errors(second("Reporting-Bot", "", "U2", "csr_x")).contains("an agent cannot answer requests"));
    assert!(folder.load(&second("rob", "", "U2", "csr_x")).is_ok());
}

/// `good`, with TLS and another agent that has `proof`.
fn with_proof(proof: &str) -> String {
    good().replace(
        "insecure_plaintext = true",
        "[tls]\ncertificate = \"app.password\"\nkey = \"app.password\"\nclient_ca = \"app.password\"",
    ) + &format!(
        "[[agent]]\nname = \"other\"\nowner = \"alice@example.com\"\nupstreams = [\"app\"]\n{proof}\n"
    )
}

const JWT: &str =
    r#"jwt = { issuer = "https://id", audience = "cs", subject = "bot", jwks = "app.password" }"#;

#[test]
fn an_agent_has_a_password_a_certificate_or_a_token() {
    let folder = Folder::new();
    let entry = |proof: &str| {
        let config = folder.load(&with_proof(proof)).unwrap_or_else(|errors| panic!("{proof}: {errors:?}"));
        config.directory.agent(&"other".into()).unwrap().clone()
    };
    let has = |proof: &str| {
        let entry = entry(proof);
        (entry.verifier.is_some(), entry.certificate.is_some(), entry.token.is_some())
    };

    assert_eq!(has("certificate = \"CN=other\""), (false, true, false));
    assert_eq!(has(&format!("certificate = \"CN=other\"\nverifier = \"{VERIFIER}\"")), (true, true, false));
    assert_eq!(has(&format!("certificate = \"sha256:{}\"\n{JWT}", "0A".repeat(32))), (false, true, true));
    let token = entry(JWT).token.unwrap();
    assert_eq!(token.keys, KeyPlace::File(folder.0.path().join("app.password")));
    assert_eq!(
        (token.skew, token.end_with_token, token.algorithms.len()),
        (Duration::from_secs(60), false, 7)
    );
    let token = entry(
        &JWT.replace("app.password", "https://id.example/keys").replace(
            " }",
            ", ca = \"app.password\", algorithms = [\"ES256\"], clock_skew = \"5s\", claims = { run = \"jti\", model = [\"a.b\", \"c\"] } }",
        ),
    )
    .token
    .unwrap();
    assert_eq!((token.skew, token.algorithms.len()), (Duration::from_secs(5), 1));
    assert!(token.claims.0.contains(&("run", vec!["jti".to_owned()])));
    assert!(token.claims.0.contains(&("model", vec!["a.b".to_owned(), "c".to_owned()])));
    assert!(
        matches!(&token.keys, KeyPlace::Url { ca: Some(ca), .. } if *ca == folder.0.path().join("app.password"))
    );
}

#[test]
fn a_proof_that_makes_no_sense_is_refused() {
    let folder = Folder::new();
    let error = |text: &str| folder.errors(text).join("; ");
    let with = |proof: &str| error(&with_proof(proof));

    assert!(with("").contains("verifier: is missing (or certificate, or jwt)"));
    assert!(with(&format!("verifier = \"{VERIFIER}\"\n{JWT}")).contains("stands beside verifier"));
    assert!(with("certificate = \"reporting-bot\"").contains("is not a name such as"));
    assert!(with("certificate = \"XY=a\"").contains("is not a type of attribute"));
    assert!(with("certificate = \"sha256:00\"").contains("64 hexadecimal digits"));
    assert!(with("jwt = { issuer = \"i\" }").contains("jwt.jwks: is missing"));
    assert!(with(&JWT.replace("app.password", "none.json")).contains("there is no file none.json"));
    assert!(with(&JWT.replace("app.password", "http://id.example/")).contains("must begin with https://"));
    assert!(
        with(&JWT.replace(" }", ", algorithms = [\"HS256\", \"none\"] }"))
            .contains("\"HS256\" is not one of RS256")
    );
    assert!(with(&JWT.replace(" }", ", algorithms = [] }")).contains("algorithms: is empty"));
    assert!(with(&JWT.replace(" }", ", clock_skew = \"1h\" }")).contains("longer than ten minutes"));
    assert!(with(&JWT.replace(" }", ", ca = \"app.password\" }")).contains("is of no use"));
    assert!(
        with(&JWT.replace(" }", ", claims = { colour = \"x\" } }")).contains("claims.colour: unknown key")
    );
    assert!(with(&JWT.replace(" }", ", claims = { run = [] } }")).contains("names no claim"));
    let without_ca = with_proof("certificate = \"CN=other\"").replace("client_ca = \"app.password\"", "");
    assert!(error(&without_ca).contains("certificate: needs client_ca in [tls]"));
    let plain = good() + &with_proof(JWT)[with_proof(JWT).rfind("[[agent]]").unwrap()..];
    assert!(error(&plain).contains("jwt: needs [tls]"));
    for (written, wrong) in [
        ("certificate = \"app.password\"", "needs its key"),
        ("key = \"app.password\"", "needs its certificate"),
        ("tls = \"disable\"\ncertificate = \"app.password\"\nkey = \"app.password\"", "is never shown"),
    ] {
        let text = good().replace("user = \"bot\"", &format!("user = \"bot\"\n{written}"));
        assert!(error(&text).contains(wrong), "{}", error(&text));
    }
}

#[test]
fn every_file_that_is_read_once_is_watched() {
    let folder = Folder::new();
    for name in ["a.crt", "a.key", "ca.crt", "up.crt", "up.key", "up-ca.crt"] {
        fs::write(folder.0.path().join(name), "x").unwrap();
    }
    let text = good()
        .replace(
            "insecure_plaintext = true",
            "[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\nclient_ca = \"ca.crt\"",
        )
        .replace(
            "user = \"bot\"",
            "user = \"bot\"\nca = \"up-ca.crt\"\ncertificate = \"up.crt\"\nkey = \"up.key\"",
        );

    let config = folder.load(&text).unwrap();

    let mut watched: Vec<String> =
        config.files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
    watched.sort();
    assert_eq!(
        watched,
        ["a.crt", "a.key", "app.password", "ca.crt", "countersign.toml", "up-ca.crt", "up.crt", "up.key"]
    );
}

#[test]
fn p4_a_revoked_agent_is_nobody() {
    let folder = Folder::new();
    let text = good().replace("upstreams = [\"app\"]", "upstreams = [\"app\"]\nrevoked = true");

    let config = folder.load(&text).unwrap();

    assert!(config.directory.agent(&"reporting-bot".into()).is_none());
}

#[test]
fn concerns_are_about_what_is_allowed_and_unwise() {
    let folder = Folder::new();
    fs::write(
        folder.0.path().join("policies/p.toml"),
        r#"
[[rule]]
name = "two-dbas"
when = { class = ["export"], agent = ["nobody-*"] }
then = "hold"
approvals = [{ group = "dba", count = 2 }, { group = "legal" }]
escalate = [{ after = "5m", to = "oncall" }]
"#,
    )
    .unwrap();
    let text = good()
        .replace("owner = \"alice@example.com\"", "owners = [\"bob@example.com\", \"b.ob+x@corp.example\"]")
        .replace("user = \"bot\"", "user = \"bot\"\ntls = \"require\"");
    folder.write(&text);
    let config = folder.load(&text).unwrap();

    let concerns: Vec<String> = config
        .concerns(&config.load_policy().unwrap())
        .iter()
        .map(|concern| concern.to_string().replace(&format!("{}/", folder.0.path().display()), ""))
        .collect();

    insta::assert_snapshot!(concerns.join("\n"));
}

#[test]
fn an_owner_and_a_reviewer_who_may_be_one_person_are_named() {
    let concerns = |owners: &str, more: &str| {
        let folder = Folder::new();
        let text = good().replace("owner = \"alice@example.com\"", &format!("owners = [{owners}]")) + more;
        let config = folder.load(&text).unwrap();
        let concerns = config.concerns(&config.load_policy().unwrap());
        let alike = concerns.iter().filter(|concern| concern.message.contains("looks like"));
        alike.map(ToString::to_string).collect::<Vec<_>>()
    };

    for owner in ["b\u{43e}b@example.com", "b0b@example.com", "bob@corp.example", "Bob", "b.o.b@example.com"]
    {
        let said = concerns(&format!("\"{owner}\""), "");
        assert_eq!(said.len(), 1, "{owner:?}: {said:?}");
        assert!(
            said[0].contains("looks like reviewer \"bob@example.com\"") && said[0].is_ascii(),
            "{said:?}"
        );
    }
    for owner in ["alice@example.com", "mailto:bob@example.com", "Bob <BOB@example.com>", "bobby@example.com"]
    {
        assert_eq!(concerns(&format!("\"{owner}\""), ""), Vec::<String>::new(), "{owner:?}");
    }
    let twice = "[[reviewer]]\nid = \"bob@corp.example\"\ngroups = [\"dba\"]\n";
    assert_eq!(
        concerns("\"alice@example.com\"", twice),
        [
            "reviewer bob@corp.example: looks like reviewer \"bob@example.com\"; one person is one reviewer, with other names in also = [..]"
        ]
    );
}

#[test]
fn an_owner_is_one_address() {
    let folder = Folder::new();
    for owner in ["alice@example.com, bob@example.com", "alice; bob", "mailto:", "\u{200b}"] {
        let text = good().replace("owner = \"alice@example.com\"", &format!("owner = \"{owner}\""));
        assert!(folder.load(&text).is_err(), "{owner:?}");
    }
}

#[test]
fn two_spellings_of_one_mailbox_are_not_two_reviewers() {
    let folder = Folder::new();
    let twice = "[[reviewer]]\nid = \"bob+night@example.com\"\ngroups = [\"dba\"]\n";

    let problems = folder.errors(&(good() + twice));

    assert!(problems.iter().any(|problem| problem.contains("one person is one reviewer")), "{problems:?}");
}

// ---- editing ----------------------------------------------------------------------------------

#[test]
fn an_edit_keeps_every_comment_and_every_other_byte() {
    let folder = Folder::new();
    let before = format!(
        "# ours\n{}# at the end\n",
        good().replace("name = \"reporting-bot\"", "name  =  \"reporting-bot\" # the old one")
    );
    folder.write(&before);

    let mut editor = Editor::open(&folder.path()).unwrap();
    editor.add_agent("second", &["alice@example.com".to_owned()], &["app".to_owned()], VERIFIER).unwrap();
    editor.save().unwrap();

    let after = folder.read();
    let added = format!(
        "\n[[agent]]\nname = \"second\"\nowner = \"alice@example.com\"\nupstreams = [\"app\"]\nverifier = \"{VERIFIER}\"\n"
    );
    assert!(after.contains(added.trim_start()), "{after}");
    for line in before.lines() {
        assert!(after.contains(line), "{line}");
    }
    assert!(folder.load(&after).is_ok());
}

#[test]
fn a_rotated_verifier_replaces_the_old_one_and_lets_in_again() {
    let folder = Folder::new();
    folder.write(&good().replace("upstreams = [\"app\"]", "upstreams = [\"app\"]\nrevoked = true"));
    let new = ScramVerifier::of_password("csa_new").to_string();

    let mut editor = Editor::open(&folder.path()).unwrap();
    editor.rotate_agent("reporting-bot", &new).unwrap();
    editor.save().unwrap();

    let config = folder.load(&folder.read()).unwrap();
    let entry = config.directory.agent(&"reporting-bot".into()).unwrap();
    assert!(entry.has_password("csa_new"));
}

#[test]
fn an_edit_that_would_make_the_file_wrong_leaves_it_as_it_was() {
    let folder = Folder::new();
    folder.write(&good());
    let wrong = |edit: &dyn Fn(&mut Editor) -> Result<(), EditError>| {
        let mut editor = Editor::open(&folder.path()).unwrap();
        edit(&mut editor).and_then(|()| editor.save()).unwrap_err().to_string()
    };
    let people = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();

    assert!(
        wrong(&|editor| editor.add_agent("reporting-bot", &people(&["a"]), &people(&["app"]), VERIFIER))
            .contains("exists already")
    );
    assert!(
        wrong(&|editor| editor.add_agent("x", &people(&["a"]), &people(&["nope"]), VERIFIER))
            .contains("there is no upstream \"nope\"")
    );
    assert!(
        wrong(&|editor| editor.add_agent("b ad", &people(&["a"]), &people(&["app"]), VERIFIER))
            .contains("must be at most 63")
    );
    assert!(
        wrong(&|editor| editor.add_reviewer(
            "rob",
            &people(&["bob@example.com"]),
            &people(&["dba"]),
            &[],
            &token_hash("x")
        ))
        .contains("one person is one reviewer")
    );
    assert!(wrong(&|editor| editor.remove_reviewer("nobody")).contains("there is no reviewer \"nobody\""));
    assert_eq!(folder.read(), good());
}

#[test]
fn an_unfinished_configuration_may_be_added_to() {
    let folder = Folder::new();
    folder.write(&good().replace("host = \"db.internal\"", ""));

    let mut editor = Editor::open(&folder.path()).unwrap();
    let account = ChatAccount { channel: ChannelName::Slack, team: "T1".into(), user: "U2".into() };
    editor.add_reviewer("rob", &[], &["dba".to_owned()], &[account], &token_hash("csr_rob")).unwrap();
    // The upstream is not finished, so agents that name it cannot be told from mistakes; people can.
    editor.save().unwrap();

    assert!(folder.read().contains("slack = { team = \"T1\", user = \"U2\" }"));
}

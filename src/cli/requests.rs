//! `countersign requests`: what waits for a person, and answering it.
//!
//! Exit codes of `approve`, `deny`, `escalate`: 0 the answer counted; 1 not given, because the person
//! at the terminal did not confirm it; 2 wrong usage, no connection, not signed in; 3 it came too
//! late; 4 this person may not; 5 there is no such request; 6 it does not count as it was given (no
//! reason, another digest, given before).

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Api, Listened, Server, Told, refuse, text};
use super::document;
use super::terminal;
use super::terminal::{ask, beginning, line, plain, somebody_is_there, table};

/// List, read and answer requests, or watch them come in
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    server: Server,
}

#[derive(Subcommand)]
enum Command {
    /// List requests: first those that are waiting, then those that have ended
    List {
        /// Only those that stand so: waiting, granted, denied, expired, withdrawn, executed
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only those of this agent
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// Only those that you may approve
        #[arg(long)]
        mine: bool,
        /// At most so many; all, unless you say
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Show one request with all details
    Show {
        /// The request's code
        id: String,
    },
    /// Approve: let exactly this statement run, once
    Approve(Verdict),
    /// Deny: the agent gets an error with the reason
    Deny(Verdict),
    /// Escalate: notify the next group now; it may approve from its configured time on
    Escalate(Verdict),
    /// Print events as they happen; with a request, until that request has ended
    Watch {
        /// The request's code
        id: Option<String>,
    },
}

#[derive(Args)]
struct Verdict {
    /// The request's code
    id: String,
    /// The reason; on a denial the agent sees it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Answer only if the statement has this digest
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { command, server } = arguments;
    let api = server.connect()?;
    match command {
        Command::List { state, agent, mine, limit } => {
            let mut query = Vec::new();
            for (name, value) in [("state", &state), ("agent", &agent)] {
                query.extend(value.as_deref().map(|value| (name, value)));
            }
            if mine {
                query.push(("mine", "true"));
            }
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            list(&api, &query, limit, server.json)
        }
        Command::Show { id } => show(&api, &id, server.json),
        Command::Approve(verdict) => answer(&api, "approve", &verdict, server.json),
        Command::Deny(verdict) => answer(&api, "deny", &verdict, server.json),
        Command::Escalate(verdict) => answer(&api, "escalate", &verdict, server.json),
        Command::Watch { id: Some(id) } => watch_one(&api, &id, server.json),
        Command::Watch { id: None } => watch(&api, server.json),
    }
}

fn list(api: &Api, query: &[(&str, &str)], limit: Option<usize>, json: bool) -> anyhow::Result<ExitCode> {
    let requests = match api.list(&["requests"], query, limit)? {
        Told::Yes(requests) => requests,
        Told::No(no) => return Ok(refuse(&no, json)),
    };
    let mut out = terminal::out(terminal::As::of(json));
    if json {
        writeln!(out, "{requests}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let requests = requests.as_array().map(Vec::as_slice).unwrap_or_default();
    if requests.is_empty() {
        writeln!(out, "No requests.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |request: &Value| {
        let mut row: Vec<String> = ["id", "state", "class", "agent", "upstream"]
            .iter()
            .map(|name| line(text(request, name)))
            .collect();
        row.push(match text(request, "state") {
            "waiting" => until(text(request, "expires_at")),
            _ => "-".to_owned(),
        });
        row.push(beginning(text(request, "sql"), 60));
        row
    };
    let rows: Vec<Vec<String>> = requests.iter().map(row).collect();
    let head = ["ID", "STATE", "CLASS", "AGENT", "UPSTREAM", "EXPIRES", "STATEMENT"];
    write!(out, "{}", table(&head, &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// How long until a time that the server told.
fn until(time: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return String::new() };
    match time.duration_since(Timestamp::now()).as_secs() {
        ..=0 => "now".to_owned(),
        seconds @ 1..120 => format!("in {seconds} s"),
        seconds @ 120..7200 => format!("in {} min", seconds / 60),
        seconds => format!("in {} h", seconds / 3600),
    }
}

fn show(api: &Api, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    match api.get(&["requests", id], &[])? {
        Told::No(no) => Ok(refuse(&no, json)),
        Told::Yes(request) => {
            let mut out = terminal::out(terminal::As::of(json));
            if json {
                writeln!(out, "{request}")?;
            } else {
                write!(out, "{}", document::request(&request))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads the request, shows it, and answers what was shown: the digest that is sent is the one of
/// the statement on the screen.
fn answer(api: &Api, verdict: &str, given: &Verdict, json: bool) -> anyhow::Result<ExitCode> {
    let request = match api.get(&["requests", &given.id], &[])? {
        Told::Yes(request) => request,
        Told::No(no) => return Ok(refuse(&no, json)),
    };
    let digest = text(&request, "digest").to_owned();
    if let Some(wanted) = &given.digest
        && !wanted.eq_ignore_ascii_case(&digest)
    {
        terminal::complain(&format!(
            "countersign: the digest of {} is {digest}, not the one given",
            given.id
        ));
        return Ok(ExitCode::from(6));
    }
    let is_asked = somebody_is_there() && !given.yes;
    // With JSON wanted and nobody there, nobody reads it.
    if !json || is_asked {
        terminal::print_error(&document::request(&request));
    }
    let mut reason = given.reason.clone();
    if is_asked {
        if reason.is_none() && document::needs_reason(&request) {
            reason = Some(ask("\nReason:")?).filter(|reason| !reason.is_empty());
        }
        let words = document::words(&request);
        if verdict == "approve" && text(&request, "state") == "waiting" {
            let question = format!("\nApprove {} ({words})? [y/N]", plain(text(&request, "id")));
            if !matches!(ask(&question)?.to_lowercase().as_str(), "y" | "yes") {
                terminal::complain("Not approved.");
                return Ok(ExitCode::from(1));
            }
        }
    }
    let mut body = json!({ "digest": digest });
    if let Some(fields) = body.as_object_mut() {
        fields.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    }
    match api.post(&["requests", &given.id, verdict], &body)? {
        Told::No(no) => Ok(refuse(&no, json)),
        Told::Yes(counted) => {
            let mut out = terminal::out(terminal::As::of(json));
            if json {
                writeln!(out, "{counted}")?;
            } else {
                writeln!(out, "{}", document::counted(verdict, &request, &counted))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// How long to wait before listening again.
const PAUSE: Duration = Duration::from_secs(2);

fn watch(api: &Api, json: bool) -> anyhow::Result<ExitCode> {
    let mut seen = std::collections::BTreeSet::new();
    let mut first = true;
    loop {
        let mut hear = |kind: &str, event: Value| -> anyhow::Result<bool> {
            let mut out = terminal::out(terminal::As::of(json));
            match kind {
                // What waits already is news to whoever has just begun to listen.
                "ready" | "resync" => {
                    let waiting = match api.list(&["requests"], &[("state", "waiting")], None)? {
                        Told::Yes(requests) => requests,
                        Told::No(no) => anyhow::bail!("{}", plain(&no.message)),
                    };
                    for request in waiting.as_array().into_iter().flatten().rev() {
                        if seen.insert(text(request, "id").to_owned()) {
                            let event =
                                json!({ "type": "waiting", "id": text(request, "id"), "request": request });
                            tell(&mut out, &event, json)?;
                        }
                    }
                }
                _ => {
                    seen.insert(text(&event, "id").to_owned());
                    tell(&mut out, &event, json)?;
                }
            }
            Ok(true)
        };
        match api.listen(&[], &mut hear) {
            Ok(Listened::Enough | Listened::BrokeOff) => {}
            // Whoever was removed, or whose token was replaced, hears no more.
            Ok(Listened::Refused(no)) => return Ok(refuse(&no, json)),
            // A server that cannot be reached at first is a mistake; later it may be restarting.
            Err(error) if first => return Err(error),
            Err(error) => terminal::complain(&format!("countersign: {error:#}; trying again")),
        }
        first = false;
        std::thread::sleep(PAUSE);
    }
}

/// Exit code 0 when it was approved or ran, 1 when it ended otherwise.
fn watch_one(api: &Api, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let mut told = String::new();
    loop {
        // Told of every change of state, whichever way it is noticed.
        let mut look = |request: &Value| -> anyhow::Result<Option<ExitCode>> {
            let state = text(request, "state");
            if told != state {
                told = state.to_owned();
                let event = json!({ "type": state, "id": text(request, "id"), "request": request });
                tell(&mut terminal::out(terminal::As::of(json)), &event, json)?;
            }
            Ok(match state {
                // A deferred one still has to be claimed, which may take long; approved is enough.
                "executed" | "granted" => Some(ExitCode::SUCCESS),
                "denied" | "expired" | "withdrawn" => Some(ExitCode::from(1)),
                _ => None,
            })
        };
        let mut ended = None;
        let mut hear = |_: &str, event: Value| -> anyhow::Result<bool> {
            let request = match event.get("request") {
                Some(request) => Told::Yes(request.clone()),
                None => api.get(&["requests", id], &[])?,
            };
            ended = match request {
                Told::Yes(request) => look(&request)?,
                Told::No(no) => Some(refuse(&no, json)),
            };
            Ok(ended.is_none())
        };
        match api.get(&["requests", id], &[])? {
            Told::No(no) => return Ok(refuse(&no, json)),
            Told::Yes(_) => {
                if let Listened::Refused(no) = api.listen(&[("request", id)], &mut hear)? {
                    return Ok(refuse(&no, json));
                }
            }
        }
        if let Some(code) = ended {
            return Ok(code);
        }
        std::thread::sleep(PAUSE);
    }
}

fn tell(out: &mut impl std::io::Write, event: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{event}")?;
    } else {
        let request = event.get("request").unwrap_or(&Value::Null);
        let now = Timestamp::now().strftime("%H:%M:%S");
        let [kind, id] = ["type", "id"].map(|name| line(text(event, name)));
        let [class, agent, state] = ["class", "agent", "state"].map(|name| line(text(request, name)));
        let sql = beginning(text(request, "sql"), 60);
        writeln!(out, "{now}  {kind:<9}  {id}  {state:<9}  {class}  {agent}  {sql}")?;
    }
    out.flush()?;
    Ok(())
}

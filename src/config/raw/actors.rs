//! The tables `[[agent]]` and `[[reviewer]]`.

use super::*;

pub(super) fn read_agent(table: &Table<'_>, problems: &Problems) -> Option<RawAgent> {
    let name = read_name(table, "name");
    let owner = table.texts("owner").unwrap_or_default();
    let owners = table.texts("owners").unwrap_or_default();
    let owners: Vec<PersonName> = owner
        .iter()
        .chain(&owners)
        .filter(|at| {
            let empty = person_key(&at.value).is_empty();
            if empty {
                problems.add(&at.place, "is empty");
            }
            if at.value.matches(['@', '\u{ff20}', '\u{fe6b}']).count() > 1 || at.value.contains([';', '\n']) {
                problems.add(
                    &at.place,
                    "names several people; write owners = [\"..\", \"..\"], one address each",
                );
            }
            !empty
        })
        .map(|at| PersonName::new(at.value.trim()))
        .collect();
    if owners.is_empty() {
        table
            .problem("owner", "is missing: somebody has to answer for the agent, and may not approve for it");
    }
    let upstreams = table.texts("upstreams");
    if upstreams.as_ref().is_none_or(Vec::is_empty) {
        table.problem("upstreams", "is missing: which upstreams may it ask for?");
    }
    let verifier = table.text("verifier").and_then(|at| match ScramVerifier::parse(&at.value) {
        Ok(verifier) => Some(verifier),
        Err(message) => {
            problems.add(&at.place, message);
            None
        }
    });
    let certificate = table.text("certificate").and_then(|at| match CertificateRule::parse(&at.value) {
        Ok(rule) => Some(rule),
        Err(message) => {
            problems.add(&at.place, message);
            None
        }
    });
    let token = flatten(table.table("jwt", |table| read_token(table, problems)))?;
    if token.is_some() && table.has("verifier") {
        table.problem("jwt", "stands beside verifier; an agent is asked for a password or for a token");
    }
    if !["verifier", "certificate", "jwt"].into_iter().any(|key| table.has(key)) {
        table.problem("verifier", "is missing (or certificate, or jwt): how does it prove who it is?");
    }
    let revoked = table.boolean("revoked").unwrap_or(false);
    let agent = Agent {
        name: AgentName::new(name?),
        owners,
        upstreams: upstreams?.into_iter().map(|at| UpstreamName::new(at.value)).collect(),
    };
    let (token, files) = token.map_or((None, Vec::new()), |(rule, files)| (Some(Arc::new(rule)), files));
    Some(RawAgent {
        entry: AgentEntry { agent: Arc::new(agent), verifier, certificate, token },
        files,
        revoked,
        place: table.place().clone(),
    })
}

/// The longest that clocks may be apart.
const LARGEST_SKEW: Duration = Duration::from_secs(600);

fn read_token(table: &Table<'_>, problems: &Problems) -> Option<(TokenRule, Vec<At<String>>)> {
    let issuer = table.required_text("issuer");
    let audience = table.required_text("audience");
    let subject = table.required_text("subject");
    let mut files = Vec::new();
    let ca = table.text("ca");
    let keys = table.required_text("jwks").and_then(|at| {
        if at.value.starts_with("https://") || at.value.starts_with("http://") {
            let url = read_url(&at, problems)?;
            files.extend(ca.clone());
            Some(KeyPlace::Url { url, ca: ca.as_ref().map(|ca| ca.value.clone().into()) })
        } else {
            if let Some(ca) = &ca {
                problems.add(&ca.place, "is of no use: jwks is a file");
            }
            files.push(at.clone());
            Some(KeyPlace::File(at.value.into()))
        }
    });
    let algorithms = match table.texts("algorithms") {
        None => Algorithm::ALL.to_vec(),
        Some(names) => {
            if names.is_empty() {
                table.problem("algorithms", "is empty");
            }
            let known = |at: &At<String>| {
                let algorithm = Algorithm::of_name(&at.value);
                if algorithm.is_none() {
                    let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
                    problems.add(&at.place, format!("\"{}\" is not one of {known}", at.value));
                }
                algorithm
            };
            names.iter().filter_map(known).collect()
        }
    };
    let mut claims = ClaimPaths::default();
    table.table("claims", |table| {
        for (name, path) in &mut claims.0 {
            if let Some(names) = table.texts(name) {
                if names.is_empty() || names.iter().any(|at| at.value.is_empty()) {
                    table.problem(name, "names no claim");
                }
                *path = names.into_iter().map(|at| at.value).collect();
            }
        }
    });
    let skew = table.duration("clock_skew").unwrap_or(Duration::from_secs(60));
    if skew > LARGEST_SKEW {
        table.problem("clock_skew", "is longer than ten minutes");
    }
    let rule = TokenRule {
        issuer: issuer?.value,
        audience: audience?.value,
        subject: subject?.value,
        keys: keys?,
        algorithms,
        claims,
        skew,
        end_with_token: table.boolean("end_with_token").unwrap_or(false),
    };
    Some((rule, files))
}

pub(super) fn read_reviewer(table: &Table<'_>, problems: &Problems) -> Option<RawReviewer> {
    let id = table.required_text("id").map(|at| at.value);
    if let Some(id) = &id
        && (id.trim() != id || id.chars().any(char::is_control) || id.len() > 254)
    {
        table.problem("id", "has blanks around it, control characters in it, or more than 254 bytes");
    }
    let also = table.texts("also").unwrap_or_default();
    let groups = table.texts("groups");
    if groups.as_ref().is_none_or(Vec::is_empty) {
        table.problem("groups", "is missing: which groups do they answer for?");
    }
    let mut tokens = Vec::new();
    for at in table.texts("token_hash").unwrap_or_default() {
        match SecretHash::parse(&at.value) {
            Some(hash) => tokens.push(hash),
            None => problems.add(&at.place, "is not of the form \"sha256:\" and 64 hexadecimal digits"),
        }
    }
    let accounts = ChannelName::WITH_ACCOUNTS.into_iter().filter_map(|channel| {
        let account = table.table(channel.as_str(), |account| {
            let team = account.required_text("team");
            let user = account.required_text("user");
            Some(ChatAccount { channel, team: team?.value, user: user?.value })
        });
        account.flatten()
    });
    let accounts = accounts.collect();
    let reviewer = Reviewer {
        id: ReviewerId::new(id?),
        also: also.into_iter().map(|at| PersonName::new(at.value.trim())).collect(),
        groups: groups?.into_iter().map(|at| GroupName::new(at.value)).collect(),
    };
    Some(RawReviewer {
        entry: ReviewerEntry { reviewer: Arc::new(reviewer), tokens, accounts },
        place: table.place().clone(),
    })
}

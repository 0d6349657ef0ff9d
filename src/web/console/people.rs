//! Agents, reviewers and groups, as configured.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;

use super::page::{Answer, Frame, Place, SignedIn, render};
use super::words::count;
use crate::actor::ChannelName;
use crate::approval::quorum;
use crate::identity::{AgentEntry, Directory, ReviewerEntry};
use crate::web::Web;

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    frame: Frame,
    agents: Vec<AgentView>,
    reviewers: Vec<ReviewerView>,
    groups: Vec<GroupView>,
}

struct AgentView {
    name: String,
    owners: Vec<String>,
    upstreams: Vec<String>,
    /// Reviewers who can never approve for it.
    barred: Vec<String>,
}

struct ReviewerView {
    id: String,
    also: Vec<String>,
    groups: Vec<String>,
    /// How they can be recognised.
    ways: Vec<String>,
    is_me: bool,
}

struct GroupView {
    name: String,
    members: Vec<String>,
}

pub(super) async fn page(State(web): State<Web>, SignedIn(browser): SignedIn) -> Answer {
    let directory = web.0.directory.load();
    let me = &browser.who.reviewer().id;
    let page = PeoplePage {
        frame: Frame::new(&web, &browser, Place::People, "People"),
        agents: directory.agents().map(|entry| agent(entry, &directory)).collect(),
        reviewers: directory
            .reviewers()
            .map(|entry| ReviewerView { is_me: entry.reviewer.id == *me, ..reviewer(entry) })
            .collect(),
        groups: directory
            .groups()
            .map(|(name, members)| GroupView {
                name: name.to_string(),
                members: members.iter().map(|member| member.id.to_string()).collect(),
            })
            .collect(),
    };
    Ok(render(StatusCode::OK, &page))
}

fn agent(entry: &AgentEntry, directory: &Directory) -> AgentView {
    let agent = &entry.agent;
    let barred = directory.reviewers().filter(|other| quorum::is_owner(&other.reviewer, agent, &[]));
    AgentView {
        name: agent.name.to_string(),
        owners: agent.owners.iter().map(ToString::to_string).collect(),
        upstreams: agent.upstreams.iter().map(ToString::to_string).collect(),
        barred: barred.map(|other| other.reviewer.id.to_string()).collect(),
    }
}

fn reviewer(entry: &ReviewerEntry) -> ReviewerView {
    let mut ways = Vec::new();
    if !entry.tokens.is_empty() {
        ways.push(count(entry.tokens.len(), "personal token", "personal tokens"));
    }
    for channel in ChannelName::WITH_ACCOUNTS {
        let (accounts, title) = (entry.accounts_on(channel).count(), channel.title());
        if accounts > 0 {
            ways.push(count(accounts, &format!("{title} account"), &format!("{title} accounts")));
        }
    }
    ways.push("one-time links".to_owned());
    ReviewerView {
        id: entry.reviewer.id.to_string(),
        also: entry.reviewer.also.iter().map(ToString::to_string).collect(),
        groups: entry.reviewer.groups.iter().map(ToString::to_string).collect(),
        ways,
        is_me: false,
    }
}

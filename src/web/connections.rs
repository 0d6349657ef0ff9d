//! Which connections stay open: everybody shares a limited number, and nobody can keep others out.
//!
//! Whoever connects is a stranger until a request has proved who sends it. Strangers of one address have
//! a share of the connections, and a life of a minute at most. Where there is no room, the oldest
//! stranger gives way to whoever comes: so idle connections, slow ones, and those that ask for pages
//! again and again cost their owner only. People who have signed in, or use their own token, never give
//! way; agents do, after strangers. An address says nothing of who somebody is: the agent that floods
//! and the reviewer who answers may be on one machine, or behind one proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limiter::network;

/// How many connections there may be, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub all: usize,
    /// From one address, those of people aside.
    pub of_one_address: usize,
    /// How long one may be open without a request under way, whatever pings it answers.
    pub idle: Duration,
    /// How long one may be open on which nobody has proved who they are.
    pub stranger: Duration,
}

impl ConnectionLimits {
    /// `all` connections, a quarter of them from one address.
    #[must_use]
    pub fn of(all: usize) -> Self {
        Self {
            all,
            of_one_address: all.div_ceil(4),
            idle: Duration::from_secs(20),
            stranger: Duration::from_secs(60),
        }
    }
}

/// Who uses a connection, as far as its requests have proved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Stranger,
    Agent,
    Person,
}

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Connections {
    limits: ConnectionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// By age.
    connections: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    origin: IpAddr,
    standing: Standing,
    opened: Instant,
    /// Requests under way.
    requests: usize,
    /// Since when there has been none.
    idle_since: Instant,
    give_way: Arc<Notify>,
}

/// One connection, for as long as it is open. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Connection(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    all: Arc<Connections>,
    number: u64,
    give_way: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default() })
    }

    /// Lets a connection from `address` in, at the cost of an older one if need be. `None` where all the
    /// others are people's.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Connection> {
        let origin = network(address);
        let mut open = self.open.lock();
        let theirs = |entry: &Entry| entry.origin == origin && entry.standing < Standing::Person;
        let victim = if open.connections.values().filter(|entry| theirs(entry)).count()
            >= self.limits.of_one_address
        {
            Some(open.least(theirs)?)
        } else if open.connections.len() >= self.limits.all {
            Some(open.least(|entry| entry.standing < Standing::Person)?)
        } else {
            None
        };
        if let Some(entry) = victim.and_then(|victim| open.connections.remove(&victim)) {
            entry.give_way.notify_one();
        }
        let number = open.next;
        open.next += 1;
        let give_way = Arc::new(Notify::new());
        let entry = Entry {
            origin,
            standing: Standing::Stranger,
            opened: now,
            requests: 0,
            idle_since: now,
            give_way: give_way.clone(),
        };
        open.connections.insert(number, entry);
        drop(open);
        Some(Connection(Arc::new(Handle { all: self.clone(), number, give_way })))
    }
}

impl Open {
    /// Who gives way among those that `fits` allows: strangers first, the oldest first.
    fn least(&self, fits: impl Fn(&Entry) -> bool) -> Option<u64> {
        let fitting = self.connections.iter().filter(|(_, entry)| fits(entry));
        fitting.min_by_key(|(number, entry)| (entry.standing, **number)).map(|(number, _)| *number)
    }
}

impl Connection {
    fn change<T>(&self, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.0.all.open.lock().connections.get_mut(&self.0.number).map(change)
    }

    /// A request on it has proved who sends it.
    pub(super) fn proved(&self, standing: Standing) {
        self.change(|entry| entry.standing = entry.standing.max(standing));
    }

    /// A request begins; it is under way until the returned value is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        self.change(|entry| entry.requests += 1);
        UnderWay(self.clone())
    }

    /// Waits until it has to give way to another.
    pub(super) async fn gives_way(&self) {
        self.0.give_way.notified().await;
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let limits = self.0.all.limits;
        self.change(|entry| {
            let is_idle = entry.requests == 0 && now.duration_since(entry.idle_since) >= limits.idle;
            let is_stranger = entry.standing == Standing::Stranger;
            is_idle || (is_stranger && now.duration_since(entry.opened) >= limits.stranger)
        })
        .unwrap_or(true)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.all.open.lock().connections.remove(&self.number);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Connection);

impl UnderWay {
    /// Holds it for as long as the body of its answer is being sent.
    pub(super) fn until_sent(self, body: Body) -> Body {
        Body::new(Sent { body, _under_way: self })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.change(|entry| {
            entry.requests = entry.requests.saturating_sub(1);
            entry.idle_since = Instant::now();
        });
    }
}

/// A body that keeps its request under way.
struct Sent {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        all: 8,
        of_one_address: 3,
        idle: Duration::from_secs(20),
        stranger: Duration::from_secs(60),
    };

    fn enter(connections: &Arc<Connections>, address: &str) -> Option<Connection> {
        connections.enter(address.parse().unwrap(), Instant::now())
    }

    fn has_given_way(connection: &Connection) -> bool {
        connection.change(|_| ()).is_none()
    }

    #[test]
    fn strangers_of_one_address_give_way_to_each_other_only() {
        let connections = Connections::new(LIMITS);
        let other = enter(&connections, "192.0.2.9").unwrap();

        let flood: Vec<Connection> = (0..100).map(|_| enter(&connections, "192.0.2.1").unwrap()).collect();

        assert!(!has_given_way(&other));
        let left = flood.iter().filter(|connection| !has_given_way(connection)).count();
        assert_eq!((left, has_given_way(&flood[99]), has_given_way(&flood[96])), (3, false, true));
        drop(flood);
        assert_eq!(connections.open.lock().connections.len(), 1);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_and_those_of_this_machine_are_several() {
        let connections = Connections::new(LIMITS);
        let six: Vec<Connection> =
            (0..4).map(|n| enter(&connections, &format!("2001:db8::{n}")).unwrap()).collect();
        let local: Vec<Connection> =
            (1..5).map(|n| enter(&connections, &format!("127.0.0.{n}")).unwrap()).collect();

        assert!(has_given_way(&six[0]));
        assert!(local.iter().all(|connection| !has_given_way(connection)));
    }

    #[test]
    fn people_never_give_way_and_agents_do_after_strangers() {
        let connections = Connections::new(LIMITS);
        let from = |n: usize| enter(&connections, &format!("192.0.2.{n}"));
        let person = from(1).unwrap();
        person.proved(Standing::Person);
        person.proved(Standing::Agent);
        let agent = from(1).unwrap();
        agent.proved(Standing::Agent);
        // Of the same address as the person.
        let strangers: Vec<Connection> = (0..50).map(|_| from(1).unwrap()).collect();
        assert!(!has_given_way(&person) && !has_given_way(&agent) && has_given_way(&strangers[0]));

        let others: Vec<Connection> = (2..200).map(|n| from(n).unwrap()).collect();
        assert!(!has_given_way(&person) && !has_given_way(&agent) && !has_given_way(&others[197]));
        for connection in others.iter().filter(|connection| !has_given_way(connection)) {
            connection.proved(Standing::Person);
        }
        assert!(from(250).is_some(), "the agent gives way");
        assert!(has_given_way(&agent) && !has_given_way(&person));
        let last = from(251).unwrap();
        last.proved(Standing::Person);
        assert!(from(252).is_none(), "all are people's");
    }

    #[test]
    fn an_idle_connection_is_over_and_so_is_an_old_one_of_a_stranger() {
        let connections = Connections::new(LIMITS);
        let connection = enter(&connections, "192.0.2.1").unwrap();
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);

        assert!(!connection.is_over(after(19)) && connection.is_over(after(21)));
        let under_way = connection.begin();
        assert!(!connection.is_over(after(59)) && connection.is_over(after(61)));
        connection.proved(Standing::Person);
        assert!(!connection.is_over(after(600)));
        drop(under_way);
        assert!(!connection.is_over(after(19)) && connection.is_over(after(21)));
    }
}

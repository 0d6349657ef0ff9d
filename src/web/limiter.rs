//! How often somebody may do something: fail to prove who they are, or, for agents, ask at all.
//!
//! Secrets are too long to be guessed; this keeps guessing from costing us time (an agent's password
//! takes thousands of hashes to check) and from filling the log. Agents are not trusted: one that asks
//! a thousand times a second must not keep reviewers from answering.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// How many there may be within a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Of one party.
    pub(super) of_one: u32,
    /// Of everybody together.
    pub(super) of_all: u32,
}

/// Failed proofs.
pub(super) const FAILURES: Allowance = Allowance { of_one: 20, of_all: 400 };
/// Requests of agents.
pub(super) const ASKING: Allowance = Allowance { of_one: 300, of_all: 3_000 };

/// A window.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// Counts what parties do, in windows of a minute.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    allowance: Allowance,
    window: Mutex<Window<K>>,
}

#[derive(Debug)]
struct Window<K> {
    began: Timestamp,
    by_party: BTreeMap<K, u32>,
    all: u32,
}

impl<K: Ord> Limiter<K> {
    pub(super) fn new(allowance: Allowance) -> Self {
        let window = Window { began: Timestamp::UNIX_EPOCH, by_party: BTreeMap::new(), all: 0 };
        Self { allowance, window: Mutex::new(window) }
    }

    /// How long `party` has to wait before it may go on; `None` when it may.
    pub(super) fn wait(&self, party: &K, now: Timestamp) -> Option<Duration> {
        let window = &mut *self.window.lock();
        window.turn(now);
        let of_one = window.by_party.get(party).copied().unwrap_or(0);
        let left = WINDOW - now.duration_since(window.began);
        let is_over = of_one >= self.allowance.of_one || window.all >= self.allowance.of_all;
        is_over.then(|| Duration::try_from(left).unwrap_or_default())
    }

    /// Notes that `party` did it.
    pub(super) fn note(&self, party: K, now: Timestamp) {
        let window = &mut *self.window.lock();
        window.turn(now);
        // There are never more parties than notes, so their number is bounded, too.
        if window.all < self.allowance.of_all {
            *window.by_party.entry(party).or_default() += 1;
            window.all += 1;
        }
    }
}

impl<K: Ord> Window<K> {
    fn turn(&mut self, now: Timestamp) {
        let age = now.duration_since(self.began);
        if age >= WINDOW || age.is_negative() {
            *self = Self { began: now, by_party: BTreeMap::new(), all: 0 };
        }
    }
}

/// What one party has of addresses: of IPv6 a whole /64.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6(Ipv6Addr::from(u128::from(six) >> 64 << 64)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        network(text.parse().unwrap())
    }

    #[test]
    fn one_party_is_stopped_and_others_are_not() {
        let limiter = Limiter::new(FAILURES);
        let guessing = address("2001:db8::1");
        for _ in 0..FAILURES.of_one {
            assert_eq!(limiter.wait(&guessing, at(0)), None);
            limiter.note(guessing, at(0));
        }

        assert_eq!(limiter.wait(&guessing, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(limiter.wait(&address("2001:db8::2"), at(20)), Some(Duration::from_secs(40)));
        assert_eq!(limiter.wait(&address("192.0.2.1"), at(20)), None);
        assert_eq!(limiter.wait(&guessing, at(60)), None);
    }

    #[test]
    fn everybody_together_is_stopped_too() {
        let limiter = Limiter::new(FAILURES);
        for number in 0..FAILURES.of_all {
            limiter.note(IpAddr::V4(number.into()), at(0));
        }

        assert!(limiter.wait(&address("192.0.2.1"), at(1)).is_some());
    }
}

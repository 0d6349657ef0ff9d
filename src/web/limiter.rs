//! How often somebody may fail to prove who they are.
//!
//! The secrets are too long to be guessed; this keeps guessing from costing us time (an agent's
//! password takes thousands of hashes to check) and from filling the log.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// Failures of one address within a window.
const OF_ONE: u32 = 20;
/// Failures of everybody together within a window.
const OF_ALL: u32 = 400;
/// A window.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// Counts failures, in windows of a minute.
#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Timestamp,
    by_address: BTreeMap<IpAddr, u32>,
    all: u32,
}

impl Limiter {
    /// How long `address` has to wait before it may try again; `None` when it may.
    pub(super) fn wait(&self, address: IpAddr, now: Timestamp) -> Option<Duration> {
        let window = &mut *self.0.lock();
        window.turn(now);
        let of_one = window.by_address.get(&network(address)).copied().unwrap_or(0);
        let left = WINDOW - now.duration_since(window.began);
        (of_one >= OF_ONE || window.all >= OF_ALL).then(|| Duration::try_from(left).unwrap_or_default())
    }

    /// Notes a failure.
    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) {
        let window = &mut *self.0.lock();
        window.turn(now);
        // There are never more addresses than failures, so their number is bounded, too.
        if window.all < OF_ALL {
            *window.by_address.entry(network(address)).or_default() += 1;
            window.all += 1;
        }
    }
}

impl Window {
    fn turn(&mut self, now: Timestamp) {
        let age = now.duration_since(self.began);
        if age >= WINDOW || age.is_negative() {
            *self = Self { began: now, ..Self::default() };
        }
    }
}

/// What one party has of addresses: of IPv6 a whole /64.
fn network(address: IpAddr) -> IpAddr {
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

    #[test]
    fn one_address_is_stopped_and_others_are_not() {
        let limiter = Limiter::default();
        let guessing: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..OF_ONE {
            assert_eq!(limiter.wait(guessing, at(0)), None);
            limiter.failed(guessing, at(0));
        }

        assert_eq!(limiter.wait(guessing, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(limiter.wait(neighbour, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(limiter.wait(other, at(20)), None);
        assert_eq!(limiter.wait(guessing, at(60)), None);
    }

    #[test]
    fn everybody_together_is_stopped_too() {
        let limiter = Limiter::default();
        for number in 0..OF_ALL {
            limiter.failed(IpAddr::V4(number.into()), at(0));
        }

        assert!(limiter.wait("192.0.2.1".parse().unwrap(), at(1)).is_some());
    }
}

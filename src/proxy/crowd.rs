//! How many connections may stand at the door that have not proved who they are.
//!
//! All of them share one limit, and those of one address have a part of it, so that one address cannot
//! keep everybody else out. Connections from this machine, by whatever address of its own, have all but
//! one such part: those of a gateway or a sidecar all come from there, but so do those of an agent that
//! runs beside the proxy, and it must not keep others out either.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Crowd {
    limit: usize,
    share: usize,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    all: usize,
    from: HashMap<Origin, usize>,
}

/// Whose connections are counted together: an IPv4 address, or the network that one IPv6 host has to
/// itself (RFC 6177: at least a /64), or this machine.
type Origin = u64;

/// This machine: IPv4's first loopback address stands for all of them.
const HERE: Origin = 0x7f00_0001;

fn origin(address: IpAddr) -> Origin {
    match address.to_canonical() {
        address if address.is_loopback() => HERE,
        IpAddr::V4(address) => u64::from(u32::from(address)),
        // No network that is routed begins with 32 zero bits, so this is never an IPv4 address.
        IpAddr::V6(address) => u64::try_from(u128::from(address) >> 64).unwrap_or_default(),
    }
}

/// One place in the crowd, given back when it is dropped.
pub(super) struct Place {
    crowd: Arc<Crowd>,
    origin: Origin,
}

impl Crowd {
    /// At most `limit` connections, at most `share` from one address.
    pub(super) fn new(limit: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { limit, share, standing: Mutex::default() })
    }

    /// A place for a connection from `address`, if there is one.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let origin = origin(address);
        let mut standing = self.standing.lock();
        if standing.all >= self.limit {
            return None;
        }
        let share = match origin {
            HERE => self.limit.saturating_sub(self.share).max(self.share),
            _ => self.share,
        };
        let theirs = standing.from.entry(origin).or_insert(0);
        if *theirs >= share {
            return None;
        }
        *theirs += 1;
        standing.all += 1;
        Some(Place { crowd: Arc::clone(self), origin })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut standing = self.crowd.standing.lock();
        standing.all -= 1;
        if let Entry::Occupied(mut theirs) = standing.from.entry(self.origin) {
            *theirs.get_mut() -= 1;
            if *theirs.get() == 0 {
                theirs.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(crowd: &Arc<Crowd>, address: &str) -> Vec<Place> {
        std::iter::from_fn(|| crowd.enter(address.parse().unwrap())).collect()
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        let crowd = Crowd::new(8, 2);

        let one = fill(&crowd, "192.0.2.1");
        let mapped = fill(&crowd, "::ffff:192.0.2.1");
        let other = fill(&crowd, "192.0.2.2");
        assert_eq!((one.len(), mapped.len(), other.len()), (2, 0, 2));

        drop(one);
        assert_eq!(fill(&crowd, "192.0.2.1").len(), 2);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        let crowd = Crowd::new(8, 2);

        let one = fill(&crowd, "2001:db8::1");
        assert_eq!((one.len(), fill(&crowd, "2001:db8::ffff:2").len()), (2, 0));
        assert_eq!(fill(&crowd, "2001:db8:0:1::1").len(), 2);
    }

    #[test]
    fn this_machine_has_more_than_one_share_and_leaves_one_for_others() {
        let crowd = Crowd::new(8, 2);

        let here = fill(&crowd, "127.0.0.1");
        assert_eq!((here.len(), fill(&crowd, "127.0.0.2").len(), fill(&crowd, "::1").len()), (6, 0, 0));
        assert_eq!(fill(&crowd, "192.0.2.1").len(), 2);

        drop(here);
        assert!(crowd.standing.lock().from.is_empty() && crowd.standing.lock().all == 0);
        assert_eq!(fill(&crowd, "::1").len(), 6);
        // Where one address may have everything, so may this machine.
        assert_eq!(fill(&Crowd::new(8, 8), "::1").len(), 8);
    }
}

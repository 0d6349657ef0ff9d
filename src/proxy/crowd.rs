//! How many connections may stand at the door that have not proved who they are.
//!
//! All of them share one limit, and those of one address have a part of it, so that one address cannot
//! keep everybody else out. Connections from this machine have no part of their own: whoever can open
//! them can do worse, and all of a gateway's or a sidecar's come from one address.

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
/// itself (RFC 6177: at least a /64).
type Origin = u64;

fn origin(address: IpAddr) -> Option<Origin> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(u64::from(u32::from(address))),
        // No network that is routed begins with 32 zero bits, so this is never an IPv4 address.
        IpAddr::V6(address) => u64::try_from(u128::from(address) >> 64).ok(),
    }
}

/// One place in the crowd, given back when it is dropped.
pub(super) struct Place {
    crowd: Arc<Crowd>,
    origin: Option<Origin>,
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
        if let Some(origin) = origin {
            let theirs = standing.from.entry(origin).or_insert(0);
            if *theirs >= self.share {
                return None;
            }
            *theirs += 1;
        }
        standing.all += 1;
        Some(Place { crowd: Arc::clone(self), origin })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut standing = self.crowd.standing.lock();
        standing.all -= 1;
        if let Some(origin) = self.origin
            && let Entry::Occupied(mut theirs) = standing.from.entry(origin)
        {
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
    fn this_machine_has_no_share_but_the_limit_holds_for_it_too() {
        let crowd = Crowd::new(8, 2);

        let here = fill(&crowd, "127.0.0.1");
        assert_eq!(here.len(), 8);
        assert!(crowd.enter("192.0.2.1".parse().unwrap()).is_none());

        drop(here);
        assert!(crowd.standing.lock().from.is_empty() && crowd.standing.lock().all == 0);
        assert_eq!(fill(&crowd, "::1").len(), 8);
    }
}

//! Addresses of the cloud's endpoints, kept for a while: the HTTP client asks for them before each request, even where a
//! connection stands. A thousand blocks a second would be more questions than a VPC's resolver answers (1,024 packets a second
//! for each interface: Amazon VPC User Guide, "DNS attributes").

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// As long as AWS says that its endpoints' addresses are good.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Kept {
    system: DefaultResolver,
    found: Mutex<HashMap<String, Found>>,
}

#[derive(Debug)]
struct Found {
    at: Instant,
    addresses: Vec<SocketAddr>,
    /// Each asker gets another one first, so that connections are spread.
    turn: usize,
}

impl Kept {
    fn known(&self, host: &str) -> Option<ResolvedSocketAddrs> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let found = found
            .get_mut(host)
            .filter(|found| found.at.elapsed() < KEPT)?;
        found.turn = (found.turn + 1) % found.addresses.len();
        let (later, first) = found.addresses.split_at(found.turn);
        let mut addresses = self.empty();
        first
            .iter()
            .chain(later)
            .for_each(|address| addresses.push(*address));
        Some(addresses)
    }
}

impl Resolver for Kept {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = format!("{:?} {:?}", uri.scheme(), uri.authority());
        if let Some(known) = self.known(&host) {
            return Ok(known);
        }
        let fresh = self.system.resolve(uri, config, timeout)?;
        if !fresh.is_empty() {
            let found = Found {
                at: Instant::now(),
                addresses: fresh.to_vec(),
                turn: 0,
            };
            let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(host, found);
        }
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_and_take_turns() {
        let kept = Kept::default();
        assert!(kept.known("a").is_none());
        let addresses: Vec<SocketAddr> = ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        let at = Instant::now();
        kept.found.lock().unwrap().insert(
            "a".into(),
            Found {
                at,
                addresses: addresses.clone(),
                turn: 0,
            },
        );
        let mut firsts: Vec<SocketAddr> = (0..3).map(|_| kept.known("a").unwrap()[0]).collect();
        firsts.sort();
        assert_eq!(firsts, addresses);
        if let Some(past) = at.checked_sub(KEPT) {
            kept.found.lock().unwrap().get_mut("a").unwrap().at = past;
            assert!(kept.known("a").is_none(), "no longer");
        }
    }
}

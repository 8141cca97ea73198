//! How often the API may be asked: by the holder of one token, and by one address that shows no good one.
//!
//! Whoever holds the controller's own token is not limited: it can read the identity, and stop the controller. Nor is an address on
//! loopback, unless that is wished: behind it may be all users of this machine, or a proxy and all who come through it, and one of
//! them could lock the others out.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    access::MAX_TOKENS,
    rates::{Buckets, Rate},
};
use crate::{
    api::{ApiError, Code},
    id::AgentName,
};

/// What a token may use at once is what it gets in so many seconds.
const BURST: u32 = 10;
/// Addresses that are remembered at once: about 1 MiB.
const ADDRESSES: usize = 8192;

/// How often the API may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests a second with one token, ten times as many at once; 0 is no limit. Each is a hash and a lock, so that this is about
    /// fairness between tokens more than about the controller's life. Default 200: a fan-out to 2,000 agents does not wait.
    pub token: u32,
    /// Requests a minute from one address without a good token, as many at once; 0 is no limit. An address above it is answered
    /// without a look at its token. Default 30.
    pub address: u32,
    /// Whether that holds for addresses of this machine as well. Default no.
    pub loopback: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { token: 200, address: 30, loopback: false }
    }
}

/// Who was asked for too often, and when one may ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// After how long.
    pub after: Duration,
    /// What is said.
    pub error: ApiError,
}

impl Limited {
    fn new(after: Duration, message: fmt::Arguments<'_>) -> Self {
        let after = Duration::from_secs(after.as_secs().saturating_add(1));
        Self { after, error: ApiError::new(Code::TooOften, format!("{message}; ask again in {after:?}")) }
    }
}

/// Watches how often the API is asked.
pub struct Limiter {
    limits: Limits,
    tokens: Option<Mutex<Buckets<AgentName>>>,
    addresses: Option<Mutex<Buckets<IpAddr>>>,
    limited: [AtomicU64; 2],
}

impl Limiter {
    /// Nobody has asked yet.
    pub fn new(limits: Limits) -> Self {
        let token = Rate::new(limits.token, Duration::from_secs(1), limits.token.saturating_mul(BURST));
        let address = Rate::new(limits.address, Duration::from_secs(60), limits.address);
        Self {
            limits,
            tokens: token.map(|rate| Mutex::new(Buckets::new(rate, MAX_TOKENS))),
            addresses: address.map(|rate| Mutex::new(Buckets::new(rate, ADDRESSES))),
            limited: Default::default(),
        }
    }

    /// A request with the good token of `name`.
    pub fn ask(&self, now: Duration, name: &AgentName) -> Result<(), Limited> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let taken = tokens.lock().expect("no holder panics").take(now, name);
        taken.map_err(|after| {
            self.limited[0].fetch_add(1, Relaxed);
            let most = self.limits.token;
            let cure = "space requests out, or have the controller's --token-rate raised";
            Limited::new(after, format_args!("the token of {name} is used more than {most} times a second; {cure}"))
        })
    }

    /// Whether what `from` shows is looked at.
    pub fn look(&self, now: Duration, from: Option<IpAddr>) -> Result<(), Limited> {
        let Some((addresses, from)) = self.counted(from) else { return Ok(()) };
        let checked = addresses.lock().expect("no holder panics").check(now, &from);
        checked.map_err(|after| {
            self.limited[1].fetch_add(1, Relaxed);
            let cure = "stop what asks with a wrong one, and look at --api-token";
            Limited::new(after, format_args!("too many requests from {from} had no token that is good; {cure}"))
        })
    }

    /// What `from` showed was no good token.
    pub fn failed(&self, now: Duration, from: Option<IpAddr>) {
        if let Some((addresses, from)) = self.counted(from) {
            // Several at once may be one too many.
            let _ = addresses.lock().expect("no holder panics").take(now, &from);
        }
    }

    /// How many requests were refused, by what they were counted by.
    pub fn limited(&self) -> [(&'static str, u64); 2] {
        [("token", self.limited[0].load(Relaxed)), ("address", self.limited[1].load(Relaxed))]
    }

    fn counted(&self, from: Option<IpAddr>) -> Option<(&Mutex<Buckets<IpAddr>>, IpAddr)> {
        let from = network(from?.to_canonical());
        self.addresses
            .as_ref()
            .map(|addresses| (addresses, from))
            .filter(|_| self.limits.loopback || !from.is_loopback())
    }
}

/// Of an IPv6 address its network of 64 bits: who has one address of it has all.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(limiter: &Limiter, from: &str) -> usize {
        let from = Some(from.parse().expect("an address"));
        let tries = (0..1000).take_while(|_| limiter.look(Duration::ZERO, from).is_ok());
        tries.inspect(|_| limiter.failed(Duration::ZERO, from)).count()
    }

    #[test]
    fn guesses_from_one_address_are_few_a_minute_and_others_are_not_held_up() {
        let limiter = Limiter::new(Limits::default());
        assert_eq!(failing(&limiter, "192.0.2.1"), 30);
        assert_eq!(failing(&limiter, "192.0.2.2"), 30);
        assert_eq!(failing(&limiter, "::ffff:192.0.2.2"), 0, "the same in other words");
        assert_eq!(failing(&limiter, "2001:db8::1"), 30);
        assert_eq!(failing(&limiter, "2001:db8::2"), 0, "whose network it is");
        let from = Some("192.0.2.1".parse().expect("an address"));
        let limited = limiter.look(Duration::ZERO, from).expect_err("still");
        assert_eq!((limited.after, limited.error.code), (Duration::from_secs(3), Code::TooOften));
        assert!(limited.error.message.contains("ask again in 3s"), "{}", limited.error);
        limiter.look(Duration::from_secs(2), from).expect("one more");
        assert_eq!(limiter.limited()[1].0, "address");
        assert!(limiter.limited()[1].1 > 0);
    }

    #[test]
    fn this_machine_is_limited_only_if_that_is_wished() {
        assert_eq!(failing(&Limiter::new(Limits::default()), "127.0.0.1"), 1000);
        assert_eq!(failing(&Limiter::new(Limits::default()), "::1"), 1000);
        let strict = Limits { loopback: true, ..Limits::default() };
        assert_eq!(failing(&Limiter::new(strict), "127.0.0.1"), 30);
        assert_eq!(failing(&Limiter::new(Limits { address: 0, ..strict }), "127.0.0.1"), 1000);
    }

    #[test]
    fn a_token_is_limited_for_itself() {
        let limiter = Limiter::new(Limits::default());
        let [a, b] = ["a", "b"].map(|name| name.parse::<AgentName>().expect("a name"));
        let asked = (0..9999).take_while(|_| limiter.ask(Duration::ZERO, &a).is_ok()).count();
        assert_eq!(asked, 2000);
        assert_eq!(limiter.ask(Duration::ZERO, &b), Ok(()));
        let limited = limiter.ask(Duration::ZERO, &a).expect_err("still");
        assert!(limited.error.message.contains("token of a is used more than 200 times a second"), "{}", limited.error);
        let free = Limiter::new(Limits { token: 0, ..Limits::default() });
        assert!((0..9999).all(|_| free.ask(Duration::ZERO, &a).is_ok()));
    }
}

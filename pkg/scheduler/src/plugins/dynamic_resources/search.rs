//! The search for devices on one node: request by request the first device that is free and right, and where that leads nowhere the
//! next. The first whole solution is taken, as upstream takes it.
//!
//! The devices of one request are looked for in order, so that no set of them is tried twice; constraints do not depend on the
//! order.

use std::time::Duration;

use k8s_openapi::api::resource::v1::DeviceAttribute;

use super::ask::{Amount, Ask, Choice, Request, key};
use super::clock::Clock;
use crate::cluster::claims::{Device, NodePool, State};
use crate::cluster::{Claims, NodeInfo};

/// So many devices has an allocation at most (resource.k8s.io).
const MOST_DEVICES: usize = 32;

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfound {
    /// There is none on this node.
    None,
    /// There is none in those pools of the node that are as they should be.
    InvalidPools,
    TimedOut,
    /// Something is wrong, wherever the pod goes.
    Failed(String),
}

/// A device that is given to a request of a claim.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    pub request: usize,
    pub choice: usize,
    pub driver: &'a str,
    pub pool: &'a str,
    pub device: Device<'a>,
}

/// Why a branch of the search ends.
enum Stop {
    /// A claim would get more than it can have: only a smaller choice helps.
    TooMany,
    TimedOut,
    Failed(String),
}

/// Where the search is.
#[derive(Clone, Copy)]
struct At {
    claim: usize,
    request: usize,
    choice: usize,
    /// How many devices the choice has already.
    device: usize,
    /// From where its next one is looked for.
    from: Cursor,
}

/// A choice by the places of its claim, its request and itself.
type Place = (usize, usize, usize);

#[derive(Clone, Copy, Default)]
struct Cursor {
    pool: usize,
    slice: usize,
    device: usize,
}

struct Search<'s, 'a> {
    claims: &'a Claims,
    asks: &'s [Ask<'a>],
    pools: &'s [NodePool<'a>],
    /// What "all" is for each choice of each request that asks for it.
    every: Vec<(Place, Vec<Candidate<'a>>)>,
    picks: Vec<Vec<Pick<'a>>>,
    clock: Clock,
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    driver: &'a str,
    pool: &'a str,
    device: Device<'a>,
}

/// The devices of each claim on a node.
///
/// # Errors
/// Why there are none.
pub fn search<'a>(
    asks: &[Ask<'a>],
    claims: &'a Claims,
    node: &NodeInfo,
    timeout: Option<Duration>,
) -> Result<Vec<Vec<Pick<'a>>>, Unfound> {
    let pools = claims.pools_of(node);
    let mut search = Search {
        claims,
        asks,
        pools: &pools,
        every: Vec::new(),
        picks: asks.iter().map(|_| Vec::new()).collect(),
        clock: Clock::new(timeout),
    };
    for claim in 0..asks.len() {
        search.check_size(claim).map_err(Unfound::Failed)?;
    }
    match search.request(0, 0) {
        Ok(true) => Ok(search.picks),
        Err(Stop::TimedOut) => Err(Unfound::TimedOut),
        Err(Stop::Failed(why)) => Err(Unfound::Failed(why)),
        Ok(false) | Err(Stop::TooMany) if pools.iter().any(|pool| pool.state == State::Invalid) => {
            Err(Unfound::InvalidPools)
        }
        Ok(false) | Err(Stop::TooMany) => Err(Unfound::None),
    }
}

impl<'a> Search<'_, 'a> {
    /// Whether a claim asks for no more than it can have; looks up what "all" is for it.
    fn check_size(&mut self, claim: usize) -> Result<(), String> {
        let ask = &self.asks[claim];
        let mut least = 0_usize;
        for (at, request) in ask.requests.iter().enumerate() {
            let mut smallest = None;
            for (choice_at, choice) in request.choices.iter().enumerate() {
                let size = match choice.amount {
                    Amount::Exactly(count) => count,
                    Amount::All => {
                        let every = self.every(ask, choice)?;
                        let size = every.len();
                        self.every.push(((claim, at, choice_at), every));
                        size
                    }
                };
                smallest = Some(smallest.map_or(size, |smallest: usize| smallest.min(size)));
            }
            least = least.saturating_add(smallest.unwrap_or(0));
        }
        match least > MOST_DEVICES {
            true => Err(format!(
                "claim {}: number of requested devices {least} exceeds the claim limit of {MOST_DEVICES}",
                key(ask.claim)
            )),
            false => Ok(()),
        }
    }

    /// All devices that a choice is for.
    fn all_of(&self, at: At) -> &[Candidate<'a>] {
        let place = (at.claim, at.request, at.choice);
        let own = self.every.iter().find(|(of, _)| *of == place);
        own.map_or(&[], |(_, every)| every)
    }

    fn every(&self, ask: &Ask<'a>, choice: &Choice<'a>) -> Result<Vec<Candidate<'a>>, String> {
        let mut every = Vec::new();
        for pool in self.pools {
            let state = match pool.state {
                State::Whole => None,
                State::Incomplete => Some("being updated"),
                State::Invalid => Some("invalid"),
            };
            if let Some(state) = state {
                let (key, name, driver, pool) = (key(ask.claim), choice.name, pool.driver, pool.name);
                return Err(format!(
                    "claim {key}, request {name}: asks for all devices, but resource pool {driver}/{pool} is currently {state}"
                ));
            }
            for device in pool.slices.iter().flat_map(|slice| slice.devices()) {
                if choice.selects(ask.claim, &device)? {
                    every.push(Candidate {
                        driver: pool.driver,
                        pool: pool.name,
                        device,
                    });
                }
            }
        }
        Ok(every)
    }

    fn request(&mut self, claim: usize, request: usize) -> Result<bool, Stop> {
        let asks = self.asks;
        let Some(ask) = asks.get(claim) else { return Ok(true) };
        let Some(own) = ask.requests.get(request) else {
            return match self.request(claim + 1, 0) {
                // Another device for what came before may leave more room for the next claim.
                Err(Stop::TooMany) => Ok(false),
                found => found,
            };
        };
        let mut too_many = true;
        for choice in 0..own.choices.len() {
            let at = At {
                claim,
                request,
                choice,
                device: 0,
                from: Cursor::default(),
            };
            match self.device(at) {
                Err(Stop::TooMany) if own.listed => {}
                Ok(false) => too_many = false,
                found => return found,
            }
        }
        match own.listed && too_many {
            true => Err(Stop::TooMany),
            false => Ok(false),
        }
    }

    fn device(&mut self, at: At) -> Result<bool, Stop> {
        if self.clock.is_over() {
            return Err(Stop::TimedOut);
        }
        let asks = self.asks;
        let request = &asks[at.claim].requests[at.request];
        let choice = &request.choices[at.choice];
        let wanted = match choice.amount {
            Amount::Exactly(count) => count,
            Amount::All => match self.all_of(at).len() {
                0 => return Ok(false),
                all => all,
            },
        };
        if at.device >= wanted {
            return self.request(at.claim, at.request + 1);
        }
        if self.picks[at.claim].len() + wanted - at.device > MOST_DEVICES {
            return Err(Stop::TooMany);
        }
        match choice.amount {
            Amount::All => self.the_next(at, request, choice),
            Amount::Exactly(_) => self.any(at, request, choice),
        }
    }

    /// Of all devices the one whose turn it is: there is no other.
    fn the_next(&mut self, at: At, request: &Request<'a>, choice: &Choice<'a>) -> Result<bool, Stop> {
        let Some(candidate) = self.all_of(at).get(at.device).copied() else {
            return Ok(false);
        };
        let device = &candidate.device;
        if !self.allows(at, choice, device) {
            return Ok(false);
        }
        if !self.matches(at, request, choice, device) {
            let (key, name) = (key(self.asks[at.claim].claim), choice.name);
            let Candidate { driver, pool, .. } = candidate;
            let device = &device.object.name;
            return Err(Stop::Failed(format!(
                "claim {key}, request {name}: cannot add device {driver}/{pool}/{device} because a claim constraint would not be satisfied"
            )));
        }
        self.with(at, candidate)
    }

    /// One device after the other, until one leads to a solution.
    fn any(&mut self, at: At, request: &Request<'a>, choice: &Choice<'a>) -> Result<bool, Stop> {
        let pools = self.pools;
        let mut from = at.from;
        while let Some((here, candidate)) = next(pools, from) {
            from = Cursor {
                device: here.device + 1,
                ..here
            };
            let device = &candidate.device;
            if self.allows(at, choice, device)
                && choice
                    .selects(self.asks[at.claim].claim, device)
                    .map_err(Stop::Failed)?
                && self.matches(at, request, choice, device)
                && self.with(At { from, ..at }, candidate)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on with the device, and takes it back where that leads nowhere.
    fn with(&mut self, at: At, candidate: Candidate<'a>) -> Result<bool, Stop> {
        let had = self.picks[at.claim].len();
        self.picks[at.claim].push(Pick {
            request: at.request,
            choice: at.choice,
            driver: candidate.driver,
            pool: candidate.pool,
            device: candidate.device,
        });
        let found = self.device(At {
            device: at.device + 1,
            ..at
        });
        if !matches!(found, Ok(true)) {
            self.picks[at.claim].truncate(had);
        }
        found
    }

    /// Whether nobody has it who stands in the way. An administrator only gets a device once for one claim.
    fn allows(&self, at: At, choice: &Choice<'_>, device: &Device<'_>) -> bool {
        let has = |picks: &Vec<Pick<'_>>| picks.iter().any(|pick| pick.device.id == device.id);
        let in_use = match choice.admin {
            true => has(&self.picks[at.claim]),
            false => self.claims.is_taken(device.id) || self.picks.iter().any(has),
        };
        !in_use && device.usable
    }

    /// Whether the claim's constraints hold with it, as they do without.
    fn matches(&self, at: At, request: &Request<'_>, choice: &Choice<'_>, device: &Device<'_>) -> bool {
        let ask = &self.asks[at.claim];
        let mut constraints = ask.constraints.iter().filter(|own| own.concerns(request, choice));
        constraints.all(|same| {
            let Some(value) = attribute(device, same.attribute) else {
                return false;
            };
            let mut picks = self.picks[at.claim].iter().filter(|pick| {
                let request = &ask.requests[pick.request];
                same.concerns(request, &request.choices[pick.choice])
            });
            let other = picks.next().map(|pick| attribute(&pick.device, same.attribute));
            other.is_none_or(|other| other.is_some_and(|other| equal(value, other)))
        })
    }
}

/// The first device from here on, and where it is.
fn next<'a>(pools: &[NodePool<'a>], mut from: Cursor) -> Option<(Cursor, Candidate<'a>)> {
    loop {
        let pool = pools.get(from.pool)?;
        let slice = pool.slices.get(from.slice).filter(|_| pool.state == State::Whole);
        let Some(slice) = slice else {
            from = Cursor {
                pool: from.pool + 1,
                ..Cursor::default()
            };
            continue;
        };
        if let Some(device) = slice.device(from.device) {
            let candidate = Candidate {
                driver: pool.driver,
                pool: pool.name,
                device,
            };
            return Some((from, candidate));
        }
        from = Cursor {
            slice: from.slice + 1,
            device: 0,
            ..from
        };
    }
}

/// A device's attribute by its name with domain. Those of the driver's domain may be written without.
fn attribute<'a>(device: &Device<'a>, name: &str) -> Option<&'a DeviceAttribute> {
    let all = device.object.attributes.as_ref()?;
    all.get(name).or_else(|| {
        let (domain, name) = name.split_once('/')?;
        let own = domain == device.slice.object.spec.driver;
        all.get(name).filter(|_| own)
    })
}

fn equal(one: &DeviceAttribute, other: &DeviceAttribute) -> bool {
    if one.string.is_some() {
        one.string == other.string
    } else if one.int.is_some() {
        one.int == other.int
    } else if one.bool.is_some() {
        one.bool == other.bool
    } else {
        one.version.is_some() && one.version == other.version
    }
}

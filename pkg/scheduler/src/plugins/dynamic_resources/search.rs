//! The search for devices on one node: request by request the first device that is free and right, and where that leads nowhere the
//! next. The first whole solution is taken, as upstream takes it.
//!
//! The devices of one request are looked for in order, so that no set of them is tried twice; constraints do not depend on the
//! order. Where the search came from is kept on a stack of its own: a pod may have more claims than a thread's has room for.

use super::ask::{self, Amount, Ask, Choice, Request, key};
use super::picks::Pick;
use super::supply;
use crate::cluster::claims::{Candidate, Cursor, Device, NodePool, Over, State, next};
use crate::cluster::{Claims, NodeInfo};

/// So many devices has an allocation at most (resource.k8s.io).
const MOST_DEVICES: usize = 32;
/// After so many devices a search has taken long.
const LONG: u32 = 256;

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

impl From<Over> for Unfound {
    fn from(Over: Over) -> Self {
        Unfound::TimedOut
    }
}

/// Why a branch of the search ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dead {
    None,
    /// A claim would get more than it can have: only a smaller choice helps.
    TooMany,
}

/// What is to be done next.
enum Step {
    Request { claim: usize, request: usize },
    Device(At),
    Back(Dead),
    Found,
}

/// What was begun, and is gone on with where what follows from it leads nowhere.
enum Frame {
    /// All of the claim's requests have their devices.
    Claim,
    /// A choice of a request is tried; `too_many`: those before asked for more than the claim can have.
    Choice { at: At, too_many: bool },
    /// A device was picked.
    Pick(At),
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

struct Search<'s, 'a> {
    claims: &'a Claims,
    asks: &'s [Ask<'a>],
    pools: &'s [NodePool<'a>],
    /// What "all" is for each choice of each request that asks for it.
    every: Vec<(Place, Vec<Candidate<'a>>)>,
    picks: Vec<Vec<Pick<'a>>>,
    stack: Vec<Frame>,
    /// How many devices were looked at.
    looked: u32,
}

/// The devices of each claim on a node.
///
/// # Errors
/// Why there are none.
pub fn search<'a>(asks: &[Ask<'a>], claims: &'a Claims, node: &NodeInfo) -> Result<Vec<Vec<Pick<'a>>>, Unfound> {
    let pools = claims.pools_of(node);
    let mut search = Search {
        claims,
        asks,
        pools: &pools,
        every: Vec::new(),
        picks: asks.iter().map(|_| Vec::new()).collect(),
        stack: Vec::new(),
        looked: 0,
    };
    for claim in 0..asks.len() {
        search.check_size(claim)?;
    }
    match search.run() {
        Ok(()) => Ok(search.picks),
        Err(Unfound::None) if pools.iter().any(|pool| pool.state == State::Invalid) => Err(Unfound::InvalidPools),
        Err(why) => Err(why),
    }
}

impl<'a> Search<'_, 'a> {
    /// Whether a claim asks for no more than it can have; looks up what "all" is for it.
    fn check_size(&mut self, claim: usize) -> Result<(), Unfound> {
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
            true => Err(Unfound::Failed(format!(
                "claim {}: number of requested devices {least} exceeds the claim limit of {MOST_DEVICES}",
                key(ask.claim)
            ))),
            false => Ok(()),
        }
    }

    /// All devices that a choice is for.
    fn all_of(&self, at: At) -> &[Candidate<'a>] {
        let place = (at.claim, at.request, at.choice);
        let own = self.every.iter().find(|(of, _)| *of == place);
        own.map_or(&[], |(_, every)| every)
    }

    fn every(&self, ask: &Ask<'a>, choice: &Choice<'a>) -> Result<Vec<Candidate<'a>>, Unfound> {
        let (mut every, clock) = (Vec::new(), self.claims.clock());
        for (place, pool) in (0..).zip(self.pools) {
            let state = match pool.state {
                State::Whole => None,
                State::Incomplete => Some("being updated"),
                State::Invalid => Some("invalid"),
            };
            if let Some(state) = state {
                let (key, name, driver, pool) = (key(ask.claim), choice.name, pool.driver, pool.name);
                return Err(Unfound::Failed(format!(
                    "claim {key}, request {name}: asks for all devices, but resource pool {driver}/{pool} is currently {state}"
                )));
            }
            let mut from = Cursor::of_pool(place);
            while let Some(candidate) = next(self.pools, from).filter(|own| own.at.is_in(place)) {
                clock.step()?;
                from = candidate.at.after();
                if choice.selects(ask.claim, &candidate.device, clock)? {
                    every.push(candidate);
                }
            }
        }
        Ok(every)
    }

    /// Looks for a solution: it is in the picks then.
    fn run(&mut self) -> Result<(), Unfound> {
        let mut step = Step::Request { claim: 0, request: 0 };
        loop {
            step = match step {
                Step::Found => return Ok(()),
                Step::Request { claim, request } => self.request(claim, request),
                Step::Device(at) => self.device(at)?,
                Step::Back(dead) => match self.stack.pop() {
                    None => return Err(Unfound::None),
                    // Another device for what came before may leave more room for the next claim.
                    Some(Frame::Claim) => Step::Back(Dead::None),
                    Some(Frame::Choice { at, too_many }) => self.next_choice(at, too_many, dead),
                    Some(Frame::Pick(at)) => self.next_pick(at, dead)?,
                },
            }
        }
    }

    fn request(&mut self, claim: usize, request: usize) -> Step {
        let Some(ask) = self.asks.get(claim) else {
            return Step::Found;
        };
        if request >= ask.requests.len() {
            self.stack.push(Frame::Claim);
            return Step::Request {
                claim: claim + 1,
                request: 0,
            };
        }
        let at = At {
            claim,
            request,
            choice: 0,
            device: 0,
            from: Cursor::default(),
        };
        self.choice(at, true)
    }

    fn choice(&mut self, at: At, too_many: bool) -> Step {
        let request = &self.asks[at.claim].requests[at.request];
        if at.choice >= request.choices.len() {
            return Step::Back(match request.listed && too_many {
                true => Dead::TooMany,
                false => Dead::None,
            });
        }
        self.stack.push(Frame::Choice { at, too_many });
        Step::Device(at)
    }

    fn next_choice(&mut self, at: At, too_many: bool, dead: Dead) -> Step {
        let listed = self.asks[at.claim].requests[at.request].listed;
        let next = At {
            choice: at.choice + 1,
            ..at
        };
        match dead {
            Dead::TooMany if !listed => Step::Back(dead),
            Dead::TooMany => self.choice(next, too_many),
            Dead::None => self.choice(next, false),
        }
    }

    fn device(&mut self, at: At) -> Result<Step, Unfound> {
        let choice = &self.asks[at.claim].requests[at.request].choices[at.choice];
        let wanted = match choice.amount {
            Amount::Exactly(count) => count,
            Amount::All => match self.all_of(at).len() {
                0 => return Ok(Step::Back(Dead::None)),
                all => all,
            },
        };
        if at.device >= wanted {
            return Ok(Step::Request {
                claim: at.claim,
                request: at.request + 1,
            });
        }
        if self.picks[at.claim].len() + wanted - at.device > MOST_DEVICES {
            return Ok(Step::Back(Dead::TooMany));
        }
        match choice.amount {
            Amount::All => self.the_next(at),
            Amount::Exactly(_) => self.any(at),
        }
    }

    /// Of all devices the one whose turn it is: there is no other.
    fn the_next(&mut self, at: At) -> Result<Step, Unfound> {
        self.claims.clock().step()?;
        let ask = &self.asks[at.claim];
        let request = &ask.requests[at.request];
        let choice = &request.choices[at.choice];
        let candidate = self.all_of(at).get(at.device).copied();
        let Some(candidate) = candidate.filter(|own| self.allows(at, choice, &own.device)) else {
            return Ok(Step::Back(Dead::None));
        };
        let device = &candidate.device;
        if !self.matches(at, request, choice, device) {
            let (key, name) = (key(ask.claim), choice.name);
            let Candidate { driver, pool, .. } = candidate;
            let device = &device.object.name;
            return Err(Unfound::Failed(format!(
                "claim {key}, request {name}: cannot add device {driver}/{pool}/{device} because a claim constraint would not be satisfied"
            )));
        }
        Ok(self.pick(at, candidate))
    }

    /// The first device from where it is that may do; it is gone on after it where it does not.
    fn any(&mut self, at: At) -> Result<Step, Unfound> {
        let ask = &self.asks[at.claim];
        let request = &ask.requests[at.request];
        let choice = &request.choices[at.choice];
        let mut from = at.from;
        while let Some(candidate) = next(self.pools, from) {
            self.step()?;
            from = candidate.at.after();
            let device = &candidate.device;
            if self.allows(at, choice, device)
                && choice.selects(ask.claim, device, self.claims.clock())?
                && self.matches(at, request, choice, device)
            {
                return Ok(self.pick(At { from, ..at }, candidate));
            }
        }
        Ok(Step::Back(Dead::None))
    }

    /// A search that takes long is worth the question whether it is one for what is not there.
    fn step(&mut self) -> Result<(), Unfound> {
        self.claims.clock().step()?;
        self.looked = self.looked.saturating_add(1);
        match self.looked == LONG && !supply::suffices(self.asks, self.pools, self.claims)? {
            true => Err(Unfound::None),
            false => Ok(()),
        }
    }

    fn pick(&mut self, at: At, candidate: Candidate<'a>) -> Step {
        self.picks[at.claim].push(Pick::new(at.request, at.choice, candidate));
        self.stack.push(Frame::Pick(at));
        Step::Device(At {
            device: at.device + 1,
            ..at
        })
    }

    /// The device led nowhere: it is taken back, and another tried if there may be one.
    fn next_pick(&mut self, at: At, dead: Dead) -> Result<Step, Unfound> {
        self.picks[at.claim].pop();
        let choice = &self.asks[at.claim].requests[at.request].choices[at.choice];
        match (dead, choice.amount) {
            (Dead::None, Amount::Exactly(_)) => self.any(at),
            _ => Ok(Step::Back(dead)),
        }
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
            let Some(value) = same.value(device) else {
                return false;
            };
            let mut picks = self.picks[at.claim].iter().filter(|pick| {
                let request = &ask.requests[pick.request];
                same.concerns(request, &request.choices[pick.choice])
            });
            let other = picks.next().map(|pick| same.value(&pick.device));
            other.is_none_or(|other| other.is_some_and(|other| ask::equal(value, other)))
        })
    }
}

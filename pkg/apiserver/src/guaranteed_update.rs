//! The one read-modify-write loop of the server. Everything that changes an object runs through it: an attempt is given
//! what is stored, says what is to be stored, and is made again on what is stored by then where something else was written
//! meanwhile. Nobody is told of a conflict that he did not ask for; who names a resourceVersion or uid finds in the attempt
//! itself that it no longer holds.

use std::sync::Arc;
use std::time::Duration;

use mk8s_api::apply::Managed;
use mk8s_api::meta;
use mk8s_api::registry::Resource;
use mk8s_api::status::Status;
use mk8s_store::{Expect, Op, Store};
use mk8s_supervisor::backoff::Backoff;
use serde_json::Value;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::object::Object;
use crate::part::Rest;
use crate::turns::Turn;
use crate::watch_cache::ResourceCache;
use crate::write::{self, Printed, WriteError, timed_out};

/// How soon a store that takes no writes is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long nobody tries again who lost against something that is not to be seen in the object: another key of the
/// transaction, or another writer's change that is still on its way here.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// What is to be changed, and until when it is tried.
pub struct Target<'a> {
    pub store: &'a dyn Store,
    pub cache: &'a Arc<ResourceCache>,
    /// What the caller took its objects for, where a definition may have changed since.
    pub known_as: Option<&'a Arc<Resource>>,
    pub key: Arc<str>,
    pub deadline: Instant,
    /// Everything is done but the writing.
    pub dry_run: bool,
    pub reads: Reads,
    /// Whether what is stored is looked at before the store says that the name is taken: one that was made up just now is
    /// nobody's but by rare chance, and a look among many objects misses the caches at each step.
    pub looks: bool,
    /// The request's turn, where its object is long: given back while the store is waited for.
    pub turn: Option<&'a Turn>,
}

impl Target<'_> {
    fn find(&self) -> Option<Arc<Object>> {
        self.cache.get_key(&self.key).map(|object| self.known(object))
    }

    fn known(&self, object: Arc<Object>) -> Arc<Object> {
        match self.known_as {
            Some(resource) => object.known_as(resource),
            None => object,
        }
    }
}

/// How much of an object is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Whole,
    /// What a write through `/status` may change; see `part`.
    Part,
}

/// An object as an attempt finds it.
pub struct Current {
    /// None where there is none.
    pub object: Option<Arc<Object>>,
    /// The object's tree (or the part of it that is read); null where there is none.
    pub value: Value,
    /// What of it was not read.
    pub rest: Option<Rest>,
}

/// What an attempt wants.
pub enum Step {
    /// What is stored says it already.
    Keep,
    /// Store this (in place of what was found), and in the same transaction do that beside it.
    Put(Printed, Vec<Op>),
    /// Remove what was found, of which this is the last state as clients see it, and do that beside it.
    Remove(Value, Vec<Op>),
}

impl Step {
    /// Whether something much longer than what is stored waits with it: for few requests at once is there room for that.
    fn is_read_otherwise(&self) -> bool {
        matches!(self, Step::Put(printed, _) if printed.is_read_otherwise())
    }
}

/// What it came to.
pub enum Done {
    Written(Written),
    /// The last state, and the revision of the removal (with dry-run none).
    Removed(Value, Option<u64>),
}

/// What a caller does to the object, as often as it takes.
pub trait Attempt: Send {
    /// Says what is to be stored in place of what is.
    ///
    /// # Errors
    /// The caller's answer: nothing is stored, and nothing tried again.
    fn attempt(&mut self, current: Current) -> impl Future<Output = Result<Step, Status>> + Send;
}

/// What a write came to: the stored object, or with dry-run the tree that would have been stored.
pub enum Written {
    Stored(Arc<Object>),
    Tree(Value),
}

impl Written {
    /// The tree as stored (dry-run: as it would be).
    pub fn value(&self) -> Result<Value, Status> {
        match self {
            Written::Stored(object) => object.whole(),
            Written::Tree(value) => Ok(value.clone()),
        }
    }
}

/// Runs attempts until one is stored, refuses, or the time is over (504).
pub async fn guaranteed_update(target: Target<'_>, attempts: &mut impl Attempt) -> Result<Done, Status> {
    let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
    let mut looks = target.looks || target.dry_run;
    loop {
        if let Some(turn) = target.turn {
            turn.hold().await?;
        }
        let found = looks.then(|| target.find()).flatten();
        looks = true;
        let current = Current::of(found.clone(), target.reads)?;
        let step = attempts.attempt(current).await?;
        if target.dry_run {
            return pretend(step, found);
        }
        let sent = Sent::of(&step);
        if let Some(turn) = target.turn.filter(|_| !step.is_read_otherwise()) {
            turn.give_back();
        }
        match carry_out(&target, step, found.clone()).await {
            Ok(done) => return Ok(done),
            Err(WriteError::Status(status)) => return Err(status),
            Err(WriteError::Conflict) if revision(&target.cache.get_key(&target.key)) == revision(&found) => {
                tokio::time::sleep(pauses.next_delay()).await;
            }
            Err(WriteError::Conflict) => pauses.reset(),
            Err(WriteError::Unknown) => {
                if let Some(done) = resolve(&target, sent, found).await? {
                    return Ok(done);
                }
            }
        }
        if Instant::now() >= target.deadline {
            return Err(timed_out());
        }
    }
}

fn revision(object: &Option<Arc<Object>>) -> Option<u64> {
    object.as_ref().map(|object| object.revision)
}

/// What is looked for where the store could not say whether it took a write.
enum Sent {
    Text(Vec<u8>, Managed),
    Removal,
    Nothing,
}

impl Sent {
    fn of(step: &Step) -> Sent {
        match step {
            Step::Keep => Sent::Nothing,
            Step::Put(printed, _) => Sent::Text(printed.text().to_vec(), printed.managed().clone()),
            Step::Remove(..) => Sent::Removal,
        }
    }
}

/// Reads what became of a write: it is there, or (None) it is not and may be tried again.
async fn resolve(target: &Target<'_>, sent: Sent, found: Option<Arc<Object>>) -> Result<Option<Done>, Status> {
    // Readers see all that was written once the store takes writes again.
    while target.store.health().is_err() {
        if Instant::now() >= target.deadline {
            return Err(timed_out());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let now = target.find();
    if revision(&now) == revision(&found) {
        return Ok(None);
    }
    match (sent, now) {
        (Sent::Text(text, managed), Some(object)) if object.was_printed_as(&text, &managed) => {
            Ok(Some(Done::Written(Written::Stored(object))))
        }
        (Sent::Removal, None) => {
            let last = found.map_or(Ok(Value::Null), |found| found.whole())?;
            Ok(Some(Done::Removed(last, Some(target.store.current_revision()))))
        }
        // Something else is there: before ours, after it, or in its place. Trying again could do it twice.
        _ => Err(Status::timeout(
            "whether the write took place is not known, and something else was written since",
        )),
    }
}

impl Current {
    /// Who owns what of it.
    pub fn managed(&self) -> &Managed {
        static NOBODY: Managed = Managed::NOBODY;
        self.object.as_ref().map_or(&NOBODY, |object| &object.managed)
    }

    fn of(object: Option<Arc<Object>>, reads: Reads) -> Result<Current, Status> {
        let Some(found) = &object else {
            return Ok(Current {
                object,
                value: Value::Null,
                rest: None,
            });
        };
        let (value, rest) = match reads {
            Reads::Whole => (found.value()?, None),
            Reads::Part => {
                let (value, rest) = Rest::split(found)?;
                (value, Some(rest))
            }
        };
        Ok(Current { object, value, rest })
    }
}

async fn carry_out(target: &Target<'_>, step: Step, found: Option<Arc<Object>>) -> Result<Done, WriteError> {
    let expect = found
        .as_ref()
        .map_or(Expect::Absent, |object| Expect::Revision(object.revision));
    match step {
        Step::Keep => {
            let kept = found.ok_or_else(|| Status::internal("an attempt keeps what is not there"))?;
            Ok(Done::Written(Written::Stored(kept)))
        }
        Step::Put(printed, beside) => {
            let (op, made) = printed.put(target.key.clone(), expect);
            let mut ops = SmallVec::from_iter([op]);
            ops.extend(beside);
            let revision = write::commit_until(target.deadline, target.store, ops).await?;
            // The store may lose what travels with a write; the cache has the object all the same.
            let made = made.get().map(|made| target.known(made.clone()));
            let stored = made.or_else(|| target.find());
            let stored = stored.filter(|stored| stored.revision >= revision);
            let stored = stored.ok_or_else(|| Status::internal("a committed object is in the cache no more"))?;
            Ok(Done::Written(Written::Stored(stored)))
        }
        Step::Remove(last, beside) => {
            let op = write::removal(target.key.clone(), expect);
            let mut ops = SmallVec::from_iter([op]);
            ops.extend(beside);
            let revision = write::commit_until(target.deadline, target.store, ops).await?;
            Ok(Done::Removed(last, Some(revision)))
        }
    }
}

/// What would have been answered.
fn pretend(step: Step, found: Option<Arc<Object>>) -> Result<Done, Status> {
    Ok(match (step, found) {
        (Step::Keep, Some(kept)) => Done::Written(Written::Stored(kept)),
        (Step::Keep, None) => return Err(Status::internal("an attempt keeps what is not there")),
        (Step::Put(printed, _), Some(found)) => Done::Written(Written::Tree(printed.in_place_of(&found)?)),
        (Step::Put(printed, _), None) => {
            let mut value = printed.whole()?;
            drop(meta::remove(&mut value, &["metadata", "resourceVersion"]));
            Done::Written(Written::Tree(value))
        }
        (Step::Remove(last, _), _) => Done::Removed(last, None),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_api::registry::Resource;
    use mk8s_store::SledStore;
    use serde_json::json;

    use super::*;
    use crate::crd;
    use crate::turns::Turns;
    use crate::watch_cache::{Cache, CacheFollower};

    struct Labels<'a>(&'a Arc<Resource>);

    impl Attempt for Labels<'_> {
        async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
            let (found, mut new) = (current.object.clone().unwrap(), current.value.clone());
            new["metadata"]["labels"] = json!({"seen": "yes"});
            let printed = Printed::of_fields(self.0, &found, &["metadata"], &new, current.managed())?;
            Ok(Step::Put(printed, Vec::new()))
        }
    }

    /// Megabytes wait with a long object, for few at once; others let the next one work while the store writes.
    #[tokio::test]
    async fn a_turn_is_kept_while_a_long_object_is_written() {
        let (resource, long) = crd::long_car();
        let mut short = long.clone();
        short["spec"] = json!({});
        for (car, is_long) in [(long, true), (short, false)] {
            let dir = tempfile::tempdir().unwrap();
            let store = SledStore::open(dir.path()).unwrap();
            let cache = Cache::new(std::iter::once(&resource), store.current_revision());
            let cars = cache.resource("example.org", "cars").unwrap();
            let key = cars.key("", "a");
            let printed = Printed::of(&resource, &car, &Managed::NOBODY).unwrap();
            let (op, _) = printed.put(key.clone(), Expect::Absent);
            let committed = write::commit(&store, SmallVec::from_iter([op])).await;
            assert!(committed.is_ok());
            let follower = CacheFollower::new(&cache);
            let loaded = store.load().unwrap();
            loaded.entries.into_iter().for_each(|entry| follower.load(entry));
            store.follow(loaded.revision, Box::new(follower)).unwrap();
            cache.serve(&resource, &crd::read);
            assert_eq!(cars.get_key(&key).unwrap().is_longer_than_stored(), is_long);
            let deadline = Instant::now() + Duration::from_secs(60);
            let turn = Turns::new(1).take(None, deadline).await.unwrap();
            let target = Target {
                store: &store,
                cache: &cars,
                known_as: None,
                key,
                deadline,
                dry_run: false,
                reads: Reads::Whole,
                looks: true,
                turn: Some(&turn),
            };
            let done = guaranteed_update(target, &mut Labels(&resource)).await;
            assert!(matches!(done, Ok(Done::Written(Written::Stored(_)))));
            assert_eq!(turn.give_back(), is_long);
        }
    }
}

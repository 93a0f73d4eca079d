//! What keeps a component from telling too much of one object: many that differ in the message alone become one, and who goes on
//! is not heard for a while. As client-go's recorder of counts does; of messages only hashes are kept, they may be long.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::{Key, REMEMBERED};

/// So many that differ in the message alone, each within so long of the last, and the next are told as one.
const SIMILAR: usize = 10;
pub(super) const SIMILAR_FOR: Duration = Duration::from_secs(600);
/// Token bucket of what a source tells of an object, in series for each reason: a burst of 25, then one in 300 s.
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// The messages of events that are the same but for them.
pub(super) struct Similar {
    messages: HashSet<u64>,
    pub(super) last: Instant,
}

pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// What was told of lately.
#[derive(Default)]
pub(super) struct Noise {
    hashes: RandomState,
    /// By what an event is without its message.
    pub(super) similar: HashMap<Key, Similar>,
    /// By object; in series by object and reason.
    pub(super) buckets: HashMap<Key, Bucket>,
}

impl Noise {
    /// Whether too many have been told of lately that differ in the message alone.
    pub(super) fn is_one_of_many(&mut self, key: Key, message: &str) -> bool {
        let now = Instant::now();
        let message = self.hashes.hash_one(message);
        forget_oldest(&mut self.similar, |entry| entry.last);
        let entry = self.similar.entry(key).or_insert_with(|| Similar {
            messages: HashSet::new(),
            last: now,
        });
        if now.duration_since(entry.last) > SIMILAR_FOR {
            entry.messages.clear();
        }
        entry.last = now;
        if entry.messages.contains(&message) {
            return false;
        }
        let many = entry.messages.len() + 1 >= SIMILAR;
        if !many {
            entry.messages.insert(message);
        }
        many
    }

    /// Whether one more may be told of what has this bucket.
    pub(super) fn admit(&mut self, bucket: Key) -> bool {
        let now = Instant::now();
        forget_oldest(&mut self.buckets, |bucket| bucket.filled);
        let bucket = self.buckets.entry(bucket).or_insert(Bucket {
            tokens: BURST,
            filled: now,
        });
        let refilled = bucket.tokens + now.duration_since(bucket.filled).as_secs_f64() * REFILL_PER_SECOND;
        bucket.tokens = refilled.min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// Makes room for one more: a quarter goes, so that the work is rare, the one that was not used for longest first.
fn forget_oldest<T>(entries: &mut HashMap<Key, T>, used: impl Fn(&T) -> Instant) {
    if entries.len() < REMEMBERED {
        return;
    }
    let mut ages: Vec<Instant> = entries.values().map(&used).collect();
    ages.sort_unstable();
    let limit = ages[REMEMBERED / 4];
    entries.retain(|_, entry| used(entry) > limit);
}

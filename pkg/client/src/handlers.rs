//! Who hears of each change where it comes in, in the reflector's own task: one event for all of them, whose object is decoded
//! once. For what is quick and never waits; who may be slow subscribes. Who comes after the first list has what there is decoded
//! for itself, while the reflector waits: a controller that is started anew.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use mk8s_supervisor::job;

use crate::subscription::Event;

/// What is done with each event. It must not add a handler to its own informer.
pub type EventHandler<K> = Box<dyn FnMut(&Event<K>) + Send>;

/// An event handler hears for as long as this is kept.
#[must_use]
pub struct Registration {
    _kept: Arc<()>,
}

struct Registered<K> {
    name: &'static str,
    kept: Weak<()>,
    handle: EventHandler<K>,
}

impl<K> Registered<K> {
    fn is_kept(&self) -> bool {
        self.kept.strong_count() > 0
    }

    /// An object that one can't cope with must not make it deaf for all others, nor the others for this one.
    fn hear(&mut self, event: &Event<K>) {
        let heard = std::panic::catch_unwind(AssertUnwindSafe(|| (self.handle)(event)));
        if let Err(panic) = heard {
            job::record_panic(self.name, panic.as_ref());
        }
    }
}

/// All handlers of one informer.
pub(crate) struct Handlers<K>(Vec<Registered<K>>);

impl<K> Default for Handlers<K> {
    fn default() -> Self {
        Handlers(Vec::new())
    }
}

impl<K> Handlers<K> {
    /// `existing` is what the handler hears first.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        handle: EventHandler<K>,
        existing: impl Iterator<Item = Arc<K>>,
    ) -> Registration {
        let kept = Arc::new(());
        let mut added = Registered {
            name,
            kept: Arc::downgrade(&kept),
            handle,
        };
        existing.for_each(|new| added.hear(&Event::Applied { old: None, new }));
        self.0.retain(Registered::is_kept);
        self.0.push(added);
        Registration { _kept: kept }
    }

    pub(crate) fn tell(&mut self, event: &Event<K>) {
        self.0.retain_mut(|handler| {
            let is_kept = handler.is_kept();
            if is_kept {
                handler.hear(event);
            }
            is_kept
        });
    }
}

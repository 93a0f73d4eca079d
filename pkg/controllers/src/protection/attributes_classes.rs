//! A VolumeAttributesClass stays while a claim or a volume is of it, or is to be.
//!
//! Watches classes, claims and volumes; writes the classes' finalizer. As upstream's it decides by what it has seen: who names a
//! class while it goes finds it gone.

use std::sync::Arc;

use futures::future::BoxFuture;
use mk8s_client::{Event, Partial};

use super::{ATTRIBUTES_CLASSES, CLAIMS, Protector, VOLUMES, key_of};
use crate::context::Context;
use crate::driver::{Driver, Next};
use crate::error::Error;
use crate::meta::{self, Key};

const WORKERS: usize = 1;

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let classes = ATTRIBUTES_CLASSES.informer(&ctx);
    let users = [CLAIMS.informer(&ctx), VOLUMES.informer(&ctx)];
    let mut driver = Driver::new("vac-protection-controller", &ctx.scope);
    driver.watch(&classes, |event| key_of(event, &ATTRIBUTES_CLASSES));
    for informer in &users {
        driver.watch(informer, left_by);
    }
    let by_class = users.map(|informer| informer.index("attributes class", classes_of));
    let in_use = move |class: Arc<Partial>| -> BoxFuture<'static, Result<Option<Next>, Error>> {
        let used = by_class.iter().any(|index| index.count(meta::name(&*class)) > 0);
        Box::pin(std::future::ready(Ok(used.then_some(Next::Done))))
    };
    let protector = Protector {
        ctx,
        guarded: &ATTRIBUTES_CLASSES,
        objects: classes,
        in_use: Box::new(in_use),
    };
    driver.run(WORKERS, protector).await
}

fn classes_of(user: &Partial) -> Vec<String> {
    let status = user.status.as_ref();
    let modification = status.and_then(|status| status.modify_volume_status.as_ref());
    let names = [
        user.spec
            .as_ref()
            .and_then(|spec| spec.volume_attributes_class_name.clone()),
        status.and_then(|status| status.current_volume_attributes_class_name.clone()),
        modification.and_then(|modification| modification.target_volume_attributes_class_name.clone()),
    ];
    let mut names: Vec<String> = names.into_iter().flatten().filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}

/// The classes that something was of, and is no more.
fn left_by(event: &Event<Partial>) -> Vec<Key> {
    let (before, now) = match event {
        Event::Deleted(last) => (classes_of(last), Vec::new()),
        Event::Applied { old: Some(old), new } => (classes_of(old), classes_of(new)),
        Event::Applied { old: None, .. } => return Vec::new(),
    };
    let left = before.into_iter().filter(|name| !now.contains(name));
    left.map(|name| Key::new("", &name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::protected;
    use super::*;

    #[test]
    fn a_class_is_left_when_nothing_names_it() {
        let claim = |wanted: &str, current: &str, target: &str| {
            Arc::new(protected(
                json!({"metadata": {}, "spec": {"volumeAttributesClassName": wanted},
                "status": {"currentVolumeAttributesClassName": current,
                    "modifyVolumeStatus": {"targetVolumeAttributesClassName": target}}}),
            ))
        };
        let old = claim("a", "b", "c");
        assert_eq!(classes_of(&old), ["a", "b", "c"]);
        let names = |event| left_by(&event).into_iter().map(|key| key.name).collect::<Vec<_>>();
        let new = claim("c", "c", "");
        let changed = Event::Applied {
            old: Some(old.clone()),
            new,
        };
        assert_eq!(names(changed), ["a", "b"]);
        assert_eq!(names(Event::Deleted(old)), ["a", "b", "c"]);
    }
}

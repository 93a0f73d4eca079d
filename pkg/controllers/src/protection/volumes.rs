//! A volume stays while it is bound to a claim.
//!
//! Watches volumes; writes their finalizer.

use mk8s_client::Partial;

use super::{Protector, VOLUMES, key_of};
use crate::context::Context;
use crate::driver::{Driver, Next};
use crate::error::Error;

const WORKERS: usize = 1;

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let volumes = VOLUMES.informer(&ctx);
    let mut driver = Driver::new("pv-protection-controller", &ctx.scope);
    driver.watch(&volumes, |event| key_of(event, &VOLUMES));
    let protector = Protector {
        ctx,
        guarded: &VOLUMES,
        objects: volumes,
        in_use: Box::new(|volume| Box::pin(std::future::ready(Ok(is_bound(&volume).then_some(Next::Done))))),
    };
    driver.run(WORKERS, protector).await
}

fn is_bound(volume: &Partial) -> bool {
    let status = volume.status.as_ref();
    status.and_then(|status| status.phase.as_deref()) == Some("Bound")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::protected;
    use super::*;

    #[test]
    fn a_bound_volume_is_used() {
        for (status, expected) in [
            (json!({"phase": "Bound"}), true),
            (json!({"phase": "Released"}), false),
            (json!(null), false),
        ] {
            assert_eq!(
                is_bound(&protected(json!({"metadata": {}, "status": status}))),
                expected
            );
        }
    }
}

//! A control plane that does not come to stand leaves nothing open.

use mk8s_controlplane::{ControlPlane, StartError};
use mk8s_supervisor::Supervisor;
use tokio_util::sync::CancellationToken;

use crate::harness::config;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_told_to_stop_closes_what_it_opened() {
    let dir = tempfile::tempdir().unwrap();
    let told = Supervisor::new(CancellationToken::new());
    told.token().cancel();
    let stopped = ControlPlane::start(config(dir.path(), Default::default()), &told).await;
    assert!(matches!(stopped, Err(StartError::Stopped)));
    // The store has one owner, also in one process.
    let supervisor = Supervisor::new(CancellationToken::new());
    let plane = ControlPlane::start(config(dir.path(), Default::default()), &supervisor).await;
    supervisor.shutdown(std::time::Duration::from_secs(10)).await;
    plane.unwrap().close().await;
}

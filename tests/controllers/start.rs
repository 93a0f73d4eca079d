//! A control plane that does not come to stand leaves nothing open.

use std::path::Path;
use std::time::Duration;

use mk8s_controlplane::{Config, ControlPlane, StartError};
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

/// Starts, and stops again.
async fn start(dir: &Path, begins: bool) -> Result<(), StartError> {
    let supervisor = Supervisor::new(CancellationToken::new());
    let config = Config {
        begins,
        ..config(dir, Default::default())
    };
    let plane = ControlPlane::start(config, &supervisor).await;
    supervisor.shutdown(Duration::from_secs(10)).await;
    plane?.close().await;
    Ok(())
}

/// Else it would serve an empty cluster as if nothing had happened, and overwrite what is left of the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_begun_does_not_begin_again_without_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    let refused = start(dir.path(), false).await.unwrap_err().to_string();
    assert!(refused.contains(db.to_str().unwrap()), "{refused}");
    assert!(!db.exists());
    start(dir.path(), true).await.unwrap();
    start(dir.path(), false).await.unwrap();

    let kept = dir.path().join("kept");
    std::fs::rename(&db, &kept).unwrap();
    start(dir.path(), false).await.unwrap_err();
    std::fs::rename(&kept, &db).unwrap();
    let log = std::fs::read(db.join("db")).unwrap();
    std::fs::write(db.join("db"), &log[..100_000]).unwrap();
    let refused = start(dir.path(), false).await.unwrap_err().to_string();
    assert!(
        refused.contains("mk8s reset") && refused.lines().count() == 1,
        "{refused}"
    );
    std::fs::write(db.join("db"), log).unwrap();
    start(dir.path(), false).await.unwrap();

    // Another cluster's: its keys fit none of the identities that are in it.
    let other = tempfile::tempdir().unwrap();
    start(other.path(), true).await.unwrap();
    std::fs::rename(&db, &kept).unwrap();
    std::fs::rename(other.path().join("db"), &db).unwrap();
    let refused = start(dir.path(), false).await.unwrap_err().to_string();
    assert!(refused.contains("another cluster's"), "{refused}");
}

//! `mk8s start` and `mk8s stop`, for a host that was set up before.

use crate::cli::Where;
use crate::failure::Result;
use crate::settings::Settings;
use crate::{lifecycle, status};

pub async fn start(arguments: &Where) -> Result<()> {
    let settings = Settings::require(arguments.data_dir.as_deref())?;
    let _turn = lifecycle::turn().await?;
    if let Some(pid) = lifecycle::running()? {
        println!("mk8s runs already, pid {pid}");
        return Ok(());
    }
    let mut started = lifecycle::launch(&settings)?;
    status::wait_ready(&settings, &mut started).await?;
    println!("mk8s is started; node {} is Ready", settings.node_name);
    Ok(())
}

pub async fn stop(arguments: &Where) -> Result<()> {
    // A host that was not set up is told so, not that nothing runs.
    Settings::require_to_end(arguments.data_dir.as_deref())?;
    if lifecycle::halt().await? {
        println!("mk8s is stopped; its pods keep running");
    } else {
        println!("mk8s does not run");
    }
    Ok(())
}

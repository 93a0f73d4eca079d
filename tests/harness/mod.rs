//! A control plane in this process, the one that the binary starts, on a temporary store and a free loopback port.
#![allow(dead_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mk8s_client::lease::Election;
use mk8s_controllers::context::Settings;
use mk8s_controlplane::{Config, ControlPlane, Lead};
use mk8s_pki::layout::{self, ServerNames};
use mk8s_store::Store;
use mk8s_supervisor::Supervisor;
use tokio_util::sync::CancellationToken;

pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long what is waited for may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Plane {
    pub dir: Arc<tempfile::TempDir>,
    pub plane: ControlPlane,
    pub supervisor: Supervisor,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.supervisor.token().cancel();
    }
}

impl Plane {
    pub async fn start() -> Plane {
        Plane::start_with(Settings::default()).await
    }

    /// With these settings of the controllers.
    pub async fn start_with(controllers: Settings) -> Plane {
        Plane::start_in(Arc::new(tempfile::tempdir().unwrap()), controllers, None, Lead::Always).await
    }

    /// With controllers and scheduler that whoever asked for it runs himself.
    pub async fn start_idle(controllers: Settings) -> Plane {
        Plane::start_in(
            Arc::new(tempfile::tempdir().unwrap()),
            controllers,
            None,
            Lead::WhenTold,
        )
        .await
    }

    /// At a store that others share, with controllers that share out pod networks, and run only while the election is won.
    pub async fn start_elected(store: Arc<dyn Store>, election: Election) -> Plane {
        let controllers = Settings {
            cluster_cidrs: "10.244.0.0/16".parse().into_iter().collect(),
            ..Settings::default()
        };
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Plane::start_in(dir, controllers, Some(store), Lead::Elected(election)).await
    }

    async fn start_in(
        dir: Arc<tempfile::TempDir>,
        controllers: Settings,
        store: Option<Arc<dyn Store>>,
        lead: Lead,
    ) -> Plane {
        let config = Config {
            store,
            lead,
            ..config(dir.path(), controllers)
        };
        let supervisor = Supervisor::new(CancellationToken::new());
        let plane = ControlPlane::start(config, &supervisor).await.unwrap();
        Plane { dir, plane, supervisor }
    }

    /// The same store in a new process, as far as it can tell.
    pub async fn restart(self) -> Plane {
        self.stop().await;
        let dir = self.dir.clone();
        drop(self);
        Plane::start_in(dir, Settings::default(), None, Lead::Always).await
    }

    pub async fn stop(&self) {
        assert!(
            self.supervisor.shutdown(Duration::from_secs(10)).await,
            "tasks did not end"
        );
        self.plane.close().await;
    }

    /// Asks again after each change that the API shows until it holds; what is found instead is printed when it never does.
    pub async fn until<F: Future<Output = Result<(), String>>>(&self, what: &str, mut ask: impl FnMut() -> F) {
        let cache = self.plane.server.state().cache();
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Before it is asked for: what comes meanwhile is a reason to ask again.
            let seen = cache.revision();
            let Err(found) = ask().await else { return };
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(cache.wait_for(seen + 1, left).await, "{what}: {found}");
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.plane.address)
    }
}

/// What a control plane in `dir` is told.
pub fn config(dir: &Path, controllers: Settings) -> Config {
    let names = ServerNames {
        node_name: "test".into(),
        cluster_domain: "cluster.local".into(),
        advertise_address: HOST,
        service_address: [10, 96, 0, 1].into(),
        extra: Vec::new(),
    };
    Config {
        data_dir: dir.into(),
        store: None,
        begins: true,
        pki: Arc::new(layout::create(&dir.join("pki"), &names).unwrap()),
        names,
        listen: (HOST, 0).into(),
        advertise_address: HOST,
        server_url: None,
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        controllers,
        scheduler: mk8s_controlplane::SchedulerConfig::default(),
        lead: Lead::Always,
    }
}

//! What two containers per pod cost straight through containerd, with no Kubernetes around them: the yardstick for
//! "pod create → Running". Needs root, and a containerd at the socket that is named.
//!
//!     straight /run/containerd/containerd.sock [PODS] [IN FLIGHT]
//!
//! First one pod at a time (median), then PODS at once with so many in flight (seconds until the last one runs).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use mk8s_containerd::spec::{self, ContainerConfig, Host, Namespaces, SandboxConfig};
use mk8s_containerd::{ContainerSpec, Containerd, Image, Options, Stdio};

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Yard {
    client: Containerd,
    image: Image,
    host: Host,
}

impl Yard {
    /// A sandbox and one container in it; both are the pause process.
    async fn pod(&self, id: &str) -> Result<Duration, Error> {
        let begun = Instant::now();
        let config = SandboxConfig {
            image: self.image.config.clone(),
            hostname: Some(id.to_owned()),
            cgroups_path: format!("/mk8s-straight/{id}"),
            shim_group: id.to_owned(),
            ..Default::default()
        };
        let pid = self.start(id, spec::sandbox(&config, &self.host)?).await?;
        let config = ContainerConfig {
            image: self.image.config.clone(),
            cgroups_path: format!("/mk8s-straight/{id}-c"),
            shim_group: id.to_owned(),
            namespaces: Namespaces {
                sandbox_pid: pid,
                ..Default::default()
            },
            ..Default::default()
        };
        self.start(&format!("{id}-c"), spec::container(&config, &self.host)?)
            .await?;
        Ok(begun.elapsed())
    }

    async fn start(&self, id: &str, oci: serde_json::Value) -> Result<u32, Error> {
        let (id, image) = (id.to_owned(), self.image.clone());
        let spec = ContainerSpec {
            id,
            image,
            labels: HashMap::new(),
            oci,
            stdio: Stdio::default(),
            runtime: Default::default(),
        };
        let container = self.client.create(spec).await?;
        Ok(self.client.start(&container).await?)
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        self.client.delete(&format!("{id}-c")).await?;
        Ok(self.client.delete(id).await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let socket = PathBuf::from(
        args.next()
            .unwrap_or_else(|| "/run/containerd/containerd.sock".to_owned()),
    );
    let pods: usize = args.next().map_or(Ok(30), |text| text.parse())?;
    let in_flight: usize = args.next().map_or(Ok(4), |text| text.parse())?;
    let client = Containerd::connect(Options {
        socket,
        ..Default::default()
    })
    .await?;
    let yard = Arc::new(Yard {
        image: client.ensure_pause_image().await?,
        client,
        host: Host::detect(),
    });

    let mut single = Vec::new();
    for round in 0..11 {
        let id = format!("straight-one-{}-{round}", std::process::id());
        single.push(Box::pin(yard.pod(&id)).await?);
        yard.remove(&id).await?;
    }
    single.sort_unstable();

    let ids: Vec<String> = (0..pods)
        .map(|pod| format!("straight-{}-{pod}", std::process::id()))
        .collect();
    let begun = Instant::now();
    stream::iter(ids.iter().map(Ok::<_, Error>))
        .try_for_each_concurrent(in_flight, |id| {
            let yard = yard.clone();
            async move { Box::pin(yard.pod(id)).await.map(drop) }
        })
        .await?;
    let together = begun.elapsed();
    stream::iter(&ids)
        .for_each_concurrent(in_flight, |id| async { drop(yard.remove(id).await) })
        .await;
    let median = single[single.len() / 2];
    println!(
        r#"{{"one_ms":{},"pods":{pods},"together_ms":{}}}"#,
        median.as_millis(),
        together.as_millis()
    );
    Ok(())
}

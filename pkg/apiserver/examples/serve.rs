//! The API server alone, on loopback, for load checks and for trying a client against it:
//! `serve DIR PORT` makes keys, store and an administrator's kubeconfig (and admin.crt, admin.key) in DIR.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use mk8s_apiserver::bootstrap::Facts;
use mk8s_apiserver::{ApiServer, Config};
use mk8s_pki::kubeconfig::{Credential, Kubeconfig};
use mk8s_pki::layout::{self, ServerNames};
use mk8s_pki::{issue, rotation};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("a directory is needed")?);
    let port: u16 = args.next().ok_or("a port is needed")?.parse()?;
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let names = ServerNames {
        node_name: "localhost".into(),
        cluster_domain: "cluster.local".into(),
        advertise_address: address,
        service_address: [10, 96, 0, 1].into(),
        extra: Vec::new(),
    };
    let pki = layout::create(&dir.join("pki"), &names)?;
    let admin = issue::client(&pki.ca, "kubernetes-admin", Some("system:masters"), issue::LIFE)?;
    let url = format!("https://127.0.0.1:{port}");
    let credential = Credential::Certificate {
        certificate_pem: &admin.certificate_pem,
        key_pem: &admin.key_pem,
    };
    let kubeconfig = Kubeconfig::new(
        &url,
        pki.ca.certificate_pem(),
        "kubernetes",
        "kubernetes-admin",
        credential,
    );
    std::fs::write(dir.join("kubeconfig"), kubeconfig.to_yaml()?)?;
    std::fs::write(dir.join("admin.crt"), &admin.certificate_pem)?;
    std::fs::write(dir.join("admin.key"), &admin.key_pem)?;

    let mut config = Config::new(&dir, address, pki.service_accounts.clone());
    config.secure_port = port;
    let holder = rotation::Holder::new(pki.kubelet_client.clone());
    config.kubelet_client = Some(rotation::client_config(pki.ca.certificate_pem(), Some(holder))?);
    let server = ApiServer::open(config)?;
    let facts = Facts {
        service_cidr: server.config().service_cidr,
        advertise_address: address,
        secure_port: port,
        ca: pki.ca.certificate_pem().into(),
        front_proxy_ca: pki.front_proxy_ca.certificate_pem().into(),
        server_url: url.clone(),
    };
    let written = server.bootstrap(&facts).await.map_err(|status| status.message)?;
    let tls = rotation::server_config(rotation::Holder::new(pki.server.clone()), pki.ca.certificate_pem())?;
    let listener = tokio::net::TcpListener::bind((address, port)).await?;
    tracing::info!(written, url, "serving");
    let token = CancellationToken::new();
    let stop = token.clone();
    mk8s_supervisor::job::spawn("ctrl-c", async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    server.serve(listener, Arc::new(tls), token).await?;
    server.close().await;
    Ok(())
}

//! The API server's port, and the certificates that it shows: renewed in the running process.

use std::sync::Arc;

use mk8s_apiserver::ApiServer;
use mk8s_pki::layout::{self, Master, ServerNames};
use mk8s_pki::rotation::{self, Holder};
use mk8s_supervisor::{OnExit, Supervisor, until};
use parking_lot::Mutex;
use tokio::net::TcpListener;

pub(crate) fn serve(
    server: &Arc<ApiServer>,
    tls: Arc<rustls::ServerConfig>,
    listener: TcpListener,
    supervisor: &Supervisor,
) {
    let (server, once) = (server.clone(), Mutex::new(Some(listener)));
    supervisor.spawn("apiserver", OnExit::Fatal, move |token| {
        let (server, tls, listener) = (server.clone(), tls.clone(), once.lock().take());
        async move {
            let listener = listener.ok_or("the listener is gone")?;
            server.serve(listener, tls, token).await?;
            Ok(())
        }
    });
}

pub(crate) fn keep_certificates(
    pki: &Arc<Master>,
    names: ServerNames,
    serving: Holder,
    kubelet_client: Holder,
    supervisor: &Supervisor,
) {
    let held = pki.clone();
    supervisor.spawn("renew-apiserver-certificate", OnExit::Restart, move |token| {
        let (pki, names, holder) = (held.clone(), names.clone(), serving.clone());
        let renew = move || {
            let renewed = layout::server_certificate(&pki.directory, &pki.ca, &names);
            async move { renewed }
        };
        until(token, rotation::keep_fresh("apiserver", holder, renew))
    });
    let held = pki.clone();
    supervisor.spawn("renew-kubelet-client-certificate", OnExit::Restart, move |token| {
        let (pki, holder) = (held.clone(), kubelet_client.clone());
        let renew = move || {
            let renewed = layout::kubelet_client_certificate(&pki.directory, &pki.ca);
            async move { renewed }
        };
        until(token, rotation::keep_fresh("apiserver-kubelet-client", holder, renew))
    });
}

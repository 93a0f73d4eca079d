//! TLS to a server whose certificate proves nothing: probes (no pod has a name), and a join's first look at the cluster,
//! whose content is verified by other means.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;

use crate::judged;

/// Takes any certificate. That the server holds its key is still checked.
pub fn verifier() -> Arc<dyn ServerCertVerifier> {
    judged::by(|_| Ok(()))
}

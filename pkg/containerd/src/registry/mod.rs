//! Registries: where an image is asked for, with which credentials, and how it comes into containerd's store.

mod keychain;

use std::path::PathBuf;

pub use keychain::{Credential, Keychain};

/// Pulls images; one pull per image at a time, whoever asks.
pub(crate) struct Puller {
    #[expect(dead_code, reason = "read by the pull that comes with the next change")]
    registries: PathBuf,
}

impl Puller {
    pub(crate) fn new(registries: PathBuf) -> Puller {
        Puller { registries }
    }
}

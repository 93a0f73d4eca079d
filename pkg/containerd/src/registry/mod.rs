//! Registries: where an image is asked for, with which credentials, and how it comes into containerd's store.

mod auth;
mod config;
mod http;
mod keychain;
mod pull;
mod session;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::{BoxFuture, Shared};
use mk8s_supervisor::job::JobError;
use parking_lot::Mutex;

pub use http::NoAnswer;
pub use keychain::{Credential, Keychain};

use crate::error::Error;
use crate::image::Image;
use crate::image::reference::InvalidReference;

/// Why an image could not be pulled, with the registry's answer in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PullError {
    #[error("{0}")]
    InvalidReference(#[from] InvalidReference),
    /// The registry answered, and has no such image.
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Denied(String),
    /// Any other answer of the registry's.
    #[error("{message}")]
    Registry { retry: bool, message: String },
    /// No answer: name resolution, connection, TLS, a broken stream.
    #[error(transparent)]
    Transport(#[from] http::NoAnswer),
    /// What came is not an image.
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Containerd(Arc<Error>),
    #[error("the pull ended early: {0}")]
    Ended(#[from] JobError),
    /// No endpoint gave the manifest; then what the last one said.
    #[error("failed to resolve reference {reference:?}: {cause}")]
    Resolve { reference: String, cause: Box<PullError> },
    /// Any of these, on the image that is named.
    #[error("failed to pull and unpack image {image:?}: {cause}")]
    Image { image: String, cause: Box<PullError> },
}

impl From<Error> for PullError {
    fn from(error: Error) -> Self {
        PullError::Containerd(Arc::new(error))
    }
}

impl PullError {
    fn is_transient(&self) -> bool {
        match self {
            PullError::Transport(failure) => failure.is_transient(),
            PullError::Registry { retry, .. } => *retry,
            _ => false,
        }
    }

    /// What lies below the image's name.
    pub fn cause(&self) -> &PullError {
        match self {
            PullError::Image { cause, .. } | PullError::Resolve { cause, .. } => cause.cause(),
            other => other,
        }
    }
}

type Flight = Shared<BoxFuture<'static, Result<Image, PullError>>>;

/// Pulls images; one pull per image and credentials at a time, whoever asks.
pub(crate) struct Puller {
    registries: config::File,
    clients: http::Clients,
    flights: Mutex<HashMap<String, Flight>>,
}

impl Puller {
    pub(crate) fn new(registries: PathBuf) -> Puller {
        Puller {
            registries: config::File::new(registries),
            clients: http::Clients::default(),
            flights: Mutex::default(),
        }
    }
}

/// `: message` out of a registry's error body (`{"errors":[{"code","message"}]}`), or its beginning, or nothing.
fn said(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let entries = value
        .get("errors")
        .and_then(|errors| errors.as_array())
        .into_iter()
        .flatten();
    let text = |entry: &serde_json::Value, key: &str| entry.get(key).and_then(|t| t.as_str()).map(str::to_owned);
    let messages: Vec<String> = entries
        .filter_map(|entry| match (text(entry, "code"), text(entry, "message")) {
            (Some(code), Some(message)) => Some(format!("{}: {message}", code.to_lowercase().replace('_', " "))),
            (code, message) => code.or(message),
        })
        .collect();
    if !messages.is_empty() {
        return format!(": {}", messages.join(", "));
    }
    let single = text(&value, "details")
        .or(text(&value, "message"))
        .or(text(&value, "error"));
    let plain = String::from_utf8_lossy(&body[..body.len().min(256)]).trim().to_owned();
    match single {
        Some(message) => format!(": {message}"),
        None if plain.is_empty() || plain.starts_with(['<', '{']) => String::new(),
        None => format!(": {plain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_are_found() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(said(body), ": manifest unknown: manifest unknown");
        assert_eq!(
            said(br#"{"details":"incorrect username or password"}"#),
            ": incorrect username or password"
        );
        assert_eq!(said(b"too many requests\n"), ": too many requests");
        assert_eq!(said(b"<html>"), "");
    }
}

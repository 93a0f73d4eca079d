//! Kernel settings below /proc/sys/net. One that is refused (a read-only /proc, a kernel without it) is told once and
//! never fatal, unless without it nothing works.

use std::{collections::HashSet, fs, sync::Mutex};

use crate::error::{Error, Result};

static TOLD: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// Writes `net/...` if it has another value; a refusal is logged once.
pub fn set(name: &str, value: &str) {
    if let Err(error) = write(name, value) {
        let mut told = TOLD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.get_or_insert_default().insert(name.to_owned()) {
            tracing::warn!(sysctl = name, value, %error, "left as it is");
        }
    }
}

/// As [`set`], but its refusal is an error.
pub fn require(name: &str, value: &str) -> Result<()> {
    write(name, value).map_err(|source| Error::io(format!("set the sysctl {name} to {value}"), source))
}

fn write(name: &str, value: &str) -> std::io::Result<()> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

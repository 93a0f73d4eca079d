//! What a verb tells the person when it fails: one line, what was tried and on what, and the exit status.

use std::fmt;

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug)]
pub struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Failure {
            text: text.into(),
            code: 1,
        }
    }

    /// `cannot WHAT: CAUSE`
    pub fn of(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Failure::new(format!("cannot {what}: {cause}"))
    }

    /// kubeadm's exit status for failed preflight checks.
    pub fn preflight(text: impl Into<String>) -> Self {
        Failure {
            text: text.into(),
            code: 2,
        }
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

//! What a verb tells the person when it fails: one line, what was tried and on what, and the exit status. It keeps the error
//! that it comes from, and, so that every error turns into one by `?`, is none itself.

use std::error::Error;
use std::fmt;

pub type Result<T> = std::result::Result<T, Failure>;

type Source = Box<dyn Error + Send + Sync>;

#[derive(Debug)]
pub struct Failure {
    /// Before the source, or alone.
    text: String,
    source: Option<Source>,
    code: u8,
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Failure {
            text: text.into(),
            source: None,
            code: 1,
        }
    }

    /// `cannot WHAT: CAUSE`
    pub fn of(what: impl fmt::Display, cause: impl Into<Source>) -> Self {
        Failure {
            text: format!("cannot {what}"),
            source: Some(cause.into()),
            code: 1,
        }
    }

    /// kubeadm's exit status for failed preflight checks.
    pub fn preflight(text: impl Into<String>) -> Self {
        Failure {
            code: 2,
            ..Failure::new(text)
        }
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure {
            text: String::new(),
            source: Some(Box::new(error)),
            code: 1,
        }
    }
}

impl fmt::Display for Failure {
    /// The text and its causes; a cause that says its own cause too is not repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.text.clone();
        let mut next = self.source.as_deref().map(|error| error as &dyn Error);
        while let Some(error) = next {
            let cause = error.to_string();
            if !told.contains(&cause) {
                if !told.is_empty() {
                    told.push_str(": ");
                }
                told.push_str(&cause);
            }
            next = error.source();
        }
        f.write_str(&told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<Caused>>,
    }

    #[test]
    fn every_cause_is_told_once() {
        let file = || {
            Some(Box::new(Caused {
                text: "no such file",
                source: None,
            }))
        };
        let quiet = Caused {
            text: "reading ca.crt",
            source: file(),
        };
        assert_eq!(Failure::from(quiet).to_string(), "reading ca.crt: no such file");
        let telling = Caused {
            text: "reading ca.crt: no such file",
            source: file(),
        };
        assert_eq!(
            Failure::of("start", telling).to_string(),
            "cannot start: reading ca.crt: no such file"
        );
        assert_eq!(
            Failure::of("start", "it is late").to_string(),
            "cannot start: it is late"
        );
    }
}

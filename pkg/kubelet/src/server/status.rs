//! How a command ended, in the words of the error stream.

use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exit {
        code: u32,
        command: Vec<String>,
    },
    /// It did not come about, or was lost.
    Failed(String),
}

impl Outcome {
    pub const SUCCESS: Self = Self::Exit {
        code: 0,
        command: Vec::new(),
    };

    fn failure(&self) -> Option<String> {
        match self {
            Self::Exit { code: 0, .. } => None,
            Self::Exit { code, command } => Some(format!(
                "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
                command.join(" ")
            )),
            Self::Failed(text) => Some(format!("Internal error occurred: {text}")),
        }
    }

    /// A metav1.Status.
    fn json(&self) -> Value {
        let Some(message) = self.failure() else {
            return json!({"metadata": {}, "status": "Success"});
        };
        match self {
            Self::Exit { code, .. } => json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(text) => json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
                "details": {"causes": [{"message": text}]}, "code": 500,
            }),
        }
    }

    /// What the error stream says. Before version 4 of the protocol it says an error's text, and of success nothing.
    pub fn said(&self, structured: bool) -> String {
        if structured {
            self.json().to_string()
        } else {
            self.failure().unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let exit = |code| Outcome::Exit {
            code,
            command: vec!["sh".into(), "-c".into()],
        };
        for (outcome, structured, expected) in [
            (exit(0), true, r#"{"metadata":{},"status":"Success"}"#),
            (exit(0), false, ""),
            (
                exit(3),
                true,
                r#"{"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: error executing command [sh -c], exit code 3","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}"#,
            ),
            (
                Outcome::Failed("no".into()),
                true,
                r#"{"code":500,"details":{"causes":[{"message":"no"}]},"message":"Internal error occurred: no","metadata":{},"reason":"InternalError","status":"Failure"}"#,
            ),
            (Outcome::Failed("no".into()), false, "Internal error occurred: no"),
        ] {
            assert_eq!(outcome.said(structured), expected);
        }
    }
}

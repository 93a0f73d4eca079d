//! A recorded request and its answer, as a line holds them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    pub name: String,
    pub request: Request,
    /// Name of a placeholder → JSON pointer into the answer's body: `${name}` stands for it in later requests.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    pub answer: Answer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default = "get")]
    pub method: String,
    #[serde(default)]
    pub path: String,
    /// Instead of, and besides, Accept and Content-Type of JSON; an empty one is not sent.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<Value>,
    pub text: Option<String>,
    pub base64: Option<String>,
    /// The watch that this opens stays open under the name.
    pub open: Option<String>,
    /// What such a watch has got since; no request.
    #[serde(rename = "await")]
    pub awaited: Option<String>,
    /// Sent again until the answer has these values at these places; `ANY` is any, null none, and the place "" a text.
    #[serde(default)]
    pub until: BTreeMap<String, Value>,
    /// What these pointers point at, by pointer, is what is kept of the answer's tree.
    pub pick: Option<Vec<String>>,
}

fn get() -> String {
    "GET".into()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub code: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub warning: Vec<String>,
    #[serde(default)]
    pub body: Value,
    #[serde(default)]
    pub text: String,
    /// Of a watch.
    #[serde(default)]
    pub events: Vec<Value>,
}

impl Answer {
    pub fn holds(&self, values: &BTreeMap<String, Value>) -> bool {
        values.iter().all(|(pointer, wanted)| match pointer.as_str() {
            "" => *wanted == *self.text,
            pointer => match self.body.pointer(pointer).or_else(|| self.body.get(pointer)) {
                Some(value) => value == wanted || wanted == "ANY",
                None => wanted.is_null(),
            },
        })
    }
}

//! RuntimeClass handlers: which OCI runtime containerd is set up to use under which name.
//!
//! containerd's CRI plugin is who owns these settings, so it is asked first; where it is switched off (as Docker's package
//! does it), they are read from the file that containerd itself was started with.

use std::collections::BTreeMap;
use std::sync::Arc;

use containerd_client::tonic::client::Grpc;
use containerd_client::tonic::codegen::http::uri::PathAndQuery;
use containerd_client::tonic::{Code, Request, Response, Status};
use prost::Message;
use prost_types::Any;
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic_prost::ProstCodec;

use crate::client::{Containerd, call};
use crate::error::{Error, Result};

mod config;

/// What runs where a handler says nothing else.
const RUNC: &str = "io.containerd.runc.v2";
const STATUS: &str = "/runtime.v1.RuntimeService/Status";

/// One way to run containers.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// containerd's name for its shim (`io.containerd.runc.v2`), or the shim's path.
    pub name: String,
    pub(crate) options: Option<Any>,
}

impl Default for Runtime {
    /// runc, as containerd has it without any setting.
    fn default() -> Self {
        runtime(&Handler::default())
    }
}

/// The handlers of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtimes {
    default: String,
    handlers: BTreeMap<String, Runtime>,
}

impl Runtimes {
    /// What a RuntimeClass's handler stands for; the empty one is that of pods without a class. `None`: containerd has
    /// none of this name.
    pub fn get(&self, handler: &str) -> Option<&Runtime> {
        let name = if handler.is_empty() { &self.default } else { handler };
        self.handlers.get(name)
    }

    /// The handlers' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.handlers.keys().map(String::as_str)
    }
}

/// The part of the CRI plugin's settings that names runtimes. Its file has snake case where its Status has camel case.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Section {
    #[serde(alias = "defaultRuntimeName")]
    default_runtime_name: String,
    runtimes: BTreeMap<String, Handler>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Handler {
    #[serde(alias = "runtimeType")]
    runtime_type: String,
    #[serde(alias = "runtimePath")]
    runtime_path: String,
    options: Option<Map<String, Value>>,
}

impl From<Section> for Runtimes {
    fn from(mut section: Section) -> Self {
        let default = Some(section.default_runtime_name).filter(|name| !name.is_empty());
        let default = default.unwrap_or_else(|| "runc".to_owned());
        // The plugin's own default is there whatever other runtimes a file adds.
        section.runtimes.entry("runc".to_owned()).or_default();
        let handlers = section.runtimes.iter();
        Runtimes {
            default,
            handlers: handlers
                .map(|(name, handler)| (name.clone(), runtime(handler)))
                .collect(),
        }
    }
}

fn runtime(handler: &Handler) -> Runtime {
    let kind = Some(handler.runtime_type.as_str()).filter(|kind| !kind.is_empty());
    let kind = kind.unwrap_or(RUNC);
    let path = Some(handler.runtime_path.as_str()).filter(|path| !path.is_empty());
    let options = handler.options.as_ref();
    Runtime {
        name: path.unwrap_or(kind).to_owned(),
        options: match kind {
            RUNC | "io.containerd.runc.v1" => Some(runc_options(options)),
            _ => options.and_then(other_options),
        },
    }
}

/// `containerd.runc.v1.Options`: containerd-client generates no type for it.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(bool, tag = "1")]
    no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    no_new_keyring: bool,
    #[prost(string, tag = "3")]
    shim_cgroup: String,
    #[prost(uint32, tag = "4")]
    io_uid: u32,
    #[prost(uint32, tag = "5")]
    io_gid: u32,
    #[prost(string, tag = "6")]
    binary_name: String,
    #[prost(string, tag = "7")]
    root: String,
    #[prost(bool, tag = "8")]
    systemd_cgroup: bool,
}

fn runc_options(given: Option<&Map<String, Value>>) -> Any {
    let text = |name| {
        field(given, name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let flag = |name| field(given, name).and_then(Value::as_bool).unwrap_or_default();
    let number = |name| {
        let number = field(given, name).and_then(Value::as_u64);
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
    };
    let options = RuncOptions {
        no_pivot_root: flag("NoPivotRoot"),
        no_new_keyring: flag("NoNewKeyring"),
        shim_cgroup: text("ShimCgroup"),
        io_uid: number("IoUid"),
        io_gid: number("IoGid"),
        binary_name: text("BinaryName"),
        root: text("Root"),
        // Whatever the file says: our specs name a path in the cgroup hierarchy, which is this driver's form.
        systemd_cgroup: false,
    };
    Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.encode_to_vec(),
    }
}

/// `runtimeoptions.v1.Options`: what every other shim is given.
#[derive(Clone, PartialEq, Message)]
struct OtherOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
    #[prost(bytes, tag = "3")]
    config_body: Vec<u8>,
}

fn other_options(given: &Map<String, Value>) -> Option<Any> {
    let text = |name| {
        field(Some(given), name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let config_path = text("ConfigPath");
    // Options that name no file are the shim's configuration themselves.
    let config_body = match config_path.is_empty() {
        true => toml::to_string(given).ok()?.into_bytes(),
        false => Vec::new(),
    };
    let options = OtherOptions {
        type_url: text("TypeUrl"),
        config_path,
        config_body,
    };
    Some(Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value: options.encode_to_vec(),
    })
}

/// Go's decoders don't look at the case of a field's name.
fn field<'a>(given: Option<&'a Map<String, Value>>, name: &str) -> Option<&'a Value> {
    let mut fields = given?.iter();
    fields
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(map = "string, string", tag = "2")]
    info: std::collections::HashMap<String, String>,
}

impl Containerd {
    /// containerd's runtimes by handler, as they are since it was (re)started: read once per connection.
    pub async fn runtimes(&self) -> Result<Arc<Runtimes>> {
        if let Some(known) = self.shared.runtimes.lock().clone() {
            return Ok(known);
        }
        let section = match self.cri_section().await {
            Ok(section) => section,
            // The plugin is off, or is another runtime's.
            Err(error) if error.is_unimplemented() => self.config_section().await?,
            Err(error) => return Err(error),
        };
        let runtimes = Arc::new(Runtimes::from(section));
        *self.shared.runtimes.lock() = Some(runtimes.clone());
        Ok(runtimes)
    }

    async fn cri_section(&self) -> Result<Section> {
        let what = "ask containerd's CRI plugin for its runtimes";
        let answer = call(what, self.cri_status()).await?;
        #[derive(Deserialize)]
        struct Config {
            containerd: Section,
        }
        let config = answer.info.get("config");
        let config = config.ok_or_else(|| Error::malformed(what, "its status has no config"))?;
        let config: Config = serde_json::from_str(config).map_err(|e| Error::malformed(what, e))?;
        Ok(config.containerd)
    }

    async fn cri_status(&self) -> std::result::Result<Response<StatusResponse>, Status> {
        let mut client = Grpc::new(self.shared.channel.clone());
        let not_ready = |error| Status::new(Code::Unavailable, format!("{error}"));
        client.ready().await.map_err(not_ready)?;
        let request = Request::new(StatusRequest { verbose: true });
        client
            .unary(request, PathAndQuery::from_static(STATUS), ProstCodec::default())
            .await
    }

    async fn config_section(&self) -> Result<Section> {
        let socket = self.options().socket.clone();
        mk8s_supervisor::job::blocking("containerd-config", move || config::section(&socket))
            .await
            .map_err(|ended| Error::malformed("read containerd's configuration", ended))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtimes(section: Value) -> Runtimes {
        Runtimes::from(serde_json::from_value::<Section>(section).expect("a section"))
    }

    #[test]
    fn handlers_are_containerds_and_the_empty_one_is_its_default() {
        // As the plugin's Status has it.
        let found = runtimes(serde_json::json!({
            "defaultRuntimeName": "crun",
            "runtimes": {
                "crun": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/usr/bin/crun", "SystemdCgroup": true}},
                "gvisor": {"runtimeType": "io.containerd.runsc.v1", "options": {"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/etc/runsc.toml"}},
                "kata": {"runtimeType": "io.containerd.kata.v2", "runtimePath": "/opt/kata/shim"},
            },
        }));
        assert_eq!(found.names().collect::<Vec<_>>(), ["crun", "gvisor", "kata", "runc"]);
        assert_eq!(found.get(""), found.get("crun"));
        assert_eq!(found.get("nope"), None);
        let options = |name: &str| found.get(name).and_then(|r| r.options.clone()).expect("options").value;
        let crun = RuncOptions::decode(options("crun").as_slice()).expect("runc's options");
        assert_eq!(
            (crun.binary_name.as_str(), crun.systemd_cgroup),
            ("/usr/bin/crun", false)
        );
        let gvisor = OtherOptions::decode(options("gvisor").as_slice()).expect("other options");
        assert_eq!(gvisor.config_path, "/etc/runsc.toml");
        assert_eq!(gvisor.type_url, "io.containerd.runsc.v1.options");
        assert!(gvisor.config_body.is_empty());
        assert_eq!(
            found.get("kata"),
            Some(&Runtime {
                name: "/opt/kata/shim".to_owned(),
                options: None
            })
        );
        assert_eq!(found.get("runc"), Some(&Runtime::default()));
    }

    #[test]
    fn a_default_that_is_no_handler_runs_nothing() {
        let found = runtimes(serde_json::json!({"default_runtime_name": "gone"}));
        assert_eq!((found.get(""), found.get("runc").is_some()), (None, true));
    }
}

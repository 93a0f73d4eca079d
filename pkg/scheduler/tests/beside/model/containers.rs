//! What containers ask for.

use serde_json::{Map, Value, json};

/// An extended resource.
pub const DEVICE: &str = "x.y/device";

/// Amounts of resources; none: not said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amounts {
    pub milli_cpu: Option<i64>,
    pub memory: Option<i64>,
    pub devices: Option<i64>,
}

impl Amounts {
    pub fn json(&self) -> Value {
        let milli_cpu = self.milli_cpu.map(|amount| format!("{amount}m"));
        let texts = [
            ("cpu", milli_cpu),
            ("memory", self.memory.map(|amount| amount.to_string())),
            (DEVICE, self.devices.map(|amount| amount.to_string())),
        ];
        let said = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?))));
        Value::Object(said.collect::<Map<_, _>>())
    }
}

/// A port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub ip: &'static str,
    pub protocol: &'static str,
    pub number: i64,
}

#[derive(Debug, Clone, Default)]
pub struct Container {
    pub asks: Amounts,
    pub image: &'static str,
    pub ports: Vec<Port>,
}

impl Container {
    pub fn json(&self) -> Value {
        let ports = self.ports.iter().map(
            |port| json!({"containerPort": 1, "hostPort": port.number, "hostIP": port.ip, "protocol": port.protocol}),
        );
        json!({"name": "c", "image": self.image, "resources": {"requests": self.asks.json()}, "ports": ports.collect::<Vec<_>>()})
    }
}

//! Nodes, and what keeps pods off them.

use serde_json::{Value, json};

use super::{Amounts, Labels};

#[derive(Debug, Clone, Copy)]
pub struct Taint {
    pub key: &'static str,
    pub value: &'static str,
    pub effect: &'static str,
}

impl Taint {
    fn json(&self) -> Value {
        json!({"key": self.key, "value": self.value, "effect": self.effect})
    }
}

/// Empty is not said.
#[derive(Debug, Clone, Copy)]
pub struct Toleration {
    pub key: &'static str,
    pub operator: &'static str,
    pub value: &'static str,
    pub effect: &'static str,
}

impl Toleration {
    pub const ALL: Toleration = Toleration {
        key: "",
        operator: "Exists",
        value: "",
        effect: "",
    };

    pub fn json(&self) -> Value {
        json!({"key": self.key, "operator": self.operator, "value": self.value, "effect": self.effect})
    }
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub cordoned: bool,
    pub room: Amounts,
    /// How many pods it takes.
    pub places: usize,
    /// With their sizes.
    pub images: Vec<(&'static str, i64)>,
}

impl Node {
    pub fn json(&self, name: &str) -> Value {
        let taints: Vec<Value> = self.taints.iter().map(Taint::json).collect();
        let image = |(image, size): &(&str, i64)| json!({"names": [image], "sizeBytes": size});
        let images: Vec<Value> = self.images.iter().map(image).collect();
        let mut room = self.room.json();
        room["pods"] = json!(self.places.to_string());
        json!({"metadata": {"name": name, "labels": self.labels}, "spec": {"taints": taints, "unschedulable": self.cordoned},
            "status": {"allocatable": room, "images": images}})
    }
}

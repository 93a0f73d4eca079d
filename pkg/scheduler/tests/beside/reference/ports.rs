//! Host ports.

use super::Question;
use crate::model::{Pod, Port};

fn ports(pod: &Pod) -> Vec<Port> {
    pod.containers.iter().flat_map(|own| own.ports.clone()).collect()
}

fn meet(one: &Port, other: &Port) -> bool {
    let every = |port: &Port| ["", "0.0.0.0"].contains(&port.ip);
    let address = every(one) || every(other) || one.ip == other.ip;
    address && one.protocol == other.protocol && one.number == other.number
}

impl Question<'_> {
    pub fn ports_are_taken(&self, name: &str) -> bool {
        let own = ports(self.pod);
        let mut taken = self.model.on(name).flat_map(ports);
        taken.any(|taken| own.iter().any(|own| meet(own, &taken)))
    }
}

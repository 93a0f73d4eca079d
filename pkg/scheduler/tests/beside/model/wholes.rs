//! Random nodes and pods that have everything that decisions look at.

use super::{Amounts, Container, Dice, KEYS, Need, Node, NodeTerm, Pod, Port, Taint, Toleration};

const MIB: i64 = 1 << 20;
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const IMAGES: [&str; 4] = ["a:latest", "b:1", "r:5000/c:latest", "d@sha256:0"];

/// Below zero: it is not said.
fn said(amount: i64) -> Option<i64> {
    (amount >= 0).then_some(amount)
}

impl Dice {
    fn several<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| one(self)).collect()
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// A node with room for some pods.
    pub fn whole_node(&mut self, name: &str) -> Node {
        let mut node = self.node(name);
        if let Some(cores) = self.of(&[None, Some("4"), Some("8"), Some("many")]) {
            node.labels.insert("cores".to_owned(), cores.to_owned());
        }
        node.taints = match self.below(4) {
            3 => self.several(2, Self::taint),
            _ => Vec::new(),
        };
        node.cordoned = self.once_in(15);
        node.room = Amounts {
            milli_cpu: self.of(&[16_000, 4000, 4000, 2000, 2000, 1100, 0, -1].map(said)),
            memory: self.of(&[16_384 * MIB, 4096 * MIB, 4096 * MIB, 1500 * MIB, 1_000_000_007, -1].map(said)),
            devices: self.of(&[-1, 0, 2, 8].map(said)),
        };
        node.places = self.of(&[110, 110, 5, 2]);
        for image in IMAGES {
            if self.once_in(2) {
                node.images.push((image, self.of(&[700, 30, 90, 2500]) * MIB));
            }
        }
        node
    }

    fn taint(&mut self) -> Taint {
        Taint {
            key: self.of(&["k", "l"]),
            value: self.of(&["", "1"]),
            effect: self.of(&EFFECTS),
        }
    }

    fn toleration(&mut self) -> Toleration {
        let key = self.of(&["k", "l", "node.kubernetes.io/unschedulable", ""]);
        let effect = self.of(&["", EFFECTS[0], EFFECTS[1], EFFECTS[2]]);
        let (operator, value) = match key {
            "" => ("Exists", ""),
            _ => self.of(&[("Exists", ""), ("Equal", ""), ("Equal", "1"), ("", "1")]),
        };
        Toleration {
            key,
            operator,
            value,
            effect,
        }
    }

    fn amounts(&mut self) -> Amounts {
        Amounts {
            milli_cpu: self.of(&[-1, 0, 250, 250, 500, 500, 1003, 3000].map(said)),
            memory: self.of(&[
                -1,
                0,
                100 * MIB,
                100 * MIB,
                300 * MIB,
                300 * MIB,
                123_456_789,
                1200 * MIB,
            ]
            .map(said)),
            devices: self.of(&[-1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 3].map(said)),
        }
    }

    fn port(&mut self) -> Port {
        Port {
            ip: self.of(&["", "0.0.0.0", "127.0.0.1", "127.0.0.2"]),
            protocol: self.of(&["TCP", "UDP"]),
            number: self.of(&[80, 81]),
        }
    }

    fn container(&mut self) -> Container {
        Container {
            asks: self.amounts(),
            image: self.of(&["a", IMAGES[1], "r:5000/c", IMAGES[3], "unknown"]),
            ports: match self.below(5) {
                4 => self.several(2, Self::port),
                _ => Vec::new(),
            },
        }
    }

    fn need(&mut self) -> Need {
        let operator = self.of(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]);
        match operator {
            "Gt" | "Lt" => ("cores", operator, vec![self.of(&["4", "5", "8", "few"])]),
            "Exists" | "DoesNotExist" => (self.of(&[KEYS[0], "cores"]), operator, Vec::new()),
            _ => match self.below(2) {
                0 => (KEYS[0], operator, self.of(&[&["a"][..], &["a", "b"], &[""]]).to_vec()),
                _ => ("cores", operator, self.of(&[&["4"][..], &["4", "8"]]).to_vec()),
            },
        }
    }

    fn field(&mut self) -> Need {
        let operator = self.of(&["In", "In", "NotIn"]);
        ("metadata.name", operator, vec![self.of(&["n0", "n1", "n2", "no-such"])])
    }

    fn node_term(&mut self) -> NodeTerm {
        NodeTerm {
            labels: self.several(2, Self::need),
            fields: match self.below(3) {
                2 => self.several(2, Self::field),
                _ => Vec::new(),
            },
        }
    }

    /// A pod that is somewhere.
    pub fn whole_pod(&mut self) -> Pod {
        let pod = self.below(3);
        self.filled(pod == 2, Self::pod)
    }

    /// One that waits, and is said where to go.
    pub fn whole_waiting(&mut self) -> Pod {
        let beside = self.below(3);
        let mut pod = self.filled(beside == 2, Self::waiting);
        if self.once_in(4) {
            pod.spread = vec![self.constraint()];
        }
        pod.zone = self.of(&[None, None, None, None, None, Some("a")]);
        if self.once_in(4) {
            pod.required = self.several(2, Self::node_term);
        }
        pod.liked = self.several(2, |dice| (dice.of(&[0, 1, 7, 100]), dice.node_term()));
        pod.tolerations = match self.below(4) {
            0 | 1 => self.several(2, Self::toleration),
            2 => vec![Toleration::ALL],
            _ => Vec::new(),
        };
        pod
    }

    /// A pod with containers; `beside`: it also says something of other pods.
    fn filled(&mut self, beside: bool, one: fn(&mut Self) -> Pod) -> Pod {
        let mut pod = match beside {
            true => one(self),
            false => Pod {
                namespace: self.of(&["d", "e", "unknown"]),
                labels: self.pod_labels(),
                ..Pod::default()
            },
        };
        pod.containers = vec![self.container()];
        pod.containers.extend(self.several(1, Self::container));
        pod
    }
}

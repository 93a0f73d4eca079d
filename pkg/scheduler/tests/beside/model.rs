//! The cluster as plain lists, and random parts of it. All choices come from a list of numbers, so that proptest can make it shorter.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub type Labels = BTreeMap<String, String>;

pub const KEYS: [&str; 3] = ["topology.kubernetes.io/zone", "kubernetes.io/hostname", "rack"];

/// Random numbers from a list; zeros when it ends.
pub struct Dice(pub std::vec::IntoIter<u16>);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) % end
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    fn labels(&mut self, values: &[(&str, &[&str])]) -> Labels {
        let mut labels = Labels::new();
        for (key, values) in values {
            let value = self.below(values.len() + 1);
            if let Some(value) = values.get(value) {
                labels.insert((*key).to_owned(), (*value).to_owned());
            }
        }
        labels
    }

    pub fn pod_labels(&mut self) -> Labels {
        self.labels(&[("app", &["web", "db"]), ("tier", &["1", "2"])])
    }

    pub fn namespace_labels(&mut self) -> Labels {
        self.labels(&[("team", &["x", "y"])])
    }

    pub fn node(&mut self, name: &str) -> Node {
        let mut labels = self.labels(&[(KEYS[0], &["a", "b", ""]), (KEYS[2], &["1", "2"])]);
        if self.below(8) != 0 {
            labels.insert(KEYS[1].to_owned(), name.to_owned());
        }
        Node {
            labels,
            tainted: self.below(4) == 0,
        }
    }

    fn selector(&mut self, key: &str, values: [&str; 2]) -> Select {
        let expression = |operator: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            Some(vec![(key.to_owned(), operator.to_owned(), values)])
        };
        Select(match self.below(8) {
            0 => None,
            1 => Some(Vec::new()),
            2 => expression("NotIn", &values[..1]),
            3 => expression("Exists", &[]),
            4 => expression("DoesNotExist", &[]),
            5 => expression("In", &values),
            _ => expression("In", &values[1..]),
        })
    }

    fn term(&mut self) -> Term {
        let names = self.of(&[&[][..], &["d"], &["d", "e"]]);
        let of_namespaces = match self.below(3) {
            0 => self.selector("team", ["x", "y"]),
            _ => Select(None),
        };
        Term {
            key: self.of(&KEYS),
            names: names.to_vec(),
            of_namespaces,
            labels: self.selector("app", ["web", "db"]),
        }
    }

    fn terms(&mut self, most: usize) -> Vec<Term> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.term()).collect()
    }

    fn constraint(&mut self) -> Constraint {
        Constraint {
            key: self.of(&KEYS),
            hard: self.below(2) == 0,
            max_skew: 1 + self.below(2),
            min_domains: 1 + self.below(3),
            labels: self.selector("app", ["web", "db"]),
            by_tier: self.below(4) == 0,
            honors_affinity: self.below(2) == 0,
            honors_taints: self.below(2) == 0,
        }
    }

    /// A pod with the terms that a placed one may have.
    pub fn pod(&mut self) -> Pod {
        let preferred = self
            .terms(2)
            .into_iter()
            .map(|term| (1 + self.below(3), term))
            .collect();
        let disliked = self
            .terms(1)
            .into_iter()
            .map(|term| (1 + self.below(3), term))
            .collect();
        Pod {
            namespace: self.of(&["d", "e", "unknown"]),
            labels: self.pod_labels(),
            going: self.below(4) == 0,
            near: self.terms(2),
            away: self.terms(1),
            preferred,
            disliked,
            ..Pod::default()
        }
    }

    /// One that waits.
    pub fn waiting(&mut self) -> Pod {
        let mut pod = Pod {
            going: false,
            ..self.pod()
        };
        let count = self.below(4);
        pod.spread = (0..count).map(|_| self.constraint()).collect();
        // Two of one key and sort are invalid.
        pod.spread.sort_by_key(|own| (own.key, own.hard));
        pod.spread.dedup_by_key(|own| (own.key, own.hard));
        pod.zone = self.of(&[None, Some("a")]);
        pod.tolerates = self.below(2) == 0;
        pod
    }
}

/// A label selector: none, or requirements.
#[derive(Debug, Clone)]
pub struct Select(pub Option<Vec<(String, String, Vec<String>)>>);

impl Select {
    pub fn matches(&self, labels: &Labels) -> bool {
        let Some(all) = &self.0 else { return false };
        all.iter()
            .all(|(key, operator, values)| match (&**operator, labels.get(key)) {
                ("In", Some(value)) => values.contains(value),
                ("NotIn", Some(value)) => !values.contains(value),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            })
    }

    fn json(&self) -> Value {
        let Some(all) = &self.0 else { return Value::Null };
        let all = all
            .iter()
            .map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}));
        json!({"matchExpressions": all.collect::<Vec<_>>()})
    }
}

#[derive(Debug, Clone)]
pub struct Term {
    pub key: &'static str,
    pub names: Vec<&'static str>,
    pub of_namespaces: Select,
    pub labels: Select,
}

impl Term {
    fn json(&self) -> Value {
        json!({"topologyKey": self.key, "namespaces": self.names, "namespaceSelector": self.of_namespaces.json(),
            "labelSelector": self.labels.json()})
    }
}

#[derive(Debug, Clone)]
pub struct Constraint {
    pub key: &'static str,
    pub hard: bool,
    pub max_skew: usize,
    pub min_domains: usize,
    pub labels: Select,
    pub by_tier: bool,
    pub honors_affinity: bool,
    pub honors_taints: bool,
}

impl Constraint {
    fn json(&self) -> Value {
        let honors = |honors: bool| if honors { "Honor" } else { "Ignore" };
        json!({"topologyKey": self.key, "maxSkew": self.max_skew, "labelSelector": self.labels.json(),
            "minDomains": self.hard.then_some(self.min_domains),
            "whenUnsatisfiable": if self.hard { "DoNotSchedule" } else { "ScheduleAnyway" },
            "matchLabelKeys": if self.by_tier { &["tier"][..] } else { &[] },
            "nodeAffinityPolicy": honors(self.honors_affinity), "nodeTaintsPolicy": honors(self.honors_taints)})
    }
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub labels: Labels,
    pub tainted: bool,
}

impl Node {
    pub fn json(&self, name: &str) -> Value {
        let taint = json!([{"key": "k", "effect": "NoSchedule"}]);
        let taints = if self.tainted { taint } else { Value::Null };
        json!({"metadata": {"name": name, "labels": self.labels}, "spec": {"taints": taints}})
    }
}

#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub namespace: &'static str,
    pub labels: Labels,
    pub going: bool,
    pub near: Vec<Term>,
    pub away: Vec<Term>,
    pub preferred: Vec<(usize, Term)>,
    pub disliked: Vec<(usize, Term)>,
    pub spread: Vec<Constraint>,
    pub zone: Option<&'static str>,
    pub tolerates: bool,
}

impl Pod {
    pub fn json(&self, uid: &str, node: Option<&str>) -> Value {
        let kind = |hard: &[Term], soft: &[(usize, Term)]| {
            let soft = soft
                .iter()
                .map(|(weight, term)| json!({"weight": weight, "podAffinityTerm": term.json()}));
            json!({"requiredDuringSchedulingIgnoredDuringExecution": hard.iter().map(Term::json).collect::<Vec<_>>(),
                "preferredDuringSchedulingIgnoredDuringExecution": soft.collect::<Vec<_>>()})
        };
        let affinity = json!({"podAffinity": kind(&self.near, &self.preferred), "podAntiAffinity": kind(&self.away, &self.disliked)});
        let selector = self.zone.map(|zone| json!({KEYS[0]: zone}));
        let tolerations = self.tolerates.then(|| json!([{"operator": "Exists"}]));
        let going = self.going.then_some("2024-01-01T00:00:00Z");
        json!({"metadata": {"uid": uid, "name": uid, "namespace": self.namespace, "labels": self.labels, "deletionTimestamp": going},
            "spec": {"containers": [], "nodeName": node, "affinity": affinity, "nodeSelector": selector, "tolerations": tolerations,
                "topologySpreadConstraints": self.spread.iter().map(Constraint::json).collect::<Vec<_>>()}})
    }
}

/// All there is.
#[derive(Debug, Default)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    /// By uid, each with its node, which may not be there.
    pub pods: BTreeMap<String, (String, Pod)>,
    pub namespaces: BTreeMap<&'static str, Labels>,
}

impl Model {
    /// The pods of a node.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        let pods = self.pods.values();
        pods.filter(move |(on, _)| on == node).map(|(_, pod)| pod)
    }
}

//! Random parts of a cluster. All choices come from a list of numbers, so that proptest can make it shorter; 0 is the plainest choice.

use super::{Constraint, KEYS, Labels, Node, Pod, Select, Taint, Term, Toleration};

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

    pub fn labels(&mut self, values: &[(&str, &[&str])]) -> Labels {
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
            taints: self.taints(),
            ..Node::default()
        }
    }

    fn taints(&mut self) -> Vec<Taint> {
        let taint = Taint {
            key: "k",
            value: "",
            effect: "NoSchedule",
        };
        (self.below(4) == 0).then_some(taint).into_iter().collect()
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

    pub fn constraint(&mut self) -> Constraint {
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
        pod.tolerations = self.of(&[&[][..], &[Toleration::ALL]]).to_vec();
        pod
    }
}

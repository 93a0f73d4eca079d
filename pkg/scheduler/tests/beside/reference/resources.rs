//! What pods ask for, and what nodes have.

use super::Question;
use crate::model::{Amounts, Node, Pod};

type Of = fn(&Amounts) -> Option<i64>;

const CPU: Of = |amounts| amounts.milli_cpu;
const MEMORY: Of = |amounts| amounts.memory;
const DEVICES: Of = |amounts| amounts.devices;

/// What a container that does not say counts as in scores by what is left.
const SMALL: [(Of, i64); 2] = [(CPU, 100), (MEMORY, 200 << 20)];

fn asked(pod: &Pod, of: Of, unsaid: i64) -> i64 {
    pod.containers.iter().map(|own| of(&own.asks).unwrap_or(unsaid)).sum()
}

impl Question<'_> {
    /// What would be given away with the pod.
    fn given(&self, name: &str, of: Of, unsaid: i64) -> i64 {
        let others = self.model.on(name).map(|pod| asked(pod, of, unsaid));
        others.sum::<i64>() + asked(self.pod, of, unsaid)
    }

    /// All that a node lacks.
    pub fn lacking(&self, name: &str, node: &Node) -> Vec<&'static str> {
        let lacks = |of: Of| asked(self.pod, of, 0) > 0 && self.given(name, of, 0) > of(&node.room).unwrap_or(0);
        let all = [
            ("Too many pods", self.model.on(name).count() >= node.places),
            ("Insufficient cpu", lacks(CPU)),
            ("Insufficient memory", lacks(MEMORY)),
            ("Insufficient x.y/device", lacks(DEVICES)),
        ];
        all.into_iter()
            .filter(|(_, lacks)| *lacks)
            .map(|(reason, _)| reason)
            .collect()
    }

    /// The more is left, the better.
    pub fn room_score(&self, name: &str, node: &Node) -> i64 {
        let scores = SMALL.iter().filter_map(|(of, unsaid)| {
            let all = of(&node.room).filter(|all| *all != 0)?;
            Some((all - self.given(name, *of, *unsaid)).max(0) * 100 / all)
        });
        let scores: Vec<i64> = scores.collect();
        scores.iter().sum::<i64>() / i64::try_from(scores.len().max(1)).unwrap()
    }

    /// The closer the shares of what is given away, the better. A pod that asks for nothing changes none of them.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn balance_score(&self, name: &str, node: &Node) -> i64 {
        let both = [CPU, MEMORY];
        if both.iter().all(|of| asked(self.pod, *of, 0) == 0) {
            return 0;
        }
        let shares = both.iter().filter_map(|of| {
            let all = of(&node.room).filter(|all| *all != 0)?;
            Some((self.given(name, *of, 0) as f64 / all as f64).min(1.0))
        });
        let deviation = match shares.collect::<Vec<_>>()[..] {
            [cpu, memory] => ((cpu - memory) / 2.0).abs(),
            _ => 0.0,
        };
        ((1.0 - deviation) * 100.0) as i64
    }
}

//! Whole decisions: each, and the totals of all nodes that are right, is held against the reference; then the pod is where it was decided.

use std::cell::Cell;

use mk8s_scheduler::cluster::{Cluster, NodeInfo};
use mk8s_scheduler::cycle;
use mk8s_scheduler::pod::PodInfo;
use mk8s_scheduler::profile::Profile;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};

use crate::model::Dice;
use crate::reference::{Answer, Question};
use crate::world::{World, info};

const PODS: usize = 20;
const NODES: usize = 8;

fn node_name(dice: &mut Dice) -> String {
    format!("n{}", dice.below(NODES))
}

/// One thing that happens between decisions.
fn step(dice: &mut Dice, world: &mut World) {
    let uid = format!("p{}", dice.below(PODS));
    match dice.below(10) {
        0..3 => world.remove(&uid),
        3..5 => {
            let name = node_name(dice);
            let node = dice.whole_node(&name);
            world.set_node(&name, Some(node));
        }
        5 => {
            let name = node_name(dice);
            world.set_node(&name, None);
        }
        6 => world.change_namespace(dice),
        7 => world.change_service(dice),
        _ => {
            let (pod, node) = (dice.whole_pod(), node_name(dice));
            world.place(pod, &uid, &node);
        }
    }
}

/// What the scheduler decides.
#[derive(Debug)]
struct Decided {
    node: Result<String, String>,
    /// How many were the best; none: there was only one that is right.
    picked_of: Option<usize>,
    /// Of the nodes that are right.
    totals: Vec<i64>,
}

fn decided(
    asks: &PodInfo,
    right: &[(String, i64)],
    cluster: &mut Cluster,
    profile: &Profile,
    dice: &mut Dice,
) -> Decided {
    cycle::prepare(asks, profile, cluster);
    let (start, choice) = (dice.below(NODES), dice.below(NODES));
    let mut picked_of = None;
    let pick = |of: usize| {
        picked_of = Some(of);
        choice % of
    };
    let decision = cycle::decide(asks, profile, cluster, start, pick);
    let nodes: Vec<&NodeInfo> = right.iter().map(|(name, _)| cluster.find(name).unwrap()).collect();
    Decided {
        node: match decision.node {
            Ok(id) => Ok(cluster.node(id).name.to_string()),
            Err(refusal) => Err(refusal.message),
        },
        picked_of,
        totals: cycle::totals(asks, profile, cluster, &nodes),
    }
}

/// Whether it is what the rules say.
fn agrees(decided: &Decided, answer: &Answer) -> bool {
    match (answer, &decided.node) {
        (Answer::Right(right), Ok(node)) => {
            let most = right.iter().map(|(_, total)| *total).max();
            let best: Vec<&String> = right
                .iter()
                .filter(|own| Some(own.1) == most)
                .map(|own| &own.0)
                .collect();
            let totals = right.iter().map(|(_, total)| total).eq(&decided.totals);
            totals && best.contains(&node) && decided.picked_of.is_none_or(|of| of == best.len())
        }
        (Answer::Refused(reasons), Err(message)) => message.starts_with(reasons),
        _ => false,
    }
}

/// Asks for one decision.
fn ask(dice: &mut Dice, world: &mut World, profile: &Profile) -> Result<(), TestCaseError> {
    let uid = format!("p{}", dice.below(PODS));
    world.remove(&uid);
    let asks = dice.whole_waiting();
    let question = Question {
        model: &world.model,
        pod: &asks,
        node: None,
        changes: &[],
    };
    let answer = question.answer();
    let right = match &answer {
        Answer::Right(right) => &**right,
        Answer::Refused(_) => &[],
    };
    let info = info(&asks, &uid, None, &mut world.cluster);
    let decided = decided(&info, right, &mut world.cluster, profile, dice);
    let model = &world.model;
    prop_assert!(
        agrees(&decided, &answer),
        "{decided:?}, by the rules {answer:?}: {asks:?} in {model:#?}"
    );
    if let Ok(node) = decided.node {
        match dice.below(2) {
            0 => world.assume(asks, info, &node),
            _ => world.place(asks, &uid, &node),
        }
    }
    Ok(())
}

/// A small cluster, and decisions while it changes. How many there were.
fn live(numbers: Vec<u16>, profile: &Profile) -> Result<usize, TestCaseError> {
    let (mut dice, mut world) = (Dice(numbers.into_iter()), World::default());
    for at in 0..3 + dice.below(NODES - 2) {
        let name = format!("n{at}");
        let node = dice.whole_node(&name);
        world.set_node(&name, Some(node));
    }
    let mut decisions = 0;
    while !dice.is_over() {
        for _ in 0..dice.below(3) {
            step(&mut dice, &mut world);
        }
        ask(&mut dice, &mut world, profile)?;
        decisions += 1;
    }
    Ok(decisions)
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn decisions_are_those_of_the_rules() {
    let wanted = variable("MK8S_DECISIONS").unwrap_or(3000);
    let first = variable("MK8S_SEED").unwrap_or_else(rand::random::<u64>);
    let profile = Profile {
        percentage_of_nodes_to_score: Some(100),
        ..Profile::default()
    };
    let made = Cell::new(0);
    for seed in (0..).map(|round| first.wrapping_add(round)) {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 16,
            failure_persistence: None,
            max_shrink_iters: 2000,
            rng_seed: RngSeed::Fixed(seed),
            ..ProptestConfig::default()
        });
        let numbers = proptest::collection::vec(any::<u16>(), 0..3000);
        let outcome = runner.run(&numbers, |numbers| {
            made.set(made.get() + live(numbers, &profile)?);
            Ok(())
        });
        if let Err(TestError::Fail(why, _) | TestError::Abort(why)) = outcome {
            panic!("MK8S_SEED={seed}: {why}");
        }
        if made.get() >= wanted {
            break;
        }
    }
}

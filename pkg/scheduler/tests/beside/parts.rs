//! What the plugins that count pods say, each for itself, also where pods come and go for a trial.

use std::sync::Arc;

use mk8s_scheduler::cluster::{Cluster, NodeInfo};
use mk8s_scheduler::framework::{Plugin, PreFilter};
use mk8s_scheduler::plugins::{InterPodAffinity, PodTopologySpread};
use mk8s_scheduler::pod::PodInfo;
use proptest::prelude::*;

use crate::model::{Dice, Node, Pod};
use crate::reference::{Change, Question};
use crate::world::{World, info};

/// One thing that happens.
fn step(dice: &mut Dice, world: &mut World) {
    let node = format!("n{}", dice.below(6));
    let uid = format!("p{}", dice.below(12));
    match dice.below(10) {
        0 | 1 => {
            let new = dice.node(&node);
            world.set_node(&node, Some(new));
        }
        2 => world.set_node(&node, None),
        3 => world.change_namespace(dice),
        4 => world.remove(&uid),
        _ => {
            let pod = dice.pod();
            world.place(pod, &uid, &node);
        }
    }
}

type Names<'a> = Vec<(&'a str, &'a Node)>;

type Says = fn(&Question<'_>, &Node) -> Option<&'static str>;

/// What a plugin says of each node, as it is and after a trial: these pods come to it, and the first of its own goes.
fn filters(
    plugin: &dyn Plugin,
    asks: &Arc<PodInfo>,
    cluster: &mut Cluster,
    question: &Question<'_>,
    come: &[Pod],
    says: Says,
) {
    let model = question.model;
    let mut trials = Vec::new();
    for name in model.nodes.keys() {
        let goes = model.on(name).take(come.len() % 2).map(|pod| (pod, -1));
        let changes: Vec<Change<'_>> = come.iter().map(|pod| (pod, 1)).chain(goes).collect();
        let infos = changes.iter().map(|(pod, by)| (info(pod, "other", None, cluster), *by));
        trials.push((infos.collect::<Vec<_>>(), changes));
    }
    let PreFilter::Check(filter) = plugin.pre_filter(asks, cluster) else {
        // Who has nothing to say is asked no more, whatever a trial does.
        let said: Vec<_> = model.nodes.values().filter_map(|node| says(question, node)).collect();
        return assert_eq!(said, [""; 0], "{} skips", plugin.name());
    };
    for ((name, node), (infos, changes)) in model.nodes.iter().zip(&trials) {
        let known = cluster.find(name).unwrap();
        let said = filter.check(known).map(|own| own.reasons[0].to_string());
        assert_eq!(said.as_deref(), says(question, node), "{} of {name}", plugin.name());
        let mut trial = filter.trial().unwrap();
        infos.iter().for_each(|(pod, by)| trial.change(pod, known, *by));
        let said = trial.check(known).map(|own| own.reasons[0].to_string());
        let on_trial = Question {
            node: Some(name),
            changes,
            ..*question
        };
        assert_eq!(
            said.as_deref(),
            says(&on_trial, node),
            "{} of {name} on trial",
            plugin.name()
        );
    }
}

/// Scores before and after they are compared; none: no node is better.
fn scores(plugin: &dyn Plugin, asks: &PodInfo, cluster: &Cluster, nodes: &Names<'_>) -> Option<(Vec<i64>, Vec<i64>)> {
    let known: Vec<&NodeInfo> = nodes.iter().map(|(name, _)| cluster.find(name).unwrap()).collect();
    let score = plugin.pre_score(asks, cluster, &known)?;
    let mut raw = vec![0; known.len()];
    score.score(&known, &mut raw);
    let mut compared = raw.clone();
    score.normalise(&known, &mut compared);
    Some((raw, compared))
}

fn decides(dice: &mut Dice, asks: &Pod, World { model, cluster }: &mut World) {
    let info = info(asks, "asks", None, cluster);
    let plugins: [&dyn Plugin; 2] = [&PodTopologySpread::default(), &InterPodAffinity::default()];
    cluster.settle();
    plugins.iter().for_each(|plugin| plugin.prepare(&info, cluster));
    let come: Vec<Pod> = (0..dice.below(3)).map(|_| dice.pod()).collect();
    let question = Question {
        model,
        pod: asks,
        node: None,
        changes: &[],
    };
    filters(plugins[0], &info, cluster, &question, &come, |question, node| {
        question.spread(node)
    });
    filters(plugins[1], &info, cluster, &question, &come, |question, node| {
        question.affinity(node)
    });
    let nodes: Names<'_> = model
        .nodes
        .iter()
        .map(|(name, node)| (&**name, node))
        .filter(|_| dice.below(4) != 0)
        .collect();
    let crowding = question.crowding(&nodes);
    match scores(plugins[0], &info, cluster, &nodes) {
        Some((raw, compared)) => {
            let most = crowding.iter().flatten().copied().max().unwrap_or(0);
            let least = crowding.iter().flatten().copied().min().unwrap_or(0);
            let expected = crowding.iter().map(|own| match own {
                None => 0,
                Some(_) if most == 0 => 100,
                Some(own) => 100 * (most + least - own) / most,
            });
            assert_eq!(raw, crowding.iter().map(|own| own.unwrap_or(0)).collect::<Vec<_>>());
            assert_eq!(compared, expected.collect::<Vec<_>>());
        }
        None => assert!(asks.spread.iter().all(|own| own.hard)),
    }
    let only: Vec<&Node> = nodes.iter().map(|(_, node)| *node).collect();
    let liking = question.liking(&only);
    let raw = scores(plugins[1], &info, cluster, &nodes).map_or_else(|| vec![0; nodes.len()], |(raw, _)| raw);
    assert_eq!(raw, liking);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_counted_is_what_a_look_at_all_pods_finds(numbers in proptest::collection::vec(any::<u16>(), 0..1000)) {
        let mut dice = Dice(numbers.into_iter());
        let mut world = World::default();
        let waiting: Vec<Pod> = (0..3).map(|_| dice.waiting()).collect();
        while !dice.is_over() {
            step(&mut dice, &mut world);
            let asks = &waiting[dice.below(3)];
            decides(&mut dice, asks, &mut world);
        }
    }
}

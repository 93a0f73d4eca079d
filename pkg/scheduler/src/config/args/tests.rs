#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::config::decode;

fn check<A: Args>(args: Value) -> String {
    let mut args: A = decode::args("Any", Some(&args)).unwrap();
    args.default_unset();
    let mut errors = Errors::new();
    args.check(&Path::new("args"), &mut errors);
    mk8s_api::status::told(&errors)
}

type Check = fn(Value) -> String;

#[test]
fn arguments_of_fitting_are_checked_as_upstream_checks_them() {
    let fit: Check = check::<FitArgs>;
    let strategy = |own: Value| json!({"scoringStrategy": own});
    let curve = |shape: Value| {
        strategy(json!({"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": shape}}))
    };
    let rows: Vec<(Check, Value, &str)> = vec![
        (fit, json!({}), "[]"),
        (fit, strategy(json!({"type": "MostAllocated"})), "[]"),
        (
            fit,
            strategy(json!({})),
            "args.scoringStrategy.type: Unsupported value: \"\": supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
        ),
        (
            fit,
            strategy(json!({"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 101}]})),
            "args.scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
        ),
        (
            fit,
            strategy(json!({"type": "RequestedToCapacityRatio"})),
            "args.scoringStrategy.shape: Required value: at least one point must be specified",
        ),
        (
            fit,
            curve(json!([{"utilization": 5, "score": 1}, {"utilization": 5, "score": 2}])),
            "args.scoringStrategy.shape[1].utilization: Invalid value: 5: values must be sorted in increasing order",
        ),
        (
            fit,
            curve(json!([{"utilization": 101, "score": 11}])),
            "[args.scoringStrategy.shape[0].utilization: Invalid value: 101: not in valid range [0, 100], args.scoringStrategy.shape[0].score: Invalid value: 11: not in valid range [0, 10]]",
        ),
        (
            fit,
            json!({"ignoredResourceGroups": ["a/b"]}),
            "args.ignoredResourceGroups[0]: Invalid value: \"a/b\": resource group name can't contain '/'",
        ),
    ];
    for (check, args, expected) in rows {
        assert_eq!(check(args.clone()), expected, "{args}");
    }
}

#[test]
fn arguments_of_balance_and_preemption_are_checked_as_upstream_checks_them() {
    let balanced: Check = check::<BalancedAllocationArgs>;
    let preemption: Check = check::<DefaultPreemptionArgs>;
    let rows: Vec<(Check, Value, &str)> = vec![
        (balanced, json!({}), "[]"),
        (
            balanced,
            json!({"resources": [{"name": "cpu", "weight": 2}]}),
            "args.resources[0].weight: Invalid value: 2: must be 1",
        ),
        (
            balanced,
            json!({"resources": [{"name": "cpu"}, {"name": "cpu"}]}),
            "args.resources[1].name: Duplicate value: \"cpu\"",
        ),
        (preemption, json!({}), "[]"),
        (
            preemption,
            json!({"minCandidateNodesPercentage": 101}),
            "args.minCandidateNodesPercentage: Invalid value: 101: not in valid range [0, 100]",
        ),
        (
            preemption,
            json!({"minCandidateNodesAbsolute": -1}),
            "args.minCandidateNodesAbsolute: Invalid value: -1: not in valid range [0, inf)",
        ),
        (
            preemption,
            json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0}),
            "[args.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute, args.minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as minCandidateNodesPercentage]",
        ),
    ];
    for (check, args, expected) in rows {
        assert_eq!(check(args.clone()), expected, "{args}");
    }
}

#[test]
fn arguments_of_spreading_are_checked_as_upstream_checks_them() {
    let spread: Check = check::<PodTopologySpreadArgs>;
    let constraints = |all: Value| json!({"defaultingType": "List", "defaultConstraints": all});
    let good = json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"});
    let with = |field: &str, value: Value| {
        let mut own = good.clone();
        own[field] = value;
        constraints(json!([own]))
    };
    let rows: Vec<(Check, Value, &str)> = vec![
        (spread, json!({}), "[]"),
        (spread, constraints(json!([good])), "[]"),
        (
            spread,
            json!({"defaultingType": "X"}),
            "args.defaultingType: Unsupported value: \"X\": supported values: \"System\", \"List\"",
        ),
        (
            spread,
            json!({"defaultConstraints": [good]}),
            "args.defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
        ),
        (
            spread,
            with("maxSkew", json!(0)),
            "args.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
        ),
        (
            spread,
            with("topologyKey", json!("")),
            "args.defaultConstraints[0].topologyKey: Required value: can not be empty",
        ),
        (
            spread,
            with("whenUnsatisfiable", json!("X")),
            "args.defaultConstraints[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ),
        (
            spread,
            with("labelSelector", json!({})),
            "args.defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod",
        ),
        (
            spread,
            constraints(json!([good, good])),
            "args.defaultConstraints[1]: Duplicate value: \"{z, ScheduleAnyway}\"",
        ),
    ];
    for (check, args, expected) in rows {
        assert_eq!(check(args.clone()), expected, "{args}");
    }
}

#[test]
fn added_affinity_is_checked_as_a_pods_own() {
    let affinity: Check = check::<NodeAffinityArgs>;
    let required = |term: Value| json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
    let rows: Vec<(Check, Value, &str)> = vec![
        (affinity, json!({}), "[]"),
        (
            affinity,
            required(json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]})),
            "[]",
        ),
        (
            affinity,
            required(json!({"matchExpressions": [{"key": "a", "operator": "X"}]})),
            "args.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator",
        ),
    ];
    for (check, args, expected) in rows {
        assert_eq!(check(args.clone()), expected, "{args}");
    }
}

#[test]
fn arguments_that_are_numbers_are_checked_and_read() {
    let pods: Check = check::<InterPodAffinityArgs>;
    let volumes: Check = check::<VolumeBindingArgs>;
    let devices: Check = check::<DynamicResourcesArgs>;
    let rows: Vec<(Check, Value, &str)> = vec![
        (pods, json!({"hardPodAffinityWeight": 100}), "[]"),
        (
            pods,
            json!({"hardPodAffinityWeight": 101}),
            "args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
        ),
        (volumes, json!({"bindTimeoutSeconds": 0}), "[]"),
        (
            volumes,
            json!({"bindTimeoutSeconds": -1}),
            "args.bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value",
        ),
        (
            volumes,
            json!({"shape": []}),
            "args.shape: Invalid value: []: unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring",
        ),
        (devices, json!({"filterTimeout": "0s"}), "[]"),
        (
            devices,
            json!({"filterTimeout": "-1s"}),
            "args.filterTimeout: Invalid value: \"-1s\": must be zero or positive",
        ),
        (
            devices,
            json!({"bindingTimeout": "5s"}),
            "args.bindingTimeout: Forbidden: DRADeviceBindingConditions or DRAResourceClaimDeviceStatus feature gate is disabled",
        ),
    ];
    for (check, args, expected) in rows {
        assert_eq!(check(args.clone()), expected, "{args}");
    }
    let timeout = |args: Value| {
        decode::args::<DynamicResourcesArgs>("Any", Some(&args))
            .unwrap()
            .filter_timeout()
    };
    for (args, seconds) in [
        (json!({}), Some(1)),
        (json!({"filterTimeout": "0"}), None),
        (json!({"filterTimeout": "2m"}), Some(120)),
    ] {
        assert_eq!(timeout(args).map(|own| own.as_secs()), seconds);
    }
    assert_eq!(VolumeBindingArgs::default().bind_timeout().as_secs(), 600);
    assert_eq!(InterPodAffinityArgs::default().hard_weight(), 1);
}

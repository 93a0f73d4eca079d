#![allow(clippy::unwrap_used)]
mod effects;

use std::fmt::Write;

use super::*;

fn read(rest: &str) -> Result<(Config, Vec<String>), String> {
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    Config::read(&format!("{head}{rest}")).map_err(|error| error.to_string())
}

/// A document with one profile of these fields.
fn profile(fields: &str) -> Result<(Config, Vec<String>), String> {
    read(&format!("profiles: [{{{fields}}}]"))
}

/// Each plugin with what it does: f filters, p has a say where no node was right, r reserves; and its weight.
fn shown(profile: &Profile) -> String {
    let mut shown = String::new();
    for row in &profile.rows {
        write!(shown, "{}:", row.plugin.name()).unwrap();
        for (letter, is) in [("f", row.filters), ("p", row.post_filters), ("r", row.reserves)] {
            shown.push_str(if is { letter } else { "" });
        }
        write!(shown, "{} ", row.weight).unwrap();
    }
    shown.trim_end().to_owned()
}

const DEFAULT: &str = "NodeUnschedulable:f0 NodeName:f0 TaintToleration:f3 NodeAffinity:f2 NodePorts:f0 NodeResourcesFit:f1 \
     VolumeRestrictions:f0 NodeVolumeLimits:f0 VolumeBinding:fr1 VolumeZone:f0 PodTopologySpread:f2 InterPodAffinity:f2 \
     DynamicResources:fpr2 NodeResourcesBalancedAllocation:1 ImageLocality:1";

#[test]
fn a_document_that_says_nothing_is_the_default() {
    let mut told = Told::default();
    let default = Config::of(Document::default(), &mut told);
    assert_eq!(told.errors, [""; 0], "the default is right");
    let (empty, warnings) = read("").unwrap();
    assert_eq!(warnings, [""; 0]);
    for config in [default, empty, Config::default()] {
        let profiles: Vec<_> = config.profiles.iter().collect();
        let [only] = profiles.as_slice() else {
            unreachable!("one profile")
        };
        assert_eq!((&*only.name, config.backoff), (crate::NAME, Backoff::default()));
        assert_eq!(shown(only), DEFAULT);
        assert_eq!(only.percentage_of_nodes_to_score, None);
        let preemption = only.preemption.unwrap();
        assert_eq!(
            (preemption.min_candidates_percentage, preemption.min_candidates),
            (10, 100)
        );
    }
    assert_eq!(shown(&Profile::default()), DEFAULT);
}

#[test]
fn plugins_are_put_together_as_upstream_does() {
    let fixed = "{name: SchedulingGates}, {name: PrioritySort}, {name: DefaultBinder}";
    for (plugins, expected) in [
        ("score: {disabled: [{name: '*'}]}".into(), DEFAULT.replace(['1', '2', '3'], "0").replace(" NodeResourcesBalancedAllocation:0 ImageLocality:0", "")),
        ("score: {enabled: [{name: NodeResourcesFit, weight: 9}]}".into(), DEFAULT.replace("Fit:f1", "Fit:f9")),
        ("multiPoint: {enabled: [{name: NodeAffinity, weight: 7}]}".into(), DEFAULT.replace("NodeAffinity:f2", "NodeAffinity:f7")),
        ("multiPoint: {enabled: [{name: NodeAffinity}]}".into(), DEFAULT.replace("NodeAffinity:f2", "NodeAffinity:f1")),
        ("multiPoint: {disabled: [{name: NodeName}, {name: TaintToleration}, {name: PodTopologySpread}]}".into(), DEFAULT.replace("NodeName:f0 TaintToleration:f3 ", "").replace("PodTopologySpread:f2 ", "")),
        (
            "multiPoint: {disabled: [{name: NodeName}]}, filter: {enabled: [{name: NodeName}, {name: TaintToleration}]}".into(),
            DEFAULT.replace(" NodeName:f0 TaintToleration:f3", "").replace("NodeUns", "TaintToleration:f3 NodeUns").replace("DynamicResources:fpr2", "DynamicResources:fpr2 NodeName:f0"),
        ),
        (
            format!("multiPoint: {{enabled: [{fixed}, {{name: NodeName}}], disabled: [{{name: '*'}}]}}, score: {{enabled: [{{name: ImageLocality, weight: 4}}]}}"),
            "NodeName:f0 ImageLocality:4".to_owned(),
        ),
        (
            "preFilter: {disabled: [{name: NodePorts}]}, filter: {disabled: [{name: NodePorts}]}".into(),
            DEFAULT.replace(" NodePorts:f0", ""),
        ),
    ] {
        let (config, _) = profile(&format!("plugins: {{{plugins}}}")).unwrap();
        let only = config.profiles.iter().next().unwrap();
        assert_eq!(shown(only), expected, "{plugins}");
    }
}

#[test]
fn preemption_is_a_plugin_too() {
    for (fields, expected) in [
        ("", Some((10, 100))),
        ("plugins: {postFilter: {disabled: [{name: DefaultPreemption}]}}", None),
        ("plugins: {multiPoint: {disabled: [{name: DefaultPreemption}]}}", None),
        (
            "pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 3}}]",
            Some((0, 3)),
        ),
    ] {
        let (config, _) = profile(fields).unwrap();
        let preemption = config.profiles.iter().next().unwrap().preemption;
        let found = preemption.map(|own| (own.min_candidates_percentage, own.min_candidates));
        assert_eq!(found, expected, "{fields}");
    }
}

#[test]
fn numbers_are_taken_over() {
    let text = "percentageOfNodesToScore: 30\npodInitialBackoffSeconds: 3\npodMaxBackoffSeconds: 70\n\
        profiles: [{schedulerName: a}, {schedulerName: b, percentageOfNodesToScore: 7}, {schedulerName: c, percentageOfNodesToScore: 0}]";
    let (config, _) = read(text).unwrap();
    let seconds = (config.backoff.first.as_secs(), config.backoff.longest.as_secs());
    assert_eq!(seconds, (3, 70));
    let percentages: Vec<_> = config
        .profiles
        .iter()
        .map(|own| (&*own.name, own.percentage_of_nodes_to_score))
        .collect();
    assert_eq!(percentages, [("a", Some(30)), ("b", Some(7)), ("c", None)]);
}

#[test]
fn what_has_no_meaning_here_is_warned_of() {
    for (text, expected) in [
        (
            "parallelism: 4",
            &["parallelism: not used: one task makes all decisions"][..],
        ),
        ("leaderElection: {leaderElect: true}", &["leaderElection: not used: "]),
        ("clientConnection: {qps: 5}", &["clientConnection: not used: "]),
        (
            "enableProfiling: false\nenableContentionProfiling: true",
            &["enableProfiling: ", "enableContentionProfiling: "],
        ),
        ("delayCacheUntilActive: true", &["delayCacheUntilActive: "]),
        (
            "profiles: [{plugins: {multiPoint: {disabled: [{name: NodeAffinity}]}}, pluginConfig: [{name: NodeAffinity}]}]",
            &["profiles[0].pluginConfig[0]: not used: NodeAffinity is not enabled"],
        ),
        (
            "profiles: [{plugins: {filter: {enabled: [{name: NodeName, weight: 2}]}}}]",
            &["profiles[0].plugins.filter.enabled[0].weight: not used"],
        ),
        (
            "profiles: [{plugins: {preFilter: {enabled: [{name: NodeResourcesFit}]}}}]",
            &["profiles[0].plugins.preFilter: its order is not used"],
        ),
        (
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, \
             requestedToCapacityRatio: {shape: [{utilization: 0, score: 1}]}}}}]}]",
            &[
                "profiles[0].pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio: not used: the strategy is MostAllocated",
            ],
        ),
    ] {
        let (_, warnings) = read(text).unwrap();
        assert_eq!(warnings.len(), expected.len(), "{text}: {warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected), "{text}: {warning}");
        }
    }
}

#[test]
fn a_wrong_document_is_refused_in_upstreams_words() {
    for (text, expected) in [
        (
            "parallelism: 0",
            "parallelism: Invalid value: 0: should be an integer value greater than zero",
        ),
        (
            "percentageOfNodesToScore: 101",
            "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
        ),
        (
            "podInitialBackoffSeconds: 0",
            "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "podMaxBackoffSeconds: 0",
            "podMaxBackoffSeconds: Invalid value: 0: must be greater than or equal to PodInitialBackoffSeconds",
        ),
        (
            "podInitialBackoffSeconds: -1\npercentageOfNodesToScore: -1",
            "[percentageOfNodesToScore: Invalid value: -1: not in valid range [0-100], \
             podInitialBackoffSeconds: Invalid value: -1: must be greater than 0]",
        ),
        (
            "profiles: [{schedulerName: a}, {}]",
            "profiles[1].schedulerName: Required value",
        ),
        (
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
        ),
        (
            "profiles: [{percentageOfNodesToScore: 200}]",
            "profiles[0].percentageOfNodesToScore: Invalid value: 200: not in valid range [0-100]",
        ),
        (
            "profiles: [{plugins: {filter: {enabled: [{name: Foo}]}}}]",
            "creating profile for scheduler name default-scheduler: FilterPlugin \"Foo\" does not exist",
        ),
        (
            "profiles: [{plugins: {multiPoint: {enabled: [{name: Foo}]}}}]",
            "creating profile for scheduler name default-scheduler: PreFilterPlugin \"Foo\" does not exist",
        ),
        (
            "profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]",
            "creating profile for scheduler name default-scheduler: plugin \"NodeName\" does not extend ScorePlugin plugin",
        ),
        (
            "profiles: [{pluginConfig: [{name: NodeName}, {name: NodeName}]}]",
            "profiles[0].pluginConfig[1]: Duplicate value: \"NodeName\"",
        ),
        (
            "profiles: [{pluginConfig: [{name: EBSLimits}]}]",
            "profiles[0].pluginConfig[0]: Invalid value: \"EBSLimits\": was invalid in version \"v1\" \
             (KubeSchedulerConfiguration is version \"kubescheduler.config.k8s.io/v1\")",
        ),
    ] {
        assert_eq!(read(text).err().as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn what_mk8s_cannot_do_is_refused() {
    let plugins = |text: &str| format!("plugins: {{{text}}}");
    for (fields, expected) in [
        (
            plugins("multiPoint: {disabled: [{name: SchedulingGates}]}"),
            "\"SchedulingGates\" is a part of every decision of mk8s: it can't be disabled",
        ),
        (
            plugins("bind: {disabled: [{name: '*'}]}"),
            "\"DefaultBinder\" is a part of every decision",
        ),
        (
            plugins("queueSort: {disabled: [{name: PrioritySort}]}"),
            "\"PrioritySort\" is a part of every decision",
        ),
        (
            plugins("preFilter: {disabled: [{name: NodeAffinity}]}"),
            "profiles[0].plugins.preFilter: mk8s's \"NodeAffinity\" is not at filter without preFilter",
        ),
        (
            plugins("filter: {disabled: [{name: NodeAffinity}]}"),
            "profiles[0].plugins.filter: mk8s's \"NodeAffinity\" is not at preFilter without filter",
        ),
        (
            plugins("preScore: {disabled: [{name: TaintToleration}]}"),
            "profiles[0].plugins.preScore: mk8s's \"TaintToleration\" is not at score without preScore",
        ),
        (
            plugins("preEnqueue: {disabled: [{name: DefaultPreemption}]}"),
            "profiles[0].plugins.preEnqueue: mk8s's \"DefaultPreemption\" is not at postFilter without preEnqueue",
        ),
        (
            "pluginConfig: [{name: NodeName, args: {}}]".into(),
            "profiles[0].pluginConfig[0].args: Forbidden: NodeName takes no arguments",
        ),
        (
            "pluginConfig: [{name: Foo, args: {}}]".into(),
            "profiles[0].pluginConfig[0]: Invalid value: \"Foo\": there is no such plugin",
        ),
    ] {
        let refused = profile(&fields).err().unwrap_or_default();
        assert!(refused.contains(expected), "{fields}: {refused}");
    }
}

const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

fn whole(text: &str) -> String {
    let error = Config::read(text).err();
    error.map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn sections_that_nothing_goes_by_are_read_all_the_same() {
    for (text, expected) in [
        ("clientConnection: {x: 1}", "unknown field \"clientConnection.x\""),
        ("clientConnection: {qps: fast}", "couldn't decode as "),
        ("leaderElection: 5", "couldn't decode as "),
        ("leaderElection: {retryPeriod: soon}", "time: invalid duration \"soon\""),
    ] {
        let said = whole(&format!("{HEAD}{text}"));
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn decoding_is_strict() {
    let head = HEAD;
    for (text, expected) in [
        (String::new(), "Object 'apiVersion' is missing"),
        (
            "apiVersion: kubescheduler.config.k8s.io/v1".into(),
            "Object 'Kind' is missing",
        ),
        (
            "apiVersion: kubescheduler.config.k8s.io/v1beta3\nkind: KubeSchedulerConfiguration".into(),
            "no kind \"KubeSchedulerConfiguration\" is registered for version \"kubescheduler.config.k8s.io/v1beta3\" in scheme",
        ),
        (
            format!("{head}foo: 1\nleaderElection: {{bar: 1}}"),
            "strict decoding error: unknown field \"foo\", unknown field \"leaderElection.bar\"",
        ),
        (
            format!("{head}profiles: [{{}}, {{plugins: {{foo: {{}}}}}}]"),
            "unknown field \"profiles[1].plugins.foo\"",
        ),
        (
            format!("{head}profiles: [{{plugins: {{score: {{enabled: [{{nam: a}}]}}}}}}]"),
            "unknown field \"profiles[0].plugins.score.enabled[0].nam\"",
        ),
        (
            format!("{head}extenders: [{{urlPrefix: 'http://a', tlsConfig: {{x: 1}}}}]"),
            "unknown field \"extenders[0].tlsConfig.x\"",
        ),
        (format!("{head}Parallelism: 1"), "unknown field \"Parallelism\""),
        (
            format!("{head}parallelism: many"),
            "couldn't decode as KubeSchedulerConfiguration: parallelism: invalid type: string \"many\", expected i32",
        ),
        (
            format!("{head}parallelism: 1\nparallelism: 2"),
            "key \"parallelism\" already set in map at line 4, column 1",
        ),
        (
            format!("{head}profiles: [{{pluginConfig: [{{name: NodeAffinity, args: {{addedAffinity: {{x: 1}}}}}}]}}]"),
            "decoding .profiles[0].pluginConfig[0]: decoding args for plugin NodeAffinity: strict decoding error: unknown field \"addedAffinity.x\"",
        ),
        (
            format!("{head}profiles: [{{pluginConfig: [{{name: NodeAffinity, args: {{kind: FooArgs}}}}]}}]"),
            "args for plugin NodeAffinity were not of type NodeAffinityArgs.kubescheduler.config.k8s.io, got FooArgs.kubescheduler.config.k8s.io",
        ),
    ] {
        assert!(whole(&text).contains(expected), "{text}: {}", whole(&text));
    }
    let json = "{\"apiVersion\": \"kubescheduler.config.k8s.io/v1\", \"kind\": \"KubeSchedulerConfiguration\", \"profiles\": null}";
    assert!(Config::read(json).is_ok());
}

#[test]
fn wrong_extenders_are_refused() {
    let own = |fields: &str| format!("extenders: [{{urlPrefix: 'https://a', {fields}}}]");
    let managed = |names: &str| format!("extenders: [{{urlPrefix: 'http://a', managedResources: [{names}]}}]");
    for (text, expected) in [
        (
            "extenders: [{urlPrefix: 'http://a', prioritizeVerb: p}]".to_owned(),
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            "extenders: [{urlPrefix: 'http://a', bindVerb: b}, {urlPrefix: 'http://b', bindVerb: b}]".to_owned(),
            "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind",
        ),
        (
            "extenders: [{urlPrefix: nonsense}]".to_owned(),
            "extenders[0].urlPrefix: \"nonsense\" is no URL of http or https",
        ),
        (
            own("httpTimeout: -1s"),
            "extenders[0].httpTimeout: must not be negative",
        ),
        (
            own("tlsConfig: {insecure: true, caData: YQ==}"),
            "extenders[0].tlsConfig: specifying a root certificates file with the insecure flag is not allowed",
        ),
        (
            own("tlsConfig: {caData: YQ==}"),
            "extenders[0].tlsConfig.caFile: there is no certificate in it",
        ),
        (
            own("tlsConfig: {caFile: /no/such/file}"),
            "extenders[0].tlsConfig.caFile: /no/such/file: No such file or directory (os error 2)",
        ),
        (
            own("tlsConfig: {certData: YQ==}"),
            "extenders[0].tlsConfig: a certificate and its key go together",
        ),
        (
            managed("{name: cpu}"),
            "extenders[0].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended resource name",
        ),
        (
            managed("{name: a.b/c}, {name: a.b/c}"),
            "extenders[0].managedResources[1].name: Invalid value: \"a.b/c\": duplicate extender managed resource name",
        ),
    ] {
        assert_eq!(read(&text).err().as_deref(), Some(expected), "{text}");
    }
}

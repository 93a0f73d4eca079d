//! Extension points, and which plugins a profile has at each: what it enables and disables for all points at once (multiPoint), for
//! single ones, and what upstream makes of both (<https://kubernetes.io/docs/reference/scheduling/config/#multipoint>).

use std::collections::HashMap;

use super::document::{Plugin, PluginSet};

/// The key that stands for all points in which a plugin has something to say.
pub const MULTI_POINT: &str = "multiPoint";
/// What disables every plugin.
const ALL: &str = "*";

/// A moment of a pod's way to its node at which plugins are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    PreFilter,
    Filter,
    PostFilter,
    Reserve,
    PreScore,
    Score,
    PreBind,
    Bind,
    PostBind,
    Permit,
    PreEnqueue,
    QueueSort,
}

impl Point {
    /// In the order in which upstream looks at them.
    pub const ALL: [Point; 12] = [
        Point::PreFilter,
        Point::Filter,
        Point::PostFilter,
        Point::Reserve,
        Point::PreScore,
        Point::Score,
        Point::PreBind,
        Point::Bind,
        Point::PostBind,
        Point::Permit,
        Point::PreEnqueue,
        Point::QueueSort,
    ];

    /// Its key in a profile's `plugins`.
    pub fn field(self) -> &'static str {
        self.names().0
    }

    /// Upstream's name of what a plugin implements for it.
    pub fn interface(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Point::PreFilter => ("preFilter", "PreFilterPlugin"),
            Point::Filter => ("filter", "FilterPlugin"),
            Point::PostFilter => ("postFilter", "PostFilterPlugin"),
            Point::Reserve => ("reserve", "ReservePlugin"),
            Point::PreScore => ("preScore", "PreScorePlugin"),
            Point::Score => ("score", "ScorePlugin"),
            Point::PreBind => ("preBind", "PreBindPlugin"),
            Point::Bind => ("bind", "BindPlugin"),
            Point::PostBind => ("postBind", "PostBindPlugin"),
            Point::Permit => ("permit", "PermitPlugin"),
            Point::PreEnqueue => ("preEnqueue", "PreEnqueuePlugin"),
            Point::QueueSort => ("queueSort", "QueueSortPlugin"),
        }
    }
}

fn names(set: &[Plugin], name: &str) -> bool {
    set.iter().any(|plugin| plugin.name == name)
}

/// The default plugins with a profile's own put over them: one that is enabled again keeps its place, others come behind.
pub fn merge(defaults: &[Plugin], own: &PluginSet) -> Vec<Plugin> {
    let mut enabled = Vec::new();
    // Of several with one name the last replaces the default; the others stay, and are found to be too many.
    let last: HashMap<&str, usize> = own.enabled.iter().map(|own| &*own.name).zip(0..).collect();
    let mut replaced = Vec::new();
    if !names(&own.disabled, ALL) {
        for plugin in defaults.iter().filter(|plugin| !names(&own.disabled, &plugin.name)) {
            match last.get(&*plugin.name) {
                Some(at) => {
                    replaced.push(*at);
                    enabled.push(own.enabled[*at].clone());
                }
                None => enabled.push(plugin.clone()),
            }
        }
    }
    let others = own.enabled.iter().enumerate().filter(|(at, _)| !replaced.contains(at));
    enabled.extend(others.map(|(_, plugin)| plugin.clone()));
    enabled
}

/// The plugins of one point, in order: first those of multiPoint that the point names too, as the point orders them, then the others
/// of multiPoint, then what the point alone names. `has` says of a plugin whether it has something to say there; none: there is no
/// such plugin.
pub fn at(
    point: Point,
    own: &PluginSet,
    multi: &[Plugin],
    has: impl Fn(&str) -> Option<bool>,
) -> Result<Vec<String>, String> {
    let interface = point.interface();
    let absent = |name: &str| format!("{interface} {name:?} does not exist");
    let twice = |name: &str| format!("plugin {name:?} already registered as {interface:?}");
    let mut named: Vec<&str> = Vec::new();
    for plugin in &own.enabled {
        match has(&plugin.name) {
            None => return Err(absent(&plugin.name)),
            Some(false) => return Err(format!("plugin {:?} does not extend {interface} plugin", plugin.name)),
            Some(true) if named.contains(&&*plugin.name) => return Err(twice(&plugin.name)),
            Some(true) => named.push(&plugin.name),
        }
    }
    let mut general: Vec<&str> = Vec::new();
    let mut both: Vec<&str> = Vec::new();
    if !names(&own.disabled, ALL) {
        for plugin in multi {
            let name = &*plugin.name;
            match has(name) {
                None => return Err(absent(name)),
                Some(false) => {}
                Some(true) if names(&own.disabled, name) => {}
                Some(true) if named.contains(&name) => both.push(name),
                Some(true) if general.contains(&name) => return Err(twice(name)),
                Some(true) => general.push(name),
            }
        }
    }
    let (first, last): (Vec<_>, Vec<_>) = named.into_iter().partition(|name| both.contains(name));
    Ok(first
        .into_iter()
        .chain(general)
        .chain(last)
        .map(str::to_owned)
        .collect())
}

/// What a plugin's score is multiplied by: what the point says of it comes before what multiPoint does.
pub fn weight(name: &str, own: &PluginSet, multi: &[Plugin]) -> i64 {
    let mut all = own.enabled.iter().chain(multi);
    let said = all.find(|plugin| plugin.name == name).and_then(|plugin| plugin.weight);
    said.filter(|weight| *weight != 0).map_or(1, i64::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(names: &[&str]) -> Vec<Plugin> {
        let plugin = |name: &&str| match name.split_once('=') {
            Some((name, weight)) => Plugin {
                name: name.into(),
                weight: weight.parse().ok(),
            },
            None => Plugin {
                name: (*name).into(),
                weight: None,
            },
        };
        names.iter().map(plugin).collect()
    }

    fn own(enabled: &[&str], disabled: &[&str]) -> PluginSet {
        PluginSet {
            enabled: set(enabled),
            disabled: set(disabled),
        }
    }

    #[test]
    fn own_plugins_come_over_the_defaults() {
        for (enabled, disabled, expected) in [
            (&[][..], &[][..], &["a", "b", "c"][..]),
            (&["b=7"], &[], &["a", "b=7", "c"]),
            (&["d"], &[], &["a", "b", "c", "d"]),
            (&["d"], &["a"], &["b", "c", "d"]),
            (&["d"], &["*"], &["d"]),
            (&["a=2"], &["a"], &["b", "c", "a=2"]),
            (&["b", "b=2"], &[], &["a", "b=2", "c", "b"]),
            (&[], &["unheard of"], &["a", "b", "c"]),
        ] {
            let merged = merge(&set(&["a", "b", "c"]), &own(enabled, disabled));
            assert_eq!(merged, set(expected), "{enabled:?} {disabled:?}");
        }
    }

    #[test]
    fn a_points_own_plugins_come_over_those_of_all_points() {
        let has = |name: &str| match name {
            "z" => None,
            name => Some(name != "x"),
        };
        for (enabled, disabled, multi, expected) in [
            (&[][..], &[][..], &["a", "x", "b"][..], Ok(&["a", "b"][..])),
            (&["b", "d"], &[], &["a", "b", "c"], Ok(&["b", "a", "c", "d"])),
            (&["d", "c", "a"], &[], &["a", "b", "c"], Ok(&["c", "a", "b", "d"])),
            (&[], &["a"], &["a", "b"], Ok(&["b"])),
            (&["a"], &["*"], &["b", "c"], Ok(&["a"])),
            (&["a"], &["a"], &["a", "b"], Ok(&["b", "a"])),
            (&["z"], &[], &[], Err(r#"FilterPlugin "z" does not exist"#)),
            (&[], &[], &["z"], Err(r#"FilterPlugin "z" does not exist"#)),
            (
                &["x"],
                &[],
                &[],
                Err(r#"plugin "x" does not extend FilterPlugin plugin"#),
            ),
            (
                &["a", "a"],
                &[],
                &[],
                Err(r#"plugin "a" already registered as "FilterPlugin""#),
            ),
            (
                &[],
                &[],
                &["a", "a"],
                Err(r#"plugin "a" already registered as "FilterPlugin""#),
            ),
        ] {
            let found = at(Point::Filter, &own(enabled, disabled), &set(multi), has);
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(found, expected.map_err(str::to_owned), "{enabled:?} {multi:?}");
        }
    }

    #[test]
    fn weights_are_the_points_then_those_of_all_points_then_one() {
        for (name, expected) in [("a", 2), ("b", 7), ("c", 1), ("d", 1), ("e", 1)] {
            let found = weight(name, &own(&["b=7", "d=0"], &[]), &set(&["a=2", "b=3", "c", "d=9"]));
            assert_eq!(found, expected, "{name}");
        }
    }
}

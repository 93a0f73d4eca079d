//! A profile of the document → one that decides. What mk8s's plugins can't be split into is refused, not passed over.

use std::collections::{BTreeMap, HashMap};

use mk8s_api::status::FieldError;

use super::Told;
use super::decode::VERSION;
use super::document::{self, Plugin, PluginConfig, PluginSet};
use super::plugins::{Given, KNOWN, Known, Made, known};
use super::points::{self, MULTI_POINT, Point};
use crate::profile::{Profile, Row};

/// Plugins that upstream had once.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

/// Where a plugin of mk8s is asked at the first, it is asked at the others too.
const NEEDS: [(Point, &[Point]); 7] = {
    use Point::{Filter, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, Reserve, Score};
    [
        (PreFilter, &[PreEnqueue, Filter, Reserve, PreBind]),
        (Filter, &[PreEnqueue, PreFilter, Reserve, PreBind]),
        (Reserve, &[PreFilter, Filter, PreBind]),
        (PreBind, &[PreFilter, Filter, Reserve]),
        (PostFilter, &[PreEnqueue]),
        (PreScore, &[]),
        (Score, &[PreScore]),
    ]
};

/// Points at which it matters who comes first, beside filter, by which rows are ordered.
const ORDERED: [Point; 4] = [Point::PreFilter, Point::PostFilter, Point::Reserve, Point::PreBind];

/// What all profiles of a document share.
pub struct Common<'c> {
    pub percentage_of_nodes_to_score: Option<i32>,
    pub ignored_resources: &'c [String],
}

/// Makes a profile; what is wrong with it goes to `told`.
pub fn profile(own: &document::Profile, path: &str, common: &Common<'_>, told: &mut Told) -> Profile {
    let name = own.scheduler_name.as_deref().unwrap_or_default();
    let sets = Sets::new(own, path, told);
    let given = configs(own.plugin_config.as_deref().unwrap_or_default(), path, told);
    let mut profile = Profile {
        name: name.into(),
        rows: Vec::new(),
        preemption: None,
        percentage_of_nodes_to_score: own
            .percentage_of_nodes_to_score
            .or(common.percentage_of_nodes_to_score)
            .and_then(|percentage| usize::try_from(percentage).ok())
            .filter(|percentage| *percentage != 0),
    };
    let enabled = match sets.enabled() {
        Ok(enabled) => enabled,
        Err(error) => {
            told.error(format!("creating profile for scheduler name {name}: {error}"));
            return profile;
        }
    };
    for known in enabled.in_order() {
        let config = given.get(known.name);
        let made = (known.make)(&mut Given {
            plugin: known.name,
            args: config.and_then(|(_, config)| config.args.as_ref()),
            path: config.map_or_else(String::new, |(at, _)| format!("{path}.pluginConfig[{at}].args")),
            ignored_resources: common.ignored_resources,
            told,
        });
        let asked = |point| enabled.is_at(known.name, point);
        let any = known.points.iter().any(|point| asked(*point));
        match made {
            Made::Plugin(plugin) => profile.rows.extend(row(plugin, asked, sets.weight(known.name))),
            Made::Preemption(preemption) => profile.preemption = asked(Point::PostFilter).then_some(preemption),
            Made::Fixed if !any => told.error(format!(
                "{path}.plugins: {:?} is a part of every decision of mk8s: it can't be disabled",
                known.name
            )),
            Made::Fixed => {}
        }
        if let Some((at, _)) = config.filter(|_| !any) {
            let why = format!("not used: {} is not enabled", known.name);
            told.warnings.push(format!("{path}.pluginConfig[{at}]: {why}"));
        }
    }
    enabled.check(path, told);
    profile
}

/// A plugin at the points where it is asked; none: nowhere.
fn row(plugin: Box<dyn crate::framework::Plugin>, asked: impl Fn(Point) -> bool, weight: i64) -> Option<Row> {
    let row = Row {
        plugin,
        filters: asked(Point::Filter),
        post_filters: asked(Point::PostFilter),
        reserves: asked(Point::Reserve),
        weight: if asked(Point::Score) { weight } else { 0 },
    };
    let any = row.filters || row.post_filters || row.reserves || row.weight != 0;
    any.then_some(row)
}

/// The arguments of each plugin, and which entry they are.
fn configs<'d>(all: &'d [PluginConfig], path: &str, told: &mut Told) -> HashMap<&'d str, (usize, &'d PluginConfig)> {
    let mut found = HashMap::new();
    for (index, config) in all.iter().enumerate() {
        let (name, at) = (&*config.name, format!("{path}.pluginConfig[{index}]"));
        if found.insert(name, (index, config)).is_some() {
            told.error(FieldError::duplicate(at, name));
        } else if REMOVED.contains(&name) {
            told.error(FieldError::invalid(at, name, removed()));
        } else if known(name).is_none() {
            told.error(FieldError::invalid(at, name, "there is no such plugin"));
        }
    }
    found
}

fn removed() -> String {
    format!("was invalid in version \"v1\" (KubeSchedulerConfiguration is version \"{VERSION}\")")
}

/// A profile's plugins as they are written, over the defaults.
struct Sets {
    /// Of each point.
    own: BTreeMap<Point, PluginSet>,
    multi: Vec<Plugin>,
}

impl Sets {
    fn new(profile: &document::Profile, path: &str, told: &mut Told) -> Self {
        let written = |field: &str| {
            let plugins = profile.plugins.as_ref();
            plugins
                .and_then(|plugins| plugins.get(field)?.clone())
                .unwrap_or_default()
        };
        let mut own = BTreeMap::new();
        for point in Point::ALL {
            let set = written(point.field());
            let at = format!("{path}.plugins.{}.enabled", point.field());
            for (index, plugin) in set.enabled.iter().enumerate() {
                if REMOVED.contains(&&*plugin.name) {
                    told.error(FieldError::invalid(format!("{at}[{index}]"), &*plugin.name, removed()));
                }
                if plugin.weight.is_some() && point != Point::Score {
                    told.warnings
                        .push(format!("{at}[{index}].weight: not used: it is of scores"));
                }
            }
            own.insert(point, set);
        }
        let own_multi = written(MULTI_POINT);
        let defaults = KNOWN.iter().map(|known| Plugin {
            name: known.name.into(),
            weight: Some(known.weight),
        });
        Sets {
            own,
            multi: points::merge(&defaults.collect::<Vec<_>>(), &own_multi),
        }
    }

    fn of(&self, point: Point) -> &PluginSet {
        const NONE: &PluginSet = &PluginSet {
            enabled: Vec::new(),
            disabled: Vec::new(),
        };
        self.own.get(&point).unwrap_or(NONE)
    }

    fn weight(&self, plugin: &str) -> i64 {
        points::weight(plugin, self.of(Point::Score), &self.multi)
    }

    fn enabled(&self) -> Result<Enabled, String> {
        let mut all = BTreeMap::new();
        for point in Point::ALL {
            let has = |name: &str| known(name).map(|known| known.has(point));
            all.insert(point, points::at(point, self.of(point), &self.multi, has)?);
        }
        Ok(Enabled(all))
    }
}

/// The plugins of each point, in order.
struct Enabled(BTreeMap<Point, Vec<String>>);

impl Enabled {
    fn at(&self, point: Point) -> &[String] {
        self.0.get(&point).map_or(&[], Vec::as_slice)
    }

    fn is_at(&self, plugin: &str, point: Point) -> bool {
        self.at(point).iter().any(|name| name == plugin)
    }

    /// All plugins that there are: as filters come, then the others.
    fn in_order(&self) -> Vec<&'static Known> {
        let filters = self.at(Point::Filter).iter().filter_map(|name| known(name));
        let others = KNOWN.iter().filter(|known| !self.is_at(known.name, Point::Filter));
        filters.chain(others).collect()
    }

    /// Refuses what mk8s's plugins can't be split into, and tells of orders that are not followed.
    fn check(&self, path: &str, told: &mut Told) {
        for (point, needed) in NEEDS {
            for name in self.at(point) {
                let lacks =
                    |other: &&Point| known(name).is_some_and(|known| known.has(**other)) && !self.is_at(name, **other);
                if let Some(other) = needed.iter().find(lacks) {
                    let why = format!("mk8s's {name:?} is not at {} without {}", point.field(), other.field());
                    told.error(format!("{path}.plugins.{}: {why}", other.field()));
                }
            }
        }
        let order = self.in_order();
        let place = |name: &String| order.iter().position(|known| known.name == name);
        for point in ORDERED {
            if !self.at(point).is_sorted_by_key(place) {
                let field = point.field();
                told.warnings.push(format!(
                    "{path}.plugins.{field}: its order is not used: plugins come in that of filter, then in upstream's"
                ));
            }
        }
    }
}

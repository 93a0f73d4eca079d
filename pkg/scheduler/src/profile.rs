//! Which plugins decide for the pods of one schedulerName, in which order, and how much the score of each weighs
//! (<https://kubernetes.io/docs/reference/scheduling/config/#profiles>).

use crate::change::Kind;
use crate::framework::Plugin;
use crate::pod::PodInfo;

/// One plugin of a profile.
pub struct Row {
    pub plugin: Box<dyn Plugin>,
    /// Whether it turns nodes away.
    pub filters: bool,
    /// Whether it has a say where no node was right.
    pub post_filters: bool,
    /// Whether it reserves for a pod what it needs on its node, and prepares the binding.
    pub reserves: bool,
    /// What its score is multiplied by; 0: it does not score.
    pub weight: i64,
}

impl Row {
    /// A plugin that is asked wherever it has something to say.
    pub fn new(plugin: impl Plugin + 'static, weight: i64) -> Self {
        Row {
            plugin: Box::new(plugin),
            filters: true,
            post_filters: true,
            reserves: true,
            weight,
        }
    }
}

/// How many nodes a preemption tries out before it takes the best of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preemption {
    /// Of the nodes that it may help on.
    pub min_candidates_percentage: usize,
    pub min_candidates: usize,
}

/// See the module.
pub struct Profile {
    /// The pods that name it are its own.
    pub name: Box<str>,
    pub rows: Vec<Row>,
    /// None: pods of this profile push no others away.
    pub preemption: Option<Preemption>,
    /// Of the nodes, so many that fit are enough to choose from; none: the more nodes, the smaller a part of them.
    pub percentage_of_nodes_to_score: Option<usize>,
}

impl Profile {
    /// The plugins that reserve.
    pub fn reserving(&self) -> impl Iterator<Item = &dyn Plugin> {
        self.rows.iter().filter(|row| row.reserves).map(|row| &*row.plugin)
    }

    /// Whether changes of these kinds may help a pod that `rows` refused. Of the plugins that look at such, `helps` tells more.
    pub fn may_help(&self, rows: Rows, kinds: u32, mut helps: impl FnMut(&dyn Plugin) -> bool) -> bool {
        // A new node may help whoever was refused by what no plugin speaks for.
        let any = rows == ANY && kinds & Kind::NodeAdded as u32 != 0;
        let extenders = rows != ANY && rows & EXTENDERS != 0 && kinds != 0;
        any || extenders
            || self.rows.iter().enumerate().any(|(at, row)| {
                let asked = rows & 1 << at != 0 && row.plugin.wakes_on() & kinds != 0;
                asked && helps(&*row.plugin)
            })
    }
}

/// Bits by the places of a profile's rows.
pub type Rows = u32;

/// Every row: what no single plugin can tell.
pub const ANY: Rows = Rows::MAX;

/// The place that stands for all extenders, which no row has.
pub const EXTENDERS_ROW: usize = Rows::BITS as usize - 1;

/// Extenders refused it. They say of no change whether it helps.
pub const EXTENDERS: Rows = 1 << EXTENDERS_ROW;

impl Default for Profile {
    /// Upstream's default plugins, in its order.
    fn default() -> Self {
        crate::config::default_profile()
    }
}

/// The profiles of a scheduler.
pub struct Profiles(Vec<Profile>);

impl Profiles {
    /// Each with a name of its own.
    pub fn new(profiles: Vec<Profile>) -> Self {
        Profiles(profiles)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.iter()
    }

    /// The one that decides for a pod; none: another scheduler's pod.
    pub fn of(&self, pod: &PodInfo) -> Option<&Profile> {
        let name = &pod.wishes().scheduler;
        self.0.iter().find(|profile| profile.name == *name)
    }
}

//! Which kinds there are, asked group by group: one that can't be asked hides no other, and is told of.

use std::sync::Arc;

use kube::Client;
use kube::core::GroupVersion;
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_group};

use super::Kind;

/// The kinds there are, as far as could be learned.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// Monitored or not, each in its group's preferred version, or in the one that has it. Where the last try failed: as before.
    pub kinds: Vec<Arc<Kind>>,
    /// What could not be asked, and why. Of what is there, `kinds` may know nothing.
    pub failures: Vec<String>,
}

/// Asks for all kinds. Those `known` stay where asking fails: that is no word of their end.
pub(super) async fn discover(client: &Client, known: &[Arc<Kind>]) -> Discovered {
    let mut found = Discovered::default();
    let versions = match versions(client).await {
        Ok(versions) => versions,
        Err(error) => {
            found.kinds.extend_from_slice(known);
            found.failures.push(format!("the list of API groups: {error}"));
            return found;
        }
    };
    for version in versions {
        let name = version.api_version();
        match pinned_group(client, &version).await {
            Ok(group) => group
                .recommended_resources()
                .into_iter()
                .filter(|(api, _)| !is_shown_elsewhere(api))
                .for_each(|(api, can)| found.add(Arc::new(kind(api, can)))),
            Err(error) => {
                let before = known.iter().filter(|kind| kind.api.api_version == name);
                before.for_each(|kind| found.add(kind.clone()));
                found.failures.push(format!("{name}: {error}"));
            }
        }
    }
    found
}

/// All versions of all groups, of each group the preferred one first.
async fn versions(client: &Client) -> Result<Vec<GroupVersion>, kube::Error> {
    let core = client.list_core_api_versions().await?;
    let mut all: Vec<GroupVersion> = core.versions.iter().map(|v| GroupVersion::gv("", v)).collect();
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.iter();
        for served in preferred.chain(&group.versions) {
            let version = GroupVersion::gv(&group.name, &served.version);
            if !all.contains(&version) {
                all.push(version);
            }
        }
    }
    Ok(all)
}

/// Whether the objects are another group's, which this one shows too.
fn is_shown_elsewhere(api: &ApiResource) -> bool {
    let known = mk8s_api::registry::find_kind(&api.group, &api.version, &api.kind);
    known.is_some_and(|resource| resource.group != api.group)
}

fn kind(api: ApiResource, can: ApiCapabilities) -> Kind {
    Kind {
        api,
        namespaced: can.scope == Scope::Namespaced,
        verbs: can.operations,
    }
}

impl Discovered {
    /// Once, in the first version that has it.
    fn add(&mut self, kind: Arc<Kind>) {
        let names = |kind: &Kind| (kind.api.group.clone(), kind.api.plural.clone());
        if self.kinds.iter().all(|known| names(known) != names(&kind)) {
            self.kinds.push(kind);
        }
    }
}

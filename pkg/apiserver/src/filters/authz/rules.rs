//! PolicyRules of roles: parsing, matching, covering, and the compact text that escalation errors show.

use serde::Deserialize;

use super::Attributes;

/// rbac.authorization.k8s.io/v1 PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "list")]
    pub non_resource_urls: Vec<String>,
}

/// Go's nil list is null.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

/// How many single permissions a question about escalation may come to: a rule names the product of its lists, and a few
/// kilobytes of them multiply to more than any memory holds.
const MAX_SINGLES: usize = 10_000;
/// How many missing ones are named: enough to read.
const MAX_MISSING: usize = 100;

/// Rules that come to too many permissions to be compared one by one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("its rules are too large to be checked: they come to more than {MAX_SINGLES} permissions")]
pub struct TooLarge;

/// The rules of one role.
pub type RuleSet = Vec<Rule>;

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

impl Rule {
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self
                .non_resource_urls
                .iter()
                .any(|url| url_covers(url, attributes.path));
        }
        has(&self.api_groups, attributes.group)
            && self
                .resources
                .iter()
                .any(|entry| resource_covers(entry, attributes.resource, attributes.subresource))
            && (self.resource_names.is_empty()
                || self
                    .resource_names
                    .iter()
                    .any(|name| !name.is_empty() && name == attributes.name))
    }

    /// Whether this rule alone grants everything that `wanted` (a rule broken down to one of each) grants.
    fn covers(&self, wanted: &Rule) -> bool {
        let all = |own: &[String], asked: &[String]| {
            own.iter().any(|entry| entry == "*") || asked.iter().all(|one| own.contains(one))
        };
        let resources = || {
            self.resources.iter().any(|entry| entry == "*")
                || wanted.resources.iter().all(|asked| {
                    self.resources.contains(asked)
                        || asked.split_once('/').is_some_and(|(_, subresource)| {
                            self.resources
                                .iter()
                                .any(|own| own.strip_prefix("*/") == Some(subresource))
                        })
                })
        };
        let names = || match (self.resource_names.is_empty(), wanted.resource_names.is_empty()) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => wanted
                .resource_names
                .iter()
                .all(|name| self.resource_names.contains(name)),
        };
        let urls = || {
            wanted.non_resource_urls.iter().all(|asked| {
                self.non_resource_urls
                    .iter()
                    .any(|own| own == asked || url_covers(own, asked))
            })
        };
        all(&self.verbs, &wanted.verbs) && all(&self.api_groups, &wanted.api_groups) && resources() && names() && urls()
    }

    /// How many rules `broken_down` makes of it, at most `usize::MAX`.
    fn singles(&self) -> usize {
        let verbs = self.verbs.len();
        let resources = [
            self.api_groups.len(),
            self.resources.len(),
            self.resource_names.len().max(1),
        ];
        let of_resources = resources.into_iter().fold(verbs, usize::saturating_mul);
        of_resources.saturating_add(verbs.saturating_mul(self.non_resource_urls.len()))
    }

    /// Rules of one verb, group, resource, name or URL each: as many as `singles` says.
    fn broken_down(&self) -> Vec<Rule> {
        let one = |text: &String| vec![text.clone()];
        let mut out = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let base = Rule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        out.push(base);
                    } else {
                        let named = self.resource_names.iter().map(|name| Rule {
                            resource_names: one(name),
                            ..base.clone()
                        });
                        out.extend(named);
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            let rules = self.verbs.iter().map(|verb| Rule {
                verbs: one(verb),
                non_resource_urls: one(url),
                ..Rule::default()
            });
            out.extend(rules);
        }
        out
    }

    /// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}` as upstream prints a rule in an escalation error.
    fn compact(&self) -> String {
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
                parts.push(format!("{name}:[{}]", quoted.join(" ")));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }
}

/// `*`, the path itself, or a prefix ending in `*`.
fn url_covers(own: &str, path: &str) -> bool {
    own == "*" || own == path || own.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// `*` (also of subresources), `pods`, `pods/log`, `*/scale`.
fn resource_covers(own: &str, resource: &str, subresource: &str) -> bool {
    if own == "*" {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    match own.split_once('/') {
        Some((left, right)) => right == subresource && (left == "*" || left == resource),
        None => false,
    }
}

/// The part of `wanted` that `owned` does not grant, merged per rule of one resource as upstream compacts it; of a large
/// part only its beginning.
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Result<Vec<Rule>, TooLarge> {
    let singles = wanted.iter().map(Rule::singles).fold(0, usize::saturating_add);
    if singles > MAX_SINGLES {
        return Err(TooLarge);
    }
    let missing = wanted
        .iter()
        .flat_map(Rule::broken_down)
        .filter(|single| !owned.iter().any(|own| own.covers(single)))
        .take(MAX_MISSING);
    // Verbs of the same resource (or URL) are shown together.
    let mut compact: Vec<Rule> = Vec::new();
    for rule in missing {
        let same = compact.iter_mut().find(|seen| {
            seen.resource_names == rule.resource_names
                && seen.api_groups == rule.api_groups
                && seen.resources == rule.resources
                && seen.non_resource_urls == rule.non_resource_urls
                && rule.non_resource_urls.is_empty()
        });
        match same {
            Some(seen) if !seen.verbs.contains(&rule.verbs[0]) => seen.verbs.extend(rule.verbs),
            Some(_) => {}
            None => compact.push(rule),
        }
    }
    Ok(compact)
}

/// One line per rule, sorted.
pub fn describe(rules: &[Rule]) -> String {
    let mut lines: Vec<String> = rules.iter().map(Rule::compact).collect();
    lines.sort();
    lines.dedup();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::User;

    pub(crate) fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let own = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
        Rule {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            resource_names: own(names),
            non_resource_urls: Vec::new(),
        }
    }

    #[test]
    fn matching() {
        let user = User::default();
        let get = |resource: &'static str, subresource: &'static str, name: &'static str| Attributes {
            subresource,
            name,
            ..Attributes::of_resource(&user, "get", "", resource)
        };
        let table: &[(Rule, Attributes<'_>, bool)] = &[
            (rule(&["get"], &[""], &["pods"], &[]), get("pods", "", "x"), true),
            (rule(&["get"], &[""], &["pods"], &[]), get("pods", "log", "x"), false),
            (rule(&["get"], &[""], &["pods/log"], &[]), get("pods", "log", "x"), true),
            (rule(&["get"], &[""], &["pods/log"], &[]), get("pods", "", "x"), false),
            (rule(&["get"], &[""], &["*/log"], &[]), get("pods", "log", "x"), true),
            (rule(&["get"], &[""], &["*"], &[]), get("pods", "log", "x"), true),
            (rule(&["list"], &[""], &["pods"], &[]), get("pods", "", "x"), false),
            (rule(&["*"], &["apps"], &["pods"], &[]), get("pods", "", "x"), false),
            (rule(&["*"], &["*"], &["pods"], &["x"]), get("pods", "", "x"), true),
            (rule(&["*"], &["*"], &["pods"], &["x"]), get("pods", "", "y"), false),
            (rule(&["*"], &["*"], &["pods"], &["x"]), get("pods", "", ""), false),
        ];
        for (rule, attributes, wanted) in table {
            assert_eq!(rule.allows(attributes), *wanted, "{rule:?} {attributes:?}");
        }
        for (own, path, wanted) in [
            ("*", "/x", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api", false),
        ] {
            assert_eq!(url_covers(own, path), wanted, "{own} {path}");
        }
    }

    #[test]
    fn covering() {
        let owned = [
            rule(&["get", "list"], &[""], &["pods"], &[]),
            rule(&["*"], &["apps"], &["*"], &[]),
        ];
        let wanted = [rule(&["get", "delete", "watch"], &["", "apps"], &["pods"], &[])];
        let text = describe(&uncovered(&owned, &wanted).unwrap());
        assert_eq!(
            text,
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#
        );
        let named = uncovered(&owned, &[rule(&["get"], &[""], &["pods"], &["a"])]);
        assert_eq!(named, Ok(Vec::new()));
        let named = [rule(&["get"], &[""], &["pods"], &["a"])];
        assert_eq!(
            uncovered(&named, &[rule(&["get"], &[""], &["pods"], &[])])
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn rules_too_large_to_be_compared_are_refused_unbuilt() {
        let many = |count: usize| -> Vec<String> { (0..count).map(|n| n.to_string()).collect() };
        let of = |verbs, resources, names| Rule {
            verbs: many(verbs),
            api_groups: many(1),
            resources: many(resources),
            resource_names: many(names),
            ..Rule::default()
        };
        let asked = std::time::Instant::now();
        assert_eq!(uncovered(&[], &[of(1000, 1000, 1000)]), Err(TooLarge));
        // A product that no usize holds, and a sum of small ones.
        let past_all = Rule {
            api_groups: many(100_000),
            ..of(100_000, 100_000, 100_000)
        };
        assert_eq!(uncovered(&[], &[past_all]), Err(TooLarge));
        assert_eq!(uncovered(&[], &vec![of(2, 1, 0); MAX_SINGLES]), Err(TooLarge));
        let urls = Rule {
            verbs: many(1000),
            non_resource_urls: many(1000),
            ..Rule::default()
        };
        assert_eq!(uncovered(&[], &[urls]), Err(TooLarge));
        // The largest that is compared; of what is missing only so much is named.
        assert_eq!(
            uncovered(&[], &[of(1, 100, 100)]).map(|missing| missing.len()),
            Ok(MAX_MISSING)
        );
        assert!(asked.elapsed().as_secs() < 5);
    }
}

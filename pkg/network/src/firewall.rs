//! Other firewalls of the host (Docker, ufw, an administrator's nftables) that drop what is forwarded, or what comes
//! in, by default. A verdict of ours cannot overrule theirs, so a named accept is put into their chain; [`close`] takes
//! it out again.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    names, nft,
};

/// Marks rules in foreign nftables chains.
const COMMENT: &str = "mk8s";
/// Chains in foreign iptables tables.
const FORWARD_CHAIN: &str = "MK8S-FORWARD";
const INPUT_CHAIN: &str = "MK8S-INPUT";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    Forward,
    Input,
}

/// A base chain of another owner that refuses by default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Hook,
    /// Handles of the accepts that were put there before.
    ours: Vec<u64>,
}

impl Chain {
    /// iptables keeps its chains in tables of these names; rules that its program did not write would make it refuse to
    /// list them.
    fn is_iptables(&self) -> bool {
        self.family == "ip" && self.table == "filter" && ["FORWARD", "INPUT"].contains(&self.name.as_str())
    }
}

/// Lets pods' traffic through every firewall that would drop it; says which.
pub async fn open(cluster_cidr: Ipv4Net) -> Result<()> {
    let ruleset = nft::list(&["-t", "list", "ruleset"]).await?;
    let mut iptables = false;
    let mut text = String::new();
    for chain in refusing(&ruleset) {
        if chain.is_iptables() {
            iptables = true;
        } else if chain.ours.is_empty() {
            tracing::warn!(
                family = chain.family,
                table = chain.table,
                chain = chain.name,
                "drops by default: mk8s adds its accept"
            );
            for rule in rules(chain.hook, cluster_cidr) {
                let Chain {
                    family, table, name, ..
                } = &chain;
                text.push_str(&format!(
                    "insert rule {family} {table} {name} {rule} accept comment \"{COMMENT}\"\n"
                ));
            }
        }
    }
    if !text.is_empty() {
        nft::apply(&text).await?;
    }
    if iptables {
        open_iptables("iptables", cluster_cidr).await?;
    }
    if legacy_filter() {
        let listed = nft::run("iptables-legacy", &["-w", "-S"], None).await?;
        if listed
            .lines()
            .any(|line| ["-P FORWARD DROP", "-P INPUT DROP"].contains(&line))
        {
            open_iptables("iptables-legacy", cluster_cidr).await?;
        }
    }
    Ok(())
}

/// Takes mk8s's accepts out of the host's other firewalls.
pub async fn close() -> Result<()> {
    let ruleset = match nft::list(&["-t", "list", "ruleset"]).await {
        Ok(ruleset) => ruleset,
        Err(Error::Invalid(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    for (
        Chain {
            family,
            table,
            name,
            ours,
            ..
        },
        _,
    ) in chains(&ruleset)
    {
        for handle in ours {
            text.push_str(&format!("delete rule {family} {table} {name} handle {handle}\n"));
        }
    }
    if !text.is_empty() {
        nft::apply(&text).await?;
    }
    let named = items(&ruleset, "chain")
        .any(|chain| [FORWARD_CHAIN, INPUT_CHAIN].contains(&chain["name"].as_str().unwrap_or_default()));
    if named {
        close_iptables("iptables").await?;
    }
    if legacy_filter() {
        close_iptables("iptables-legacy").await?;
    }
    Ok(())
}

/// A chain of somebody else's that has rules for what this host forwards; to be asked after [`close`].
pub async fn forwards() -> Result<Option<String>> {
    let ruleset = match nft::list(&["-t", "list", "ruleset"]).await {
        Ok(ruleset) => ruleset,
        Err(Error::Invalid(_)) => Value::Null,
        Err(error) => return Err(error),
    };
    if let Some(chain) = forwarding(&ruleset) {
        return Ok(Some(chain));
    }
    if legacy_filter() {
        let listed = nft::run("iptables-legacy", &["-w", "-S"], None).await?;
        if listed.lines().any(|line| line.starts_with("-A FORWARD ")) {
            return Ok(Some("the chain filter FORWARD (iptables-legacy)".to_owned()));
        }
    }
    Ok(None)
}

fn forwarding(ruleset: &Value) -> Option<String> {
    let is_ours = |item: &Value| {
        [names::TABLE, names::SERVICE_TABLE]
            .iter()
            .any(|table| item["table"] == *table)
    };
    let base = |chain: &&Value| {
        let masquerades = chain["type"] == "nat" && chain["hook"] == "postrouting";
        (chain["hook"] == "forward" || masquerades) && !is_ours(chain)
    };
    let has_rules = |chain: &&Value| {
        let same = |rule: &Value| ["family", "table"].iter().all(|key| rule[key] == chain[key]);
        items(ruleset, "rule").any(|rule| same(rule) && rule["chain"] == chain["name"])
    };
    let chain = items(ruleset, "chain").filter(base).find(has_rules)?;
    let name = ["family", "table", "name"].map(|key| chain[key].as_str().unwrap_or_default());
    Some(format!("the chain {}", name.join(" ")))
}

fn rules(hook: Hook, cluster_cidr: Ipv4Net) -> Vec<String> {
    match hook {
        Hook::Forward => vec![
            format!("ip saddr {cluster_cidr}"),
            format!("ip daddr {cluster_cidr}"),
            // A NodePort that leads to a pod on another node's own network.
            "ct status dnat".into(),
        ],
        Hook::Input => vec![
            // Pods reach the API server and DNS of their node.
            format!("iifname \"{}\" ip saddr {cluster_cidr}", names::BRIDGE),
            format!("udp dport {}", names::VXLAN_PORT),
        ],
    }
}

async fn open_iptables(program: &'static str, cluster_cidr: Ipv4Net) -> Result<()> {
    let (bridge, port) = (names::BRIDGE, names::VXLAN_PORT);
    let mut text = format!(
        "*filter
:{FORWARD_CHAIN} - [0:0]
:{INPUT_CHAIN} - [0:0]
-A {FORWARD_CHAIN} -s {cluster_cidr} -j ACCEPT
-A {FORWARD_CHAIN} -d {cluster_cidr} -j ACCEPT
-A {FORWARD_CHAIN} -m conntrack --ctstate DNAT,RELATED,ESTABLISHED -j ACCEPT
-A {INPUT_CHAIN} -i {bridge} -s {cluster_cidr} -j ACCEPT
-A {INPUT_CHAIN} -p udp -m udp --dport {port} -j ACCEPT
"
    );
    for (from, to) in [("FORWARD", FORWARD_CHAIN), ("INPUT", INPUT_CHAIN)] {
        if nft::run(program, &["-w", "-C", from, "-j", to], None).await.is_err() {
            tracing::warn!(program, chain = from, "drops by default: mk8s adds its accept");
            text.push_str(&format!("-I {from} 1 -j {to}\n"));
        }
    }
    text.push_str("COMMIT\n");
    let restore = if program == "iptables" {
        "iptables-restore"
    } else {
        "iptables-legacy-restore"
    };
    // Chains and jumps in one transaction: a firewall that is reloaded meanwhile finds both or neither.
    nft::run(restore, &["-w", "--noflush"], Some(&text)).await?;
    Ok(())
}

async fn close_iptables(program: &'static str) -> Result<()> {
    for (from, to) in [("FORWARD", FORWARD_CHAIN), ("INPUT", INPUT_CHAIN)] {
        // As many as there may be; the last call fails, for there is none.
        while nft::run(program, &["-w", "-D", from, "-j", to], None).await.is_ok() {}
        if nft::run(program, &["-w", "-F", to], None).await.is_ok() {
            nft::run(program, &["-w", "-X", to], None).await?;
        }
    }
    Ok(())
}

/// The old kernel interface's filter table, which nft does not show.
fn legacy_filter() -> bool {
    std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

fn items<'a>(ruleset: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    ruleset["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(move |item| item.get(kind))
}

/// Base chains of others on the hooks that matter, with whether they refuse what no rule of theirs accepts.
fn chains(ruleset: &Value) -> Vec<(Chain, bool)> {
    type Id<'a> = (&'a str, &'a str, &'a str);
    fn id<'a>(value: &'a Value, name: &str) -> Option<Id<'a>> {
        Some((
            value["family"].as_str()?,
            value["table"].as_str()?,
            value[name].as_str()?,
        ))
    }
    let mut rules: BTreeMap<Id<'_>, Vec<&Value>> = BTreeMap::new();
    for rule in items(ruleset, "rule") {
        if let Some(id) = id(rule, "chain") {
            rules.entry(id).or_default().push(rule);
        }
    }
    let mut found = Vec::new();
    for chain in items(ruleset, "chain") {
        let hook = match chain["hook"].as_str() {
            Some("forward") => Hook::Forward,
            Some("input") => Hook::Input,
            _ => continue,
        };
        let Some(id @ (family, table, name)) = id(chain, "name") else {
            continue;
        };
        if chain["type"] != "filter"
            || !["ip", "inet"].contains(&family)
            || [names::TABLE, names::SERVICE_TABLE].contains(&table)
        {
            continue;
        }
        let rules = rules.get(&id).map(Vec::as_slice).unwrap_or_default();
        let ours = rules
            .iter()
            .filter(|rule| rule["comment"] == COMMENT)
            .filter_map(|rule| rule["handle"].as_u64());
        let refuses = chain["policy"] == "drop" || rules.last().is_some_and(|rule| refuses_all(rule));
        let (family, table, name) = (family.to_owned(), table.to_owned(), name.to_owned());
        found.push((
            Chain {
                family,
                table,
                name,
                hook,
                ours: ours.collect(),
            },
            refuses,
        ));
    }
    found
}

fn refusing(ruleset: &Value) -> Vec<Chain> {
    chains(ruleset)
        .into_iter()
        .filter(|(_, refuses)| *refuses)
        .map(|(chain, _)| chain)
        .collect()
}

/// A rule without a condition that drops or rejects (firewalld ends its chains so).
fn refuses_all(rule: &Value) -> bool {
    let parts = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    let passive = |part: &&Value| part.get("counter").is_none() && part.get("log").is_none();
    let mut rest = parts.iter().filter(passive);
    matches!((rest.next(), rest.next()), (Some(last), None) if last.get("drop").is_some() || last.get("reject").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> Value {
        json!({"chain": {"family": family, "table": table, "name": name, "handle": 1, "type": "filter", "hook": hook,
               "prio": 0, "policy": policy}})
    }

    #[test]
    fn finds_who_else_forwards() {
        let empty = vec![
            chain("ip", "filter", "FORWARD", "forward", "accept"),
            chain("ip", "mk8s", "forward", "forward", "accept"),
            json!({"rule": {"family": "ip", "table": "mk8s", "chain": "forward", "handle": 1}}),
            json!({"rule": {"family": "ip6", "table": "filter", "chain": "FORWARD", "handle": 1}}),
        ];
        assert_eq!(forwarding(&json!({"nftables": empty})), None);
        let mut docker = empty.clone();
        docker.push(json!({"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 2}}));
        assert_eq!(
            forwarding(&json!({"nftables": docker})).as_deref(),
            Some("the chain ip filter FORWARD")
        );
    }

    #[test]
    fn finds_what_refuses() {
        let ruleset = json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            chain("ip", "filter", "FORWARD", "forward", "drop"),
            chain("inet", "fw", "pass", "forward", "accept"),
            chain("inet", "firewalld", "filter_FORWARD", "forward", "accept"),
            {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 3,
                      "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"reject": null}]}},
            chain("inet", "mine", "in", "input", "drop"),
            {"rule": {"family": "inet", "table": "mine", "chain": "in", "handle": 9, "comment": "mk8s",
                      "expr": [{"accept": null}]}},
            chain("ip6", "filter", "FORWARD", "forward", "drop"),
            chain("ip", "mk8s", "forward", "forward", "drop"),
        ]});
        let found = refusing(&ruleset);
        let names: Vec<_> = found
            .iter()
            .map(|c| (c.table.as_str(), c.is_iptables(), c.ours.clone()))
            .collect();
        assert_eq!(
            names,
            [
                ("filter", true, vec![]),
                ("firewalld", false, vec![]),
                ("mine", false, vec![9])
            ]
        );
    }
}

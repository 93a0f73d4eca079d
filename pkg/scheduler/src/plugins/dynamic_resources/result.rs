//! What a claim is told that it has: the devices, the configuration that classes and the claim have for them, and on which nodes they
//! can be used.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
};

use super::ask::{Ask, Choice, Request};
use super::picks::Pick;

/// See the module.
///
/// # Errors
/// A slice says of its nodes what nobody can say in an allocation.
pub fn result(ask: &Ask<'_>, picks: &[Pick<'_>]) -> Result<AllocationResult, String> {
    let results: Vec<_> = picks.iter().map(|pick| given(ask, pick)).collect();
    let config = of_classes(ask, picks).into_iter().chain(of_claim(ask, picks));
    let config: Vec<_> = config.collect();
    Ok(AllocationResult {
        devices: Some(DeviceAllocationResult {
            results: Some(results).filter(|all| !all.is_empty()),
            config: Some(config).filter(|all| !all.is_empty()),
        }),
        node_selector: nodes(picks)?,
        allocation_timestamp: None,
    })
}

fn given(ask: &Ask<'_>, pick: &Pick<'_>) -> DeviceRequestAllocationResult {
    let request = &ask.requests[pick.request];
    let choice = &request.choices[pick.choice];
    DeviceRequestAllocationResult {
        request: request.name_of(choice),
        driver: pick.driver.to_owned(),
        pool: pick.pool.to_owned(),
        device: pick.device.object.name.clone(),
        admin_access: choice.admin.then_some(true),
        tolerations: choice.tolerations.cloned(),
        ..DeviceRequestAllocationResult::default()
    }
}

/// Each request with what it got; the first of its choices where it needed nothing.
fn chosen<'s, 'a>(ask: &'s Ask<'a>, picks: &'s [Pick<'_>]) -> impl Iterator<Item = (&'s Request<'a>, &'s Choice<'a>)> {
    ask.requests.iter().enumerate().filter_map(|(at, request)| {
        let pick = picks.iter().find(|pick| pick.request == at);
        let choice = request.choices.get(pick.map_or(0, |pick| pick.choice))?;
        Some((request, choice))
    })
}

/// What the classes have, once for each with all its requests.
fn of_classes(ask: &Ask<'_>, picks: &[Pick<'_>]) -> Vec<DeviceAllocationConfiguration> {
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut places: HashMap<&str, std::ops::Range<usize>> = HashMap::new();
    for (request, choice) in chosen(ask, picks) {
        let class = choice.class.metadata.name.as_deref().unwrap_or_default();
        let name = request.name_of(choice);
        if let Some(place) = places.get(class) {
            for own in &mut all[place.clone()] {
                own.requests.get_or_insert_default().push(name.clone());
            }
            continue;
        }
        let begin = all.len();
        let of_class = choice.class.spec.config.iter().flatten();
        all.extend(of_class.map(|own| DeviceAllocationConfiguration {
            source: "FromClass".to_owned(),
            requests: Some(vec![name.clone()]),
            opaque: own.opaque.clone(),
        }));
        places.insert(class, begin..all.len());
    }
    all
}

/// What the claim has for its requests: once for each request that it is for, as upstream has it.
fn of_claim(ask: &Ask<'_>, picks: &[Pick<'_>]) -> Vec<DeviceAllocationConfiguration> {
    let devices = ask.claim.spec.devices.as_ref();
    let mut all = Vec::new();
    for own in devices.into_iter().flat_map(|devices| devices.config.iter().flatten()) {
        let names = own.requests.as_deref().unwrap_or_default();
        let named = |name: &str| names.iter().any(|own| own == name);
        let is_for = |(request, choice): &(&Request<'_>, &Choice<'_>)| {
            named(request.name) || (request.listed && named(&request.name_of(choice)))
        };
        let times = match names.is_empty() {
            true => 1,
            false => chosen(ask, picks).filter(is_for).count(),
        };
        let given = DeviceAllocationConfiguration {
            source: "FromClaim".to_owned(),
            requests: own.requests.clone(),
            opaque: own.opaque.clone(),
        };
        all.extend(std::iter::repeat_n(given, times));
    }
    all
}

/// The nodes that reach all devices; none: all do. One device of one node is enough to say which.
fn nodes(picks: &[Pick<'_>]) -> Result<Option<NodeSelector>, String> {
    let mut common = NodeSelectorTerm::default();
    for pick in picks {
        let spec = &pick.device.slice.object.spec;
        if let Some(node) = &spec.node_name {
            return Ok(Some(one(node)));
        }
        match spec
            .node_selector
            .as_ref()
            .map(|own| own.node_selector_terms.as_slice())
        {
            None | Some([]) => {}
            Some([term]) => {
                add(&mut common.match_fields, &term.match_fields);
                add(&mut common.match_expressions, &term.match_expressions);
            }
            Some(terms) => {
                return Err(format!(
                    "unsupported ResourceSlice.NodeSelector with {} terms",
                    terms.len()
                ));
            }
        }
    }
    let any = common.match_fields.is_some() || common.match_expressions.is_some();
    Ok(any.then(|| NodeSelector {
        node_selector_terms: vec![common],
    }))
}

fn one(node: &str) -> NodeSelector {
    let is_it = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![is_it]),
            match_expressions: None,
        }],
    }
}

/// What is not there already.
fn add(all: &mut Option<Vec<NodeSelectorRequirement>>, more: &Option<Vec<NodeSelectorRequirement>>) {
    let values = |own: &NodeSelectorRequirement| own.values.iter().flatten().cloned().collect::<BTreeSet<_>>();
    let same = |one: &NodeSelectorRequirement, other: &NodeSelectorRequirement| {
        one.key == other.key && one.operator == other.operator && values(one) == values(other)
    };
    for own in more.iter().flatten() {
        let all = all.get_or_insert_default();
        if !all.iter().any(|other| same(own, other)) {
            all.push(own.clone());
        }
    }
}

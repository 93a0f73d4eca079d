//! What a pod's claims ask for, worked out once for all nodes: requests with the classes and expressions that they name.

use k8s_openapi::api::resource::v1::{
    DeviceAttribute, DeviceClass, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceSubRequest, DeviceToleration,
    ExactDeviceRequest, ResourceClaim,
};

use super::search::Unfound;
use crate::cluster::Claims;
use crate::cluster::claims::{Clock, Device, Selector};

/// A claim that is to be allocated.
pub struct Ask<'a> {
    pub claim: &'a ResourceClaim,
    pub requests: Vec<Request<'a>>,
    /// What has to be the same of several devices.
    pub constraints: Vec<Same<'a>>,
}

/// A request, and what it can be content with: the first comes first.
pub struct Request<'a> {
    pub name: &'a str,
    pub choices: Vec<Choice<'a>>,
    /// It has a list of choices, if only of one.
    pub listed: bool,
}

/// See [`Request`].
pub struct Choice<'a> {
    /// Its own name in a list of choices.
    pub name: &'a str,
    pub class: &'a DeviceClass,
    selectors: Vec<Selects<'a>>,
    pub amount: Amount,
    pub admin: bool,
    pub tolerations: Option<&'a Vec<DeviceToleration>>,
}

/// How many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// All that there are, and one at least.
    All,
    Exactly(usize),
}

/// An attribute that has one value on all devices of some requests.
pub struct Same<'a> {
    attribute: &'a str,
    /// Of all, where it is empty.
    requests: &'a [String],
}

struct Selects<'a> {
    selector: &'a Selector,
    /// Its place among those of its class, or of its request.
    at: usize,
    of_class: bool,
}

/// `namespace/name`.
pub fn key(claim: &ResourceClaim) -> String {
    let meta = &claim.metadata;
    let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

/// A request or a choice of one, in common.
struct Parts<'a> {
    name: &'a str,
    class: &'a str,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin: Option<bool>,
    selectors: &'a Option<Vec<DeviceSelector>>,
    tolerations: &'a Option<Vec<DeviceToleration>>,
}

impl<'a> Parts<'a> {
    fn of_request(name: &'a str, own: &'a ExactDeviceRequest) -> Self {
        Parts {
            name,
            class: &own.device_class_name,
            mode: own.allocation_mode.as_deref(),
            count: own.count,
            admin: own.admin_access,
            selectors: &own.selectors,
            tolerations: &own.tolerations,
        }
    }

    fn of_choice(own: &'a DeviceSubRequest) -> Self {
        Parts {
            name: &own.name,
            class: &own.device_class_name,
            mode: own.allocation_mode.as_deref(),
            count: own.count,
            admin: None,
            selectors: &own.selectors,
            tolerations: &own.tolerations,
        }
    }
}

impl<'a> Ask<'a> {
    /// Of a claim whose expressions were prepared.
    ///
    /// # Errors
    /// What of it nobody can give, wherever.
    pub fn new(claim: &'a ResourceClaim, claims: &'a Claims) -> Result<Self, String> {
        let devices = claim.spec.devices.as_ref();
        let requests = devices
            .and_then(|devices| devices.requests.as_deref())
            .unwrap_or_default();
        let constraints = devices
            .and_then(|devices| devices.constraints.as_deref())
            .unwrap_or_default();
        let requests: Result<Vec<_>, _> = requests.iter().map(|own| Request::new(claim, own, claims)).collect();
        let constraints = constraints
            .iter()
            .enumerate()
            .map(|(at, own)| Same::new(claim, at, own));
        Ok(Ask {
            claim,
            requests: requests?,
            constraints: constraints.collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> Request<'a> {
    fn new(claim: &'a ResourceClaim, request: &'a DeviceRequest, claims: &'a Claims) -> Result<Self, String> {
        let choices = request.first_available.as_deref().unwrap_or_default();
        let parts: Vec<Parts<'a>> = match &request.exactly {
            Some(own) => vec![Parts::of_request(&request.name, own)],
            None => choices.iter().map(Parts::of_choice).collect(),
        };
        let choices = parts.iter().map(|parts| Choice::new(claim, parts, claims));
        Ok(Request {
            name: &request.name,
            choices: choices.collect::<Result<_, _>>()?,
            listed: request.exactly.is_none(),
        })
    }

    /// How an allocation names what it gave.
    pub fn name_of(&self, choice: &Choice<'_>) -> String {
        match self.listed {
            true => format!("{}/{}", self.name, choice.name),
            false => self.name.to_owned(),
        }
    }
}

impl<'a> Choice<'a> {
    fn new(claim: &'a ResourceClaim, parts: &Parts<'a>, claims: &'a Claims) -> Result<Self, String> {
        let wrong = |what: String| format!("claim {}, request {}{what}", key(claim), parts.name);
        let class = claims
            .class(parts.class)
            .ok_or_else(|| wrong(format!(": could not retrieve device class {}", parts.class)))?;
        let own = parts.selectors.iter().flatten().enumerate();
        let of_class = class.spec.selectors.iter().flatten().enumerate();
        let all = of_class
            .map(|(at, selector)| (at, selector, true))
            .chain(own.map(|(at, selector)| (at, selector, false)));
        let mut selectors = Vec::new();
        for (at, selector, of_class) in all {
            let expression = selector.cel.as_ref().map(|cel| cel.expression.as_str());
            let selector = expression.and_then(|expression| claims.selector(expression));
            selectors.push(Selects {
                selector: selector.ok_or_else(|| {
                    wrong(format!(
                        ", selector #{at}: CEL expression empty (unsupported selector type?)"
                    ))
                })?,
                at,
                of_class,
            });
        }
        let amount = match parts.mode.unwrap_or_default() {
            "ExactCount" => {
                let count = parts.count.unwrap_or_default();
                Amount::Exactly(
                    usize::try_from(count).map_err(|_| wrong(format!(": exact count {count} is too large")))?,
                )
            }
            "All" => Amount::All,
            mode => return Err(wrong(format!(": unsupported count mode {mode}"))),
        };
        Ok(Choice {
            name: parts.name,
            class,
            selectors,
            amount,
            admin: parts.admin == Some(true),
            tolerations: parts.tolerations.as_ref(),
        })
    }

    /// Whether it would take a device, if it is free.
    ///
    /// # Errors
    /// Nobody can tell, or not in time.
    pub fn selects(&self, claim: &ResourceClaim, device: &Device<'_>, clock: &Clock) -> Result<bool, Unfound> {
        if !device.selectable {
            return Ok(false);
        }
        for own in &self.selectors {
            let selected = match own.selector.said(device.slot) {
                Some(said) => Ok(said),
                None => {
                    clock.look()?;
                    own.selector.ask(device.slot, &device.slice.object, device.object)
                }
            };
            match selected {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    let whose = match own.of_class {
                        true => format!("class {}", self.class.metadata.name.as_deref().unwrap_or_default()),
                        false => format!("claim {}", key(claim)),
                    };
                    return Err(Unfound::Failed(format!("{whose}: selector #{}: {error}", own.at)));
                }
            }
        }
        Ok(true)
    }
}

impl<'a> Same<'a> {
    fn new(claim: &ResourceClaim, at: usize, constraint: &'a DeviceConstraint) -> Result<Self, String> {
        let attribute = constraint.match_attribute.as_deref().ok_or_else(|| {
            let key = key(claim);
            format!("claim {key}, constraint #{at}: empty constraint (unsupported constraint type?)")
        })?;
        Ok(Same {
            attribute,
            requests: constraint.requests.as_deref().unwrap_or_default(),
        })
    }

    /// Whether it speaks of what a request's choice gets.
    pub fn concerns(&self, request: &Request<'_>, choice: &Choice<'_>) -> bool {
        let named = |name: &str| self.requests.iter().any(|own| own == name);
        self.requests.is_empty() || named(request.name) || (request.listed && named(&request.name_of(choice)))
    }

    /// What a device has of the attribute. Those of the driver's domain may be written without.
    pub fn value<'d>(&self, device: &Device<'d>) -> Option<&'d DeviceAttribute> {
        let all = device.object.attributes.as_ref()?;
        all.get(self.attribute).or_else(|| {
            let (domain, name) = self.attribute.split_once('/')?;
            let own = domain == device.slice.object.spec.driver;
            all.get(name).filter(|_| own)
        })
    }
}

/// Whether two attributes have one value.
pub fn equal(one: &DeviceAttribute, other: &DeviceAttribute) -> bool {
    if one.string.is_some() {
        one.string == other.string
    } else if one.int.is_some() {
        one.int == other.int
    } else if one.bool.is_some() {
        one.bool == other.bool
    } else {
        one.version.is_some() && one.version == other.version
    }
}

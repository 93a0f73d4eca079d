//! What is read of objects of which few fields are asked: one type for all such kinds, so that there is one informer's code. Which
//! kind an informer is of, its selection says.

use std::borrow::Cow;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::Deserialize;
use serde_json::Value;

use crate::feed::Selection;
use crate::informer::Informer;
use crate::informers::Informers;
use crate::kind::{Kind, Trim};

/// An object, without what nobody here reads of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Partial {
    /// As every object's.
    pub metadata: ObjectMeta,
    /// None where the kind has none.
    pub spec: Option<Spec>,
    /// None before somebody wrote one.
    pub status: Option<Status>,
    /// Of a ClusterRole: which roles it is made of.
    pub aggregation_rule: Option<Value>,
    /// Of a ClusterRole.
    pub rules: Option<Vec<Value>>,
}

/// Of a spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Of a claim or a volume.
    pub volume_attributes_class_name: Option<String>,
    /// Of a ServiceCIDR.
    pub cidrs: Option<Vec<String>>,
}

/// Of a status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// Of a volume: `Bound`.
    pub phase: Option<String>,
    /// Of a claim.
    pub current_volume_attributes_class_name: Option<String>,
    /// Of a claim.
    pub modify_volume_status: Option<Modification>,
    /// As they are.
    pub conditions: Option<Vec<Value>>,
}

/// Of a claim that is to be of another class.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Modification {
    /// The class.
    pub target_volume_attributes_class_name: Option<String>,
}

impl Partial {
    /// All objects of a kind, in version v1; `group` is empty for the core group, `plural` as in paths.
    pub fn informer(informers: &Informers, group: &str, kind: &str, plural: &str) -> Informer<Partial> {
        informers.selected(Selection {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            namespace: String::new(),
            field_selector: String::new(),
        })
    }

    /// All ServiceCIDRs.
    pub fn service_cidrs(informers: &Informers) -> Informer<Partial> {
        Partial::informer(informers, "networking.k8s.io", "ServiceCIDR", "servicecidrs")
    }

    /// The ranges of a ServiceCIDR, of the families that the type has.
    pub fn cidrs<T: FromStr>(&self) -> impl Iterator<Item = T> {
        let cidrs = self.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
        cidrs.filter_map(|cidr| cidr.parse().ok())
    }
}

impl kube::Resource for Partial {
    type DynamicType = ();
    type Scope = DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Kind for Partial {
    fn from_json(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// Nothing is left to take away, but of addresses and claims there are very many: they are kept as text.
    const TRIM: Option<Trim<Self>> = Some(Trim::NOTHING);
}

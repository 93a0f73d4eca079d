//! An object as the API server has it, of whatever kind: one type for all that is read in part and written back whole, so that
//! there is one informer's and one request's code for them.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::feed::Selection;
use crate::informer::Informer;
use crate::informers::Informers;
use crate::kind::{Kind, Trim};

/// An object with its metadata read. Which kind an informer of it is of, its selection says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    /// As every object's.
    pub metadata: ObjectMeta,
    /// All of it.
    pub value: Value,
}

impl Raw {
    /// The object that this JSON is.
    ///
    /// # Errors
    /// Its metadata is none.
    pub fn new(value: Value) -> serde_json::Result<Raw> {
        let metadata = ObjectMeta::deserialize(&value["metadata"])?;
        Ok(Raw { metadata, value })
    }

    /// All objects of a kind, in version v1; `group` is empty for the core group, `plural` as in paths.
    pub fn informer(informers: &Informers, group: &str, kind: &str, plural: &str) -> Informer<Raw> {
        informers.selected(Selection {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            namespace: String::new(),
            field_selector: String::new(),
        })
    }

    /// The reference by which Events name it; `group` and `kind` are its own.
    pub fn reference(&self, group: &str, kind: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some(mk8s_api::meta::join_api_version(group, "v1")),
            kind: Some(kind.into()),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            resource_version: self.metadata.resource_version.clone(),
            field_path: None,
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Raw::new(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl kube::Resource for Raw {
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

impl Kind for Raw {
    fn from_json(text: &[u8]) -> serde_json::Result<Self> {
        Raw::new(serde_json::from_slice(text)?)
    }

    /// Nothing is taken away, for it is written back; a tree is many times its text, and is not kept.
    const TRIM: Option<Trim<Self>> = Some(Trim::NOTHING);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_whole_and_names_itself() {
        let object = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": "7"}, "spec": {"any": [1]}});
        let raw = Raw::from_json(object.to_string().as_bytes()).unwrap();
        assert_eq!(raw.value, object);
        let reference = raw.reference("", "PersistentVolumeClaim");
        let expected = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "c", "namespace": "n", "uid": "u", "resourceVersion": "7"});
        assert_eq!(serde_json::to_value(reference).unwrap(), expected);
        let version = raw.reference("storage.k8s.io", "StorageClass").api_version;
        assert_eq!(version.as_deref(), Some("storage.k8s.io/v1"));
        assert!(Raw::new(json!({"spec": {}})).is_err());
    }
}

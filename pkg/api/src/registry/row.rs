//! How a row is written: a few words per kind; everything unsaid is what most kinds have.

use std::borrow::Cow;

use super::gates::Part;
use super::{
    ChangeOrder, Column, Convert, Deletion, Dependents, Field, Handler, Hooks, NameRule, Resource, ScalePaths, Scope,
    Semantics, Served, Subresource, Support, Verbs,
};
use crate::validation::Errors;
use crate::validation::MetadataCheck;

/// The orders in which kinds check a changed object's metadata again.
pub(super) const COMPLETE: &[MetadataCheck] = &[MetadataCheck::Complete];
pub(super) const COMPLETE_TWICE: &[MetadataCheck] = &[MetadataCheck::Complete, MetadataCheck::Complete];
pub(super) const COMPLETE_CHANGED: &[MetadataCheck] = &[MetadataCheck::Complete, MetadataCheck::Changed];
pub(super) const CHANGED_COMPLETE: &[MetadataCheck] = &[MetadataCheck::Changed, MetadataCheck::Complete];

/// (group, version, kind) of `/scale`.
pub(super) const SCALE: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// A namespaced, stored, fully supported resource with every verb and the columns Name and Age.
pub(super) fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Resource {
    Resource {
        group: group.into(),
        kind: kind.into(),
        list_kind: Cow::Owned(format!("{kind}List")),
        plural: plural.into(),
        singular: Cow::Owned(kind.to_ascii_lowercase()),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope: Scope::Namespaced,
        verbs: Verbs::ALL,
        generation: false,
        name_rule: NameRule::DnsSubdomain,
        support: Support::Full,
        hooks: Hooks::NONE,
        semantics: Semantics::default(),
        versions: vec![Served::of(group.into(), version.into())],
        storage: 0,
        index: Vec::new(),
        webhook: None,
    }
}

pub(super) type Validate = fn(&serde_json::Value, &mut Errors);
pub(super) type ValidateWrite = fn(&Served, &serde_json::Value, Option<&serde_json::Value>, &mut Errors);
type ValidateUpdate = fn(&serde_json::Value, &serde_json::Value, &mut Errors);

impl Resource {
    /// Another version of what is said so far, which is what is stored; what follows is said of the other.
    pub(super) fn also(mut self, group: &'static str, version: &'static str, convert: Option<Convert>) -> Self {
        let stored = self.stored().clone();
        self.versions.push(Served {
            group: group.into(),
            name: version.into(),
            convert,
            deprecated: None,
            ..stored
        });
        self
    }

    /// The version that is being written.
    fn version(&mut self) -> &mut Served {
        let last = self.versions.len() - 1;
        &mut self.versions[last]
    }

    pub(super) fn cluster(mut self) -> Self {
        self.scope = Scope::Cluster;
        self
    }

    pub(super) fn short(mut self, names: &[&'static str]) -> Self {
        self.short_names = names.iter().map(|&name| name.into()).collect();
        self
    }

    pub(super) fn singular(mut self, name: &'static str) -> Self {
        self.singular = name.into();
        self
    }

    pub(super) fn category(mut self, name: &'static str) -> Self {
        self.categories.push(name.into());
        self
    }

    pub(super) fn verbs(mut self, verbs: Verbs) -> Self {
        self.verbs = verbs;
        self
    }

    /// A review: answered by code of its own, nothing is stored.
    pub(super) fn review(self) -> Self {
        self.answered_by(Handler::Review)
    }

    /// Of which nothing is stored.
    pub(super) fn answered_by(mut self, handler: Handler) -> Self {
        self.verbs = Verbs::CREATE_ONLY;
        self.support = Support::Virtual;
        self.semantics.answered_by = Some(handler);
        self
    }

    pub(super) fn support(mut self, support: Support) -> Self {
        self.support = support;
        self
    }

    /// Counts spec changes in `metadata.generation`.
    pub(super) fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    pub(super) fn named(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    pub(super) fn status(self) -> Self {
        self.sub("status", Handler::Status, Verbs::GET_PATCH_UPDATE, None)
    }

    pub(super) fn sub(
        mut self,
        name: &'static str,
        handler: Handler,
        verbs: Verbs,
        kind: Option<(&'static str, &'static str, &'static str)>,
    ) -> Self {
        let subresources = &mut self.version().subresources;
        subresources.push(Subresource {
            name: name.into(),
            handler,
            verbs,
            kind,
            deprecated: None,
        });
        subresources.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// `/scale` on `spec.replicas` and `status.replicas`.
    pub(super) fn scale(mut self) -> Self {
        self.version().scale = Some(ScalePaths {
            spec_replicas: vec!["spec".into(), "replicas".into()],
            status_replicas: vec!["status".into(), "replicas".into()],
            selector: vec!["spec".into(), "selector".into()],
        });
        self.sub("scale", Handler::Scale, Verbs::GET_PATCH_UPDATE, Some(SCALE))
    }

    /// Selectable fields whose label is their path.
    pub(super) fn fields(self, labels: &[&'static str]) -> Self {
        labels.iter().fold(self, |row, &label| {
            let path: Vec<&'static str> = label.split('.').collect();
            row.field(label, &path)
        })
    }

    /// A selectable field whose label differs from its path in the stored object.
    pub(super) fn field(mut self, label: &'static str, path: &[&'static str]) -> Self {
        self.version().fields.push(Field {
            label: label.into(),
            path: path.iter().map(|&key| Cow::Borrowed(key)).collect(),
            at: 0,
        });
        self
    }

    /// The version's selectable fields are other ones than the stored version's.
    pub(super) fn other_fields(mut self) -> Self {
        self.version().fields.clear();
        self
    }

    pub(super) fn columns(mut self, columns: Vec<Column>) -> Self {
        self.version().columns = columns;
        self
    }

    pub(super) fn default(mut self, default: fn(&mut serde_json::Value)) -> Self {
        self.version().default = default;
        self
    }

    pub(super) fn prepare(
        mut self,
        create: fn(&mut serde_json::Value),
        update: fn(&mut serde_json::Value, &serde_json::Value),
    ) -> Self {
        self.hooks.prepare_create = create;
        self.hooks.prepare_update = update;
        self
    }

    pub(super) fn validate(mut self, validate: Validate) -> Self {
        self.hooks.validate = validate;
        self
    }

    /// Asked of objects that are sent in this version.
    pub(super) fn validate_version(mut self, validate: Validate) -> Self {
        self.version().validate = Some(validate);
        self
    }

    /// Of the version that is being written, instead of the hooks'.
    pub(super) fn validate_version_update(mut self, validate: ValidateUpdate) -> Self {
        self.version().validate_update = Some(validate);
        self
    }

    pub(super) fn preparing_status(mut self, prepare: fn(&mut serde_json::Value, &serde_json::Value)) -> Self {
        self.hooks.prepare_status = prepare;
        self
    }

    pub(super) fn validate_write(mut self, validate: ValidateWrite) -> Self {
        self.hooks.validate_write = validate;
        self
    }

    pub(super) fn validate_update(mut self, validate: ValidateUpdate) -> Self {
        self.hooks.validate_update = validate;
        self
    }

    pub(super) fn validate_status(mut self, validate: ValidateUpdate) -> Self {
        self.hooks.validate_status = validate;
        self
    }

    pub(super) fn warnings(
        mut self,
        warnings: fn(&serde_json::Value, Option<&serde_json::Value>) -> Vec<String>,
    ) -> Self {
        self.hooks.warnings = warnings;
        self
    }

    pub(super) fn put_creates(mut self) -> Self {
        self.semantics.put_creates = true;
        self
    }

    pub(super) fn conditional_only(mut self) -> Self {
        self.semantics.conditional_only = true;
        self
    }

    pub(super) fn returns_deleted(mut self) -> Self {
        self.semantics.returns_deleted = true;
        self
    }

    pub(super) fn registers_status(mut self) -> Self {
        self.semantics.registers_status = true;
        self
    }

    pub(super) fn generation_stays(mut self) -> Self {
        self.semantics.generation_stays = true;
        self
    }

    pub(super) fn free_finalizers(mut self) -> Self {
        self.semantics.free_finalizers = true;
        self
    }

    pub(super) fn status_alone(mut self) -> Self {
        self.semantics.status_alone = true;
        self
    }

    pub(super) fn status_by_itself(mut self, is: fn(&serde_json::Value, &serde_json::Value) -> bool) -> Self {
        self.semantics.status_by_itself = Some(is);
        self
    }

    pub(super) fn holds_addresses(mut self) -> Self {
        self.semantics.holds_addresses = true;
        self
    }

    /// Fields that are dropped, as upstream's defaults have it.
    pub(super) fn gates(mut self, gates: &'static [Part]) -> Self {
        self.semantics.gates = gates;
        self
    }

    pub(super) fn change_order(mut self, order: ChangeOrder) -> Self {
        self.semantics.change_order = order;
        self
    }

    pub(super) fn metadata_last(mut self) -> Self {
        self.semantics.metadata_last = true;
        self
    }

    pub(super) fn metadata_checks(mut self, checks: &'static [MetadataCheck]) -> Self {
        self.semantics.metadata_checks = checks;
        self
    }

    pub(super) fn deletion(mut self, deletion: Deletion) -> Self {
        self.semantics.deletion = deletion;
        self
    }

    pub(super) fn dependents(mut self, dependents: Dependents) -> Self {
        self.semantics.dependents = dependents;
        self
    }

    /// Dependents are orphaned by a DELETE that says nothing of them, and it is warned of that.
    pub(super) fn orphans_with(mut self, warning: &'static str) -> Self {
        self.semantics.dependents_warning = Some(warning);
        self.dependents(Dependents::Orphaned)
    }

    /// What upstream warns of on every request for the kind.
    pub(super) fn deprecated(mut self, warning: &'static str) -> Self {
        self.version().deprecated = Some(warning.into());
        self
    }
}

//! /scale: a Scale made of the paths that the row names; autoscaling/v1's, or in versions that upstream has removed their own.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::apply::{Applied, Managed};
use mk8s_api::registry::{Path, ScalePaths};
use mk8s_api::schema;
use mk8s_api::selectors::LabelSelector;
use mk8s_api::status::Status;
use mk8s_api::{meta, patch, validation};
use serde_json::{Value, json};

use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::crd::conversion::{self, Form};
use crate::guaranteed_update::{Attempt, Current, Done, Step, guaranteed_update};
use crate::handlers::apply::Applying;
use crate::handlers::decode::{self, Expected};
use crate::handlers::get::refuse_export;
use crate::handlers::identity::Wanted;
use crate::handlers::patch::{Patch, PatchType};
use crate::handlers::update::{check_name, check_version};
use crate::managers::{self, Scales};
use crate::metadata;
use crate::options::WriteOptions;
use crate::pipeline::{self, Part};
use crate::respond;

pub async fn dispatch(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let subresource = call.row.subresource(&call.info.subresource);
    let (Some(paths), Some(kind)) = (
        call.row.served().scale.as_ref(),
        subresource.and_then(|subresource| subresource.kind),
    ) else {
        return Err(Status::method_not_allowed("the resource has no scale"));
    };
    let form = Scale::of(kind, paths);
    if call.info.verb == "get" {
        refuse_export(call)?;
        return form.answer(call, &call.shown_object().await?.value()?);
    }
    call.refuse_unsupported()?;
    let mut warnings = Vec::new();
    let (options, change) = read(call, &form, &body, &mut warnings)?;
    let target = call.named_target(options.dry_run)?;
    let mut scaling = Scaling {
        call,
        change,
        form: &form,
        options,
        before: warnings.clone(),
        warnings,
    };
    let scaled = guaranteed_update(target, &mut scaling).await;
    let written = match scaled.map_err(|refused| refused.warned(&scaling.warnings))? {
        Done::Written(written) => written,
        Done::Removed(..) => return Err(call.not_found()),
    };
    let written = conversion::tree(call, written.value()?, Form::Row).await?;
    let mut response = form.answer(call, &written)?;
    respond::warn(&mut response, &scaling.warnings);
    Ok(response)
}

/// What a request wants of a Scale.
fn read(
    call: &Call,
    form: &Scale<'_>,
    body: &[u8],
    warnings: &mut Vec<String>,
) -> Result<(WriteOptions, Change), Status> {
    if call.info.verb == "update" {
        let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
        let expected = Expected::kind(form.group, form.version, &form.api_version, "Scale");
        let new = decode::object(call, body, &expected, options, warnings)?;
        check_name(call, &new)?;
        return Ok((options, Change::Put(new)));
    }
    let kind = PatchType::of(call)?;
    let options = WriteOptions::of_patch(&call.query, kind)?;
    let change = match kind {
        PatchType::Apply => {
            let validation = options.field_validation;
            Change::Apply(Applying::read(call, &form.api_version, "Scale", body, validation)?)
        }
        kind => Change::Patch(Patch::read(kind, body, options.field_validation)?),
    };
    Ok((options, change))
}

struct Scaling<'a> {
    call: &'a Call,
    change: Change,
    form: &'a Scale<'a>,
    options: WriteOptions,
    before: Vec<String>,
    warnings: Vec<String>,
}

/// Admission sees the Scale, the object's own rules see the object.
impl Attempt for Scaling<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let (call, form) = (self.call, self.form);
        if current.object.is_none() {
            return Err(call.not_found());
        }
        self.warnings.clone_from(&self.before);
        let current = pipeline::in_form(call, current).await?;
        let old_scale = form.show(&current.value);
        let own = current.managed();
        let before = managers::of_scale(call, &form.api_version, own);
        let made = self.change.apply(call, form, &before, &old_scale, &mut self.warnings);
        let (mut scale, owned) = made?;
        let managed = managers::from_scale(call, own, &owned);
        let name = meta::name(&current.value);
        let admission = call.server.admission();
        let attributes = call.attributes(Operation::Update, name, Some(&old_scale), Options::Write(self.options));
        admission.mutate(&attributes, &mut scale).await?;
        metadata::match_namespace(&call.row.resource, &call.info, &mut scale)?;
        // A custom object's own checks say so of the field that it is.
        if call.row.schema.is_some() {
            let errors = validation::scale(&scale);
            if !errors.is_empty() {
                return Err(Status::invalid("autoscaling", "Scale", name, &errors));
            }
        }
        if !matches!(meta::resource_version(&scale), "" | "0") || !meta::uid(&scale).is_empty() {
            check_version(call, &scale, &current)?;
        }
        let replicas = meta::i64_at(&scale, &["spec", "replicas"]).unwrap_or(0);
        let mut new = current.value.clone();
        meta::set(&mut new, &keys(&form.paths.spec_replicas), replicas);
        pipeline::begin_change(call, Part::Main, &mut new, &current)?;
        let beside = pipeline::prepare_change(call, Part::Main, &mut new, &current.value, &mut self.warnings)?;
        call.validate(&attributes, &scale, &mut self.warnings).await?;
        pipeline::finish_change(call, Part::Main, new, &managed, &current, beside).await
    }
}

enum Change {
    Put(Value),
    Patch(Patch),
    Apply(Applying),
}

impl Change {
    /// The Scale that is wanted, and its managers.
    fn apply(
        &self,
        call: &Call,
        form: &Scale<'_>,
        before: &Managed,
        old: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<(Value, Managed), Status> {
        if let Change::Apply(applying) = self {
            let empty = json!({"apiVersion": form.api_version, "kind": "Scale", "metadata": {}, "spec": {},
                "status": {"replicas": 0}});
            let Applied { object, managed } = applying.apply(before, old, &empty, &Scales)?;
            applying.note_problems(warnings)?;
            return Ok((object.unwrap_or_else(|| old.clone()), managed));
        }
        let mut new = self.changed(call, form, old.clone())?;
        if let (Change::Patch(patch), Some(schema)) = (self, schema::by_gvk(form.group, form.version, "Scale")) {
            let wanted = Wanted {
                group: form.group,
                version: form.version,
                kind: "Scale",
                internal: call.row.schema.is_some(),
            };
            new = patch.conformed(call, new, schema, &wanted, warnings)?;
            check_name(call, &new)?;
        }
        let managed = managers::scaled(call, &form.api_version, before, old, &new);
        Ok((new, managed))
    }

    fn changed(&self, call: &Call, form: &Scale<'_>, mut scale: Value) -> Result<Value, Status> {
        match self {
            Change::Put(new) => return Ok(new.clone()),
            Change::Patch(Patch { kind, change, .. }) => {
                match (kind, schema::by_gvk(form.group, form.version, "Scale")) {
                    (PatchType::Json, _) => patch::json(&mut scale, change),
                    (PatchType::Strategic, Some(schema)) => patch::strategic(&mut scale, change, schema),
                    _ => patch::merge(&mut scale, change),
                }
            }
            Change::Apply(_) => Ok(()),
        }
        .map_err(|error| Status::bad_request(format!("{}: {error}", call.info.name)))?;
        Ok(scale)
    }
}

fn keys(path: &Path) -> Vec<&str> {
    path.iter().map(|key| &**key).collect()
}

/// A Scale in one version, and where an object has what it shows.
struct Scale<'a> {
    group: &'static str,
    version: &'static str,
    api_version: String,
    paths: &'a ScalePaths,
}

impl<'a> Scale<'a> {
    fn of((group, version, _): (&'static str, &'static str, &'static str), paths: &'a ScalePaths) -> Scale<'a> {
        Scale {
            group,
            version,
            api_version: meta::join_api_version(group, version),
            paths,
        }
    }

    fn answer(&self, call: &Call, object: &Value) -> Result<Response<Body>, Status> {
        let shaped = respond::shape_scale(call, self.show(object))?;
        respond::value(StatusCode::OK, call.output, shaped)
    }

    fn show(&self, object: &Value) -> Value {
        let text = |key: &str| meta::at(object, &["metadata", key]).cloned().unwrap_or_default();
        let replicas = meta::i64_at(object, &keys(&self.paths.spec_replicas)).unwrap_or(0);
        json!({
            "kind": "Scale", "apiVersion": self.api_version,
            "metadata": {
                "name": text("name"), "namespace": text("namespace"), "uid": text("uid"),
                "resourceVersion": text("resourceVersion"), "creationTimestamp": text("creationTimestamp"),
            },
            "spec": if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) },
            "status": self.status(object),
        })
    }

    fn status(&self, object: &Value) -> Value {
        let selector = &self.paths.selector;
        let own = meta::at(object, &keys(selector)).filter(|_| !selector.is_empty());
        let selector = selector_text(own);
        let mut status = json!({"replicas": meta::i64_at(object, &keys(&self.paths.status_replicas)).unwrap_or(0)});
        if selector.is_empty() {
            return status;
        }
        if self.group == "autoscaling" {
            status["selector"] = selector.into();
            return status;
        }
        // The older form: labels, where they say it all, and the text beside them.
        status["targetSelector"] = selector.into();
        let labels = own.filter(|own| meta::items(own, &["matchExpressions"]).is_empty());
        if let Some(labels) = labels.and_then(|own| own.get("matchLabels")) {
            status["selector"] = labels.clone();
        }
        status
    }
}

fn selector_text(selector: Option<&Value>) -> String {
    match selector {
        Some(Value::String(text)) => text.clone(),
        Some(selector) if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() => {
            LabelSelector::from_json(selector)
                .map(|parsed| parsed.to_string())
                .unwrap_or_default()
        }
        Some(map) => LabelSelector::from_map(map).to_string(),
        None => String::new(),
    }
}

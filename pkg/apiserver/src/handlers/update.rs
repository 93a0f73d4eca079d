//! update (PUT).

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::meta;
use mk8s_api::status::{FieldError, Status};
use serde_json::Value;

use super::answer;
use super::decode::{self, Expected};
use crate::call::Call;
use crate::filters::authz::{Attributes, node};
use crate::guaranteed_update::{Current, Reads};
use crate::metadata;
use crate::options::WriteOptions;
use crate::part;
use crate::pipeline::{self, Part, Updated};

pub async fn update(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    update_part(call, body, Part::Main).await
}

/// PUT of the object or of its status.
pub async fn update_part(call: &Call, body: Bytes, part: Part) -> Result<Response<Body>, Status> {
    call.refuse_unsupported()?;
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let mut warnings = Vec::new();
    let read = |warnings: &mut Vec<String>| {
        let mut object = decode::object(call, &body, &Expected::row(call), options, warnings)?;
        check_name(call, &object).map_err(|status| status.warned(warnings))?;
        call.row.to_stored(&mut object);
        Ok::<_, Status>(object)
    };
    // Another attempt is rare: its object is read again, rather than each first one's copied.
    let mut first = Some(read(&mut warnings)?);
    let creates = part == Part::Main && call.row.resource.semantics.put_creates;
    // What a PUT of the status says of anything else is looked at by NodeRestriction alone.
    let is_restricted = node::node_name(&call.user).is_some();
    let reads = match part {
        Part::Status if part::decides(&call.row) && !is_restricted => Reads::Part,
        _ => Reads::Whole,
    };
    let updated = pipeline::update(call, part, reads, options, &mut warnings, |current, _| {
        let object = first.take().map_or_else(|| read(&mut Vec::new()), Ok)?;
        match &current.object {
            None if creates => may_create(call, &object)?,
            _ => check_version(call, &object, current)?,
        }
        Ok(object.into())
    });
    let updated = updated.await.map_err(|status| status.warned(&warnings))?;
    let Updated { written, created } = updated;
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    answer(call, code, written, &warnings).await
}

/// A PUT of what is not there: who may only update is not let create, and a uid is one of something that was there.
pub fn may_create(call: &Call, object: &Value) -> Result<(), Status> {
    let asked = Attributes::of_request(&call.user, &call.info);
    call.server.authorizer().check(&Attributes {
        verb: "create",
        ..asked
    })?;
    match meta::uid(object) {
        "" => Ok(()),
        uid => Err(precondition_uid(call, uid, "")),
    }
}

/// The name in an object must be the URL's.
pub fn check_name(call: &Call, object: &Value) -> Result<(), Status> {
    let name = meta::name(object);
    let wanted = call.info.path_name();
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        )));
    }
    let (own, asked) = (meta::namespace(object), &*call.info.namespace);
    if call.row.resource.is_namespaced() && !asked.is_empty() && !own.is_empty() && own != asked {
        return Err(metadata::elsewhere());
    }
    Ok(())
}

/// A resourceVersion or uid in the object must be those of what is stored.
pub fn check_version(call: &Call, object: &Value, current: &Current) -> Result<(), Status> {
    let (uid, own) = (meta::uid(object), meta::uid(&current.value));
    if current.object.is_some() && !uid.is_empty() && uid != own {
        return Err(precondition_uid(call, uid, own));
    }
    check_revision(call, object, current)
}

/// A resourceVersion alone: a patch asks no other uid, it would change it.
pub fn check_revision(call: &Call, object: &Value, current: &Current) -> Result<(), Status> {
    let Some(old) = &current.object else {
        return Err(call.not_found());
    };
    match meta::resource_version(object) {
        "" | "0" if call.row.resource.semantics.conditional_only => {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            Err(Status::invalid(
                &call.row.resource.group,
                call.row.plural(),
                old.name(),
                &[error],
            ))
        }
        "" | "0" => Ok(()),
        version => match version.parse::<u64>() {
            Ok(version) if version == old.revision => Ok(()),
            Ok(_) => Err(call.conflict()),
            Err(_) => Err(Status::invalid(
                &call.row.resource.group,
                call.row.kind(),
                old.name(),
                &[FieldError::invalid(
                    "metadata.resourceVersion",
                    version,
                    "must be convertible to an integer",
                )],
            )),
        },
    }
}

fn precondition_uid(call: &Call, wanted: &str, own: &str) -> Status {
    Status::conflict(
        call.row.group(),
        call.row.plural(),
        &call.info.name,
        &format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {wanted}, UID in object meta: {own}",
            call.row.plural(),
            call.info.name
        ),
    )
}

//! The few kinds whose writes touch something beside the object itself: Services hold addresses and ports.

use mk8s_api::registry::Resource;
use mk8s_api::status::Status;
use serde_json::Value;

use crate::call::Call;
use crate::pipeline::Part;
use crate::services::Reservation;

fn is_service(resource: &Resource) -> bool {
    resource.kind == "Service" && resource.group.is_empty()
}

/// Takes what a new object needs; given back unless the write comes about.
pub fn before_create<'a>(call: &'a Call, resource: &Resource, object: &mut Value) -> Result<Reservation<'a>, Status> {
    let services = call.server.services();
    if !is_service(resource) {
        return Ok(services.nothing());
    }
    services.before_create(object)
}

pub fn before_update<'a>(
    call: &'a Call,
    resource: &Resource,
    new: &mut Value,
    old: &Value,
    part: Part,
) -> Result<Reservation<'a>, Status> {
    let services = call.server.services();
    if !is_service(resource) || part != Part::Main {
        return Ok(services.nothing());
    }
    services.before_update(new, old)
}

/// Gives back what the object no longer holds.
pub fn after_write(call: &Call, resource: &Resource, new: Option<&Value>, old: Option<&Value>) {
    if let (true, Some(old)) = (is_service(resource), old) {
        call.server.services().release_difference(old, new);
    }
}

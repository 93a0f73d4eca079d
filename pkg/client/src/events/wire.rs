//! How an Event is written: a count in core/v1, or a series in events.k8s.io/v1.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::core::request::Error;
use mk8s_api::{names, time};
use serde_json::{Value, json};

use super::Report;

/// The most bytes of what an Event of a series says; of more, the end is left out.
const MESSAGE: usize = 1024;
const ELLIPSIS: &str = " ...";

/// How repetitions are told.
#[derive(Clone)]
pub(super) enum Manner {
    /// By a count, each time.
    Counts(EventSource),
    /// By a series, now and then.
    Series { controller: String, instance: String },
}

/// What a request does.
#[derive(Clone, Copy)]
pub(super) enum Write {
    Create,
    Count,
}

impl Manner {
    /// An Event of which nothing is known yet.
    pub(super) fn first(&self, report: Report) -> Event {
        let Report {
            object,
            type_,
            reason,
            action,
            message,
            at,
        } = report;
        let namespace = object.namespace.clone().filter(|namespace| !namespace.is_empty());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name(object.name.as_deref().unwrap_or_default(), at)),
                namespace: Some(namespace.unwrap_or_else(|| "default".into())),
                ..ObjectMeta::default()
            },
            involved_object: object,
            reason: Some(reason),
            message: Some(message),
            type_: Some(type_.to_string()),
            ..Event::default()
        };
        match self {
            Manner::Counts(source) => Event {
                first_timestamp: Some(Time(at)),
                reporting_component: source.component.clone(),
                reporting_instance: source.host.clone(),
                source: Some(source.clone()),
                ..event
            },
            Manner::Series { controller, instance } => Event {
                event_time: Some(MicroTime(at)),
                action: Some(action.to_string()),
                message: event.message.map(shortened),
                reporting_component: Some(controller.clone()),
                reporting_instance: Some(instance.clone()),
                ..event
            },
        }
    }

    /// The request that tells of an Event which happened `count` times, the last time at `at`.
    pub(super) fn request(
        &self,
        event: &Event,
        (count, at): (i32, Timestamp),
        write: Write,
    ) -> Result<http::Request<Vec<u8>>, Error> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let group = match self {
            Manner::Counts(_) => "/api/v1",
            Manner::Series { .. } => "/apis/events.k8s.io/v1",
        };
        let path = Request::new(format!("{group}/namespaces/{namespace}/events"));
        let told = match self {
            Manner::Counts(_) => json!({"count": count, "lastTimestamp": Time(at), "message": event.message}),
            Manner::Series { .. } if count == 1 => json!({}),
            Manner::Series { .. } => json!({"series": {"count": count, "lastObservedTime": time::micro(at)}}),
        };
        match write {
            Write::Count => {
                let name = event.metadata.name.as_deref().unwrap_or_default();
                path.patch(name, &PatchParams::default(), &Patch::Strategic(told))
            }
            Write::Create => {
                let mut whole = self.whole(event).map_err(Error::SerializeBody)?;
                if let (Value::Object(whole), Value::Object(told)) = (&mut whole, told) {
                    whole.extend(told);
                }
                path.create(&PostParams::default(), whole.to_string().into_bytes())
            }
        }
    }

    /// In the words of the group it is sent to.
    fn whole(&self, event: &Event) -> serde_json::Result<Value> {
        match self {
            Manner::Counts(_) => serde_json::to_value(event),
            Manner::Series { .. } => Ok(json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event",
                "metadata": {"name": event.metadata.name, "namespace": event.metadata.namespace},
                "eventTime": event.event_time, "type": event.type_, "action": event.action, "reason": event.reason,
                "note": event.message, "regarding": event.involved_object,
                "reportingController": event.reporting_component, "reportingInstance": event.reporting_instance,
            })),
        }
    }
}

/// One of its own for each moment; without the object's name where an Event can't have that, or there is no room for it.
fn name(object: &str, at: Timestamp) -> String {
    let at = format!("{:x}", at.as_nanosecond());
    let named = format!("{object}.{at}");
    if names::dns_subdomain(&named).is_empty() {
        named
    } else {
        format!("event.{at}")
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE - ELLIPSIS.len()));
        message.push_str(ELLIPSIS);
    }
    message
}

//! The EndpointSlices of a Service, whoever made them: what a node's proxy and its DNS both answer from.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::informer::{Index, Informer};
use crate::subscription::Event;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An informer's slices by the Service that each names in its label, `NAMESPACE/NAME`.
#[derive(Clone)]
pub struct ServiceSlices(Index<EndpointSlice>);

impl ServiceSlices {
    /// Those of this informer. They change in one step with it.
    pub fn of(slices: &Informer<EndpointSlice>) -> Self {
        Self(slices.index("service", |slice| service_of(slice).into_iter().collect()))
    }

    /// A Service's (`NAMESPACE/NAME`), in the order of their names.
    pub fn get(&self, service: &str) -> Vec<Arc<EndpointSlice>> {
        let mut found = self.0.get(service);
        found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        found
    }
}

/// The Services (`NAMESPACE/NAME`) whose slices an event changed: the one that the slice was of, and the one that it is of.
pub fn services_of(event: &Event<EndpointSlice>) -> Vec<String> {
    let (old, new) = match event {
        Event::Applied { old, new } => (old.as_ref(), Some(new)),
        Event::Deleted(last) => (Some(last), None),
    };
    let mut services: Vec<String> = [old, new].into_iter().flatten().filter_map(|s| service_of(s)).collect();
    services.dedup();
    services
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_goes_over_to_another_service_changes_both() {
        let slice = |service: &str| {
            let mut slice = EndpointSlice::default();
            slice.metadata.namespace = Some("n".to_owned());
            slice.metadata.labels = Some([(SERVICE_NAME.to_owned(), service.to_owned())].into());
            Arc::new(slice)
        };
        let nobodys = Arc::new(EndpointSlice::default());
        let applied =
            |old: Option<Arc<EndpointSlice>>, new: Arc<EndpointSlice>| services_of(&Event::Applied { old, new });
        assert_eq!(applied(None, slice("a")), ["n/a"]);
        assert_eq!(applied(Some(slice("a")), slice("a")), ["n/a"]);
        assert_eq!(applied(Some(slice("a")), slice("b")), ["n/a", "n/b"]);
        assert_eq!(applied(Some(slice("a")), nobodys.clone()), ["n/a"]);
        assert_eq!(applied(None, nobodys).len(), 0);
        assert_eq!(services_of(&Event::Deleted(slice("b"))), ["n/b"]);
    }
}

//! Who tells of pods: one recorder a profile, for an Event names the scheduler that its pod asked for.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use mk8s_client::SeriesRecorder;
use mk8s_supervisor::Supervisor;

use crate::pod::PodInfo;
use crate::profile::Profiles;

/// By the profile's name.
#[derive(Clone)]
pub struct Recorders(HashMap<Box<str>, SeriesRecorder>);

impl Recorders {
    /// Those of a scheduler on `host`.
    pub fn new(client: &Client, profiles: &Profiles, host: &str, owner: &Supervisor) -> Self {
        let each = profiles.iter().map(|profile| {
            let name = profile.name.clone();
            let recorder = SeriesRecorder::new(client.clone(), &name, &format!("{name}-{host}"), owner);
            (name, recorder)
        });
        Recorders(each.collect())
    }

    /// Tells of `object` what was done for a pod of ours.
    pub fn event(
        &self,
        pod: &PodInfo,
        object: &ObjectReference,
        (type_, reason, action): (&'static str, &'static str, &'static str),
        message: &str,
    ) {
        if let Some(recorder) = self.0.get(&pod.wishes().scheduler) {
            recorder.event(object, type_, reason, action, message);
        }
    }
}

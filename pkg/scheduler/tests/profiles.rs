//! Each profile decides for the pods that name it, and Events name the profile.
#![allow(clippy::unwrap_used)]

mod api;

use std::time::Duration;

use api::Api;
use mk8s_scheduler::config::Config;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn pods_are_decided_by_the_profile_that_they_name_and_told_of_by_it() {
    let (config, _) = Config::read(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [{schedulerName: one}, \
         {schedulerName: other, plugins: {multiPoint: {disabled: [{name: NodeResourcesFit}, {name: DefaultPreemption}]}}}]",
    )
    .unwrap();
    let api = Api::default();
    api.node("n", json!({"cpu": "1", "memory": "1Gi", "pods": "9"}));
    for (name, scheduler) in [("a", "one"), ("b", "other"), ("c", "default-scheduler")] {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": "2"}}});
        api.pod(name, json!({"schedulerName": scheduler, "containers": [container]}));
    }
    let scope = api.run(config);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(scope.shutdown(Duration::from_secs(20)).await);
    assert_eq!(
        api.told(),
        [
            "bind b to n",
            "a FailedScheduling by one one-host: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
             0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
            "b Scheduled by other other-host: Successfully assigned d/b to n",
        ]
    );
}

//! Pods with claims of devices.

use super::*;
use crate::change::Change;

/// A node with devices, and a pod whose claim keeps the search for them busy: of many that are alike it wants some, and one that is like
/// them and is not.
fn busy(state: &mut Scheduler) {
    full_node(state);
    let device = |at: usize| {
        let model = if at == 0 { "small" } else { "large" };
        json!({"name": format!("d{at}"), "attributes": {"model": {"string": model}}})
    };
    let devices: Vec<_> = (0..100).map(device).collect();
    let pool = json!({"name": "n", "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "x", "nodeName": "n", "pool": pool, "devices": devices});
    let slice = serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).unwrap();
    state.cluster.claims.set_slice(&Arc::new(slice));
    let class = serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}})).unwrap();
    state.cluster.claims.set_class(Arc::new(class));
    let request = |model: &str, count: i64| {
        let selectors = json!([{"cel": {"expression": format!("device.attributes[\"x\"].model == \"{model}\"")}}]);
        json!({"name": model, "exactly": {"deviceClassName": "c", "allocationMode": "ExactCount", "count": count, "selectors": selectors}})
    };
    let devices = json!({"requests": [request("large", 20), request("small", 1)], "constraints": [{"matchAttribute": "x/model"}]});
    let claim = json!({"metadata": {"namespace": "d", "name": "c", "uid": "c"}, "spec": {"devices": devices}});
    let claim = serde_json::from_value(claim).unwrap();
    state.cluster.claims.set(Arc::new(claim));
    state.pod_applied(&claiming());
}

fn claiming() -> Pod {
    let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"},
        "spec": {"containers": [{"name": "c"}], "resourceClaims": [{"name": "r", "resourceClaimName": "c"}]}});
    serde_json::from_value(pod).unwrap()
}

/// Not by an event, whichever: they would come all the time.
#[tokio::test]
async fn a_pod_that_there_was_no_time_for_backs_off() {
    let mut state = without_informers();
    busy(&mut state);
    state.schedule_next();
    assert_eq!(state.reports.len(), 1, "it is told of");
    for (waited, tried) in [(0, false), (1100, true)] {
        state
            .queue
            .tick(Instant::now() + std::time::Duration::from_millis(waited));
        state.wake_for(|_| Some(Change::DeviceClass));
        assert_eq!(state.queue.has_next(), tried, "{waited}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn other_tasks_go_on_while_devices_are_searched_for() {
    let deciding = mk8s_supervisor::job::spawn("deciding", async {
        let mut state = without_informers();
        let pod = PodInfo::new(&claiming(), &mut state.cluster.kins);
        let (tell, told) = std::sync::mpsc::channel();
        let other = mk8s_supervisor::job::spawn("other", async move { tell.send(()) });
        let heard = state.decided(&pod, |_, _| told.recv_timeout(std::time::Duration::from_secs(5)));
        let _ = other.await;
        heard
    });
    assert_eq!(deciding.await.unwrap(), Some(Ok(())));
}

//! The one way to delete: it says which object it means. A name alone may be another object's by the time the request arrives.

use std::fmt::Debug;

use kube::api::{DeleteParams, Preconditions};
use mk8s_client::{Api, Kind};

use crate::error::{Error, Tried};
use crate::meta;

/// Deletes this object; false: it is gone. A conflict: the name is another object's by now, or a version that `params` ask for is
/// not the present one.
pub async fn delete<K: Kind + Debug>(api: &Api<K>, object: &K, params: DeleteParams) -> Result<bool, Error> {
    let preconditions = Preconditions {
        uid: object.meta().uid.clone(),
        ..params.preconditions.clone().unwrap_or_default()
    };
    let name = meta::name(object);
    let done = api.delete(name, &params.preconditions(preconditions)).await;
    let done = done.tried_if_exists(|| match meta::namespace(object) {
        "" => format!("delete {} {name}", K::kind(&())),
        namespace => format!("delete {} {namespace}/{name}", K::kind(&())),
    });
    done.map(|done| done.is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::Secret;
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// Has only secret `a`, with uid `now`.
    async fn serve(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let found = request.uri().path().ends_with("/a");
        let asked: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
        let wants = &asked["preconditions"];
        let code = match (found, wants["uid"] == "now") {
            (false, _) => 404,
            (true, false) => 409,
            (true, true) => 200,
        };
        let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": code});
        body["status"] = if code == 200 { "Success" } else { "Failure" }.into();
        if code == 200 {
            assert_eq!(asked["propagationPolicy"], "Foreground");
            assert_eq!(wants["resourceVersion"], "7");
        }
        let answer = Response::builder().status(code);
        Ok(answer.body(Body::from(body.to_string().into_bytes())).unwrap())
    }

    #[tokio::test]
    async fn only_the_object_that_is_meant_is_deleted() {
        let api: std::sync::Arc<Api<Secret>> =
            std::sync::Arc::new(Api::namespaced(Client::new(tower::service_fn(serve), "d"), "d"));
        let secret = |name: &str, uid: &str| -> Secret {
            serde_json::from_value(json!({"metadata": {"name": name, "uid": uid, "resourceVersion": "7"}})).unwrap()
        };
        let delete = |name, uid| {
            let (api, secret) = (api.clone(), secret(name, uid));
            async move {
                let params = DeleteParams::foreground().preconditions(meta::this_version(&secret));
                delete(&api, &secret, params).await
            }
        };
        assert!(delete("a", "now").await.unwrap());
        assert!(delete("a", "before").await.unwrap_err().is_conflict());
        assert!(!delete("b", "before").await.unwrap());
    }
}

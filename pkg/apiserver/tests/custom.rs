//! Custom resources through the whole server: a definition comes, changes and goes, and its kind is served like any other.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::{Api, events_until};
use serde_json::{Value, json};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CARS: &str = "/apis/example.org/v1/namespaces/default/cars";
const MERGE: &str = "application/merge-patch+json";

fn definition() -> Value {
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"color": {"type": "string"}, "n": {"type": "integer"}}});
    let schema = json!({"openAPIV3Schema": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"spec": spec}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": {"plural": "cars", "kind": "Car", "shortNames": ["c"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema,
                 "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.selector"}},
                 "selectableFields": [{"jsonPath": ".spec.color"}],
                 "additionalPrinterColumns": [{"name": "Wheels", "type": "integer", "jsonPath": ".spec.n"}]},
                {"name": "v1beta1", "served": true, "storage": false, "schema": schema, "deprecated": true,
                 "selectableFields": [{"jsonPath": ".spec.color"}]}]},
    })
}

fn car(name: &str, color: &str) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": name}, "spec": {"color": color, "n": 4}})
}

/// Waits until a definition says something of itself.
async fn until(api: &Api, name: &str, condition: &str, status: &str) -> Value {
    for _ in 0..500 {
        let (code, definition) = api.get(&format!("{CRDS}/{name}")).await;
        let all = definition["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if code == 200
            && all
                .iter()
                .any(|own| own["type"] == condition && own["status"] == status)
        {
            return definition;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is not {condition}={status}");
}

async fn gone(api: &Api, path: &str) {
    for _ in 0..500 {
        if api.get(path).await.0 == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} is still there");
}

#[tokio::test]
async fn a_definition_makes_a_kind_like_any_other() {
    let api = Api::open().await;
    let (code, created) = api.post(CRDS, &definition()).await;
    assert_eq!(
        (code, &created["spec"]["names"]["listKind"]),
        (201, &json!("CarList")),
        "{created}"
    );
    assert_eq!(created["status"]["storedVersions"], json!(["v1"]));
    let established = until(&api, "cars.example.org", "Established", "True").await;
    assert_eq!(established["status"]["acceptedNames"]["shortNames"], json!(["c"]));

    let (code, made) = api.post(CARS, &car("a", "red")).await;
    assert_eq!((code, &made["metadata"]["generation"]), (201, &json!(1)), "{made}");
    assert_eq!(api.post(CARS, &car("b", "blue")).await.0, 201);
    let (_, list) = api.get(&format!("{CARS}?fieldSelector=spec.color%3Dblue")).await;
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("CarList"), &json!("b"))
    );
    let (_, table) = api.accept(CARS, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["a", 4]));

    // Another version of the same objects.
    let beta = "/apis/example.org/v1beta1/namespaces/default/cars/a";
    let response = api
        .send("GET", beta, "application/json", axum::body::Body::empty())
        .await;
    let warning = response.headers()["warning"].to_str().unwrap().to_string();
    assert_eq!(warning, r#"299 - "example.org/v1beta1 Car is deprecated""#);
    assert_eq!(api.get(beta).await.1["apiVersion"], "example.org/v1beta1");
    let (code, changed) = api.patch(beta, MERGE, &json!({"spec": {"n": 5}})).await;
    assert_eq!(
        (code, &changed["metadata"]["generation"]),
        (200, &json!(2)),
        "{changed}"
    );

    // All of it is there after a restart.
    let api = api.reopen().await;
    let (code, car) = api.get(&format!("{CARS}/a")).await;
    assert_eq!((code, &car["spec"]["n"]), (200, &json!(5)));
    let kept = api.get(&format!("{CRDS}/cars.example.org")).await.1;
    assert_eq!(
        kept["metadata"]["resourceVersion"],
        established["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn subresources_and_discovery_are_those_of_the_definition() {
    let api = Api::open().await;
    api.post(CRDS, &definition()).await;
    until(&api, "cars.example.org", "Established", "True").await;
    api.post(CARS, &car("a", "red")).await;
    // The status is written apart, and metadata is not written with it.
    let status = json!({"metadata": {"labels": {"a": "b"}}, "status": {"n": 3, "selector": "x=y"}, "spec": {"n": 9}});
    let (code, changed) = api.patch(&format!("{CARS}/a/status"), MERGE, &status).await;
    assert_eq!(
        (code, &changed["spec"]["n"], &changed["status"]["n"]),
        (200, &json!(4), &json!(3))
    );
    assert!(changed["metadata"].get("labels").is_none() && changed["metadata"]["generation"] == 1);
    let (code, scale) = api
        .patch(&format!("{CARS}/a/scale"), MERGE, &json!({"spec": {"replicas": 7}}))
        .await;
    assert_eq!(
        (code, &scale["spec"]["replicas"], &scale["status"]),
        (200, &json!(7), &json!({"replicas": 3, "selector": "x=y"}))
    );

    let (_, groups) = api.get("/apis/example.org").await;
    let versions: Vec<&Value> = groups["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["version"])
        .collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    let (code, refused) = api
        .patch(
            &format!("{CARS}/a"),
            "application/strategic-merge-patch+json",
            &json!({}),
        )
        .await;
    assert_eq!((code, &refused["reason"]), (415, &json!("UnsupportedMediaType")));
}

#[tokio::test]
async fn what_changes_in_a_definition_changes_what_is_served_and_ends_no_other_watch() {
    let api = Api::open().await;
    api.post(CRDS, &definition()).await;
    until(&api, "cars.example.org", "Established", "True").await;
    api.post(CARS, &car("a", "red")).await;
    let other = api
        .watch("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0")
        .await;
    let own = api.watch(&format!("{CARS}?watch=1")).await;
    let unserved = json!([
        {"op": "replace", "path": "/spec/versions/1/served", "value": false},
        {"op": "replace", "path": "/spec/versions/0/additionalPrinterColumns/0/name", "value": "N"}]);
    let path = format!("{CRDS}/cars.example.org");
    assert_eq!(api.patch(&path, "application/json-patch+json", &unserved).await.0, 200);
    gone(&api, "/apis/example.org/v1beta1/namespaces/default/cars/a").await;
    // The watch of what changed ends by itself.
    let ended = tokio::time::timeout(Duration::from_secs(5), events_until(own, |_| false))
        .await
        .unwrap();
    assert_eq!(ended.len(), 1, "{ended:?}");
    api.post(
        "/api/v1/namespaces/default/configmaps",
        &json!({"metadata": {"name": "x"}}),
    )
    .await;
    let seen = events_until(other, |event| event["object"]["metadata"]["name"] == "x").await;
    assert_eq!(seen.last().unwrap()["type"], "ADDED");
    let (_, table) = api.accept(CARS, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!(table["columnDefinitions"][1]["name"], "N");
}

/// Whose watch is ended comes back at once: to what the definition says by then, and not to what it said.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_when_a_watch_is_ended_is_shown_the_version_that_he_asks_for() {
    let api = Api::open().await;
    api.post(CRDS, &definition()).await;
    until(&api, "cars.example.org", "Established", "True").await;
    api.post(CARS, &car("a", "red")).await;
    let path = format!("{CRDS}/cars.example.org");
    for turn in 0..20 {
        let own = api.watch(&format!("{CARS}?watch=1&resourceVersion=0")).await;
        let moved = json!([
            {"op": "replace", "path": "/spec/versions/0/storage", "value": turn % 2 == 1},
            {"op": "replace", "path": "/spec/versions/1/storage", "value": turn % 2 == 0}]);
        assert_eq!(api.patch(&path, "application/json-patch+json", &moved).await.0, 200);
        let ended = tokio::time::timeout(Duration::from_secs(20), events_until(own, |_| false));
        assert_eq!(ended.await.unwrap().len(), 1);
        let again = api.watch(&format!("{CARS}?watch=1&resourceVersion=0")).await;
        let shown = events_until(again, |_| true).await;
        assert_eq!(shown[0]["object"]["apiVersion"], "example.org/v1", "{shown:?}");
    }
}

/// It is the name of the pods' indexed field, and none of a custom kind is indexed: which fields it has may change.
#[tokio::test]
async fn a_selectable_field_of_any_name_may_come_and_move() {
    let api = Api::open().await;
    let mut placed = definition();
    placed["spec"]["versions"].as_array_mut().unwrap().truncate(1);
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/nodeName";
    api.post(CRDS, &placed).await;
    until(&api, "cars.example.org", "Established", "True").await;
    let path = format!("{CRDS}/cars.example.org");
    let one = |name: &str| {
        let mut one = car(name, "red");
        one["spec"]["nodeName"] = "x".into();
        one
    };
    let selected = format!("{CARS}?fieldSelector=spec.nodeName%3Dx");
    for (turn, fields) in [[".spec.nodeName", ".spec.color"], [".spec.color", ".spec.nodeName"]]
        .iter()
        .enumerate()
    {
        let change = json!([
            {"op": "add", "path": properties, "value": {"type": "string"}},
            {"op": "replace", "path": "/spec/versions/0/selectableFields",
             "value": fields.map(|path| json!({"jsonPath": path}))}]);
        let (code, changed) = api.patch(&path, "application/json-patch+json", &change).await;
        assert_eq!(code, 200, "{changed}");
        for _ in 0..500 {
            if api.get(&selected).await.0 == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let name = format!("c{turn}");
        let watched = format!("{selected}&watch=1");
        let mut watch = api.send("GET", &watched, "application/json", "").await;
        // One that begins while the kind becomes another is told so.
        while watch.status() == 410 {
            watch = api.send("GET", &watched, "application/json", "").await;
        }
        assert_eq!(watch.status(), 200);
        let watch = watch.into_body();
        assert_eq!(api.post(CARS, &one(&name)).await.0, 201);
        let seen = events_until(watch, |event| event["object"]["metadata"]["name"] == name.as_str());
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        assert!(seen.is_ok(), "{fields:?}");
        let (_, list) = api.get(&selected).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(turn + 1), "{fields:?}");
    }
}

#[tokio::test]
async fn a_definition_goes_when_the_last_of_its_objects_has() {
    let api = Api::open().await;
    api.post(CRDS, &definition()).await;
    until(&api, "cars.example.org", "Established", "True").await;
    let mut held = car("held", "red");
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    api.post(CARS, &held).await;
    api.post(CARS, &car("b", "red")).await;
    let path = format!("{CRDS}/cars.example.org");
    let (code, marked) = api.delete(&path, None).await;
    assert_eq!(
        (code, &marked["metadata"]["finalizers"]),
        (200, &json!(["customresourcecleanup.apiextensions.k8s.io"]))
    );
    gone(&api, &format!("{CARS}/b")).await;
    let (code, refused) = api.post(CARS, &car("c", "red")).await;
    let why = "cars.example.org \"c\" is forbidden: create not allowed while custom resource definition is terminating";
    assert_eq!((code, &refused["message"]), (403, &json!(why)));
    until(&api, "cars.example.org", "Terminating", "True").await;
    let api = api.reopen().await;
    assert_eq!(
        api.patch(
            &format!("{CARS}/held"),
            MERGE,
            &json!({"metadata": {"finalizers": null}})
        )
        .await
        .0,
        200
    );
    gone(&api, &path).await;
    gone(&api, CARS).await;
    assert_eq!(api.get("/apis/example.org").await.0, 404);
    // It comes again with nothing of what it had.
    api.post(CRDS, &definition()).await;
    until(&api, "cars.example.org", "Established", "True").await;
    assert_eq!(api.get(CARS).await.1["items"], json!([]));
}

#[tokio::test]
async fn names_are_whose_they_were_first() {
    let api = Api::open().await;
    api.post(CRDS, &definition()).await;
    until(&api, "cars.example.org", "Established", "True").await;
    let mut second = definition();
    second["metadata"]["name"] = "autos.example.org".into();
    second["spec"]["names"]["plural"] = "autos".into();
    assert_eq!(api.post(CRDS, &second).await.0, 201);
    let refused = until(&api, "autos.example.org", "NamesAccepted", "False").await;
    assert_eq!(refused["status"]["acceptedNames"]["plural"], "autos");
    assert_eq!(api.get("/apis/example.org/v1/autos").await.0, 404);
    api.delete(&format!("{CRDS}/cars.example.org"), None).await;
    until(&api, "autos.example.org", "Established", "True").await;
    assert_eq!(api.get("/apis/example.org/v1/autos").await.0, 200);
}

fn strict() -> Value {
    let mut definition = definition();
    let version = &mut definition["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"] = json!({
        "type": "object", "required": ["spec"],
        "properties": {
            "spec": {"type": "object", "required": ["color"], "properties": {
                "color": {"type": "string", "enum": ["red", "blue"]},
                "n": {"type": "integer", "minimum": 1, "default": 4}}},
            "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}});
    definition["spec"]["versions"].as_array_mut().unwrap().truncate(1);
    definition
}

#[tokio::test]
async fn a_schema_prunes_fills_in_and_refuses() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &strict()).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    let mut car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"color": "red", "x": {}}});
    let (code, made) = api.post(CARS, &car).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"color": "red", "n": 4})), "{made}");
    car["metadata"]["name"] = "b".into();
    let (code, refused) = api.post(&format!("{CARS}?fieldValidation=Strict"), &car).await;
    let why = r#"strict decoding error: unknown field "spec.x""#;
    assert_eq!(code, 400);
    assert!(refused["message"].as_str().unwrap().ends_with(why), "{refused}");
    car["spec"] = json!({"color": "green", "n": 0});
    let (code, refused) = api.post(CARS, &car).await;
    let fields: Vec<&Value> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| &cause["field"])
        .collect();
    assert_eq!(
        (code, fields),
        (422, vec![&json!("spec.color"), &json!("spec.n")]),
        "{refused}"
    );
    let (code, refused) = api
        .patch(&format!("{CARS}/a/status"), MERGE, &json!({"status": {"n": "x"}}))
        .await;
    assert_eq!(
        (code, &refused["details"]["causes"][0]["field"]),
        (422, &json!("status.n")),
        "{refused}"
    );

    // A default that comes later is shown of what was stored before; a field that goes is shown no more.
    let path = format!("{CRDS}/cars.example.org");
    let change = json!([
        {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/n"},
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/doors",
         "value": {"type": "integer", "default": 5}}]);
    let (code, changed) = api.patch(&path, "application/json-patch+json", &change).await;
    assert_eq!(code, 200, "{changed}");
    for _ in 0..500 {
        if api.get(&format!("{CARS}/a")).await.1["spec"] == json!({"color": "red", "doors": 5}) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_, shown) = api.get(&format!("{CARS}/a")).await;
    assert_eq!(shown["spec"], json!({"color": "red", "doors": 5}));
    assert!(shown["metadata"]["managedFields"].is_array());
    let api = api.reopen().await;
    assert_eq!(api.get(&format!("{CARS}/a")).await.1["spec"], shown["spec"]);
}

#[tokio::test]
async fn rules_are_checked_when_they_are_written_and_when_objects_are() {
    let api = Api::open().await;
    let mut wrong = strict();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let rules = |rule: &str| json!([{"rule": rule, "message": "a car keeps its color"}]);
    wrong.pointer_mut(spec).unwrap()["x-kubernetes-validations"] = rules("self.colour == oldSelf.color");
    let (code, refused) = api.post(CRDS, &wrong).await;
    assert_eq!(code, 422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("undefined field 'colour'"),
        "{refused}"
    );
    wrong.pointer_mut(spec).unwrap()["x-kubernetes-validations"] = rules("self.color == oldSelf.color");
    assert_eq!(api.post(CRDS, &wrong).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    assert_eq!(api.post(CARS, &car("a", "red")).await.0, 201);
    let (code, refused) = api
        .patch(&format!("{CARS}/a"), MERGE, &json!({"spec": {"color": "blue"}}))
        .await;
    let why = "Car.example.org \"a\" is invalid: spec: Invalid value: a car keeps its color";
    assert_eq!((code, &refused["message"]), (422, &json!(why)), "{refused}");
}

#[tokio::test]
async fn custom_objects_are_applied_on_the_server() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &strict()).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    let path = format!("{CARS}/a?fieldManager=one");
    let apply = "application/apply-patch+yaml";
    let (code, made) = api.patch(&path, apply, &car("a", "red")).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"color": "red", "n": 4})), "{made}");
    let (code, refused) = api
        .patch(&format!("{CARS}/a?fieldManager=two"), apply, &car("a", "blue"))
        .await;
    assert_eq!(
        (code, &refused["details"]["causes"][0]["field"]),
        (409, &json!(".spec.color")),
        "{refused}"
    );
    let mut unknown = car("a", "red");
    unknown["spec"]["x"] = 1.into();
    let (code, refused) = api.patch(&path, apply, &unknown).await;
    assert!(code >= 400, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains(".spec.x: field not declared in schema"),
        "{refused}"
    );
}

/// What is compared has to be what its schema says: a value of another type was taken for one that nobody had.
#[tokio::test]
async fn nothing_is_applied_to_an_object_that_its_schema_does_not_fit() {
    let api = Api::open().await;
    define_in_one_version(&api).await;
    let mut made = car("a", "red");
    made["spec"]["l"] = json!(["x", "x"]);
    assert_eq!(api.post(CARS, &made).await.0, 201);
    let (path, one) = (format!("{CRDS}/cars.example.org"), format!("{CARS}/a?fieldManager=one"));
    let apply = "application/apply-patch+yaml";
    let applied =
        json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a", "labels": {"a": "b"}}});
    let set = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"});
    let changed = async |color: &str, place: &str| {
        let schema = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {
                "color": {"type": color}, "l": set, place: {"type": "string", "default": "y"}}}}}}]);
        let changed = api.patch(&path, "application/json-patch+json", &schema).await;
        assert_eq!(changed.0, 200, "{}", changed.1);
        shows(&api, &format!("{CARS}/a"), &format!("/spec/{place}"), &"y".into()).await;
    };
    changed("integer", "one").await;
    let (code, refused) = api.patch(&one, apply, &applied).await;
    let told = "failed to create typed live object (default/a; example.org/v1, Kind=Car): \
                .spec.color: expected numeric (int or float), got string";
    assert_eq!((code, refused["message"].as_str()), (500, Some(told)));
    // An item that is there twice is no such fault.
    changed("string", "two").await;
    let (code, answer) = api.patch(&one, apply, &applied).await;
    assert_eq!(
        (code, &answer["metadata"]["labels"]),
        (200, &json!({"a": "b"})),
        "{answer}"
    );
}

/// Somebody's status stood, the kind was served without being established, and was still served when its definition was gone.
#[tokio::test]
async fn a_status_that_says_nothing_of_the_names_is_set_right() {
    let api = Api::open().await;
    api.post(CRDS, &definition()).await;
    until(&api, "cars.example.org", "Established", "True").await;
    let status = json!({"status": {"conditions": [{"type": "Mine", "status": "True", "reason": "r", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let path = format!("{CRDS}/cars.example.org");
    assert_eq!(api.patch(&format!("{path}/status"), MERGE, &status).await.0, 200);
    until(&api, "cars.example.org", "NamesAccepted", "True").await;
    until(&api, "cars.example.org", "Established", "True").await;
    until(&api, "cars.example.org", "Mine", "True").await;
    assert_eq!(api.post(CARS, &car("a", "red")).await.0, 201);
    api.delete(&path, None).await;
    gone(&api, &path).await;
    gone(&api, CARS).await;
}

#[tokio::test]
async fn openapi_says_what_definitions_say() {
    let api = Api::open().await;
    let before = api.get("/openapi/v3").await.1["paths"].clone();
    assert_eq!(api.post(CRDS, &strict()).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    let (_, index) = api.get("/openapi/v3").await;
    let hashed = &index["paths"]["apis/example.org/v1"]["serverRelativeURL"];
    assert_eq!(index["paths"]["apis/apps/v1"], before["apis/apps/v1"]);
    let (_, document) = api.get(hashed.as_str().unwrap()).await;
    let car = &document["components"]["schemas"]["org.example.v1.Car"];
    assert_eq!(
        car["properties"]["spec"]["properties"]["color"]["enum"],
        json!(["red", "blue"])
    );
    assert_eq!(car["x-kubernetes-group-version-kind"][0]["kind"], "Car");
    for (field, words) in [
        ("apiVersion", "APIVersion defines the versioned schema"),
        ("kind", "Kind is a string value"),
        ("metadata", "Standard object's metadata."),
    ] {
        let said = car["properties"][field]["description"].as_str().unwrap();
        assert!(said.starts_with(words), "{field}: {said}");
    }
    let one = &document["paths"]["/apis/example.org/v1/namespaces/{namespace}/cars/{name}"]["patch"];
    assert_eq!(one["operationId"], "patchExampleOrgV1NamespacedCar");
    assert!(
        one["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_none()
    );
    let (_, document) = api.get("/openapi/v2").await;
    assert!(document["definitions"]["org.example.v1.CarList"].is_object());
    assert!(document["definitions"]["org.example.v1.Car"]["properties"]["metadata"]["$ref"].is_string());
    api.delete(&format!("{CRDS}/cars.example.org"), None).await;
    gone(&api, CARS).await;
    assert_eq!(api.get("/openapi/v3").await.1["paths"], before);
}

/// Waits until an object says this at a place.
async fn shows(api: &Api, path: &str, at: &str, value: &Value) {
    for _ in 0..500 {
        if api.get(path).await.1.pointer(at) == Some(value) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} does not show {value}: {}", api.get(path).await.1);
}

/// A kind of which a test changes the schema.
async fn define_in_one_version(api: &Api) {
    let mut open = definition();
    let versions = open["spec"]["versions"].as_array_mut().unwrap();
    versions.truncate(1);
    versions[0].as_object_mut().unwrap().remove("selectableFields");
    assert_eq!(api.post(CRDS, &open).await.0, 201);
    until(api, "cars.example.org", "Established", "True").await;
}

#[tokio::test]
async fn what_is_read_is_made_of_what_is_stored_however_often_the_schema_changes() {
    let api = Api::open().await;
    define_in_one_version(&api).await;
    assert_eq!(api.post(CARS, &car("a", "red")).await.0, 201);
    let (path, one) = (format!("{CRDS}/cars.example.org"), format!("{CARS}/a"));
    let schema = |properties: &Value| {
        json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}])
    };
    let doors = |default: u8| json!({"doors": {"type": "integer", "default": default}});
    for (properties, shown) in [
        (doors(3), json!({"doors": 3})),
        (doors(5), json!({"doors": 5})),
        (
            json!({"color": {"type": "string"}, "n": {"type": "integer"}}),
            json!({"color": "red", "n": 4}),
        ),
    ] {
        let changed = api
            .patch(&path, "application/json-patch+json", &schema(&properties))
            .await;
        assert_eq!(changed.0, 200, "{}", changed.1);
        shows(&api, &one, "/spec", &shown).await;
    }
}

/// A car with so many items that there is no room for the defaults that `defaulted_item` gives each.
fn long_car() -> Value {
    let mut long = car("a", "red");
    long["spec"]["l"] = json!(vec![json!({}); 60_000]);
    long
}

fn defaulted_item() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "string", "default": "x".repeat(1000)}}})
}

/// What there is no room for may not keep an object from its end.
#[tokio::test]
async fn an_object_that_is_shown_without_all_of_its_defaults_can_go() {
    let api = Api::open().await;
    define_in_one_version(&api).await;
    assert_eq!(api.post(CARS, &long_car()).await.0, 201);
    let (path, one) = (format!("{CRDS}/cars.example.org"), format!("{CARS}/a"));
    let item = defaulted_item();
    let schema = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": {
        "type": "object", "properties": {"spec": {"type": "object", "properties": {
            "color": {"type": "string"}, "l": {"type": "array", "items": item}}}}}}]);
    let (code, changed) = api.patch(&path, "application/json-patch+json", &schema).await;
    assert_eq!(code, 200, "{changed}");
    shows(&api, &one, "/spec/l/0/a", &"x".repeat(1000).into()).await;
    let (_, shown) = api.get(&one).await;
    assert_eq!(shown.pointer("/spec/l/59999"), Some(&json!({})));

    let (code, _) = api.patch(&one, MERGE, &json!({"spec": {"color": "blue"}})).await;
    assert_eq!(code, 413);
    let held = json!({"metadata": {"finalizers": ["example.org/held"], "labels": {"a": "b"}}});
    let (code, tried) = api.patch(&format!("{one}?dryRun=All"), MERGE, &held).await;
    assert_eq!(code, 200, "{}", tried["message"]);
    let (code, patched) = api.patch(&one, MERGE, &held).await;
    assert_eq!(code, 200, "{}", patched["message"]);
    // A dry run shows what the change does.
    assert!(tried["spec"] == patched["spec"]);
    assert_eq!(tried["metadata"]["labels"], patched["metadata"]["labels"]);
    assert_eq!(
        tried["metadata"]["resourceVersion"],
        shown["metadata"]["resourceVersion"]
    );
    // It grows by no write but for what is written.
    let length = |object: &Value| object["spec"].to_string().len();
    let (_, read) = api.get(&one).await;
    assert_eq!(read["spec"], patched["spec"]);
    assert!(length(&read).abs_diff(length(&shown)) < 5000);
    let again = api.patch(&one, MERGE, &held).await.1;
    assert_eq!(again["metadata"], patched["metadata"]);
    assert_eq!(api.delete(&one, None).await.0, 200);
    let (_, going) = api.get(&one).await;
    assert!(
        going["metadata"]["deletionTimestamp"].is_string(),
        "{}",
        going["metadata"]
    );
    let free = json!({"metadata": {"finalizers": null}});
    assert_eq!(api.patch(&one, MERGE, &free).await.0, 200);
    assert_eq!(api.get(&one).await.0, 404);
}

/// Whoever takes a finalizer off says first what he has done.
#[tokio::test]
async fn the_status_of_an_object_that_is_shown_without_all_of_its_defaults_is_written() {
    let api = Api::open().await;
    let mut open = definition();
    let subresources = open["spec"]["versions"][0]["subresources"].clone();
    open["spec"]["versions"][1]["subresources"] = subresources;
    assert_eq!(api.post(CRDS, &open).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    assert_eq!(api.post(CARS, &long_car()).await.0, 201);
    let (path, one) = (format!("{CRDS}/cars.example.org"), format!("{CARS}/a"));
    let item = defaulted_item();
    let schema = |status: Value| {
        json!({"type": "object", "properties": {"status": {"type": "object", "properties": status},
            "spec": {"type": "object", "properties": {
                "color": {"type": "string"}, "l": {"type": "array", "items": item}}}}})
    };
    let text = json!({"type": "string", "maxLength": 10});
    let of = [
        json!({"phase": {"type": "string", "default": "new"}, "a": text}),
        json!({"a": text, "b": text}),
    ];
    let place = |version| format!("/spec/versions/{version}/schema/openAPIV3Schema");
    let changed =
        [0, 1].map(|version| json!({"op": "replace", "path": place(version), "value": schema(of[version].clone())}));
    let (code, changed) = api.patch(&path, "application/json-patch+json", &json!(changed)).await;
    assert_eq!(code, 200, "{changed}");
    shows(&api, &one, "/spec/l/0/a", &"x".repeat(1000).into()).await;
    let before = api.get(&one).await.1;
    let written = async |answer: (u16, Value), status: Value| {
        assert_eq!(answer.0, 200, "{}", answer.1["message"]);
        assert_eq!(answer.1["status"], status);
        let read = api.get(&one).await.1;
        // How many defaults there is room for goes by the length of what is stored.
        let length = |object: &Value| object["spec"].to_string().len();
        assert!(length(&read).abs_diff(length(&before)) < 5000 && read["spec"]["color"] == "red");
        assert_eq!(read["metadata"]["generation"], before["metadata"]["generation"]);
    };
    let status = format!("{one}/status");
    let patch = json!({"status": {"a": "b"}, "spec": {"color": "blue"}});
    let patched = api.patch(&status, MERGE, &patch).await;
    written(patched, json!({"a": "b", "phase": "new"})).await;
    // What was read of it before says nothing of its spec.
    let mut put = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"l": []}});
    put["status"] = json!({"phase": "old"});
    put["metadata"]["resourceVersion"] = api.get(&one).await.1["metadata"]["resourceVersion"].clone();
    written(api.put(&status, &put).await, json!({"phase": "old"})).await;
    let long = json!({"status": {"a": "more than ten"}});
    assert_eq!(api.patch(&status, MERGE, &long).await.0, 422);
    // Neither version has a place for all that the other has.
    let other = status.replace("/v1/", "/v1beta1/");
    let answer = api.patch(&other, MERGE, &json!({"status": {"a": "c", "b": "d"}})).await;
    assert_eq!(
        (answer.0, &answer.1["status"]["a"]),
        (200, &json!("c")),
        "{}",
        answer.1["message"]
    );
    assert_eq!(api.get(&one).await.1["status"], json!({"a": "c", "phase": "new"}));
    // And one that is sent beside metadata is not asked.
    let mut held = api.get(&one).await.1;
    held["metadata"]["labels"] = json!({"a": "b"});
    held["status"] = json!({"a": "z"});
    written(api.put(&one, &held).await, json!({"a": "c", "phase": "new"})).await;
    assert_eq!(api.get(&one).await.1["metadata"]["labels"], json!({"a": "b"}));
}

/// An operator may speak another version than the stored one.
#[tokio::test]
async fn no_version_keeps_a_finalizer_on_an_object_that_is_shown_without_all_of_its_defaults() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition()).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    assert_eq!(api.post(CARS, &long_car()).await.0, 201);
    let (path, one) = (format!("{CRDS}/cars.example.org"), format!("{CARS}/a"));
    let item = defaulted_item();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "color": {"type": "string"}, "l": {"type": "array", "items": item}}}}});
    let changed = [0, 1].map(|version| {
        let place = format!("/spec/versions/{version}/schema/openAPIV3Schema");
        json!({"op": "replace", "path": place, "value": schema})
    });
    let (code, changed) = api.patch(&path, "application/json-patch+json", &json!(changed)).await;
    assert_eq!(code, 200, "{changed}");
    shows(&api, &one, "/spec/l/0/a", &"x".repeat(1000).into()).await;
    let other = one.replace("/v1/", "/v1beta1/");
    for finalizers in [json!(["example.org/held"]), Value::Null] {
        let (code, patched) = api
            .patch(&other, MERGE, &json!({"metadata": {"finalizers": finalizers}}))
            .await;
        assert_eq!(code, 200, "{}", patched["message"]);
        assert_eq!(patched["metadata"]["finalizers"], finalizers);
        assert_eq!(
            patched["spec"]["l"].as_array().map(|items| items[59_999].clone()),
            Some(json!({}))
        );
    }
}

#[tokio::test]
async fn a_write_that_changes_nothing_brings_an_object_into_the_storage_version() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition()).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    let (_, made) = api.post(CARS, &car("a", "red")).await;
    let one = format!("{CARS}/a");
    let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let (_, kept) = api.put(&one, &made).await;
    assert_eq!(revision(&kept), revision(&made));
    let moved = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    let path = format!("{CRDS}/cars.example.org");
    let (code, changed) = api.patch(&path, "application/json-patch+json", &moved).await;
    assert_eq!(
        (code, &changed["status"]["storedVersions"]),
        (200, &json!(["v1", "v1beta1"]))
    );
    let mut rewritten = made.clone();
    for _ in 0..500 {
        rewritten = api.put(&one, &made).await.1;
        if revision(&rewritten) != revision(&made) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_ne!(revision(&rewritten), revision(&made));
    // Once is enough.
    assert_eq!(revision(&api.put(&one, &rewritten).await.1), revision(&rewritten));
}

#[tokio::test]
async fn a_definition_that_changes_while_it_goes_still_waits_for_its_objects() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition()).await.0, 201);
    until(&api, "cars.example.org", "Established", "True").await;
    let mut held = car("held", "red");
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    assert_eq!(api.post(CARS, &held).await.0, 201);
    let (path, one) = (format!("{CRDS}/cars.example.org"), format!("{CARS}/held"));
    assert_eq!(api.delete(&path, None).await.0, 200);
    until(&api, "cars.example.org", "Terminating", "True").await;
    shows(&api, &one, "/metadata/deletionGracePeriodSeconds", &json!(0)).await;
    let renamed = json!([{"op": "replace", "path": "/spec/versions/0/additionalPrinterColumns/0/name", "value": "N"}]);
    let (code, changed) = api.patch(&path, "application/json-patch+json", &renamed).await;
    assert_eq!(code, 200, "{changed}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((api.get(&path).await.0, api.get(&one).await.0), (200, 200));
    assert_eq!(
        api.patch(&one, MERGE, &json!({"metadata": {"finalizers": null}}))
            .await
            .0,
        200
    );
    gone(&api, &path).await;
}

#[tokio::test]
async fn a_webhooks_bundle_that_is_none_is_told_of() {
    let api = Api::open().await;
    let mut converted = definition();
    converted["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://localhost:1/", "caBundle": "bm90aGluZw=="}}});
    assert_eq!(api.post(CRDS, &converted).await.0, 201);
    let told = until(&api, "cars.example.org", "Established", "False").await;
    let all = told["status"]["conditions"].as_array().unwrap();
    let reasons: Vec<&Value> = all.iter().map(|own| &own["reason"]).collect();
    assert!(reasons.contains(&&json!("InvalidCABundle")), "{reasons:?}");
}

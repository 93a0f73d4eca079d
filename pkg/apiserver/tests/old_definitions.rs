//! Definitions of apiextensions.k8s.io/v1beta1, which may have no schema or one that is not structural: what is asked of
//! them, what is asked of their objects, and how they look in v1.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use harness::Api;
use serde_json::{Value, json};

const OLD: &str = "/apis/apiextensions.k8s.io/v1beta1/customresourcedefinitions";
const NOW: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CARS: &str = "/apis/example.org/v1/namespaces/default/cars";
const MERGE: &str = "application/merge-patch+json";

fn definition(plural: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.org")},
        "spec": {"group": "example.org", "version": "v1", "names": {"plural": plural, "kind": kind}},
    })
}

/// As in documents of 2018: nothing says what the object is, only what its fields are.
fn loose() -> Value {
    let mut definition = definition("cars", "Car");
    definition["spec"]["validation"] = json!({"openAPIV3Schema": {"required": ["spec"], "properties": {"spec": {
        "required": ["color"], "properties": {
            "color": {"type": "string", "enum": ["red", "blue"]}, "n": {"type": "integer", "minimum": 1}}}}}});
    definition["spec"]["additionalPrinterColumns"] =
        json!([{"name": "Color", "type": "string", "JSONPath": ".spec.color"}]);
    definition
}

async fn established(api: &Api, name: &str) -> Value {
    for _ in 0..500 {
        let (_, definition) = api.get(&format!("{NOW}/{name}")).await;
        if condition(&definition, "Established")["status"] == "True" {
            return definition;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is not established");
}

fn condition(definition: &Value, type_: &str) -> Value {
    let mut all = definition["status"]["conditions"].as_array().into_iter().flatten();
    all.find(|own| own["type"] == type_).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_loose_schema_is_taken_and_told_of() {
    let api = Api::open().await;
    let (code, made) = api.post(OLD, &loose()).await;
    assert_eq!(
        (code, &made["spec"]["preserveUnknownFields"]),
        (201, &json!(true)),
        "{made}"
    );
    let shown = established(&api, "cars.example.org").await;
    assert_eq!(shown["spec"]["preserveUnknownFields"], true);
    assert_eq!(
        shown["spec"]["versions"][0]["additionalPrinterColumns"][0]["jsonPath"],
        ".spec.color"
    );
    let said = condition(&shown, "NonStructuralSchema");
    let at = "spec.versions[0].schema.openAPIV3Schema";
    let causes = [
        "spec.preserveUnknownFields: Invalid value: true: must be false".to_string(),
        format!("{at}.properties[spec].properties[color].type"),
    ];
    assert_eq!(
        (&said["status"], &said["reason"]),
        (&json!("True"), &json!("Violations")),
        "{said}"
    );
    let message = said["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("[{}, ", causes[0])), "{message}");
    for path in [format!("{at}.properties[spec].type"), format!("{at}.type")] {
        assert!(
            message.contains(&format!("{path}: Required value: must not be empty")),
            "{message}"
        );
    }
    assert!(!message.contains(&causes[1]), "{message}");

    // Clients are told of no schema.
    let (_, document) = api.get("/openapi/v3/apis/example.org/v1").await;
    assert_eq!(
        document["components"]["schemas"]["org.example.v1.Car"]["properties"],
        Value::Null
    );
}

#[tokio::test]
async fn objects_of_a_loose_schema_are_checked_and_kept_as_they_are() {
    let api = Api::open().await;
    assert_eq!(api.post(OLD, &loose()).await.0, 201);
    established(&api, "cars.example.org").await;
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"},
        "spec": {"color": "red", "odd": {"x": 1}}, "top": [1]});
    let (code, made) = api.post(&format!("{CARS}?fieldValidation=Strict"), &car).await;
    assert_eq!(
        (code, &made["spec"], &made["top"]),
        (201, &car["spec"], &car["top"]),
        "{made}"
    );
    let green = json!({"spec": {"color": "green", "n": 0}});
    let (code, refused) = api.patch(&format!("{CARS}/a"), MERGE, &green).await;
    let fields: Vec<&Value> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["field"])
        .collect();
    assert_eq!(
        (code, fields),
        (422, vec![&json!("spec.color"), &json!("spec.n")]),
        "{refused}"
    );
    // Lists of what nobody declared are applied as a whole.
    let apply = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"color": "red"}, "more": {"l": [1, 2]}});
    let path = format!("{CARS}/a?fieldManager=one&force=true");
    let (code, applied) = api.patch(&path, "application/apply-patch+yaml", &apply).await;
    assert_eq!(
        (code, &applied["more"], &applied["top"]),
        (200, &apply["more"], &car["top"]),
        "{applied}"
    );
}

#[tokio::test]
async fn a_definition_becomes_structural_and_its_objects_are_pruned() {
    let api = Api::open().await;
    assert_eq!(api.post(OLD, &loose()).await.0, 201);
    established(&api, "cars.example.org").await;
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"color": "red", "odd": 1}});
    assert_eq!(api.post(CARS, &car).await.0, 201);
    // In v1 it may be changed, and stay as it is.
    let path = format!("{NOW}/cars.example.org");
    let (code, _) = api
        .patch(&path, MERGE, &json!({"metadata": {"labels": {"a": "b"}}}))
        .await;
    assert_eq!(code, 200);
    let (code, refused) = api
        .patch(&path, MERGE, &json!({"spec": {"preserveUnknownFields": false}}))
        .await;
    assert_eq!(code, 422, "{refused}");
    let text = json!({"type": "string"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "color": text, "n": {"type": "integer", "default": 2}}}}}});
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": schema}]);
    let change = json!({"spec": {"preserveUnknownFields": false, "versions": versions}});
    let (code, changed) = api.patch(&path, MERGE, &change).await;
    assert_eq!(code, 200, "{changed}");
    let pruned = json!({"color": "red", "n": 2});
    for _ in 0..500 {
        let (_, shown) = api.get(&path).await;
        if api.get(&format!("{CARS}/a")).await.1["spec"] == pruned && condition(&shown, "NonStructuralSchema").is_null()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} {}", api.get(&format!("{CARS}/a")).await.1, api.get(&path).await.1);
}

#[tokio::test]
async fn a_definition_without_a_schema_serves_anything() {
    let api = Api::open().await;
    assert_eq!(api.post(OLD, &definition("cars", "Car")).await.0, 201);
    let shown = established(&api, "cars.example.org").await;
    assert_eq!(
        shown["spec"]["versions"],
        json!([{"name": "v1", "served": true, "storage": true}])
    );
    let message = "spec.preserveUnknownFields: Invalid value: true: must be false";
    assert_eq!(condition(&shown, "NonStructuralSchema")["message"], message);
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": [1, {"a": null}], "status": {"x": 1}});
    let (code, made) = api.post(CARS, &car).await;
    assert_eq!(
        (code, &made["spec"], &made["status"]),
        (201, &car["spec"], &car["status"]),
        "{made}"
    );
    let apply =
        json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "b"}, "spec": {"l": [{"a": 1}]}});
    let path = format!("{CARS}/b?fieldManager=one");
    let (code, applied) = api.patch(&path, "application/apply-patch+yaml", &apply).await;
    assert_eq!((code, &applied["spec"]), (201, &apply["spec"]), "{applied}");
    // As v1 stands, no new one is made so.
    let mut fresh = shown;
    fresh["metadata"] = json!({"name": "vans.example.org"});
    fresh["spec"]["names"] = json!({"plural": "vans", "kind": "Van"});
    let (code, refused) = api.post(NOW, &fresh).await;
    let fields: Vec<&Value> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["field"])
        .collect();
    let expected = [
        json!("spec.versions[0].schema.openAPIV3Schema"),
        json!("spec.preserveUnknownFields"),
    ];
    assert_eq!((code, fields), (422, expected.iter().collect()), "{refused}");
}

/// What v1.21 refused of them.
#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let api = Api::open().await;
    let refuses = async |change: Value, field: &str, why: &str| {
        let mut definition = loose();
        json_patch(&mut definition["spec"], change);
        let (code, refused) = api.post(OLD, &definition).await;
        let causes = refused["details"]["causes"].as_array().cloned().unwrap_or_default();
        let told = causes
            .iter()
            .any(|own| own["field"] == field && own["message"].as_str().unwrap().contains(why));
        assert!(code == 422 && told, "{field}: {refused}");
    };
    let object = json!({"openAPIV3Schema": {"type": "object"}});
    let version = json!([{"name": "v1", "served": true, "storage": true, "schema": object}]);
    refuses(
        json!({"versions": version}),
        "spec.validation",
        "top-level and per-version schemas are mutually exclusive",
    )
    .await;
    let other = json!([{"name": "v2", "served": true, "storage": true}]);
    refuses(
        json!({"versions": other}),
        "spec.version",
        "must match the first version in spec.versions",
    )
    .await;
    let default = json!({"openAPIV3Schema": {"properties": {"a": {"type": "string", "default": "x"}}}});
    let why = "must not be set (cannot set default values in apiextensions.k8s.io/v1beta1 CRDs";
    refuses(
        json!({"validation": default}),
        "spec.validation.openAPIV3Schema.properties[a].default",
        why,
    )
    .await;
    let pruned = "spec.validation.openAPIV3Schema.type";
    refuses(
        json!({"preserveUnknownFields": false}),
        pruned,
        "must not be empty at the root",
    )
    .await;
    let webhook = json!({"strategy": "Webhook", "conversionReviewVersions": ["v1beta1"],
        "webhookClientConfig": {"url": "https://example.org/"}});
    let why = "must be None if spec.preserveUnknownFields is true";
    refuses(json!({"conversion": webhook}), "spec.conversion.strategy", why).await;
    let array = json!({"openAPIV3Schema": {"properties": {"a": {"items": [{"type": "string"}]}}}});
    let items = "spec.validation.openAPIV3Schema.properties[a].items";
    refuses(
        json!({"validation": array}),
        items,
        "items must be a schema object and not an array",
    )
    .await;
}

/// Generated schemas begin with the draft that they are written in.
#[tokio::test]
async fn a_schema_that_names_its_draft_is_checked_all_the_same() {
    let api = Api::open().await;
    let mut drafted = definition("drafts", "Draft");
    drafted["spec"]["validation"] = json!({"openAPIV3Schema": {
        "$schema": "http://json-schema.org/draft-04/schema#", "properties": {"n": {"type": "integer"}}}});
    let (code, made) = api.post(OLD, &drafted).await;
    assert_eq!(code, 201, "{made}");
    established(&api, "drafts.example.org").await;
    let draft = |n: Value| json!({"apiVersion": "example.org/v1", "kind": "Draft", "metadata": {"name": "a"}, "n": n});
    let path = "/apis/example.org/v1/namespaces/default/drafts";
    assert_eq!(api.post(path, &draft(json!("one"))).await.0, 422);
    assert_eq!(api.post(path, &draft(json!(1))).await.0, 201);
}

fn json_patch(spec: &mut Value, change: Value) {
    let (Value::Object(spec), Value::Object(change)) = (spec, change) else {
        return;
    };
    spec.extend(change);
}

/// `integer` and its like are the types there are: of any other nothing is, and nobody is told of one by an object that passes.
#[tokio::test]
async fn nothing_is_of_a_type_that_is_none() {
    let api = Api::open().await;
    let mut definition = loose();
    let spec = json!({"properties": {"any": {"type": "any"}, "int": {"type": "int"}, "nothing": {"type": ""}}});
    definition["spec"]["validation"] = json!({"openAPIV3Schema": {"properties": {"spec": spec}}});
    let (code, made) = api.post(OLD, &definition).await;
    assert_eq!(code, 201, "{made}");
    established(&api, "cars.example.org").await;
    let car = |spec: &Value| json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"generateName": "a"}, "spec": spec});
    let (code, refused) = api
        .post(CARS, &car(&json!({"any": {}, "int": 1, "nothing": "x"})))
        .await;
    let causes: Vec<&Value> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["message"])
        .collect();
    let expected = [
        json!("Invalid value: \"object\": spec.any in body must be of type any: \"object\""),
        json!("Invalid value: \"integer\": spec.int in body must be of type int: \"integer\""),
    ];
    assert_eq!((code, causes), (422, expected.iter().collect()), "{refused}");
    assert_eq!(api.post(CARS, &car(&json!({"nothing": 1}))).await.0, 201);
}

/// What is wrong with a schema is told in a condition, which is stored with the definition.
#[tokio::test]
async fn a_schema_with_very_much_wrong_is_served() {
    let api = Api::open().await;
    let mut definition = loose();
    let fields: serde_json::Map<String, Value> = (0..40_000)
        .map(|at| (format!("p{at}"), json!({"minimum": 1})))
        .collect();
    definition["spec"]["validation"] = json!({"openAPIV3Schema": {"properties": {"spec": {"properties": fields}}}});
    let (code, made) = api.post(OLD, &definition).await;
    assert_eq!(code, 201, "{:.400}", made.to_string());
    let shown = established(&api, "cars.example.org").await;
    let message = condition(&shown, "NonStructuralSchema")["message"].to_string();
    assert!((1000..100_000).contains(&message.len()), "{}", message.len());
}

#[tokio::test]
async fn what_all_versions_say_alike_is_said_above_them() {
    let api = Api::open().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string"}}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema, "subresources": {"status": {}}});
    let mut alike = definition("cars", "Car");
    alike["spec"]["versions"] = json!([version("v1", true), version("v2", false)]);
    let (code, refused) = api.post(OLD, &alike).await;
    assert_eq!(code, 422, "{refused}");
    for (what, above) in [("schemas", "validation"), ("subresources", "subresources")] {
        let why = format!(
            "per-version {what} may not all be set to identical values (top-level {above} should be used instead)"
        );
        assert!(refused["message"].as_str().unwrap().contains(&why), "{refused}");
    }
    // Where they differ they are the versions' own; and v1 knows no other place.
    alike["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["b"] = json!({"type": "string"});
    alike["spec"]["versions"][1]["subresources"] = json!({});
    let (code, made) = api.post(OLD, &alike).await;
    assert_eq!(code, 201, "{made}");
    let mut now = definition("bikes", "Bike");
    now["apiVersion"] = "apiextensions.k8s.io/v1".into();
    now["spec"].as_object_mut().unwrap().remove("version");
    now["spec"]["scope"] = "Namespaced".into();
    now["spec"]["versions"] = json!([version("v1", true)]);
    let (code, made) = api.post(NOW, &now).await;
    assert_eq!(code, 201, "{made}");
    // As the old version shows it, it is taken again.
    let name = "bikes.example.org";
    established(&api, name).await;
    let (_, mut shown) = api.get(&format!("{OLD}/{name}")).await;
    shown["metadata"]["labels"] = json!({"a": "b"});
    let (code, put) = api.put(&format!("{OLD}/{name}"), &shown).await;
    assert_eq!(code, 200, "{put}");
}

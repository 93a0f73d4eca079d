//! A custom kind through stock kubectl: explained, found by its short name and in its categories, scaled, and brought from
//! one storage version to the next, whose predecessor then goes.

use crate::kubectl;

const MANIFEST: &str = include_str!("definitions.yaml");

/// A change of the definition's version `n`, and the time until it is served.
macro_rules! change {
    ($patch:literal) => {
        concat!(
            "kubectl patch crd gears.example.org --type=json -p '",
            $patch,
            "' && sleep 1"
        )
    };
}

const LINES: &[(&str, &str)] = &[
    (
        "kubectl apply -f crd.yaml && kubectl wait --for=condition=Established crd/gears.example.org",
        r"created\n.*condition met$",
    ),
    (
        "kubectl apply -f crd.yaml; kubectl diff -f crd.yaml; echo $?",
        r"unchanged\n0$",
    ),
    (
        "kubectl explain gears",
        r"(?s)KIND:\s+Gear.*VERSION:\s+v2\n.*A gear turns others\..*apiVersion\s+<string>\s+APIVersion defines.*metadata\s+<ObjectMeta>\s+Standard object's metadata.*spec\s+<Object>\s+What is wanted of it\.",
    ),
    (
        "kubectl explain gr.spec.teeth",
        r"(?s)FIELD:\s+teeth\s+<integer>.*How many it has\.",
    ),
    (
        "kubectl explain gears --recursive",
        r"(?s)managedFields\s+<\[\]ManagedFieldsEntry>.*spec\s+<Object>\s+shafts\s+<\[\]Object>\s+length\s+<string>\s+teeth\s+<integer>",
    ),
    (
        "kubectl explain gear.spec.nothing 2>&1; echo $?",
        r#"field "nothing" does not exist\n1$"#,
    ),
    (
        "for n in a b; do printf 'apiVersion: example.org/v1\\nkind: Gear\\nmetadata: {name: %s}\\nspec: {teeth: 5}\\n' $n | kubectl create -f -; done",
        r"gear.example.org/a created\ngear.example.org/b created$",
    ),
    ("kubectl get gr", r"^NAME\s+TEETH\na\s+5\nb\s+5$"),
    ("kubectl get gear a -o name", r"^gear.example.org/a$"),
    (
        "kubectl get parts -o name; kubectl get all -o name | grep gear",
        r"^gear.example.org/a\ngear.example.org/b\ngear.example.org/a\ngear.example.org/b$",
    ),
    (
        "kubectl scale gear a --replicas=7 && kubectl get gr a -o jsonpath='{.spec.teeth}'",
        r"gear.example.org/a scaled\n7$",
    ),
    (
        "kubectl scale gear a --replicas=0 2>&1",
        r"spec.teeth: Invalid value: 0: spec.teeth in body should be greater than or equal to 1",
    ),
    (
        change!(
            r#"[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]"#
        ),
        "patched",
    ),
    (
        "kubectl get crd gears.example.org -o jsonpath='{.status.storedVersions}'",
        r#"^\["v1","v2"\]$"#,
    ),
    // Each object is written again as it is, and what may be stored is said then.
    (
        "kubectl get gears -o json | kubectl replace -f -",
        r"gear.example.org/a replaced\ngear.example.org/b replaced$",
    ),
    (
        "kubectl patch crd gears.example.org --subresource=status --type=merge -p '{\"status\":{\"storedVersions\":[\"v2\"]}}'",
        "patched",
    ),
    (
        "kubectl delete gears.v1.example.org b && kubectl get gears.v1.example.org -o jsonpath='{.items[*].apiVersion}'",
        r"deleted.*\nexample.org/v1$",
    ),
    (
        change!(r#"[{"op":"replace","path":"/spec/versions/0/served","value":false}]"#),
        "patched",
    ),
    (
        "kubectl get gears.v1.example.org 2>&1",
        r"(the server doesn't have a resource type|could not find the requested resource)",
    ),
    (change!(r#"[{"op":"remove","path":"/spec/versions/0"}]"#), "patched"),
    (
        "kubectl get gears -o jsonpath='{.items[*].apiVersion} {.items[*].metadata.name} {.items[*].spec.teeth}'",
        r"^example.org/v2 a 7$",
    ),
    (
        "kubectl delete -f crd.yaml && kubectl get gears 2>&1",
        r"deleted\n.*could not find the requested resource",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_kind_by_stock_kubectl() {
    kubectl::run("1.35", ("crd.yaml", MANIFEST), LINES).await;
}

//! The interpreter, by small tables.

use serde_json::json;

use super::*;

fn problems(rules: Rules, value: &Value) -> Vec<String> {
    let mut errors = Errors::new();
    check(rules, value, &Scope::of(value), &Path::new("spec"), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

const EITHER: Union = Union {
    members: &[member("a", &[required("x")]), member("b", &[]), member("c", &[])],
    many: "only one",
    none: "one of them",
};
const ONE: Rules = &[union(&EITHER)];
const ITEM: Rules = &[name("name", names::dns_label)];
const RULES: Rules = &[
    one_of("kind", &["A", "B"]),
    one_of_if_set("mode", &["A", "B"]),
    non_negative("count"),
    positive("size"),
    range("port", 1, 9),
    each_unique("items", "name", &[ITEM, &[]]),
    structure("inner", &[required_saying("x", "why")]),
    object("outer", &[required("x")]),
];

#[test]
fn checks_run_in_their_order() {
    let good = json!({"kind": "A", "items": [{"name": "a"}], "inner": {"x": 1}});
    assert_eq!(problems(RULES, &good), Vec::<String>::new());
    let bad = json!({"kind": "", "mode": "C", "count": -1, "size": 0, "port": 10,
        "items": [{"name": "a"}, {"name": "a"}, {}], "outer": {}});
    assert_eq!(
        problems(RULES, &bad),
        [
            "spec.kind: Required value",
            "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
            "spec.count: Invalid value: -1: must be greater than or equal to 0",
            "spec.size: Invalid value: 0: must be greater than zero",
            "spec.port: Invalid value: 10: must be between 1 and 9, inclusive",
            "spec.items[1].name: Duplicate value: \"a\"",
            "spec.items[2].name: Required value",
            "spec.inner.x: Required value: why",
            "spec.outer.x: Required value",
        ]
    );
}

#[test]
fn of_a_union_the_first_counts() {
    let of = |value: Value| problems(ONE, &value);
    assert_eq!(of(json!({"name": "n"})), ["spec: Required value: one of them"]);
    assert_eq!(of(json!({"name": "n", "a": {}})), ["spec.a.x: Required value"]);
    assert_eq!(of(json!({"b": {}, "a": {"x": 1}})), ["spec.b: Forbidden: only one"]);
    assert_eq!(of(json!({"b": {}, "a": null})), Vec::<String>::new());
    assert_eq!(
        of(json!({"name": "n", "c": {}, "b": {}, "a": {"x": 1}})),
        ["spec.b: Forbidden: only one", "spec.c: Forbidden: only one"]
    );
}

const BY_KIND: Cases = Cases {
    of: &[(&["A", "B"], &[required("x")])],
    otherwise: &[required("y")],
};
const PARTS: Rules = &[
    set("modes", &["A", "B"]),
    keys("map", names::dns_label),
    entries("map", &[present("a"), required("b")]),
    empty_saying("none", "not here"),
    by("kind", &BY_KIND),
    without("none", &[required("z")]),
    at_most("few", 1, &[required("w")]),
    each_unique("items", "name", &[&[], ITEM]),
];

#[test]
fn maps_cases_and_bounds() {
    let good = json!({"kind": "B", "x": 1, "z": 1, "w": 1, "few": [1], "map": {"a": "", "b": "1"}, "modes": ["A"]});
    assert_eq!(problems(PARTS, &good), Vec::<String>::new());
    let bad = json!({"modes": ["A", "C", "A"], "map": {"b": "", "?": 1}, "none": [1], "few": [1, 2],
        "items": [{"name": "?"}, {"name": "?"}]});
    let label = names::dns_label("?").remove(0);
    assert_eq!(
        problems(PARTS, &bad),
        [
            "spec.modes[1]: Unsupported value: \"C\": supported values: \"A\", \"B\"".to_string(),
            "spec.modes[2]: Duplicate value: \"A\"".to_string(),
            format!("spec.map[?]: Invalid value: \"?\": {label}"),
            "spec.map[a]: Required value".to_string(),
            "spec.map[b]: Required value".to_string(),
            "spec.none: Forbidden: not here".to_string(),
            "spec.y: Required value".to_string(),
            "spec.few: Too many: 2: must have at most 1 item".to_string(),
            format!("spec.items[0].name: Invalid value: \"?\": {label}"),
            "spec.items[1].name: Duplicate value: \"?\"".to_string(),
            format!("spec.items[1].name: Invalid value: \"?\": {label}"),
        ]
    );
    let fields = problems(PARTS, &json!({"kind": "A", "map": null}));
    assert_eq!(
        fields,
        ["map[a]", "map[b]", "x", "z", "w"].map(|field| format!("spec.{field}: Required value"))
    );
}

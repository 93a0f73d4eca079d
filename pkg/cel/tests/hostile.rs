//! Expressions and values that are made to cost much more than they say. Where only time tells, they took minutes.

use std::time::{Duration, Instant};

use mk8s_cel::{Answer, Binding, Decl, Env, Evaluation, Failure};
use serde_json::{Value, json};

/// Much more than any of them takes, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

fn evaluated(expression: &str, schema: &Value, new: &Value, old: &Value, limit: u64) -> Evaluation {
    let decl = Decl::new(schema, false);
    let env = Env::default()
        .with_declared("self", "selfType", &decl, false)
        .with_declared("oldSelf", "selfType", &decl, false);
    let program = env.compile(expression).expect(expression).program().expect(expression);
    let begun = Instant::now();
    let evaluation = program.evaluate(&[Binding::Declared(new, &decl), Binding::Declared(old, &decl)], limit);
    assert!(begun.elapsed() < SOON, "{:?} for {expression:.80}", begun.elapsed());
    evaluation
}

fn is_true(expression: &str) -> bool {
    let nothing = json!({"type": "object"});
    let outcome = evaluated(expression, &nothing, &json!({}), &json!({}), 10_000_000).outcome;
    outcome == Ok(Answer::Bool(true))
}

/// Those beyond what there is room for were negative, or next to nothing.
#[test]
fn quantities_without_end_are_large() {
    for large in [
        "1000e27",
        "999999999999999999e27",
        "1e2147483647",
        "9e9",
        "1e37",
        "99999999999999999999999e30",
    ] {
        assert!(
            is_true(&format!("quantity('10Ei').isLessThan(quantity('{large}'))")) || large == "9e9",
            "{large}"
        );
        assert!(
            is_true(&format!("quantity('-{large}').isLessThan(quantity('1'))")),
            "{large}"
        );
        assert!(
            is_true(&format!("quantity('1').isLessThan(quantity('{large}'))")),
            "{large}"
        );
        assert!(
            is_true(&format!(
                "quantity('{large}').add(quantity('{large}')).isGreaterThan(quantity('0'))"
            )),
            "{large}"
        );
    }
    assert!(is_true("quantity('1e-2147483648').isLessThan(quantity('1'))"));
    assert!(is_true("quantity('0.5e-2147483648').isLessThan(quantity('1'))"));
    let day = "timestamp('2026-01-02T03:04:05Z')";
    assert!(is_true(&format!("{day}.getHours('-1:-2147483648') == 3")));
    assert!(!is_true(
        "duration('47261439850130342147690917' + '.9h') == duration('1s')"
    ));
}

/// `self == oldSelf`, as most rules of what never changes say, compared each item with each.
#[test]
fn lists_without_order_are_compared_in_proportion() {
    let list = |list_type: &str, items: Value| {
        json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": list_type,
            "x-kubernetes-list-map-keys": ["k", "n"], "items": items}}})
    };
    let item = json!({"type": "object", "properties": {"k": {"type": "string"}, "n": {"type": "integer"}, "v": {"type": "string"}}});
    let lists = [
        (list("set", json!({"type": "string"})), json!("x")),
        (list("set", json!({"type": "integer"})), json!(-1)),
        (list("set", item.clone()), json!({"k": "x"})),
        (list("map", item), json!({"k": "x", "v": "w"})),
        (
            list("set", json!({"type": "string", "format": "date-time"})),
            json!("2001-01-01T00:00:00Z"),
        ),
    ];
    for (at, (schema, other)) in lists.iter().enumerate() {
        let make = |number: usize| match at {
            0 => json!(format!("item {number}")),
            1 => json!(number),
            4 => json!(format!("2026-01-01T00:00:00.{number:09}Z")),
            _ => json!({"k": format!("item {number}"), "n": number, "v": "v"}),
        };
        let many: Vec<Value> = (0..50_000).map(make).collect();
        let (mut back, mut changed) = (many.clone(), many.clone());
        back.reverse();
        changed[25_000] = other.clone();
        let object = |list: &[Value]| json!({"l": list});
        let same = |old: &[Value]| {
            let expression = "self.l == oldSelf.l";
            let evaluation = evaluated(expression, schema, &object(&many), &object(old), 1_000_000);
            evaluation.outcome == Ok(Answer::Bool(true))
        };
        assert!(same(&many) && same(&back) && !same(&changed), "list {at}");
        let together = "(self.l + oldSelf.l).size() == 50001";
        let evaluation = evaluated(together, schema, &object(&many), &object(&changed), 1_000_000);
        assert_eq!(evaluation.outcome, Ok(Answer::Bool(true)), "list {at}");
    }
}

/// Items that only comparing tells apart: those of which no schema says what they have.
#[test]
fn what_can_only_be_compared_is_not_compared_without_end() {
    let item = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"k": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "set", "items": item}}});
    let of = |count: usize, expression: &str| {
        let many: Vec<Value> = (0..count).map(|n| json!({"k": "x", "n": n})).collect();
        let mut back = many.clone();
        back.reverse();
        evaluated(expression, &schema, &json!({"l": many}), &json!({"l": back}), 1_000_000).outcome
    };
    for expression in ["self.l == oldSelf.l", "self.l != oldSelf.l || true"] {
        assert_eq!(of(500, expression), Ok(Answer::Bool(true)), "{expression}");
        assert_eq!(of(50_000, expression), Err(Failure::Cost), "{expression}");
    }
}

/// What costs too much is refused before it is done, and what costs little may not make or take much.
#[test]
fn evaluation_is_bounded_by_more_than_its_cost() {
    let schema = json!({"type": "object", "properties": {"s": {"type": "string"},
        "l": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}}});
    let of = |expression: &str| {
        let items: Vec<Value> = (0..100_000).map(|n| json!({"n": n})).collect();
        let value = json!({"s": format!("{}b", "a".repeat(1 << 20)), "l": items});
        evaluated(expression, &schema, &value, &value, 10_000_000).outcome
    };
    for expression in [
        // A thousand lists of a million items, at a cost of half a million.
        "[lists.range(400000)].map(b, lists.range(1000).map(i, b + b)).size() == 1",
        "lists.range(200).map(i, 'x'.replace('x', self.s)).size() == 1",
        "lists.range(200).map(i, {'k': self.s + 'x'}).size() == 1",
        "self.l.distinct().size() == 1",
        "sets.contains(self.l, self.l)",
        // Each looks through a megabyte, and costs one.
        "lists.range(400000).all(i, self.s.charAt(1000000) == 'a')",
    ] {
        assert_eq!(of(expression), Err(Failure::Cost), "{expression}");
    }
    assert_eq!(
        of("self.s.lastIndexOf(self.s.substring(524288)) == 524288"),
        Ok(Answer::Bool(true))
    );
    assert_eq!(
        of("'aaaé'.lastIndexOf('aa') == 1 && 'éaaé'.lastIndexOf('é', 2) == 0"),
        Ok(Answer::Bool(true))
    );
    assert_eq!(
        of("'aaa'.lastIndexOf('a', 1) == 1 && 'abab'.lastIndexOf('ab', 1) == 0"),
        Ok(Answer::Bool(true))
    );
    let names =
        "url('https://a/?' + lists.range(50000).map(i, 'n' + string(i) + '=1').join('&')).getQuery().size() == 50000";
    assert_eq!(of(names), Ok(Answer::Bool(true)));
}

//! What a stranger's text must not do: panic, overflow the stack, or take long. The recorded expressions and seeded mutations
//! of them, MK8S_FUZZ_SECONDS long (2 where it is not set); the seed is the same each time.

use std::time::{Duration, Instant};

use mk8s_cel::{Binding, Decl, Env};
use serde_json::{Value, json};

/// What an expression of a few kilobytes may take at most, on a slow machine without optimization.
const LONGEST: Duration = Duration::from_secs(5);

/// xorshift64: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

const TOKENS: [&str; 28] = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    "?",
    ":",
    "!",
    "-",
    "+",
    "&&",
    "||",
    "==",
    "in",
    "self",
    "oldSelf",
    "'",
    "\\",
    ".map(x, ",
    ".all(x, ",
    "optional.of(",
    ".optMap(y, ",
    "9223372036854775807",
    "\u{7f}",
    "日",
];

/// Bytes as an expression: it is compiled and, if it can be, evaluated.
fn expression(data: &[u8], env: &Env, value: &Value, decl: &Decl) {
    let text = String::from_utf8_lossy(data);
    let started = Instant::now();
    if let Ok(compiled) = env.compile(&text)
        && let Ok(program) = compiled.program()
    {
        let binding = Binding::Declared(value, decl);
        let evaluation = program.evaluate(&[binding, binding], 100_000);
        drop(evaluation.outcome);
    }
    let took = started.elapsed();
    assert!(took < LONGEST, "{took:?} for {text}");
}

fn mutated(random: &mut Random, lines: &[Vec<u8>]) -> Vec<u8> {
    let mut data = lines[random.below(lines.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        match random.below(4) {
            0 => data.truncate(at),
            1 => drop(data.splice(at..at, TOKENS[random.below(TOKENS.len())].bytes())),
            2 => {
                let other = &lines[random.below(lines.len())];
                let (from, to) = (random.below(other.len() + 1), random.below(other.len() + 1));
                drop(data.splice(at..at, other[from.min(to)..from.max(to)].iter().copied()));
            }
            _ => {
                let end = (at + random.below(8)).min(data.len());
                drop(data.drain(at..end));
            }
        }
    }
    data.truncate(8_192);
    data
}

#[test]
fn no_text_panics_or_takes_long() {
    let seconds = std::env::var("MK8S_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": "array", "items": {"type": "string"}},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}},
    }});
    let value = json!({"a": 1, "s": "text", "l": ["a", "b"], "m": {"k": 2}});
    let decl = Decl::new(&schema, false);
    let env = Env::default()
        .with_declared("self", "selfType", &decl, false)
        .with_declared("oldSelf", "selfType", &decl, false);
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line is an object");
        line["expr"].as_str().unwrap_or_default().as_bytes().to_vec()
    };
    let lines: Vec<Vec<u8>> = include_str!("expressions.jsonl").lines().map(line).collect();
    let (mut random, until) = (
        Random(0x9e37_79b9_7f4a_7c15),
        Instant::now() + Duration::from_secs(seconds),
    );
    while Instant::now() < until {
        expression(&mutated(&mut random, &lines), &env, &value, &decl);
    }
}

#[test]
fn what_is_deep_or_grows_ends() {
    let env = Env::default();
    let nest = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let deep = [
        nest("[1].map(x, ", "1", ")", 99),
        nest("[1].all(x, ", "true", ")", 99),
        nest("[1].exists(x, [1].exists_one(y, ", "true", "))", 49),
        nest("{1: ", "1", "}", 99),
        nest("(true ? ", "1", " : 2)", 99),
        nest("!(", "true", ")", 99),
        nest("dyn(", "1", ")", 99),
        format!("self{}", ".a".repeat(249)),
        format!("[1]{}", ".map(x, x)".repeat(60)),
        format!("1{}", " + 1".repeat(249)),
        format!("optional.of(1){}", ".optMap(x, x + 1)".repeat(60)),
        nest("optional.of([1, 1]).optMap(a, a + a).optMap(a, ", "a", ")", 30),
        nest("optional.of(1).optMap(a, {a: a}).optMap(a, ", "[a, a]", ")", 12),
        format!("lists.range(1000){}", ".map(x, lists.range(1000))".repeat(20)),
        "lists.range(1000000000000)".into(),
        "'a'.replace('', lists.range(100000).map(x, 'aaaaaaaaaa').join())".into(),
        "'%.10000f'.format([1.5])".into(),
        format!("'{}'.matches('(a+)+$')", "a".repeat(1_000)),
        "'a'.matches('((a{100}){100}){100}')".into(),
        format!("[{}]", "1,".repeat(40_000)),
        format!("'{}'", "x".repeat(100_001)),
        nest("[", "", "]", 20_000),
        format!("{}1", "-".repeat(50_000)),
    ];
    for expression in &deep {
        let started = Instant::now();
        if let Ok(compiled) = env.compile(expression)
            && let Ok(program) = compiled.program()
        {
            drop(program.evaluate(&[], 1_000_000));
        }
        let took = started.elapsed();
        assert!(
            took < LONGEST,
            "{took:?} for {}",
            expression.chars().take(80).collect::<String>()
        );
    }
}

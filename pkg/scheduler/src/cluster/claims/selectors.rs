//! Expressions that select devices, compiled when they are first asked, and what each said of each device: devices do not change under a pod's eyes, and
//! the pods of one set all ask the same.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, ResourceSlice};
use mk8s_cel::Program;
use serde_json::{Map, Value, json};

/// A device of a slice. When the slice changes, its devices get others.
pub type Slot = u32;

/// So many expressions are kept, and those that the decision at hand needs.
const MOST: usize = 64;

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

/// All that are known.
#[derive(Debug, Default)]
pub struct Selectors {
    known: HashMap<Box<str>, Selector>,
    slots: Slots,
    /// Counts decisions.
    now: u64,
}

#[derive(Debug, Default)]
struct Slots {
    free: Vec<Slot>,
    all: u32,
}

/// Why an expression says nothing of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It is none.
    #[error("CEL compile error: {0}")]
    Compile(String),
    /// It fails.
    #[error("CEL runtime error: {0}")]
    Run(String),
}

/// An expression.
#[derive(Debug)]
pub struct Selector {
    expression: Box<str>,
    /// Empty: it has not been asked yet. A pod may name thousands, of which the first settles all.
    used: OnceLock<Used>,
    /// How many places for devices there are.
    slots: usize,
    /// The last decision that asked for it.
    asked: u64,
}

#[derive(Debug)]
struct Used {
    program: Result<Program, SelectorError>,
    /// By slot.
    said: Vec<AtomicU8>,
}

impl Used {
    fn grow(&mut self, slots: usize) {
        self.said.resize_with(slots, || AtomicU8::new(UNKNOWN));
    }
}

impl Selectors {
    /// Decides anew for a pod with these expressions.
    pub fn prepare<'e>(&mut self, expressions: impl Iterator<Item = &'e str>) {
        self.now += 1;
        for expression in expressions {
            if !self.known.contains_key(expression) {
                self.known.insert(expression.into(), Selector::new(expression));
            }
            if let Some(selector) = self.known.get_mut(expression) {
                selector.asked = self.now;
                selector.slots = self.slots.all as usize;
                if let Some(used) = selector.used.get_mut() {
                    used.grow(selector.slots);
                }
            }
        }
        self.make_room();
    }

    /// One of those that were prepared.
    pub fn get(&self, expression: &str) -> Option<&Selector> {
        self.known.get(expression)
    }

    /// Lets the oldest go that nobody asks for now.
    fn make_room(&mut self) {
        let surplus = self.known.len().saturating_sub(MOST);
        if surplus == 0 {
            return;
        }
        let others = self.known.iter().filter(|(_, selector)| selector.asked != self.now);
        let mut others: Vec<_> = others
            .map(|(expression, selector)| (selector.asked, expression.clone()))
            .collect();
        others.sort_unstable();
        for (_, expression) in others.iter().take(surplus) {
            self.known.remove(expression);
        }
        self.known.shrink_to(2 * MOST);
    }

    /// A place for a device.
    pub fn slot(&mut self) -> Slot {
        self.slots.free.pop().unwrap_or_else(|| {
            self.slots.all += 1;
            self.slots.all - 1
        })
    }

    /// The device is gone, or is another one by now.
    pub fn forget(&mut self, slot: Slot) {
        for selector in self.known.values() {
            let said = selector.used.get().and_then(|used| used.said.get(slot as usize));
            if let Some(said) = said {
                said.store(UNKNOWN, Ordering::Relaxed);
            }
        }
        self.slots.free.push(slot);
    }
}

impl Selector {
    fn new(expression: &str) -> Self {
        Selector {
            expression: expression.into(),
            used: OnceLock::new(),
            slots: 0,
            asked: 0,
        }
    }

    /// What it said of the device in `slot`; none: it has not been asked.
    pub fn said(&self, slot: Slot) -> Option<bool> {
        let said = self.used.get()?.said.get(slot as usize)?;
        match said.load(Ordering::Relaxed) {
            NO => Some(false),
            YES => Some(true),
            _ => None,
        }
    }

    /// Whether it selects the device in `slot`: that may take long.
    pub fn ask(&self, slot: Slot, slice: &ResourceSlice, device: &Device) -> Result<bool, SelectorError> {
        let used = self.used.get_or_init(|| {
            let mut used = Used {
                program: compile(&self.expression),
                said: Vec::new(),
            };
            used.grow(self.slots);
            used
        });
        let program = used.program.as_ref().map_err(Clone::clone)?;
        let selected = mk8s_cel::select(program, &as_json(&slice.spec.driver, device))
            .map_err(|error| SelectorError::Run(error.to_string()))?;
        if let Some(said) = used.said.get(slot as usize) {
            said.store(if selected { YES } else { NO }, Ordering::Relaxed);
        }
        Ok(selected)
    }
}

fn compile(expression: &str) -> Result<Program, SelectorError> {
    let failed = |error: String| SelectorError::Compile(error);
    let compiled = mk8s_cel::device_env()
        .compile(expression)
        .map_err(|error| failed(format!("compilation failed: {error}")))?;
    compiled.selects_devices().map_err(|error| failed(error.to_string()))?;
    compiled
        .program()
        .map_err(|error| failed(format!("program instantiation failed: {error}")))
}

/// The device as expressions know it. What has no domain has its driver's.
fn as_json(driver: &str, device: &Device) -> Value {
    let attributes = device.attributes.iter().flatten();
    let attributes = attributes.map(|(name, attribute)| (name.as_str(), value(attribute)));
    let capacity = device.capacity.iter().flatten();
    let capacity = capacity.map(|(name, capacity)| (name.as_str(), json!(capacity.value.0)));
    json!({"driver": driver, "attributes": by_domain(driver, attributes), "capacity": by_domain(driver, capacity)})
}

fn value(attribute: &DeviceAttribute) -> Value {
    match attribute {
        DeviceAttribute { int: Some(value), .. } => json!({"int": value}),
        DeviceAttribute { bool: Some(value), .. } => json!({"bool": value}),
        DeviceAttribute {
            string: Some(value), ..
        } => json!({"string": value}),
        DeviceAttribute {
            version: Some(value), ..
        } => json!({"version": value}),
        _ => json!({}),
    }
}

fn by_domain<'d>(driver: &'d str, all: impl Iterator<Item = (&'d str, Value)>) -> Value {
    let mut domains = Map::new();
    for (name, value) in all {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        let of_domain = domains
            .entry(domain.to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(of_domain) = of_domain.as_object_mut() {
            of_domain.insert(name.to_owned(), value);
        }
    }
    Value::Object(domains)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn slice(device: &Value) -> ResourceSlice {
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
        serde_json::from_value(json!({"spec": {"driver": "d", "pool": pool, "devices": [device]}})).unwrap()
    }

    fn selects(selectors: &Selectors, expression: &str, slot: Slot, slice: &ResourceSlice) -> Result<bool, String> {
        let device = &slice.spec.devices.as_ref().unwrap()[0];
        let selector = selectors.get(expression).unwrap();
        let selected = selector
            .said(slot)
            .map_or_else(|| selector.ask(slot, slice, device), Ok);
        selected.map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_is_looked_at_by_domain() {
        let (mut selectors, slot) = (Selectors::default(), 0);
        let own = slice(
            &json!({"name": "x", "attributes": {"model": {"string": "m"}, "other/rack": {"int": 3}},
            "capacity": {"memory": {"value": "8Gi"}}}),
        );
        for (expression, expected) in [
            (
                r#"device.attributes["d"].model == "m" && device.attributes["other"].rack == 3"#,
                Ok(true),
            ),
            (
                r#"device.capacity["d"].memory.compareTo(quantity("8Gi")) == 0"#,
                Ok(true),
            ),
            (r#"device.driver == "e""#, Ok(false)),
            (
                r#"device.attributes["d"].rack == "x""#,
                Err("CEL runtime error: no such key: rack"),
            ),
            (
                "1",
                Err("CEL compile error: must evaluate to bool or the unknown type, not int"),
            ),
        ] {
            selectors.prepare([expression].into_iter());
            let said = selects(&selectors, expression, slot, &own);
            assert_eq!(said, expected.map_err(str::to_owned), "{expression}");
        }
    }

    #[test]
    fn what_was_said_is_known_until_the_device_is_another() {
        let mut selectors = Selectors::default();
        let expression = r#"device.attributes["d"].model == "m""#;
        let [own, other] =
            ["m", "n"].map(|model| slice(&json!({"name": "x", "attributes": {"model": {"string": model}}})));
        let slot = selectors.slot();
        selectors.prepare([expression].into_iter());
        assert_eq!(selects(&selectors, expression, slot, &own), Ok(true));
        assert_eq!(selects(&selectors, expression, slot, &other), Ok(true), "remembered");
        selectors.forget(slot);
        assert_eq!(selectors.slot(), slot);
        assert_eq!(selects(&selectors, expression, slot, &other), Ok(false));
    }

    #[test]
    fn only_so_many_expressions_are_kept() {
        let mut selectors = Selectors::default();
        let expression = |number: usize| format!("{number} > 1");
        for number in 0..2 * MOST {
            selectors.prepare([expression(0), expression(number)].iter().map(String::as_str));
        }
        assert_eq!(selectors.known.len(), MOST);
        assert!(selectors.get(&expression(0)).is_some() && selectors.get(&expression(1)).is_none());
        let many: Vec<_> = (0..2 * MOST).map(expression).collect();
        selectors.prepare(many.iter().map(String::as_str));
        assert!(many.iter().all(|own| selectors.get(own).is_some()));
        selectors.prepare(std::iter::once("1 > 0"));
        assert_eq!(selectors.known.len(), MOST);
        assert!(selectors.get("1 > 0").is_some());
    }

    #[test]
    fn an_expression_is_compiled_when_it_is_asked() {
        let mut selectors = Selectors::default();
        let own = slice(&json!({"name": "x"}));
        let slot = selectors.slot();
        selectors.prepare(["true", "false"].into_iter());
        assert_eq!(selects(&selectors, "true", slot, &own), Ok(true));
        let compiled = |expression| selectors.get(expression).unwrap().used.get().is_some();
        assert!(compiled("true") && !compiled("false"));
    }
}

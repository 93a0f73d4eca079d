//! Devices as expressions that select them know them (resource.k8s.io): the driver, and attributes and capacities by domain and name.
//! A domain of which a device has nothing is empty, so that expressions need not ask for it first.

use std::sync::{Arc, LazyLock};

use serde_json::{Map as JsonMap, Value as Json};

use crate::decl::{Decl, Object, What};
use crate::library::quantity::Quantity;
use crate::library::semver::Semver;
use crate::program::{Answer, Binding, Compiled, Invalid, Program};
use crate::value::{Failure, Map, Outcome, Text, Value};
use crate::{Env, Type};

/// What one run may cost, and what an expression may be able to.
pub const MOST_COST: u64 = 1_000_000;

/// Limits of the API.
const LONGEST_DRIVER: u64 = 63;
const LONGEST_ATTRIBUTE: u64 = 64;
const MOST_ENTRIES: u64 = 32;

static DEVICE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let by_domain = |of: What, longest: u64| {
        let named = Decl::of(What::Map(Decl::of(of, longest)), MOST_ENTRIES);
        Decl::of(What::ByDomain(named), MOST_ENTRIES)
    };
    let fields = [
        ("driver", Decl::of(What::String, LONGEST_DRIVER)),
        ("attributes", by_domain(What::Attribute, LONGEST_ATTRIBUTE)),
        ("capacity", by_domain(What::Quantity, 0)),
    ];
    Decl::of(What::Object(Object::structured(fields)), 0)
});

static ENV: LazyLock<Env> = LazyLock::new(|| {
    Env::default()
        .with_bindings()
        .with_declared("device", "kubernetes.DRADevice", &DEVICE, false)
});

static NOTHING: LazyLock<JsonMap<String, Json>> = LazyLock::new(JsonMap::new);

/// What such expressions are compiled in.
pub fn env() -> &'static Env {
    &ENV
}

impl Compiled {
    /// # Errors
    /// It selects nothing: its value is no yes or no.
    pub fn selects_devices(&self) -> Result<(), Invalid> {
        match self.result() {
            Type::Bool | Type::Dyn => Ok(()),
            other => Err(Invalid(format!(
                "must evaluate to bool or the unknown type, not {other}"
            ))),
        }
    }
}

/// Whether a program of [`env`] selects the device: `{driver, attributes: {DOMAIN: {NAME: {TYPE: value}}}, capacity: {DOMAIN: {NAME:
/// quantity}}}`.
///
/// # Errors
/// What it fails with.
pub fn select(program: &Program, device: &Json) -> Result<bool, Failure> {
    match program
        .evaluate(&[Binding::Declared(device, &DEVICE)], MOST_COST)
        .outcome?
    {
        Answer::Bool(selected) => Ok(selected),
        Answer::String(_) => Err(not_bool("string")),
        Answer::Other(value) => Err(not_bool(&value)),
    }
}

fn not_bool(value: &str) -> Failure {
    Failure::new(format!("CEL result of type {value} could not be converted to bool"))
}

pub(crate) fn quantity(json: &Json) -> Outcome<'_> {
    let text = json.as_str().unwrap_or_default();
    Quantity::parse(text).map(Value::Quantity).map_err(Failure::new)
}

pub(crate) fn attribute(json: &Json) -> Outcome<'_> {
    let field = json.as_object().and_then(|object| object.iter().next());
    match field.map(|(of, value)| (of.as_str(), value)) {
        Some(("string", Json::String(text))) => Ok(Value::String(Text::Borrowed(text))),
        Some(("bool", Json::Bool(value))) => Ok(Value::Bool(*value)),
        Some(("int", Json::Number(number))) if number.is_i64() => Ok(Value::Int(number.as_i64().unwrap_or(0))),
        Some(("version", Json::String(text))) => Semver::parse(text)
            .map(|version| Value::Semver(Arc::new(version)))
            .map_err(|why| Failure::new(format!("parse semantic version: {why}"))),
        _ => Err(Failure::new("unsupported attribute value")),
    }
}

/// What is found where a map has nothing.
pub(crate) fn default(decl: &Decl) -> Option<Value<'_>> {
    match &decl.what {
        What::ByDomain(values) => Some(Value::Map(Map::Json(&NOTHING, values))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn selected(expression: &str) -> Result<bool, String> {
        let compiled = ENV.compile(expression).map_err(|error| error.to_string())?;
        compiled.selects_devices().map_err(|error| error.to_string())?;
        assert!(compiled.cost.max <= MOST_COST, "{expression}: {}", compiled.cost.max);
        let attributes = json!({"d": {"model": {"string": "large"}, "bus": {"int": 3}, "shared": {"bool": true}, "v": {"version": "1.10.0"}}});
        let device = json!({"driver": "d", "attributes": attributes, "capacity": {"d": {"memory": "8Gi"}}});
        select(&compiled.program().unwrap(), &device).map_err(|error| error.to_string())
    }

    #[test]
    fn attributes_have_their_types() {
        for (expression, expected) in [
            (r#"device.driver == "d""#, true),
            (r#"device.attributes["d"].model == "large""#, true),
            (r#"device.attributes["d"].bus + 1 == 4"#, true),
            (r#"device.attributes["d"].bus == "3""#, false),
            (r#"device.attributes["d"].shared"#, true),
            (
                r#"device.attributes["d"].v.isGreaterThan(semver("1.9.0")) && device.attributes["d"].v.compareTo(semver("1.10.0")) == 0"#,
                true,
            ),
            (r#"device.capacity["d"].memory.compareTo(quantity("10Gi")) < 0"#, true),
            (
                r#"cel.bind(own, device.attributes["d"], own.model == "small" || own.shared)"#,
                true,
            ),
        ] {
            assert_eq!(selected(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn a_domain_that_a_device_has_nothing_of_is_empty() {
        for (expression, expected) in [
            (r#"has(device.attributes["x"].model)"#, false),
            (r#"size(device.attributes["x"]) == 0"#, true),
            (r#""x" in device.attributes"#, false),
            (r#""d" in device.attributes"#, true),
            (r#""model" in device.attributes["d"]"#, true),
            (r#""rack" in device.attributes["d"]"#, false),
            (r#"device.attributes.all(domain, domain == "d")"#, true),
            (r#"device.attributes[?"d"].model.orValue("none") == "large""#, true),
            (r#"device.attributes["x"].?model.orValue("none") == "none""#, true),
        ] {
            assert_eq!(selected(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_fails_says_why() {
        for (expression, why) in [
            (r#"device.attributes["d"].rack == "x""#, "no such key: rack"),
            (r#"device.attributes["x"].rack == "x""#, "no such key: rack"),
            (
                r#"device.attributes["d"].model"#,
                "CEL result of type string could not be converted to bool",
            ),
            ("1", "must evaluate to bool or the unknown type, not int"),
            (
                r#"device.capacity["d"].memory == 1"#,
                "found no matching overload for '_==_' applied to '(kubernetes.Quantity, int)'",
            ),
        ] {
            let said = selected(expression).unwrap_err();
            assert!(said.contains(why), "{expression}: {said}");
        }
    }
}

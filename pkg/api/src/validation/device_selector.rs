//! Expressions that select devices: they are compiled to see whether they are any, against what a device is.

use std::sync::LazyLock;

use mk8s_cel::{Decl, Env, Type};
use serde_json::{Value, json};

use super::{Errors, Path};
use crate::status::FieldError;

/// What one run may cost.
const MOST_COST: u64 = 1_000_000;

/// What an expression knows: attributes and capacities by domain and name. What one of them is shows when it is looked at:
/// the schema's word for that is "int or string".
static DEVICE: LazyLock<Env> = LazyLock::new(|| {
    let any = json!({"x-kubernetes-int-or-string": true, "maxLength": 64});
    let named = json!({"type": "object", "maxProperties": 32, "additionalProperties": any});
    let by_domain = json!({"type": "object", "maxProperties": 32, "additionalProperties": named});
    let schema = json!({
        "type": "object",
        "required": ["driver", "attributes", "capacity"],
        "properties": {
            "driver": {"type": "string", "maxLength": 63},
            "attributes": by_domain,
            "capacity": by_domain,
        },
    });
    let decl = Decl::new(&schema, false);
    Env::default()
        .with_bindings()
        .with_declared("device", "kubernetes.DRADevice", &decl, false)
});

/// `path` is the expression's.
pub(super) fn check(expression: &str, path: &Path<'_>, errors: &mut Errors) {
    match DEVICE.compile(expression) {
        Err(invalid) => errors.push(wrong(expression, format!("compilation failed: {invalid}"), path)),
        Ok(compiled) if !matches!(compiled.result(), Type::Bool | Type::Dyn) => {
            let why = format!("must evaluate to bool or the unknown type, not {}", compiled.result());
            errors.push(wrong(expression, why, path));
        }
        Ok(compiled) if compiled.cost.max > MOST_COST => {
            errors.push(FieldError::forbidden(path, "too complex, exceeds cost limit"));
        }
        Ok(_) => {}
    }
}

fn wrong(expression: &str, why: String, path: &Path<'_>) -> FieldError {
    FieldError::invalid(path, Value::from(expression), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_compiled() {
        let problems = |expression: &str| {
            let mut errors = Errors::new();
            check(expression, &Path::new("e"), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for good in [
            "true",
            r#"device.driver == "d" && device.attributes["d"].large"#,
            r#"device.capacity["d"].memory.compareTo(quantity("1Gi")) >= 0"#,
            r#"cel.bind(own, device.attributes["d"], own.a && own.b)"#,
        ] {
            assert_eq!(problems(good), Vec::<String>::new(), "{good}");
        }
        assert_eq!(
            problems("1"),
            ["e: Invalid value: \"1\": must evaluate to bool or the unknown type, not int"]
        );
        let unknown = problems("device.x");
        assert!(unknown[0].contains("undefined field 'x'"), "{unknown:?}");
    }
}

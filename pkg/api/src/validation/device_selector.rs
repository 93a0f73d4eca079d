//! Expressions that select devices: they are compiled to see whether they are any, against what a device is.

use mk8s_cel::{MOST_COST_OF_DEVICE, device_env};
use serde_json::Value;

use super::{Errors, Path};
use crate::status::FieldError;

/// `path` is the expression's.
pub(super) fn check(expression: &str, path: &Path<'_>, errors: &mut Errors) {
    let compiled = match device_env().compile(expression) {
        Ok(compiled) => compiled,
        Err(invalid) => return errors.push(wrong(expression, format!("compilation failed: {invalid}"), path)),
    };
    if let Err(invalid) = compiled.selects_devices() {
        errors.push(wrong(expression, invalid.to_string(), path));
    } else if compiled.cost.max > MOST_COST_OF_DEVICE {
        errors.push(FieldError::forbidden(path, "too complex, exceeds cost limit"));
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

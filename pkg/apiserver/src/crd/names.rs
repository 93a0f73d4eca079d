//! Which names of a group's custom resources are whose: the first to ask for one has it, until it gives it back
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>, condition
//! NamesAccepted).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::conditions::Condition;

/// Names that the other definitions of a group have.
#[derive(Debug, Default)]
pub struct Taken<'a> {
    /// Plurals, singulars and short names.
    resources: HashSet<&'a str>,
    /// Kinds and kinds of lists.
    kinds: HashSet<&'a str>,
}

impl<'a> Taken<'a> {
    /// Adds what a definition was given.
    pub fn add(&mut self, accepted: &'a Value) {
        let text = |key: &str| accepted[key].as_str();
        self.resources
            .extend([text("plural"), text("singular")].into_iter().flatten());
        let short = accepted["shortNames"].as_array().into_iter().flatten();
        self.resources.extend(short.filter_map(Value::as_str));
        self.kinds
            .extend([text("kind"), text("listKind")].into_iter().flatten());
    }
}

/// The names that a definition has now, and the condition that says whether they are all it asks for.
pub fn accept(wanted: &Value, accepted: &Value, taken: &Taken<'_>) -> (Value, Condition) {
    let mut now = accepted.as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    for (key, reason, used) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let why = match wanted.get(key) {
            Some(Value::Array(names)) => all_in_use(names, &accepted[key], used),
            Some(Value::String(name)) if accepted[key] != **name => in_use(name, used),
            _ => None,
        };
        match why {
            Some(why) => conflict = Some((reason, why)),
            None => put(&mut now, key, wanted),
        }
    }
    put(&mut now, "categories", wanted);
    let condition = match conflict {
        None => Condition::new("NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, why)) => Condition::new("NamesAccepted", false, reason, why),
    };
    (Value::Object(now), condition)
}

fn put(names: &mut Map<String, Value>, key: &str, wanted: &Value) {
    match wanted.get(key) {
        Some(value) => names.insert(key.into(), value.clone()),
        None => names.remove(key),
    };
}

fn in_use(name: &str, used: &HashSet<&str>) -> Option<String> {
    used.contains(name).then(|| format!("{name:?} is already in use"))
}

/// What is wrong with a list of names, of which some may be one's own already.
fn all_in_use(names: &[Value], own: &Value, used: &HashSet<&str>) -> Option<String> {
    let own: HashSet<&str> = own.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut seen = HashSet::new();
    let fresh = names.iter().filter_map(Value::as_str);
    let fresh = fresh.filter(|name| !own.contains(name) && seen.insert(*name));
    let mut why: Vec<String> = fresh.filter_map(|name| in_use(name, used)).collect();
    match why.len() {
        0 => None,
        1 => why.pop(),
        _ => Some(format!("[{}]", why.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_comes_first_has_the_name() {
        let first =
            json!({"plural": "cars", "singular": "car", "kind": "Car", "listKind": "CarList", "shortNames": ["c"]});
        let mut taken = Taken::default();
        let (names, condition) = accept(&first, &Value::Null, &taken);
        assert_eq!((&names, condition.is_true()), (&first, true));
        taken.add(&names);
        let second = json!({"plural": "carts", "singular": "car", "kind": "Car", "listKind": "CartList",
            "shortNames": ["c", "ct"], "categories": ["all"]});
        let (names, condition) = accept(&second, &Value::Null, &taken);
        assert_eq!(
            names,
            json!({"plural": "carts", "listKind": "CartList", "categories": ["all"]})
        );
        // The last conflict is the one that is told.
        assert_eq!(
            (condition.is_true(), condition.reason, &*condition.message),
            (false, "KindConflict", r#""Car" is already in use"#)
        );
        // One's own name is no conflict.
        let (names, condition) = accept(&first, &first, &taken);
        assert_eq!((names, condition.is_true()), (first, true));
    }

    /// An administrator may write a hundred thousand of them.
    #[test]
    fn many_names_are_judged_in_proportion() {
        let names = json!({"shortNames": (0..100_000).map(|n| format!("n{n}")).collect::<Vec<_>>()});
        let mut taken = Taken::default();
        taken.add(&names);
        let begun = std::time::Instant::now();
        let (_, none) = accept(&names, &names, &taken);
        let (_, all) = accept(&names, &Value::Null, &taken);
        assert!(none.is_true() && !all.is_true());
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}

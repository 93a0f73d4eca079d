//! flowcontrol.apiserver.k8s.io: whose requests belong together, and how many run at once.

use serde_json::Value;

use super::rules::{
    Rules, Scope, call, check, check_object, each, each_unique, object, required, required_saying, structure, whole,
};
use super::{Errors, Path, flag, has, int, list, strings, text};
use crate::status::FieldError;
use crate::{meta as object_at, names};

const FLOW_SCHEMA: Rules = &[
    structure(
        "spec",
        &[
            whole(precedence),
            object("distinguisherMethod", &[whole(distinguisher)]),
            structure("priorityLevelConfiguration", &[whole(level_name)]),
            each("rules", RULE),
        ],
    ),
    whole(fixed),
    structure("status", STATUS),
];

/// Of both kinds.
const STATUS: Rules = &[each_unique("conditions", "type", &[&[required("type")], &[]])];

const RULE: Rules = &[
    required_saying("subjects", "subjects must contain at least one value"),
    each("subjects", &[whole(subject)]),
    whole(some_rule),
    each("resourceRules", RESOURCE_RULE),
    each("nonResourceRules", &[whole(verbs), whole(urls)]),
];

const RESOURCE_RULE: Rules = &[whole(verbs), whole(groups), whole(resources), whole(namespaces)];

const SERVICE_ACCOUNT: Rules = &[
    call("name", account_name),
    required("name"),
    required_saying("namespace", "must specify namespace for service account"),
    call("namespace", account_namespace),
];

/// What nobody changes of the objects that any request falls to in the end: their kind, name and spec.
const FIXED: [(&str, &str, &str); 4] = [
    (
        "FlowSchema",
        "exempt",
        r#"{"matchingPrecedence":1,"priorityLevelConfiguration":{"name":"exempt"},"rules":[{"nonResourceRules":[{"nonResourceURLs":["*"],"verbs":["*"]}],"resourceRules":[{"apiGroups":["*"],"clusterScope":true,"namespaces":["*"],"resources":["*"],"verbs":["*"]}],"subjects":[{"group":{"name":"system:masters"},"kind":"Group"}]}]}"#,
    ),
    (
        "FlowSchema",
        "catch-all",
        r#"{"distinguisherMethod":{"type":"ByUser"},"matchingPrecedence":10000,"priorityLevelConfiguration":{"name":"catch-all"},"rules":[{"nonResourceRules":[{"nonResourceURLs":["*"],"verbs":["*"]}],"resourceRules":[{"apiGroups":["*"],"clusterScope":true,"namespaces":["*"],"resources":["*"],"verbs":["*"]}],"subjects":[{"group":{"name":"system:unauthenticated"},"kind":"Group"},{"group":{"name":"system:authenticated"},"kind":"Group"}]}]}"#,
    ),
    ("PriorityLevelConfiguration", "exempt", r#"{"type":"Exempt"}"#),
    (
        "PriorityLevelConfiguration",
        "catch-all",
        r#"{"limited":{"lendablePercent":0,"limitResponse":{"type":"Reject"},"nominalConcurrencyShares":5},"type":"Limited"}"#,
    ),
];

fn fixed(object: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (kind, name) = (object_at::kind(object), object_at::name(object));
    let Some((.., spec)) = FIXED.iter().find(|(of, own, _)| (*of, *own) == (kind, name)) else {
        return;
    };
    let found = has(object, "spec").cloned().unwrap_or_default();
    // How much of the server those who are exempt are counted for is an administrator's choice.
    let is_chosen = kind != "FlowSchema" && name == "exempt";
    let mut judged = found.clone();
    if let Some(fields) = judged.as_object_mut().filter(|_| is_chosen) {
        fields.remove("exempt");
    }
    if serde_json::from_str::<Value>(spec).is_ok_and(|spec| spec == judged) {
        return;
    }
    let but = if is_chosen {
        " except the 'spec.exempt' field"
    } else {
        ""
    };
    let why = format!("spec of '{name}'{but} must equal the fixed value");
    errors.push(FieldError::invalid(path.child("spec"), found, why));
}

pub fn flow_schema(schema: &Value, errors: &mut Errors) {
    check_object(FLOW_SCHEMA, schema, errors);
}

/// Of both kinds.
pub fn flow_control_status(new: &Value, _old: &Value, errors: &mut Errors) {
    const OBJECT: Rules = &[structure("status", STATUS)];
    check_object(OBJECT, new, errors);
}

fn precedence(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("matchingPrecedence");
    let own = int(spec, "matchingPrecedence").unwrap_or(0);
    if own <= 0 {
        errors.push(FieldError::invalid(path, own, "must be a positive value"));
    }
    if own > 10_000 {
        errors.push(FieldError::invalid(path, own, "must not be greater than 10000"));
    }
    if own == 1 && object_at::name(scope.object) != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(FieldError::invalid(path, own, why));
    }
}

fn distinguisher(method: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const METHODS: [&str; 2] = ["ByNamespace", "ByUser"];
    let own = text(method, "type");
    if !METHODS.contains(&own) {
        // The whole method, by the names of Go's own type.
        let shown = serde_json::json!({"Type": own});
        errors.push(FieldError::not_supported(path.child("type"), shown, &METHODS));
    }
}

fn level_name(level: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match text(level, "name") {
        "" => errors.push(FieldError::required(
            path.child("name"),
            "must reference a priority level",
        )),
        own => super::invalid_each(errors, &path.child("name"), own, names::dns_subdomain(own)),
    }
}

fn subject(subject: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const KINDS: [(&str, &str, Rules); 3] = [
        ("ServiceAccount", "serviceAccount", SERVICE_ACCOUNT),
        ("User", "user", &[required("name")]),
        ("Group", "group", &[required("name")]),
    ];
    let kind = text(subject, "kind");
    let Some((_, field, rules)) = KINDS.iter().find(|(own, ..)| *own == kind) else {
        let known = ["Group", "ServiceAccount", "User"];
        return errors.push(FieldError::not_supported(path.child("kind"), kind, &known));
    };
    match has(subject, field) {
        None => errors.push(FieldError::required(
            path.child(field),
            format!("{field} is required when subject kind is '{kind}'"),
        )),
        Some(own) => check(rules, own, scope, &path.child(field), errors),
    }
    for (other, field, _) in KINDS.iter().filter(|(own, ..)| *own != kind) {
        if has(subject, field).is_some() {
            errors.push(FieldError::forbidden(
                path.child(field),
                format!("{field} is forbidden when subject kind is not '{other}'"),
            ));
        }
    }
}

fn account_name(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    if !matches!(own, "" | "*") {
        super::invalid_each(errors, path, own, names::dns_subdomain(own));
    }
}

fn account_namespace(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    if !own.is_empty() {
        super::invalid_each(errors, path, own, names::dns_label(own));
    }
}

fn some_rule(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if list(rule, "resourceRules").is_empty() && list(rule, "nonResourceRules").is_empty() {
        errors.push(FieldError::required(
            path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        ));
    }
}

/// A list that is not empty, and in which `*` stands alone. True: it says other than `*`.
fn alone(rule: &Value, field: &str, missing: &str, others: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let own = list(rule, field);
    let wild = own.iter().any(|item| item == "*");
    if own.is_empty() {
        errors.push(FieldError::required(path.child(field), missing));
    } else if wild && own.len() > 1 {
        let why = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path.child(field), own.to_vec(), why));
    }
    !wild && !own.is_empty()
}

fn verbs(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const VERBS: [&str; 9] = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "proxy",
        "update",
        "watch",
    ];
    let missing = "verbs must contain at least one value";
    if alone(rule, "verbs", missing, "verbs", path, errors) && !strings(rule, "verbs").all(|verb| VERBS.contains(&verb))
    {
        let own = list(rule, "verbs").to_vec();
        errors.push(FieldError::not_supported(path.child("verbs"), own, &VERBS));
    }
}

fn groups(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let missing = "resource rules must supply at least one api group";
    alone(rule, "apiGroups", missing, "api groups", path, errors);
}

fn resources(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let missing = "resource rules must supply at least one resource";
    alone(rule, "resources", missing, "resources", path, errors);
}

fn namespaces(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if list(rule, "namespaces").is_empty() && flag(rule, "clusterScope") {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if !alone(rule, "namespaces", missing, "namespaces", path, errors) {
        return;
    }
    let path = path.child("namespaces");
    for (index, own) in strings(rule, "namespaces").enumerate() {
        for problem in names::dns_label(own) {
            let why = format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
            errors.push(FieldError::invalid(path.index(index), own, why));
        }
    }
}

fn urls(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let missing = "nonResourceURLs must contain at least one value";
    if !alone(rule, "nonResourceURLs", missing, "non-resource URLs", path, errors) {
        return;
    }
    let path = path.child("nonResourceURLs");
    for (index, own) in strings(rule, "nonResourceURLs").enumerate() {
        let stars = own.matches('*').count();
        let why = match own {
            "" => "must not be empty",
            "/" => continue,
            _ if !own.starts_with('/') => "must start with slash",
            _ if own.contains(' ') => "must not contain white-space",
            _ if own.contains("//") => "must not contain double slash",
            _ if stars > 1 || (stars == 1 && !own.ends_with("/*")) => "wildcard can only do suffix matching",
            _ => continue,
        };
        errors.push(FieldError::invalid(path.index(index), own, why));
    }
}

const PRIORITY_LEVEL: Rules = &[
    structure("spec", &[whole(level)]),
    whole(fixed),
    structure("status", STATUS),
];

pub fn priority_level(level: &Value, errors: &mut Errors) {
    check_object(PRIORITY_LEVEL, level, errors);
}

fn level(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = text(spec, "type");
    if (object_at::name(scope.object) == "exempt") != (own == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid(path.child("type"), own, why));
    }
    let (limited, exempt) = (has(spec, "limited"), has(spec, "exempt"));
    match own {
        "Exempt" => {
            if limited.is_some() {
                let why = "must be nil if the type is not Limited";
                errors.push(FieldError::forbidden(path.child("limited"), why));
            }
            if let Some(exempt) = exempt {
                let path = path.child("exempt");
                shares(exempt, &path, errors);
                lendable(exempt, &path, errors);
            }
        }
        "Limited" => {
            if exempt.is_some() {
                let why = "must be nil if the type is Limited";
                errors.push(FieldError::forbidden(path.child("exempt"), why));
            }
            match limited {
                None => errors.push(FieldError::required(
                    path.child("limited"),
                    "must not be empty when type is Limited",
                )),
                Some(limited) => limits(limited, &path.child("limited"), errors),
            }
        }
        _ => errors.push(FieldError::not_supported(
            path.child("type"),
            own,
            &["Exempt", "Limited"],
        )),
    }
}

fn shares(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(shares) = int(own, "nominalConcurrencyShares").filter(|&shares| shares < 0) {
        let why = "must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("nominalConcurrencyShares"), shares, why));
    }
}

fn lendable(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(percent) = int(own, "lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        let why = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid(path.child("lendablePercent"), percent, why));
    }
}

fn limits(limited: &Value, path: &Path<'_>, errors: &mut Errors) {
    shares(limited, path, errors);
    response(
        has(limited, "limitResponse").unwrap_or(&Value::Null),
        &path.child("limitResponse"),
        errors,
    );
    lendable(limited, path, errors);
    if let Some(percent) = int(limited, "borrowingLimitPercent").filter(|&percent| percent < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("borrowingLimitPercent"), percent, why));
    }
}

fn response(response: &Value, path: &Path<'_>, errors: &mut Errors) {
    let queuing = has(response, "queuing");
    let own = path.child("queuing");
    match (text(response, "type"), queuing) {
        ("Reject", Some(_)) => errors.push(FieldError::forbidden(
            own,
            "must be nil if limited.limitResponse.type is not Limited",
        )),
        ("Reject", None) => {}
        ("Queue", None) => errors.push(FieldError::required(
            own,
            "must not be empty if limited.limitResponse.type is Limited",
        )),
        ("Queue", Some(queuing)) => queues(queuing, &own, errors),
        (other, _) => errors.push(FieldError::not_supported(
            path.child("type"),
            other,
            &["Queue", "Reject"],
        )),
    }
}

fn queues(queuing: &Value, path: &Path<'_>, errors: &mut Errors) {
    const POSITIVE: &str = "must be positive";
    let number = |key| int(queuing, key).unwrap_or(0);
    let (length, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
    if length <= 0 {
        errors.push(FieldError::invalid(path.child("queueLengthLimit"), length, POSITIVE));
    }
    if queues <= 0 {
        errors.push(FieldError::invalid(path.child("queues"), queues, POSITIVE));
    } else if queues > 10_000_000 {
        let why = "must not be greater than 10000000";
        errors.push(FieldError::invalid(path.child("queues"), queues, why));
    }
    let path = path.child("handSize");
    let bits = entropy_bits(queues, hand);
    if hand <= 0 {
        errors.push(FieldError::invalid(path, hand, POSITIVE));
    } else if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(path, hand, why));
    } else if bits > 60 {
        let why =
            format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60");
        errors.push(FieldError::invalid(path, hand, why));
    }
}

/// How many bits a choice of `hand` of `deck` queues takes, in order.
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    let choices = (0..hand.clamp(0, 64)).map(|dealt| ((deck - dealt).max(1) as f64).log2());
    choices.sum::<f64>().ceil() as i64
}

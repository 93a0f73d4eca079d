//! NamespaceLifecycle: nothing is written into a namespace that isn't there, nothing new into one that is going away,
//! and the system's own namespaces stay.

use mk8s_api::status::Status;
use serde_json::{Value, json};

use super::namespaces::Namespaces;
use super::{Attributes, Operation};
use crate::lookup::Lookup;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub fn admit(
    attributes: &Attributes<'_>,
    object: &Value,
    lookup: &dyn Lookup,
    namespaces: &Namespaces,
) -> Result<(), Status> {
    if attributes.is_core("namespaces") {
        let immortal = attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name);
        return match immortal {
            true => Err(Status::forbidden(
                "",
                "namespaces",
                attributes.name,
                "this namespace may not be deleted",
            )),
            false => Ok(()),
        };
    }
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    let review = attributes.is("authorization.k8s.io", "localsubjectaccessreviews");
    if attributes.namespace.is_empty() || !writes || review {
        return Ok(());
    }
    let Some(namespace) = namespaces.get(lookup, attributes.namespace) else {
        return Err(Status::not_found("", "namespaces", attributes.namespace));
    };
    if attributes.operation != Operation::Create || !namespace.terminating {
        return Ok(());
    }
    let name = attributes.namespace;
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = attributes.forbidden(Some(object), &why);
    if let Some(Value::Object(details)) = &mut status.details {
        let cause = json!({
            "reason": "NamespaceTerminating",
            "message": format!("namespace {name} is being terminated"),
            "field": "metadata.namespace",
        });
        details.insert("causes".into(), json!([cause]));
    }
    Err(status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{Request, cluster};
    use super::*;

    #[test]
    fn into_what_is_there_alone() {
        let lookup = cluster();
        lookup.put(
            "",
            "namespaces",
            &json!({"metadata": {"name": "going"}, "status": {"phase": "Terminating"}}),
        );
        let namespaces = Namespaces::default();
        let object = json!({"metadata": {"name": "x"}});
        let admit = |request: Request<'_>| request.with(None, |a| admit(a, &object, &*lookup, &namespaces));
        let create = |namespace| Request::create("configmaps", namespace);
        admit(create("default")).unwrap();
        assert_eq!(
            admit(create("none")).unwrap_err().message,
            "namespaces \"none\" not found"
        );
        let refused = admit(create("going")).unwrap_err();
        assert_eq!(
            refused.message,
            "configmaps \"x\" is forbidden: unable to create new content in namespace going because it is being terminated"
        );
        assert_eq!(refused.details.unwrap()["causes"][0]["reason"], "NamespaceTerminating");
        admit(Request {
            operation: Operation::Update,
            ..create("going")
        })
        .unwrap();
        admit(Request {
            operation: Operation::Delete,
            ..create("none")
        })
        .unwrap();
        let delete = |name| Request {
            operation: Operation::Delete,
            name,
            ..Request::create("namespaces", "")
        };
        assert_eq!(admit(delete("kube-system")).unwrap_err().code, 403);
        admit(delete("going")).unwrap();
    }
}

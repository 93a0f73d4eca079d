//! Label and field selectors of a list or watch, made ready to be asked about cached objects.

use mk8s_api::selectors::{FieldSelector, LabelSelector};
use mk8s_api::status::Status;

use crate::object::Object;
use crate::options::ListOptions;
use crate::request::RequestInfo;
use crate::rows::Row;
use crate::watch_cache::INDEXED_FIELD;

#[derive(Clone, Debug)]
pub struct Filter {
    labels: LabelSelector,
    terms: Vec<Term>,
    /// The value of the indexed field, where that is asked for.
    pub indexed: Option<String>,
}

#[derive(Clone, Debug)]
struct Term {
    what: What,
    equals: bool,
    value: String,
}

#[derive(Clone, Debug)]
enum What {
    Name,
    Namespace,
    /// Index in the cached objects' fields.
    Field(usize),
}

impl Filter {
    /// What a request for a collection selects: by its query, and by the name in its path.
    pub fn new(row: &Row, info: &RequestInfo, options: &ListOptions) -> Result<Filter, Status> {
        let mut filter = Filter {
            labels: options.labels.clone(),
            terms: Vec::new(),
            indexed: None,
        };
        let fields = info.field_selector();
        for term in &fields.terms {
            let Some(what) = locate(row, &term.field) else {
                return Err(unsupported(row, &term.field));
            };
            if term.field == INDEXED_FIELD && term.equals {
                filter.indexed = Some(term.value.clone());
            }
            filter.terms.push(Term {
                what,
                equals: term.equals,
                value: term.value.clone(),
            });
        }
        filter.name_in_path(info.path_name(), fields)?;
        Ok(filter)
    }

    /// A watch whose path names an object is authorized for that one, and shows no other. A selector beside it has to
    /// say the same.
    fn name_in_path(&mut self, name: &str, fields: &FieldSelector) -> Result<(), Status> {
        if name.is_empty() {
            return Ok(());
        }
        if !fields.is_everything() && fields.required("metadata.name") != Some(name) {
            return Err(Status::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
        self.terms.push(Term {
            what: What::Name,
            equals: true,
            value: name.to_string(),
        });
        Ok(())
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty() && self.labels.is_everything()
    }

    /// The one name that can match.
    pub fn name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equals && matches!(term.what, What::Name))
            .map(|term| term.value.as_str())
    }

    /// Whether its name and namespace are right, which are the same in all of its versions.
    pub fn may_match(&self, object: &Object) -> bool {
        let mut terms = self.terms.iter().filter(|term| !matches!(term.what, What::Field(_)));
        terms.all(|term| term.matches(object))
    }

    pub fn matches(&self, object: &Object) -> bool {
        if !self.terms.iter().all(|term| term.matches(object)) {
            return false;
        }
        self.labels.is_everything() || self.labels.matches(|key| object.label(key))
    }
}

impl Term {
    fn matches(&self, object: &Object) -> bool {
        let value = match self.what {
            What::Name => object.name(),
            What::Namespace => object.namespace(),
            What::Field(index) => object.selectable().fields.get(index).map_or("", |value| value),
        };
        (value == self.value) == self.equals
    }
}

fn locate(row: &Row, label: &str) -> Option<What> {
    match label {
        "metadata.name" => return Some(What::Name),
        "metadata.namespace" if row.resource.is_namespaced() || selects_by_default(row) => {
            return Some(What::Namespace);
        }
        _ => {}
    }
    let fields = &row.served().fields;
    let field = fields.iter().find(|own| own.label == label)?;
    Some(What::Field(field.at))
}

/// Whether upstream selects objects of a kind as those of any: by a namespace also where they have none.
fn selects_by_default(row: &Row) -> bool {
    row.served().fields.is_empty() && row.schema.is_some()
}

/// Each of upstream's ways to say it: kinds with fields of their own have a function that says so.
fn unsupported(row: &Row, field: &str) -> Status {
    Status::bad_request(match (row.group(), row.kind()) {
        ("batch", "Job") => format!("field label {field:?} not supported for Job"),
        ("resource.k8s.io", "ResourceSlice") => {
            format!(
                "field label not supported for {}, Kind=ResourceSlice: {field}",
                row.api_version
            )
        }
        _ if selects_by_default(row) => {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        _ => format!("field label not supported: {field}"),
    })
}

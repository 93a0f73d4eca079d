//! Label and field selectors of a list or watch, made ready to be asked about cached objects.

use mk8s_api::selectors::{FieldSelector, LabelSelector};
use mk8s_api::status::Status;

use crate::object::Object;
use crate::options::ListOptions;
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
    pub fn new(row: &Row, options: &ListOptions) -> Result<Filter, Status> {
        if options.label_selector.is_empty() && options.field_selector.is_empty() {
            return Ok(Filter {
                labels: LabelSelector::everything(),
                terms: Vec::new(),
                indexed: None,
            });
        }
        let labels = LabelSelector::parse(&options.label_selector).map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(&options.field_selector).map_err(Status::bad_request)?;
        let mut filter = Filter {
            labels,
            terms: Vec::with_capacity(fields.terms.len()),
            indexed: None,
        };
        for term in fields.terms {
            let Some(what) = locate(row, &term.field) else {
                return Err(unsupported(row, options, &term.field));
            };
            if term.field == INDEXED_FIELD && term.equals {
                filter.indexed = Some(term.value.clone());
            }
            filter.terms.push(Term {
                what,
                equals: term.equals,
                value: term.value,
            });
        }
        Ok(filter)
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

    pub fn matches(&self, object: &Object) -> bool {
        for term in &self.terms {
            let value = match term.what {
                What::Name => object.name(),
                What::Namespace => object.namespace(),
                What::Field(index) => object.selectable().fields.get(index).map_or("", |value| value),
            };
            if (value == term.value) != term.equals {
                return false;
            }
        }
        self.labels.is_everything() || self.labels.matches(|key| object.label(key))
    }
}

fn locate(row: &Row, label: &str) -> Option<What> {
    match label {
        "metadata.name" => return Some(What::Name),
        "metadata.namespace" if row.resource.is_namespaced() => return Some(What::Namespace),
        _ => {}
    }
    let (_, path) = row.resource.fields.iter().find(|(own, _)| own == label)?;
    // The cached objects' fields are those of the stored row, found by the path they share.
    let stored = row.cache.as_ref()?.resource();
    stored.fields.iter().position(|(_, own)| own == path).map(What::Field)
}

fn unsupported(row: &Row, options: &ListOptions, field: &str) -> Status {
    let gvr = if row.group().is_empty() {
        format!("/{}", row.version)
    } else {
        row.api_version.clone()
    };
    Status::bad_request(format!(
        "Unable to find {:?} that match label selector {:?}, field selector {:?}: field label not supported: {field}",
        format!("{gvr}, Resource={}", row.plural()),
        options.label_selector,
        options.field_selector,
    ))
}

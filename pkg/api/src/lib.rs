//! The object model of mk8s, without IO: the registry of resources, metadata, selectors, quantities, patches,
//! schema, validation and codecs.

pub mod apply;
mod bounded;
mod budget;
pub mod codec;
pub mod conditions;
pub mod cron;
pub mod defaults;
mod errors;
mod float;
pub mod go;
mod go_form;
pub mod json_path;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod quote;
pub mod references;
pub mod registry;
pub mod schema;
pub mod selectors;
pub mod service_cidr;
pub mod status;
pub mod stored;
pub mod table;
pub mod taints;
pub mod time;
pub mod validation;

//! The object model of mk8s, without IO: the registry of resources, metadata, selectors, quantities, patches,
//! schema, validation and codecs.

pub mod registry;
pub mod status;

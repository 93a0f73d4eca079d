//! URL → verb and resource, parsed once per request and read by every filter and handler.

/// What upstream's RequestInfo holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource (else only `path` and `verb` mean something).
    pub is_resource: bool,
    pub path: String,
    /// `get list watch create update patch delete deletecollection`; for non-resource paths the lower-cased method.
    pub verb: &'static str,
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Plural; empty on discovery paths.
    pub resource: String,
    pub subresource: String,
    /// What follows `/proxy/`.
    pub subpath: String,
    pub namespace: String,
    pub name: String,
}

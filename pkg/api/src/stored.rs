//! What a stored object is to whoever is handed it without a copy: its JSON text, its names and its revision. The watch
//! cache's objects are that, and so is what a client reads from a watch over HTTPS.

/// An object as the API server stores and sends it. Never changes; a newer state is another value.
pub trait Stored: Send + Sync {
    /// Empty for objects of the cluster.
    fn namespace(&self) -> &str;

    fn name(&self) -> &str;

    /// The number in its `metadata.resourceVersion`.
    fn revision(&self) -> u64;

    /// The whole object as JSON text (UTF-8), with apiVersion and kind where its source states them.
    fn json(&self) -> &[u8];
}

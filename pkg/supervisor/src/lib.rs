//! mk8s-supervisor.

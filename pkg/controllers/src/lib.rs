//! mk8s-controllers.

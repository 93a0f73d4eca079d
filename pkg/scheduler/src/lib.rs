//! mk8s-scheduler.

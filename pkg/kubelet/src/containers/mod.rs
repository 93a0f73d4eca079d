//! One container's life: its environment, its spec, start, hooks, end.

pub mod env;
pub mod expansion;

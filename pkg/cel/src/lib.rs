//! The Common Expression Language as Kubernetes speaks it: expressions are parsed, checked against declared types, their cost
//! is estimated, and they are evaluated over JSON without a copy of it, at a bounded cost.
//!
//! ```text
//! text ─ parse/ ─▶ tree ─ check/ ─▶ typed tree ─┬─ estimate/ ─▶ what it can cost
//!        (macros)        (functions.tsv, decl)  └─ eval/plan ─▶ program ─ eval/ ─▶ value (library/)
//! ```
//!
//! What upstream makes of thousands of expressions is recorded in `tests/`: types, messages, costs and values are held against it.

mod ast;
mod check;
mod decl;
mod device;
mod digest;
mod display;
mod env;
mod estimate;
mod eval;
mod functions;
mod json;
mod library;
mod names;
mod openapi;
mod parse;
mod program;
mod source;
mod types;
mod value;

pub use decl::{Decl, Source};
pub use device::{MOST_COST as MOST_COST_OF_DEVICE, env as device_env, select};
pub use digest::MOST_COMPARED;
pub use env::Env;
pub use estimate::Range;
pub use library::regex::compile as compile_pattern;
pub use names::{escape, unescape};
pub use program::{Answer, Binding, Compiled, Evaluation, Invalid, Program};
pub use types::Type;
pub use value::Failure;

//! The scheduler beside a plain reference, which looks at all pods for each decision: they have to say the same as pods, nodes,
//! namespaces and Services come and go. `parts` asks the plugins that count pods, `wholes` asks for decisions.
//!
//! `MK8S_DECISIONS` is how many whole decisions are held against the reference (3 000 where it is not set). What fails first is made
//! as short as can be and printed with its seed; `MK8S_SEED` begins with that.
#![allow(clippy::unwrap_used)]

mod model;
mod parts;
mod reference;
mod wholes;
mod world;

//! A pod that names its node goes nowhere else. Such a pod is bound, and asks for no decision: nothing is ever refused here. The plugin is
//! a row of its own so that configurations can name it.

use crate::framework::Plugin;

/// Upstream's NodeName.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
}

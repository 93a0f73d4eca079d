//! The seccomp filter of a container: containerd's table for RuntimeDefault, or a profile file of the node's.
//!
//! The table is data (`seccomp.json`, written by hack/update-seccomp.sh out of containerd's own module) and depends on
//! the architecture and on the capabilities that the container has.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Seccomp, SpecError, capabilities};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    default_action: Value,
    common: Vec<Value>,
    arches: BTreeMap<String, ArchRules>,
    with_capability: BTreeMap<String, Vec<Value>>,
    without_sys_admin: Vec<Value>,
}

#[derive(Deserialize)]
struct ArchRules {
    architectures: Value,
    syscalls: Vec<Value>,
}

#[expect(clippy::expect_used, reason = "the table is compiled in; a test reads it")]
static TABLE: LazyLock<Table> =
    LazyLock::new(|| serde_json::from_str(include_str!("seccomp.json")).expect("seccomp.json has the table's form"));

/// OCI's `linux.seccomp`, or `None` for unconfined.
pub(super) fn filter(wanted: &Seccomp, capabilities: u64) -> Result<Option<Value>, SpecError> {
    match wanted {
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => Ok(Some(runtime_default(capabilities))),
        Seccomp::Localhost(path) => profile(path).map(Some),
    }
}

fn runtime_default(set: u64) -> Value {
    let arch = TABLE.arches.get(std::env::consts::ARCH);
    let mut rules: Vec<&Value> = TABLE.common.iter().collect();
    rules.extend(arch.iter().flat_map(|arch| &arch.syscalls));
    let granted = TABLE
        .with_capability
        .iter()
        .filter(|(name, _)| capabilities::contains(set, name));
    rules.extend(granted.flat_map(|(_, rules)| rules));
    if !capabilities::contains(set, "SYS_ADMIN") {
        rules.extend(&TABLE.without_sys_admin);
    }
    let architectures = arch.map_or_else(|| json!([]), |arch| arch.architectures.clone());
    json!({"defaultAction": TABLE.default_action, "architectures": architectures, "syscalls": rules})
}

fn profile(path: &Path) -> Result<Value, SpecError> {
    let error = |message: String| SpecError::SeccompProfile {
        path: path.display().to_string(),
        message,
    };
    let text = std::fs::read(path).map_err(|e| error(e.to_string()))?;
    serde_json::from_slice(&text).map_err(|e| error(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(filter: &Value, name: &str) -> bool {
        let rules = filter["syscalls"].as_array().into_iter().flatten();
        rules
            .flat_map(|rule| rule["names"].as_array().into_iter().flatten())
            .any(|n| n == name)
    }

    #[test]
    fn the_table_opens_with_capabilities() {
        let plain = runtime_default(0);
        let admin = runtime_default(1 << 21);
        assert_eq!(plain["defaultAction"], "SCMP_ACT_ERRNO");
        assert!(allows(&plain, "read") && allows(&plain, "clone") && !allows(&plain, "mount"));
        assert!(allows(&admin, "mount"));
        assert!(filter(&Seccomp::Unconfined, 0).is_ok_and(|none| none.is_none()));
    }
}

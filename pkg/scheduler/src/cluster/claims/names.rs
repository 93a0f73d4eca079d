//! Devices by number: who looks for a free one compares numbers.

use std::collections::HashMap;

/// A device by driver, pool and name. It is the same one in whichever slice it stands.
pub type DeviceId = u32;

/// The devices that stand in a slice or are given away.
#[derive(Debug, Default)]
pub struct Names {
    ids: HashMap<Box<str>, DeviceId>,
    kept: Vec<Named>,
    free: Vec<DeviceId>,
}

#[derive(Debug, Default)]
struct Named {
    name: Box<str>,
    /// What speaks of it: slices, and those who have it.
    users: u32,
    /// Those who have it.
    takers: u32,
}

/// `driver/pool/device`: of these only a pool's name may have a slash.
pub fn name(driver: &str, pool: &str, device: &str) -> String {
    format!("{driver}/{pool}/{device}")
}

impl Names {
    /// The number of a device, until it is dropped as often.
    pub fn hold(&mut self, name: &str) -> DeviceId {
        let id = self.ids.get(name).copied().unwrap_or_else(|| self.add(name));
        if let Some(named) = self.kept.get_mut(id as usize) {
            named.users += 1;
        }
        id
    }

    fn add(&mut self, name: &str) -> DeviceId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.kept.push(Named::default());
            DeviceId::try_from(self.kept.len() - 1).unwrap_or(DeviceId::MAX)
        });
        self.ids.insert(name.into(), id);
        if let Some(named) = self.kept.get_mut(id as usize) {
            *named = Named {
                name: name.into(),
                ..Named::default()
            };
        }
        id
    }

    /// See [`Names::hold`].
    pub fn drop(&mut self, id: DeviceId) {
        let Some(named) = self.kept.get_mut(id as usize) else {
            return;
        };
        named.users = named.users.saturating_sub(1);
        if named.users == 0 && self.ids.remove(&named.name).is_some() {
            self.free.push(id);
        }
    }

    /// Somebody has the device.
    pub fn take(&mut self, name: &str) {
        let id = self.hold(name);
        if let Some(named) = self.kept.get_mut(id as usize) {
            named.takers += 1;
        }
    }

    /// Somebody had it.
    pub fn give_back(&mut self, name: &str) {
        let Some(id) = self.ids.get(name).copied() else { return };
        if let Some(named) = self.kept.get_mut(id as usize) {
            named.takers = named.takers.saturating_sub(1);
        }
        self.drop(id);
    }

    /// Whether somebody has it.
    pub fn is_taken(&self, id: DeviceId) -> bool {
        self.kept.get(id as usize).is_some_and(|named| named.takers > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_as_long_as_somebody_speaks_of_it() {
        let mut names = Names::default();
        let a = names.hold("a");
        names.take("a");
        assert!(names.is_taken(a));
        names.drop(a);
        assert_eq!(names.hold("a"), a);
        names.take("a");
        names.give_back("a");
        assert!(names.is_taken(a), "it was taken twice");
        names.give_back("a");
        assert!(!names.is_taken(a));
        names.drop(a);
        assert_eq!(names.hold("b"), a, "the number is free");
        names.give_back("a");
        assert_eq!(names.hold("b"), a);
    }
}

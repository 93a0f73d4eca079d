//! What changes of claims, volumes and what drivers say do to the cluster and to those who wait.

use mk8s_client::{Event, Raw};

use super::Scheduler;
use crate::change::Change;
use crate::cluster::key;

impl Scheduler {
    pub(super) fn claim_event(&mut self, event: Event<Raw>) {
        let new = match event {
            Event::Applied { new, .. } => new,
            Event::Deleted(old) => return self.cluster.remove_claim(&old),
        };
        let before = self.cluster.set_claim(&new);
        let key = key(&new);
        self.wake_for(|cluster| {
            Some(Change::Claim {
                key: &key,
                before: before.as_ref(),
                now: cluster.volumes.claim(&key)?,
            })
        });
    }

    pub(super) fn volume_event(&mut self, event: Event<Raw>) {
        let new = match event {
            Event::Applied { new, .. } => new,
            Event::Deleted(old) => return self.cluster.remove_volume(&old),
        };
        let before = self.cluster.set_volume(&new);
        self.wake_for(|cluster| {
            Some(Change::Volume {
                before: before.as_deref(),
                now: cluster.volumes.volume(&key(&new))?,
            })
        });
    }

    pub(super) fn class_event(&mut self, event: Event<Raw>) {
        let new = match event {
            Event::Applied { new, .. } => new,
            Event::Deleted(old) => return self.cluster.remove_class(&old),
        };
        let before = self.cluster.set_class(&new);
        self.wake_for(|cluster| {
            Some(Change::Class {
                before: before.as_ref(),
                now: cluster.volumes.class(&key(&new))?,
            })
        });
    }

    pub(super) fn csi_node_event(&mut self, event: Event<Raw>) {
        let new = match event {
            Event::Applied { new, .. } => new,
            Event::Deleted(old) => return self.cluster.remove_csi_node(&old),
        };
        let before = self.cluster.set_csi_node(&new);
        self.wake_for(|cluster| {
            Some(Change::CsiNode {
                before: before.as_deref(),
                now: cluster.volumes.csi_node(&key(&new))?,
            })
        });
    }

    pub(super) fn csi_driver_event(&mut self, event: Event<Raw>) {
        match event {
            Event::Applied { new, .. } => {
                if let (true, false) = self.cluster.volumes.set_driver(&new) {
                    let driver = key(&new);
                    self.wake_for(|_| Some(Change::RoomIgnored(&driver)));
                }
            }
            Event::Deleted(old) => self.cluster.volumes.remove_driver(&key(&old)),
        }
    }

    pub(super) fn room_event(&mut self, event: Event<Raw>) {
        let new = match event {
            Event::Applied { new, .. } => new,
            Event::Deleted(old) => return drop(self.cluster.volumes.remove_capacity(&key(&old))),
        };
        let before = self.cluster.volumes.set_capacity(&new);
        self.wake_for(|cluster| {
            Some(Change::Room {
                before: before.as_deref(),
                now: cluster.volumes.capacity(&key(&new))?,
            })
        });
    }

    pub(super) fn attachment_event(&mut self, event: Event<Raw>) {
        match event {
            Event::Applied { old, new } => {
                // Another of the name may be of another node.
                if let Some(old) = old.filter(|old| old.metadata.uid != new.metadata.uid) {
                    self.detached(&old);
                }
                self.cluster.volumes.set_attachment(&new);
            }
            Event::Deleted(old) => self.detached(&old),
        }
    }

    fn detached(&mut self, old: &Raw) {
        let driver = self.cluster.volumes.remove_attachment(old);
        self.wake_for(|_| Some(Change::Detached(driver.as_deref()?)));
    }
}

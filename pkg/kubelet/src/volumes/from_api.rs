//! Volumes whose content comes from the API. Here is where they stand; what is in them `live` fetches and writes, as long
//! as the pod runs. Containers only read them: what the agent writes there it must not read back as somebody else's.

use k8s_openapi::api::core::v1::Volume;

use super::driver::{Driver, Request};
use super::record::{Record, Step};
use super::{Error, PodDir, folder, tmpfs};

pub struct FromApi {
    plugin: &'static str,
    claims: fn(&Volume) -> bool,
    /// Nothing secret reaches a disk.
    in_memory: bool,
}

pub static CONFIG_MAP: FromApi = FromApi {
    plugin: "kubernetes.io~configmap",
    claims: |volume| volume.config_map.is_some(),
    in_memory: false,
};

pub static SECRET: FromApi = FromApi {
    plugin: "kubernetes.io~secret",
    claims: |volume| volume.secret.is_some(),
    in_memory: true,
};

pub static DOWNWARD_API: FromApi = FromApi {
    plugin: "kubernetes.io~downward-api",
    claims: |volume| volume.downward_api.is_some(),
    in_memory: true,
};

pub static PROJECTED: FromApi = FromApi {
    plugin: "kubernetes.io~projected",
    claims: |volume| volume.projected.is_some(),
    in_memory: true,
};

impl Driver for FromApi {
    fn plugin(&self) -> &'static str {
        self.plugin
    }

    fn claims(&self, volume: &Volume) -> bool {
        (self.claims)(volume)
    }

    /// Its content is written anew at each start.
    fn is_durable(&self, _volume: &Volume) -> bool {
        false
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn ensure(&self, _step: Step, request: &Request<'_>, record: &mut Record) -> Result<(), Error> {
        let name = &request.volume.name;
        let parent = folder::ensure(request.dir, self.plugin)?;
        parent.ensure_dir(name, 0o755)?;
        if self.in_memory {
            tmpfs::ensure(&parent, name, None, record)?;
        }
        parent.dir(name)?.chmod(0o755)?;
        Ok(())
    }

    fn undo(&self, _step: Step, dir: &PodDir, volume: &str, record: &Record) -> Result<(), Error> {
        let Some(parent) = folder::find(dir, self.plugin)? else {
            return Ok(());
        };
        let was_mounted = self.in_memory && tmpfs::remove(&parent, volume, record)?;
        folder::remove(&parent, volume, was_mounted)
    }
}

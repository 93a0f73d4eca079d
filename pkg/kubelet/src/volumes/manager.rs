//! The volumes of all pods of the node: what is to be there, what has to go, and the order in which it is written down.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Volume};
use mk8s_supervisor::job;
use parking_lot::{Mutex, RwLock};

use super::atomic::{self, Payload};
use super::driver::{self, Driver, Request};
use super::record::{self, Record, State};
use super::{Error, PodDir, fs_group, subpath};
use crate::pod;
use mk8s_dirfd::{Dir, found};

/// Whoever makes something of a pod's passes here, so that at its end a step that was given up but still runs is waited
/// for, and none begins after.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    /// Read by each step while it runs.
    passing: RwLock<()>,
    /// One act at a time on each volume.
    volumes: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl Gate {
    fn through<T>(&self, volume: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let _passing = self.passing.read();
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        let turn = self.volumes.lock().entry(volume.to_owned()).or_default().clone();
        let _turn = turn.lock();
        work()
    }

    /// None begins after this; those under way are waited for. One may hang, on a host's folder whose server is gone: then
    /// the next try waits for it anew.
    fn close(&self, patience: Duration) -> Result<(), Error> {
        self.closed.store(true, Ordering::SeqCst);
        let passed = self.passing.try_write_for(patience);
        passed.map(drop).ok_or(Error::Hangs)
    }
}

/// With a step of a volume that hangs, until the pod's end says that it is held up by it.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Volumes {
    root: Arc<Dir>,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
}

impl Volumes {
    /// `root` holds the pods' directories, below `pods`.
    pub fn open(root: &Path) -> Result<Self, mk8s_dirfd::Error> {
        Ok(Self {
            root: Arc::new(Dir::create(root)?),
            gates: Mutex::default(),
        })
    }

    pub fn pod_dir(&self, uid: &str) -> PodDir {
        PodDir {
            root: self.root.clone(),
            below: Path::new("pods").join(uid),
        }
    }

    /// The pods that have a directory.
    pub fn pods(&self) -> Result<Vec<String>, mk8s_dirfd::Error> {
        let Some(pods) = found(self.root.dir("pods"))? else {
            return Ok(Vec::new());
        };
        let names = pods.entries()?.into_iter();
        Ok(names.filter_map(|(name, _)| name.into_string().ok()).collect())
    }

    fn gate(&self, uid: &str) -> Arc<Gate> {
        self.gates.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// Makes one volume ready, except for the content of live ones. Answers where it is.
    pub async fn ensure(&self, pod: &Arc<Pod>, volume: &Volume) -> Result<PathBuf, Error> {
        let driver = driver::of(volume).ok_or_else(|| Error::Kind(volume.name.clone()))?;
        let uid = pod::uid(pod);
        let (gate, dir) = (self.gate(uid), self.pod_dir(uid));
        let (pod, volume) = (pod.clone(), volume.clone());
        job::blocking("ensure-volume", move || {
            gate.through(&volume.name, || {
                let (pod, volume, dir) = (&pod, &volume, &dir);
                ensure_now(driver, &Request { pod, volume, dir })
            })
        })
        .await?
    }

    /// Writes a live volume's content as it should be now.
    pub async fn fill(&self, pod: &Pod, volume: &Volume, payload: Payload) -> Result<(), Error> {
        let driver = driver::of(volume).ok_or_else(|| Error::Kind(volume.name.clone()))?;
        let (gate, dir) = (self.gate(pod::uid(pod)), self.pod_dir(pod::uid(pod)));
        let (name, group) = (volume.name.clone(), fs_group(pod));
        job::blocking("fill-volume", move || {
            gate.through(&name, || {
                let content = dir.open()?.dir(format!("volumes/{}/{name}", driver.plugin()))?;
                atomic::write(&content, &payload, group)?;
                Ok(())
            })
        })
        .await?
    }

    /// Binds a part of a volume for one mount of a container. Blocking.
    pub fn bind_subpath(&self, uid: &str, part: &subpath::Part<'_>) -> Result<PathBuf, Error> {
        let (gate, dir) = (self.gate(uid), self.pod_dir(uid));
        gate.through(part.volume, || Ok(subpath::bind(&dir, part)?))
    }

    /// Takes the pod's volumes down with what is in them; what the host lent stays. Err: something stands in the way. What
    /// could go is gone, and it is to be asked for again.
    pub async fn tear_down(&self, uid: &str) -> Result<(), Error> {
        let (gate, dir) = (self.gate(uid), self.pod_dir(uid));
        let work = job::blocking("tear-down-volumes", move || {
            gate.close(PATIENCE)?;
            tear_down_all(&dir)
        });
        work.await?
    }

    /// Removes all that is left of the pod on disk, its volumes first. Err: as of `tear_down`.
    pub async fn remove(self: &Arc<Self>, uid: &str) -> Result<(), Error> {
        let (volumes, name) = (self.clone(), uid.to_owned());
        let work = job::blocking("remove-pod-directory", move || volumes.remove_blocking(&name));
        work.await?
    }

    fn remove_blocking(&self, uid: &str) -> Result<(), Error> {
        self.gate(uid).close(PATIENCE)?;
        tear_down_all(&self.pod_dir(uid))?;
        if let Some(pods) = found(self.root.dir("pods"))? {
            found(pods.remove_tree(uid))?;
        }
        self.gates.lock().remove(uid);
        Ok(())
    }
}

fn ensure_now(driver: &dyn Driver, request: &Request<'_>) -> Result<PathBuf, Error> {
    let pod = request.dir.create()?;
    let (plugin, name) = (driver.plugin(), request.volume.name.as_str());
    let durable = driver.is_durable(request.volume);
    let steps = driver.steps();
    let mut known = record::load(&pod, plugin, name)?;
    if known.is_none() && pod.exists(format!("volumes/{plugin}/{name}"))? {
        // Made before there were records, and made wholly: its pod has run.
        known = steps.last().map(|last| Record::new(State::Done(*last)));
    }
    for step in steps.iter().copied() {
        let before = known.clone();
        let mut record = known.unwrap_or_else(|| Record::new(State::Doing(step)));
        if !record.is_done(step) {
            record.state = State::Doing(step);
            if before.as_ref() != Some(&record) {
                record::store(&pod, plugin, name, &record, false)?;
            }
        }
        let written = record.clone();
        driver.ensure(step, request, &mut record)?;
        if !record.is_done(step) {
            record.state = State::Done(step);
        }
        if record != written || before.is_none() {
            record::store(&pod, plugin, name, &record, durable)?;
        }
        known = Some(record);
    }
    Ok(driver.path(request))
}

/// Goes on after a failure, so that one volume that can't go keeps no other; the first failure is told.
fn tear_down_all(dir: &PodDir) -> Result<(), Error> {
    let Some(pod) = found(dir.open())? else { return Ok(()) };
    let mut failed = subpath::unbind_all(&pod).err().map(Error::from);
    for driver in driver::DRIVERS.iter().copied() {
        let ended = undo_all(driver, dir, &pod);
        failed = failed.or(ended.err());
    }
    if let Some(error) = failed {
        return Err(error);
    }
    // What no driver knows is of a newer version's, or nobody's: it stays for the person who reads of it.
    let Some(volumes) = found(pod.dir("volumes"))? else {
        return Ok(());
    };
    for (plugin, _) in volumes.entries()? {
        volumes.remove_dir(&plugin)?;
    }
    drop(volumes);
    pod.remove_dir("volumes")?;
    Ok(())
}

/// The volumes of one kind: those that have a record, and those that stand there without.
fn undo_all(driver: &dyn Driver, dir: &PodDir, pod: &Dir) -> Result<(), Error> {
    let plugin = driver.plugin();
    let mut names: BTreeSet<String> = record::list(pod, plugin)?.into_iter().collect();
    if let Some(folder) = found(pod.dir(format!("volumes/{plugin}")))? {
        let there = folder.entries()?.into_iter();
        names.extend(there.filter_map(|(name, _)| name.into_string().ok()));
    }
    let mut failed = None;
    for name in names {
        failed = failed.or(undo(driver, dir, pod, &name).err());
    }
    failed.map_or(Ok(()), Err)
}

fn undo(driver: &dyn Driver, dir: &PodDir, pod: &Dir, name: &str) -> Result<(), Error> {
    let plugin = driver.plugin();
    let steps = driver.steps();
    let mut known = record::load(pod, plugin, name)?;
    let had_record = known.is_some();
    let Some(last) = steps.last() else { return Ok(()) };
    let mut record = known.take().unwrap_or_else(|| Record::new(State::Doing(*last)));
    for step in record.to_undo(steps) {
        // What was never done wholly stays marked so: its driver may have noted nothing yet.
        if had_record && record.is_done(step) {
            record.state = State::Undoing(step);
            record::store(pod, plugin, name, &record, false)?;
        }
        driver.undo(step, dir, name, &record)?;
        let before = steps.iter().rev().copied().find(|other| *other < step);
        if let (true, Some(before)) = (had_record, before) {
            record.state = State::Done(before);
            record::store(pod, plugin, name, &record, false)?;
        }
    }
    Ok(record::forget(pod, plugin, name)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mk8s_dirfd::testing::{tmpfs, with_shared_mounts};
    use nix::mount::{MntFlags, umount2};
    use serde_json::{Value, json};
    use std::fs;
    use std::future::Future;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    const UID: &str = "11111111-2222-3333-4444-555555555555";

    fn pod(volumes: &Value) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": UID},
            "spec": {"containers": [], "volumes": volumes, "securityContext": {"fsGroup": 2000}}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn now<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(work)
    }

    fn ensure(volumes: &Volumes, pod: &Arc<Pod>) -> Result<Vec<PathBuf>, Error> {
        let all = pod::spec(pod).volumes.iter().flatten();
        all.map(|volume| now(volumes.ensure(pod, volume))).collect()
    }

    fn blocked(teardown: Result<(), Error>, by: &str) {
        let error = teardown.unwrap_err().to_string();
        assert!(error.contains(by), "{error}");
    }

    #[test]
    fn a_volumes_root_is_set_up_once_in_its_life() {
        with_shared_mounts(|root| {
            let pod =
                pod(&json!([{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]));
            let paths = ensure(&Volumes::open(root).unwrap(), &pod).unwrap();
            for path in &paths {
                let meta = fs::metadata(path).unwrap();
                assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o2777, 2000));
                fs::set_permissions(path, fs::Permissions::from_mode(0o2700)).unwrap();
            }
            // The agent starts anew; nothing of its memory is left.
            assert_eq!(ensure(&Volumes::open(root).unwrap(), &pod).unwrap(), paths);
            for path in &paths {
                assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o2700);
            }
            // The host starts anew: what was in memory begins a new life.
            umount2(&paths[1], MntFlags::empty()).unwrap();
            ensure(&Volumes::open(root).unwrap(), &pod).unwrap();
            let modes: Vec<u32> = paths.iter().map(|p| fs::metadata(p).unwrap().mode() & 0o7777).collect();
            assert_eq!(modes, [0o2700, 0o2777]);
        });
    }

    #[test]
    fn a_set_up_that_was_cut_off_is_done_again() {
        let temp = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(temp.path()).unwrap();
        let pod = pod(&json!([{"name": "disk", "emptyDir": {}}]));
        let dir = volumes.pod_dir(UID).create().unwrap();
        let begun = Record::new(State::Doing(record::Step::Publish));
        record::store(&dir, "kubernetes.io~empty-dir", "disk", &begun, false).unwrap();
        dir.ensure_dir("volumes/kubernetes.io~empty-dir/disk", 0o700).unwrap();
        let path = ensure(&volumes, &pod).unwrap().remove(0);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2777);
        // One that was made before there were records has been in use.
        fs::remove_file(
            temp.path()
                .join(format!("pods/{UID}/plugins/kubernetes.io~empty-dir/disk.json")),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2700)).unwrap();
        ensure(&volumes, &pod).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2700);
    }

    #[test]
    fn what_is_mounted_in_a_volume_is_never_unmounted_nor_deleted() {
        with_shared_mounts(|root| {
            let pod = pod(&json!([
                {"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}},
                {"name": "secret", "secret": {"secretName": "s"}}, {"name": "free", "emptyDir": {}},
            ]));
            let paths = ensure(&Volumes::open(root).unwrap(), &pod).unwrap();
            for path in &paths[..2] {
                fs::create_dir(path.join("theirs")).unwrap();
                tmpfs(&path.join("theirs"));
                fs::write(path.join("theirs/kept"), "kept").unwrap();
            }
            tmpfs(&paths[2]);
            fs::write(paths[2].join("kept"), "kept").unwrap();
            fs::write(paths[3].join("file"), "").unwrap();
            // Whoever looks: the records on disk are all that is needed.
            for _ in 0..2 {
                let volumes = Arc::new(Volumes::open(root).unwrap());
                blocked(now(volumes.tear_down(UID)), &paths[2].display().to_string());
                blocked(now(volumes.remove(UID)), &paths[2].display().to_string());
            }
            assert!(!paths[3].exists(), "what nothing keeps goes");
            for kept in [
                paths[0].join("theirs/kept"),
                paths[1].join("theirs/kept"),
                paths[2].join("kept"),
            ] {
                assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
            }
            for mount in [paths[0].join("theirs"), paths[1].join("theirs"), paths[2].clone()] {
                umount2(&mount, MntFlags::empty()).unwrap();
            }
            let volumes = Arc::new(Volumes::open(root).unwrap());
            now(volumes.tear_down(UID)).unwrap();
            now(volumes.tear_down(UID)).unwrap();
            assert!(root.join("pods").join(UID).exists());
            now(volumes.remove(UID)).unwrap();
            assert!(!root.join("pods").join(UID).exists());
            now(volumes.remove(UID)).unwrap();
        });
    }

    #[test]
    fn a_step_that_hangs_is_told_of() {
        let gate = Gate::default();
        let (begun, until) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        std::thread::scope(|scope| {
            let (gate, said, held) = (&gate, begun.0, until.1);
            scope.spawn(move || {
                gate.through("host", || {
                    said.send(()).unwrap();
                    let _ = held.recv();
                    Ok(())
                })
            });
            begun.1.recv().unwrap();
            assert!(matches!(gate.close(Duration::from_millis(50)), Err(Error::Hangs)));
            assert!(matches!(gate.through("other", || Ok(())), Err(Error::Closed)));
            drop(until.0);
            gate.close(Duration::from_secs(60)).unwrap();
        });
        assert!(matches!(gate.through("host", || Ok(())), Err(Error::Closed)));
    }

    #[test]
    fn nothing_is_made_once_a_pods_volumes_go() {
        let temp = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(temp.path()).unwrap();
        let pod = pod(&json!([{"name": "disk", "emptyDir": {}}, {"name": "map", "configMap": {"name": "m"}}]));
        ensure(&volumes, &pod).unwrap();
        now(volumes.tear_down(UID)).unwrap();
        assert!(matches!(ensure(&volumes, &pod), Err(Error::Closed)));
        let map = &pod::spec(&pod).volumes.as_ref().unwrap()[1];
        assert!(matches!(
            now(volumes.fill(&pod, map, Payload::new())),
            Err(Error::Closed)
        ));
    }

    #[test]
    fn names_that_are_no_text_stop_nothing() {
        with_shared_mounts(|root| {
            use std::os::unix::ffi::OsStrExt as _;
            let odd = root.join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
            fs::create_dir(&odd).unwrap();
            tmpfs(&odd);
            let volumes = Arc::new(Volumes::open(root).unwrap());
            let pod =
                pod(&json!([{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]));
            let paths = ensure(&volumes, &pod).unwrap();
            fs::write(paths[0].join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
            now(volumes.remove(UID)).unwrap();
            assert!(!paths[0].exists() && odd.exists());
        });
    }
}

//! What is written down of each volume, before each act: how far it has come on its way from nothing to the container and
//! back. After a crash the record says what may have been begun, and what has to be undone.
//!
//! ```text
//!        attach       stage        publish           up: those of the driver's steps that are not done yet
//!  none ───────▶ · ────────▶ · ──────────▶ published
//!       ◀─────── · ◀──────── · ◀──────────           down: all that was ever begun, the last first
//! ```

use serde::{Deserialize, Serialize};

use mk8s_dirfd::{Dir, found};

/// What a volume needs before a container can use it, in this order; a driver has some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The storage comes to this node (a disk from another machine).
    Attach,
    /// It is there for all pods of the node that use it (formatted, mounted once).
    Stage,
    /// It is there for this pod.
    Publish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Doing(Step),
    Done(Step),
    Undoing(Step),
}

impl State {
    fn step(self) -> Step {
        match self {
            State::Doing(step) | State::Done(step) | State::Undoing(step) => step,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub state: State,
    /// The device number of the file system that the driver mounted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
}

impl Record {
    pub fn new(state: State) -> Self {
        Self { state, device: None }
    }

    /// Whether a step is through; a step that is being undone is not.
    pub fn is_done(&self, step: Step) -> bool {
        match self.state {
            State::Done(done) => step <= done,
            State::Doing(other) | State::Undoing(other) => step < other,
        }
    }

    /// What of the driver's steps has to be undone, in order.
    pub fn to_undo(&self, steps: &[Step]) -> Vec<Step> {
        let begun = self.state.step();
        steps.iter().rev().copied().filter(|step| *step <= begun).collect()
    }
}

/// Volumes' records: `plugins/PLUGIN/VOLUME.json` below the pod's directory.
fn file(volume: &str) -> String {
    format!("{volume}.json")
}

/// `durable`: the volume outlives a power cut, and so has to be what is known of it.
pub fn store(pod: &Dir, plugin: &str, volume: &str, record: &Record, durable: bool) -> mk8s_dirfd::Result<()> {
    let (dir, _) = pod.ensure_dir(format!("plugins/{plugin}"), 0o750)?;
    let text = serde_json::to_vec(record).unwrap_or_default();
    dir.replace_file(&file(volume), &text, 0o600, durable)
}

/// A record that can't be read was being written when the power went: the last step may have been begun.
pub fn load(pod: &Dir, plugin: &str, volume: &str) -> mk8s_dirfd::Result<Option<Record>> {
    let text = found(pod.read(format!("plugins/{plugin}/{}", file(volume))))?;
    Ok(text.map(|text| serde_json::from_slice(&text).unwrap_or_else(|_| Record::new(State::Doing(Step::Publish)))))
}

pub fn forget(pod: &Dir, plugin: &str, volume: &str) -> mk8s_dirfd::Result<()> {
    let Some(dir) = found(pod.dir(format!("plugins/{plugin}")))? else {
        return Ok(());
    };
    found(dir.remove_file(file(volume)))?;
    Ok(())
}

/// The volumes of a plugin that have a record.
pub fn list(pod: &Dir, plugin: &str) -> mk8s_dirfd::Result<Vec<String>> {
    let Some(dir) = found(pod.dir(format!("plugins/{plugin}")))? else {
        return Ok(Vec::new());
    };
    let names = dir
        .entries()?
        .into_iter()
        .filter_map(|(name, _)| name.into_string().ok());
    Ok(names
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Step::{Attach, Publish, Stage};
    use super::*;

    #[test]
    fn all_that_was_ever_begun_is_undone() {
        let all = [Attach, Stage, Publish];
        for (state, undo, published) in [
            (State::Doing(Attach), vec![Attach], false),
            (State::Done(Attach), vec![Attach], false),
            (State::Doing(Stage), vec![Stage, Attach], false),
            (State::Doing(Publish), vec![Publish, Stage, Attach], false),
            (State::Done(Publish), vec![Publish, Stage, Attach], true),
            (State::Undoing(Publish), vec![Publish, Stage, Attach], false),
            (State::Undoing(Stage), vec![Stage, Attach], false),
        ] {
            let record = Record::new(state);
            assert_eq!(record.to_undo(&all), undo, "{state:?}");
            assert_eq!(record.is_done(Publish), published, "{state:?}");
        }
        assert_eq!(Record::new(State::Done(Publish)).to_undo(&[Publish]), [Publish]);
        assert!(Record::new(State::Doing(Publish)).is_done(Stage));
    }

    #[test]
    fn a_record_is_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        assert_eq!(load(&dir, "kubernetes.io~x", "v").unwrap(), None);
        let mut record = Record::new(State::Done(Publish));
        record.device = Some(7);
        for durable in [false, true] {
            store(&dir, "kubernetes.io~x", "v", &record, durable).unwrap();
            assert_eq!(load(&dir, "kubernetes.io~x", "v").unwrap(), Some(record.clone()));
        }
        assert_eq!(list(&dir, "kubernetes.io~x").unwrap(), ["v"]);
        std::fs::write(temp.path().join("plugins/kubernetes.io~x/v.json"), "").unwrap();
        assert_eq!(
            load(&dir, "kubernetes.io~x", "v").unwrap().unwrap().state,
            State::Doing(Publish)
        );
        forget(&dir, "kubernetes.io~x", "v").unwrap();
        forget(&dir, "kubernetes.io~x", "v").unwrap();
        assert_eq!(load(&dir, "kubernetes.io~x", "v").unwrap(), None);
    }
}

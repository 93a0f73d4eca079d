//! Reading a log as it grows: what is there, then what comes, through rotations, until the container has ended and its
//! log writer has written the last line.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::log_lines::{Lines, Options};
use crate::agent::View;

pub struct Reader {
    pub file: PathBuf,
    pub container: String,
    pub id: String,
    /// Some: follow, until this shows that the container has ended.
    pub alive: Option<watch::Receiver<Arc<View>>>,
    pub options: Options,
}

type Out = mpsc::Sender<Result<Bytes, std::io::Error>>;

impl Reader {
    pub async fn run(self, out: Out) {
        if let Err(error) = self.copy(&out).await {
            tracing::debug!(file = %self.file.display(), %error, "reading a log ended");
        }
    }

    async fn copy(&self, out: &Out) -> std::io::Result<()> {
        let mut left = self.options.limit;
        let Some(mut alive) = self.alive.clone() else {
            let mut lines = Lines::open(&self.file, self.options.tail)?;
            self.drain(&mut lines, out, &mut left).await?;
            return Ok(());
        };
        // Before the first read, so that nothing written after it is missed.
        let mut follow = Follow::begin(&self.file)?;
        let mut lines = Lines::open(&self.file, self.options.tail)?;
        // The first look tells how things stand; only an end that comes later may have lines on their way.
        let mut ending = (!self.is_running(&alive.borrow_and_update())).then(Instant::now);
        loop {
            let writer_left = follow.writer_left;
            let moved = follow.moved;
            if !self.drain(&mut lines, out, &mut left).await? {
                return Ok(());
            }
            if moved {
                // All of the old file has been read: the new one from its beginning.
                match Follow::begin(&self.file).and_then(|f| Ok((f, lines.continued(&self.file)?))) {
                    Ok(begun) => (follow, lines) = begun,
                    // Between the renaming and the new file.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound && ending.is_none() => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        let is_over = alive.has_changed().is_err() || !self.is_running(&alive.borrow());
                        if is_over || out.is_closed() {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            let now = Instant::now();
            if ending.is_some_and(|at| writer_left || at <= now) {
                return Ok(());
            }
            let deadline = async {
                match ending {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = out.closed() => return Ok(()),
                changed = alive.changed(), if ending.is_none() => {
                    // Without its worker the pod is gone, or this agent is about to be.
                    if changed.is_err() || !self.is_running(&alive.borrow()) {
                        ending = Some(Instant::now() + LAST_LINES);
                    }
                }
                changed = follow.changed() => changed?,
                () = deadline => {}
            }
        }
    }

    /// All there is now. False: enough, or nobody listens.
    async fn drain(&self, lines: &mut Lines, out: &Out, left: &mut Option<u64>) -> std::io::Result<bool> {
        loop {
            let (batch, more) = lines.batch(&self.options)?;
            if !self.send(out, batch, left).await {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
        }
    }

    fn is_running(&self, view: &View) -> bool {
        let current = view
            .containers
            .get(&self.container)
            .and_then(|(current, _)| current.as_ref());
        current.is_some_and(|i| i.id == self.id && i.exit.is_none())
    }

    /// False: enough, or nobody listens.
    async fn send(&self, out: &Out, mut batch: Vec<u8>, left: &mut Option<u64>) -> bool {
        if let Some(left) = left {
            batch.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= batch.len() as u64;
        }
        if !batch.is_empty() && out.send(Ok(Bytes::from(batch))).await.is_err() {
            return false;
        }
        *left != Some(0)
    }
}

/// A container is seen to end before its log writer has written the last lines; it then closes the file, or else this
/// long is waited for it.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What happens to the file.
struct Follow {
    events: AsyncFd<InotifyFd>,
    /// It has been renamed: the log goes on in a new file of the old name.
    moved: bool,
    /// The log writer has closed it.
    writer_left: bool,
}

impl Follow {
    fn begin(file: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let wanted = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(file, wanted)?;
        #[allow(
            deprecated,
            reason = "the descriptor is owned by what is registered; the way that replaces it is unsafe"
        )]
        let events = AsyncFd::new(InotifyFd(inotify))?;
        Ok(Self {
            events,
            moved: false,
            writer_left: false,
        })
    }

    async fn changed(&mut self) -> std::io::Result<()> {
        let mut ready = self.events.readable().await?;
        let seen = ready.get_inner().seen();
        ready.clear_ready();
        self.moved |= seen.contains(AddWatchFlags::IN_MOVE_SELF);
        self.writer_left |= seen.contains(AddWatchFlags::IN_CLOSE_WRITE);
        Ok(())
    }
}

struct InotifyFd(Inotify);

impl InotifyFd {
    /// What has happened since the last look, all together.
    fn seen(&self) -> AddWatchFlags {
        let events = self.0.read_events().unwrap_or_default();
        events
            .iter()
            .fold(AddWatchFlags::empty(), |all, event| all | event.mask)
    }
}

impl AsFd for InotifyFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;
    use crate::record::{Exit, Instance};

    fn view(exit: bool) -> Arc<View> {
        let now = jiff::Timestamp::now();
        let exit = exit.then(|| Exit {
            code: 0,
            reason: "Completed".into(),
            message: String::new(),
            finished_at: now,
        });
        let instance = Instance {
            id: "one".into(),
            sandbox: String::new(),
            attempt: 0,
            image: String::new(),
            image_name: String::new(),
            image_id: String::new(),
            started_at: Some(now),
            exit,
            stop_signal: None,
            user: None,
        };
        Arc::new(View {
            containers: [("c".to_owned(), (Some(instance), None))].into(),
            ..View::default()
        })
    }

    #[tokio::test]
    async fn following_goes_through_a_rotation_to_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let open = || {
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap()
        };
        let say =
            |file: &mut std::fs::File, text: &str| writeln!(file, "2026-01-01T00:00:00Z stdout F {text}").unwrap();
        let mut file = open();
        say(&mut file, "one");
        let (views, alive) = watch::channel(view(false));
        let reader = Reader {
            file: path.clone(),
            container: "c".into(),
            id: "one".into(),
            alive: Some(alive),
            options: Options {
                follow: true,
                ..Options::default()
            },
        };
        let (out, mut lines) = mpsc::channel(16);
        let running = mk8s_supervisor::job::spawn("log-reader", reader.run(out));
        assert_eq!(lines.recv().await.unwrap().unwrap(), "one\n");
        say(&mut file, "two");
        assert_eq!(lines.recv().await.unwrap().unwrap(), "two\n");
        std::fs::rename(&path, dir.path().join("0.log.old")).unwrap();
        file = open();
        say(&mut file, "three");
        assert_eq!(lines.recv().await.unwrap().unwrap(), "three\n");
        views.send_replace(view(true));
        tokio::time::sleep(Duration::from_millis(50)).await;
        say(&mut file, "four");
        drop(file);
        assert_eq!(lines.recv().await.unwrap().unwrap(), "four\n");
        assert!(lines.recv().await.is_none());
        running.await.unwrap();
    }
}

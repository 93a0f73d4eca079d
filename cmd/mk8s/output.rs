//! What the verbs say, by the names of std's macros, which these take the place of in the whole program: std's panic when
//! nobody reads any more (`mk8s status | head -1`).
//!
//! Nor does SIGPIPE end a verb, as it would `cat`: it could come from a socket as well, in the middle of a set-up. A verb goes
//! on to its end without a listener. What can't be written for another reason, as on a full disk, is the verb's failure.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use parking_lot::Mutex;

use crate::failure::{Failure, Result};

/// The first error of a write to stdout.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

macro_rules! print {
    ($($text:tt)*) => { $crate::output::say(format_args!($($text)*)) };
}

macro_rules! println {
    () => { print!("\n") };
    ($($text:tt)*) => { print!("{}\n", format_args!($($text)*)) };
}

macro_rules! eprint {
    ($($text:tt)*) => { $crate::output::warn(format_args!($($text)*)) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { eprint!("{}\n", format_args!($($text)*)) };
}

pub fn say(text: Arguments<'_>) {
    note(io::stdout().lock().write_fmt(text));
}

/// Where this fails there is nobody left to be told.
pub fn warn(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILED.lock().get_or_insert(error);
    }
}

/// Whether all that was said was written.
pub fn finish() -> Result<()> {
    note(io::stdout().lock().flush());
    let failed = FAILED.lock().take();
    failed.map_or(Ok(()), |error| Err(Failure::of("write to stdout", error)))
}

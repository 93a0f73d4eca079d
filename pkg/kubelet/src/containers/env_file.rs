//! The files from which variables of a container's environment come (`fileKeyRef`, KEP-3721): `NAME='value'` a line, of which the value
//! may go on over further lines; blanks and comments between them. Written by another container, read bounded and suspiciously.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, FileKeySelector};

use super::expansion::PROCESS_LIMIT;
use crate::volumes::Paths;

/// What is read of one: more would not go into an environment.
const LIMIT: u64 = PROCESS_LIMIT as u64;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("cannot find the volume {0:?} referenced by FileKeyRef")]
    Volume(String),
    #[error("couldn't parse env file: {path:?} of volume {volume:?}: {why}")]
    Read { volume: String, path: String, why: String },
    #[error("couldn't parse env file: {path:?} of volume {volume:?}, line {line}: {what}")]
    Line {
        volume: String,
        path: String,
        line: usize,
        what: &'static str,
    },
}

/// The texts of the files that a container's variables name, by volume and path.
pub type Files = BTreeMap<(String, String), Result<String, String>>;

fn selectors(container: &Container) -> impl Iterator<Item = &FileKeySelector> {
    let sources = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
    sources.filter_map(|source| source.file_key_ref.as_ref())
}

/// Blocking. Of volumes that there are; the same file once.
pub fn read_all(container: &Container, volumes: &Paths) -> Files {
    let mut files = Files::new();
    for selector in selectors(container) {
        let Some(volume) = volumes.get(&selector.volume_name) else {
            continue;
        };
        let key = (selector.volume_name.clone(), selector.path.clone());
        files.entry(key).or_insert_with(|| read(volume, &selector.path));
    }
    files
}

fn read(volume: &Path, path: &str) -> Result<String, String> {
    let file = mk8s_dirfd::Dir::open(volume).and_then(|dir| dir.file_beneath(path));
    let file = file.map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(LIMIT + 1).read_to_string(&mut text);
    match read.map_err(|error| error.to_string())? as u64 > LIMIT {
        true => Err(format!("it is longer than {LIMIT} bytes")),
        false => Ok(text),
    }
}

/// The value that a selector means; none where the file has no such key, or it is empty.
pub fn value(files: &Files, selector: &FileKeySelector) -> Result<Option<String>, Error> {
    let (volume, path) = (selector.volume_name.clone(), selector.path.clone());
    let Some(text) = files.get(&(volume.clone(), path.clone())) else {
        return Err(Error::Volume(volume));
    };
    let text = text.as_ref().map_err(|why| Error::Read {
        volume: volume.clone(),
        path: path.clone(),
        why: why.clone(),
    })?;
    let found = find(text, &selector.key).map_err(|(line, what)| Error::Line {
        volume,
        path,
        line,
        what,
    });
    Ok(found?.filter(|value| !value.is_empty()))
}

/// What is wrong in which line.
type Wrong = (usize, &'static str);

/// Each line is read only as far as the key is not found, as upstream reads it.
fn find(text: &str, key: &str) -> Result<Option<String>, Wrong> {
    let mut lines = text.lines().map(|line| line.trim_end_matches('\r')).zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_start_matches(BLANKS);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once('=').ok_or((number, "there is no '='"))?;
        if name.is_empty() || name.ends_with(BLANKS) {
            return Err((number, "'=' follows no name, or a blank"));
        }
        let value = if rest.starts_with(BLANKS) {
            // As a shell has it: set to nothing.
            String::new()
        } else {
            let rest = rest
                .strip_prefix('\'')
                .ok_or((number, "the value stands in no single quotes"))?;
            quoted(rest, number, &mut lines)?
        };
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

const BLANKS: [char; 2] = [' ', '\t'];

/// To the closing quote, in whichever line that is.
fn quoted<'a>(
    first: &'a str,
    begun: usize,
    lines: &mut impl Iterator<Item = (&'a str, usize)>,
) -> Result<String, Wrong> {
    let (mut value, mut line, mut number) = (String::new(), first, begun);
    loop {
        if let Some((end, after)) = line.split_once('\'') {
            value.push_str(end);
            let after = after.trim_start_matches(BLANKS);
            let is_comment = after.is_empty() || after.starts_with('#');
            return if is_comment {
                Ok(value)
            } else {
                Err((number, "something follows the closing quote"))
            };
        }
        value.push_str(line);
        value.push('\n');
        (line, number) = lines.next().ok_or((begun, "the quote is not closed"))?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_read_as_upstream_reads_them() {
        for (text, key, expected) in [
            ("A='1'\nB='2'", "B", Ok(Some("2"))),
            ("A='1'\nA='2'", "A", Ok(Some("1"))),
            ("A='1'", "B", Ok(None)),
            ("", "A", Ok(None)),
            ("\n  \t\n# A='0'\n \tA='1' # one", "A", Ok(Some("1"))),
            ("A='a $B \\n \"'", "A", Ok(Some("a $B \\n \""))),
            ("A='one\n two\n'\nB='2'", "A", Ok(Some("one\n two\n"))),
            ("A='one\n two\n'\nB='2'", "B", Ok(Some("2"))),
            ("A='1'\r\nB='2'\r\n", "B", Ok(Some("2"))),
            ("A= '1'\nB='2'", "A", Ok(Some(""))),
            ("A= '1'\nB='2'", "B", Ok(Some("2"))),
            ("A=1", "A", Err((1, "the value stands in no single quotes"))),
            ("A=", "A", Err((1, "the value stands in no single quotes"))),
            ("A ='1'", "A", Err((1, "'=' follows no name, or a blank"))),
            ("='1'", "A", Err((1, "'=' follows no name, or a blank"))),
            ("\nexport A", "A", Err((2, "there is no '='"))),
            ("A='1' B='2'", "A", Err((1, "something follows the closing quote"))),
            ("B='1\n2\n' x", "A", Err((3, "something follows the closing quote"))),
            ("\nA='1\n2", "A", Err((2, "the quote is not closed"))),
            // What comes after what is looked for is not read.
            ("A='1'\nnonsense", "A", Ok(Some("1"))),
        ] {
            let expected = expected.map(|value| value.map(str::to_owned));
            assert_eq!(find(text, key), expected, "{text:?} {key}");
        }
    }

    #[test]
    fn a_file_is_one_of_its_volume_and_no_longer_than_an_environment() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "A='secret'").unwrap();
        std::fs::write(volume.join("sub/env"), "A='1'").unwrap();
        std::fs::write(volume.join("long"), vec![b'#'; PROCESS_LIMIT + 1]).unwrap();
        for (link, to) in [
            ("inside", "sub/env"),
            ("outside", "../secret"),
            ("absolute", "/etc/hostname"),
        ] {
            std::os::unix::fs::symlink(to, volume.join(link)).unwrap();
        }
        nix::unistd::mkfifo(&volume.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (path, is_read) in [
            ("sub/env", true),
            ("inside", true),
            ("outside", false),
            ("absolute", false),
            ("../secret", false),
            ("pipe", false),
            ("sub", false),
            ("long", false),
            ("none", false),
        ] {
            assert_eq!(read(&volume, path).is_ok(), is_read, "{path}");
        }
    }
}

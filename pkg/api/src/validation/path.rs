//! A field's path as a chain on the stack: it becomes text only when something is wrong, and one that is bounded.

use std::fmt;

use crate::bounded;

#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Child(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// Of an object itself: it is told as nothing.
    pub const ROOT: Path<'static> = Path::new("");

    pub const fn new(root: &'a str) -> Self {
        Path {
            parent: None,
            step: Step::Child(root),
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        matches!((self.parent, self.step), (None, Step::Child("")))
    }

    #[must_use]
    pub const fn child<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path {
            parent: Some(self),
            step: Step::Child(name),
        }
    }

    #[must_use]
    pub const fn index(&self, index: usize) -> Path<'_> {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// What this is a part of; itself where that is the root.
    #[must_use]
    pub fn parent(&self) -> &Path<'a> {
        self.parent.unwrap_or(self)
    }

    /// Another field of what this is a field of.
    #[must_use]
    pub const fn beside<'b>(&self, name: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path {
            parent: self.parent,
            step: Step::Child(name),
        }
    }

    /// `labels[key]`
    #[must_use]
    pub const fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }
}

impl Path<'_> {
    fn print(&self, to: &mut dyn fmt::Write) -> fmt::Result {
        let parent = self.parent.filter(|parent| !parent.is_root());
        if let Some(parent) = parent {
            parent.print(to)?;
        }
        match self.step {
            Step::Child(name) if parent.is_some() => write!(to, ".{name}"),
            Step::Child(name) => to.write_str(name),
            Step::Index(index) => write!(to, "[{index}]"),
            Step::Key(key) => write!(to, "[{key}]"),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bounded::path(f, |to| self.print(to))
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> String {
        path.to_string()
    }
}

impl From<Path<'_>> for String {
    fn from(path: Path<'_>) -> String {
        path.to_string()
    }
}

//! What is told of a body stays shorter than the body: a key may be as long as one, and stands before the path of everything
//! that lies below it; and there may be as much wrong with a body as it has bytes.

use std::fmt::{self, Write};

/// Bytes of a path, or of a step of one, that are told.
pub const MAX_PATH: usize = 1 << 10;

/// How many findings about one body are kept.
pub const MOST_FINDINGS: usize = 1000;

/// No more of them are kept after so many bytes of words.
pub const MOST_WORDS: usize = 1 << 20;

/// Says that a path goes on.
const CUT: &str = "…";

/// Prints a path to at most [`MAX_PATH`] bytes. What is longer is cut where it is deepest, and `print` is ended there.
///
/// # Errors
/// Those of what is printed to.
pub fn path(to: &mut dyn Write, print: impl FnOnce(&mut dyn Write) -> fmt::Result) -> fmt::Result {
    let mut bounded = Bounded {
        to,
        left: MAX_PATH,
        cut: false,
    };
    match print(&mut bounded) {
        Err(_) if bounded.cut => bounded.to.write_str(CUT),
        result => result,
    }
}

/// The start of a text that may be a step of a path.
pub fn step(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_PATH)]
}

struct Bounded<'a> {
    to: &'a mut dyn Write,
    left: usize,
    cut: bool,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(self.left);
        self.left -= fits;
        self.to.write_str(&text[..fits])?;
        self.cut = fits < text.len();
        if self.cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_cut_and_no_more_of_them_is_printed() {
        let mut text = String::new();
        let mut steps = 0;
        let print = |to: &mut dyn Write| {
            (0..1_000_000).try_for_each(|_| {
                steps += 1;
                to.write_str("aé")
            })
        };
        assert!(path(&mut text, print).is_ok());
        assert_eq!((text.len(), steps), (MAX_PATH + CUT.len(), MAX_PATH / 3 + 1));
        assert!(text.ends_with("aéa…"), "{text}");
        let mut text = String::new();
        assert!(path(&mut text, |to| to.write_str(&"a".repeat(MAX_PATH))).is_ok());
        assert_eq!(text.len(), MAX_PATH);
        assert_eq!(step(&"é".repeat(MAX_PATH)).len(), MAX_PATH);
    }
}

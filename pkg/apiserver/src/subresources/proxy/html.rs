//! The links in a page, rewritten while it passes: only the values of attributes that hold links are touched. What is not
//! complete yet waits for the next piece, up to a bound.

/// Elements with the attributes that hold links.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is no markup.
const RAW: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];
/// A tag longer than this is passed on as it is.
const LONGEST_TAG: usize = 16 << 10;

/// Where in the page the next byte stands.
enum Place {
    Markup,
    Comment,
    /// Inside of an element whose content is no markup, up to `</NAME`.
    Raw(String),
}

/// A page that passes.
pub struct Page<F> {
    rewrite: F,
    place: Place,
    pending: Vec<u8>,
}

impl<F: Fn(&str) -> Option<String>> Page<F> {
    pub fn new(rewrite: F) -> Self {
        Page {
            rewrite,
            place: Place::Markup,
            pending: Vec::new(),
        }
    }

    /// Takes a piece, and appends to `out` what is complete.
    pub fn take(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut text = std::mem::take(&mut self.pending);
        text.extend_from_slice(piece);
        let mut at = 0;
        while at < text.len() {
            let used = match &self.place {
                Place::Markup => self.markup(&text[at..], out),
                Place::Comment => self.until(&text[at..], b"-->", out),
                Place::Raw(name) => {
                    let end = format!("</{name}");
                    self.until(&text[at..], end.as_bytes(), out)
                }
            };
            if used == 0 {
                break;
            }
            at += used;
        }
        text.drain(..at);
        self.pending = text;
    }

    /// The page has ended.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.pending);
    }

    /// Text up to a tag, or a tag; how much of it was used.
    fn markup(&mut self, text: &[u8], out: &mut Vec<u8>) -> usize {
        let open = memchr::memchr(b'<', text).unwrap_or(text.len());
        if open > 0 {
            out.extend_from_slice(&text[..open]);
            return open;
        }
        if b"<!--".starts_with(&text[..text.len().min(4)]) {
            if text.len() < 4 {
                return 0;
            }
            self.place = Place::Comment;
            out.extend_from_slice(b"<!--");
            return 4;
        }
        if !text[1].is_ascii_alphabetic() {
            out.push(b'<');
            return 1;
        }
        let text = &text[..text.len().min(LONGEST_TAG)];
        let Some(tag) = Tag::read(text) else {
            if text.len() < LONGEST_TAG {
                return 0;
            }
            // All that was read for nothing, or a page of `<a` would be read anew from each of them.
            out.extend_from_slice(text);
            return text.len();
        };
        self.rewritten(&tag, &text[..tag.length], out);
        if RAW.contains(&&*tag.name) {
            self.place = Place::Raw(tag.name);
        }
        tag.length
    }

    fn rewritten(&self, tag: &Tag, text: &[u8], out: &mut Vec<u8>) {
        let links = LINKS.iter().find(|(name, _)| *name == tag.name);
        let links = links.map_or(&[][..], |(_, attributes)| attributes);
        let mut copied = 0;
        for (name, value) in &tag.attributes {
            if !links.contains(&&**name) {
                continue;
            }
            let link = std::str::from_utf8(&text[value.clone()]).ok();
            if let Some(link) = link.and_then(|link| (self.rewrite)(link)) {
                out.extend_from_slice(&text[copied..value.start]);
                out.extend_from_slice(link.as_bytes());
                copied = value.end;
            }
        }
        out.extend_from_slice(&text[copied..]);
    }

    /// Text up to and with the end that is looked for, in whichever case; how much of it was used.
    fn until(&mut self, text: &[u8], end: &[u8], out: &mut Vec<u8>) -> usize {
        let found = text
            .windows(end.len())
            .position(|window| window.eq_ignore_ascii_case(end));
        let used = match found {
            Some(at) => {
                self.place = Place::Markup;
                at + end.len()
            }
            // What could be the beginning of the end waits.
            None => (text.len() + 1).saturating_sub(end.len()),
        };
        out.extend_from_slice(&text[..used]);
        used
    }
}

/// A start tag.
struct Tag {
    name: String,
    /// Name, and where the value stands in the tag.
    attributes: Vec<(String, std::ops::Range<usize>)>,
    length: usize,
}

impl Tag {
    /// The tag at the text's beginning; None where it has not ended.
    fn read(text: &[u8]) -> Option<Tag> {
        let mut reader = Reader { text, at: 1 };
        let name = reader.word(b"/>");
        let mut attributes = Vec::new();
        loop {
            reader.skip(|byte| byte.is_ascii_whitespace() || byte == b'/');
            if reader.peek()? == b'>' {
                let length = reader.at + 1;
                let name = lower(&text[name]);
                return Some(Tag {
                    name,
                    attributes,
                    length,
                });
            }
            let start = reader.at;
            let attribute = reader.word(b"=/>");
            if reader.at == start {
                // A stray `=`.
                reader.at += 1;
                continue;
            }
            reader.skip(|byte| byte.is_ascii_whitespace());
            if reader.peek()? == b'=' {
                reader.at += 1;
                let value = reader.value()?;
                attributes.push((lower(&text[attribute]), value));
            }
        }
    }
}

fn lower(text: &[u8]) -> String {
    String::from_utf8_lossy(text).to_ascii_lowercase()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip(&mut self, what: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&what) {
            self.at += 1;
        }
    }

    /// Up to white space or one of the ends.
    fn word(&mut self, ends: &[u8]) -> std::ops::Range<usize> {
        let start = self.at;
        self.skip(|byte| !byte.is_ascii_whitespace() && !ends.contains(&byte));
        start..self.at
    }

    /// What follows `=`, without its quotes; None where it has not ended.
    fn value(&mut self) -> Option<std::ops::Range<usize>> {
        self.skip(|byte| byte.is_ascii_whitespace());
        let quote = self.peek()?;
        if !matches!(quote, b'"' | b'\'') {
            return Some(self.word(b">"));
        }
        self.at += 1;
        let start = self.at;
        self.skip(|byte| byte != quote);
        self.peek()?;
        self.at += 1;
        Some(start..self.at - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shout(link: &str) -> Option<String> {
        link.starts_with('/').then(|| format!("/P{link}"))
    }

    /// In pieces of every size, since what waits for the next piece must not change the page.
    fn passes(page: &str, wanted: &str) {
        for size in 1..=page.len() {
            let (mut passing, mut out) = (Page::new(shout), Vec::new());
            for piece in page.as_bytes().chunks(size) {
                passing.take(piece, &mut out);
            }
            passing.end(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), wanted, "in pieces of {size}");
        }
    }

    #[test]
    fn links_are_rewritten_and_nothing_else() {
        passes(
            r#"<!DOCTYPE html><A HREF="/a">/a</a><img alt="/b" src='/c'><form action=/d method=post><br/></form>"#,
            r#"<!DOCTYPE html><A HREF="/P/a">/a</a><img alt="/b" src='/P/c'><form action=/P/d method=post><br/></form>"#,
        );
        passes(r#"<a href = "/a?x=1&amp;y=>" >"#, r#"<a href = "/P/a?x=1&amp;y=>" >"#);
        passes(
            r#"1 < 2 <<a href="b"><p href="/c">"#,
            r#"1 < 2 <<a href="b"><p href="/c">"#,
        );
        passes("<a = href=/a", "<a = href=/a");
    }

    #[test]
    fn what_is_no_markup_stays() {
        passes(
            r#"<!-- <a href="/a"> --><a href="/b"><script src="/c">"<a href='/d'>"</Script><a href="/e">"#,
            r#"<!-- <a href="/a"> --><a href="/P/b"><script src="/P/c">"<a href='/d'>"</Script><a href="/P/e">"#,
        );
    }

    #[test]
    fn what_never_ends_is_not_kept() {
        let (mut page, mut out) = (Page::new(shout), Vec::new());
        for _ in 0..100 {
            page.take(&[b'a'; 4096], &mut out);
            page.take(b"<a href=\"", &mut out);
            assert!(page.pending.len() <= LONGEST_TAG + 8192, "{}", page.pending.len());
        }
    }

    /// What a few KiB unpack to comes in one piece.
    #[test]
    fn tags_that_never_end_are_read_once() {
        let page = "<a b=\"".repeat(600_000);
        let (mut passing, mut out) = (Page::new(shout), Vec::new());
        passing.take(page.as_bytes(), &mut out);
        passing.end(&mut out);
        assert!(out == page.as_bytes(), "the page is another");
    }
}

//! The host's resolvers, for its pods and for the cluster's DNS: of /etc/resolv.conf, or, where that names systemd's stub,
//! of the file behind it. The stub listens on the host's loopback, where no pod reaches it; its answers are limited; and it
//! may be told to ask the cluster's own server.

use std::fs;

/// The files that `of_host` may read.
pub const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
const STUB: &str = "127.0.0.53";

/// A resolv.conf, in its own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl ResolvConf {
    /// What the host's files say now. One that is not there says nothing.
    pub fn of_host() -> Self {
        let read =
            |file: &str| fs::read(file).map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into());
        Self::behind_stub(&read(FILES[0]), || read(FILES[1]))
    }

    /// Of the two files' texts the one that names servers which others may ask.
    pub fn behind_stub(text: &str, behind: impl FnOnce() -> String) -> Self {
        let found = Self::parse(text);
        if !found.nameservers.iter().any(|server| server == STUB) {
            return found;
        }
        let behind = Self::parse(&behind());
        if behind.nameservers.is_empty() { found } else { behind }
    }

    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => {
                    found.searches = words
                        .filter(|w| *w != ".")
                        .map(|w| w.trim_end_matches('.').to_owned())
                        .collect();
                }
                Some("options") => found.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        found
    }

    pub fn print(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_is_not_handed_on() {
        let plain = "# x\nsearch a.example b.example.\nnameserver 1.1.1.1\n#nameserver 2.2.2.2\nnameserver ::1\noptions timeout:2\n";
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
        let behind = "nameserver 9.9.9.9\nsearch corp.example\n";
        for (text, behind, expected) in [
            (
                plain,
                behind,
                "search a.example b.example\nnameserver 1.1.1.1\nnameserver ::1\noptions timeout:2\n",
            ),
            (stub, behind, "search corp.example\nnameserver 9.9.9.9\n"),
            // Nothing behind it: better the stub than none.
            (stub, "", "nameserver 127.0.0.53\noptions edns0 trust-ad\n"),
            ("", behind, ""),
        ] {
            assert_eq!(ResolvConf::behind_stub(text, || behind.to_owned()).print(), expected);
        }
    }
}

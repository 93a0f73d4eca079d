//! Where the answers of a proxied server point: its own addresses, made into addresses below the proxy's path.

/// What a proxied server's links are rewritten by.
#[derive(Clone, Debug)]
pub struct Links {
    /// The path of the request up to what the server sees of it.
    pub prepend: String,
    /// `HOST:PORT` of the server.
    pub server: String,
    /// The `Host` that the client named.
    pub host: String,
}

impl Links {
    /// A link as the client has to follow it; None: as it is. Links to other hosts and relative ones stay.
    pub fn rewrite(&self, link: &str) -> Option<String> {
        let (origin, host, rest) = split(link);
        if !rest.starts_with('/') || !(host.is_empty() || host == self.server || host == self.host) {
            return None;
        }
        // The client's own name of this server stands; the proxied one's would lead past the proxy.
        let origin = if host == self.host { origin } else { "" };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, tail) = rest.split_at(end);
        let path = if path.starts_with(&self.prepend) {
            path.to_string()
        } else {
            join(&self.prepend, path)
        };
        let rewritten = format!("{origin}{path}{tail}");
        (rewritten != link).then_some(rewritten)
    }
}

/// `SCHEME://HOST`, the host, and what follows.
fn split(link: &str) -> (&str, &str, &str) {
    let scheme = link.find("//").filter(|at| {
        let scheme = &link[..*at];
        scheme.is_empty()
            || scheme.strip_suffix(':').is_some_and(|scheme| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            })
    });
    let Some(scheme) = scheme else {
        return ("", "", link);
    };
    let authority = &link[scheme + 2..];
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let host = &authority[..end];
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    (&link[..scheme + 2 + end], host, &authority[end..])
}

/// Two paths as one, without `.`, `..` and empty segments; a slash at the end stays.
pub fn join(first: &str, second: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in first.split('/').chain(second.split('/')) {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut path = String::with_capacity(first.len() + second.len() + 2);
    for segment in &segments {
        path.push('/');
        path.push_str(segment);
    }
    let last = if second.is_empty() { first } else { second };
    if (last.ends_with('/') || path.is_empty()) && !path.ends_with('/') {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_server_go_through_the_proxy() {
        let links = Links {
            prepend: "/api/v1/namespaces/a/pods/p/proxy".into(),
            server: "10.1.2.3:80".into(),
            host: "localhost:8001".into(),
        };
        let through = |rest: &str| Some(format!("/api/v1/namespaces/a/pods/p/proxy{rest}"));
        for (link, wanted) in [
            ("/", through("/")),
            ("/a/b?c=/d#e", through("/a/b?c=/d#e")),
            ("/a/", through("/a/")),
            ("/a/../b", through("/b")),
            ("http://10.1.2.3:80/a", through("/a")),
            ("//10.1.2.3:80/a", through("/a")),
            (
                "http://localhost:8001/a",
                through("/a").map(|path| format!("http://localhost:8001{path}")),
            ),
            ("/api/v1/namespaces/a/pods/p/proxy/a", None),
            ("http://10.1.2.3:80/api/v1/namespaces/a/pods/p/proxy/a", through("/a")),
            ("http://10.1.2.3:81/a", None),
            ("https://example.com/a", None),
            ("http://10.1.2.3:80", None),
            ("a/b", None),
            ("?a=//10.1.2.3:80/b", None),
            ("#a", None),
            ("", None),
            ("mailto:/a", None),
            ("javascript:a//10.1.2.3:80/b", None),
        ] {
            assert_eq!(links.rewrite(link), wanted, "{link}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (first, second, wanted) in [
            ("", "/a", "/a"),
            ("", "/a/", "/a/"),
            ("", "/../../a", "/a"),
            ("", "/a//b/./c", "/a/b/c"),
            ("/p", "/", "/p/"),
            ("/p", "", "/p"),
            ("", "/..", "/"),
        ] {
            assert_eq!(join(first, second), wanted, "{first} {second}");
        }
    }
}

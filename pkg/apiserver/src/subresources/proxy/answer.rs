//! A proxied answer's body: a page has its links rewritten while it passes, also a compressed one; all else passes as it is.

use std::io::{self, Write};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder};
use futures::stream;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::html::Page;
use super::links::Links;

/// How much of a compressed page is unpacked at once: it may become a thousand times as long.
const PIECE: usize = 4 << 10;

pub fn page(mut parts: Parts, body: Incoming, links: Links) -> Response<Body> {
    let text = |name| {
        let value = parts
            .headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok());
        value.unwrap_or_default()
    };
    let media = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    let coding = match (media, text(CONTENT_ENCODING)) {
        ("text/html", "") => Coding::Plain,
        ("text/html", "gzip") => Coding::Gzip(
            MultiGzDecoder::new(Vec::new()),
            GzEncoder::new(Vec::new(), Compression::fast()),
        ),
        ("text/html", "deflate") => Coding::Deflate(
            DeflateDecoder::new(Vec::new()),
            DeflateEncoder::new(Vec::new(), Compression::fast()),
        ),
        _ => return Response::from_parts(parts, Body::new(body)),
    };
    parts.headers.remove(CONTENT_LENGTH);
    let rewriter = Rewriter {
        page: Page::new(Box::new(move |link: &str| links.rewrite(link))),
        coding,
    };
    let pieces = stream::try_unfold(Some((body, rewriter, Bytes::new())), |passing| async {
        let Some((mut body, mut rewriter, mut left)) = passing else {
            return Ok::<_, axum::Error>(None);
        };
        loop {
            if left.is_empty() {
                match body.frame().await {
                    None => {
                        let last = rewriter.end().map_err(axum::Error::new)?;
                        return Ok(Some((last, None)));
                    }
                    Some(frame) => left = frame.map_err(axum::Error::new)?.into_data().unwrap_or_default(),
                }
            }
            let piece = left.split_to(left.len().min(PIECE));
            let out = rewriter.take(&piece).map_err(axum::Error::new)?;
            if !out.is_empty() {
                return Ok(Some((out, Some((body, rewriter, left)))));
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

type Rewrite = Box<dyn Fn(&str) -> Option<String> + Send>;

struct Rewriter {
    page: Page<Rewrite>,
    coding: Coding,
}

enum Coding {
    Plain,
    Gzip(MultiGzDecoder<Vec<u8>>, GzEncoder<Vec<u8>>),
    /// Without zlib's header, as Go reads it.
    Deflate(DeflateDecoder<Vec<u8>>, DeflateEncoder<Vec<u8>>),
}

impl Rewriter {
    fn take(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let mut out = Vec::new();
        match &mut self.coding {
            Coding::Plain => self.page.take(piece, &mut out),
            Coding::Gzip(from, to) => {
                from.write_all(piece)?;
                self.page.take(&std::mem::take(from.get_mut()), &mut out);
                to.write_all(&out)?;
                // What has come is shown, as if it had not been repacked.
                to.flush()?;
                out = std::mem::take(to.get_mut());
            }
            Coding::Deflate(from, to) => {
                from.write_all(piece)?;
                self.page.take(&std::mem::take(from.get_mut()), &mut out);
                to.write_all(&out)?;
                to.flush()?;
                out = std::mem::take(to.get_mut());
            }
        }
        Ok(out.into())
    }

    fn end(mut self) -> io::Result<Bytes> {
        let mut out = Vec::new();
        match self.coding {
            Coding::Plain => self.page.end(&mut out),
            Coding::Gzip(from, mut to) => {
                self.page.take(&from.finish()?, &mut out);
                self.page.end(&mut out);
                to.write_all(&out)?;
                out = to.finish()?;
            }
            Coding::Deflate(from, mut to) => {
                self.page.take(&from.finish()?, &mut out);
                self.page.end(&mut out);
                to.write_all(&out)?;
                out = to.finish()?;
            }
        }
        Ok(out.into())
    }
}

//! A proxied answer's body: a page has its links rewritten while it passes, also a compressed one; all else passes as it is.

use std::io::{self, Write};

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder};
use futures::stream::{self, Stream};
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::html::Page;
use super::links::Links;

/// How much of a compressed page is unpacked at once: it may become a thousand times as long.
const PIECE: usize = 4 << 10;

/// After so many bytes of a page others have their turn: what they are packed to may be so short that nobody waits for it to
/// be sent.
const SHARE: usize = 64 << 10;

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
        since_turn: 0,
    };
    Response::from_parts(parts, Body::from_stream(rewritten(body, rewriter)))
}

/// The page piece by piece.
fn rewritten<B>(body: B, rewriter: Rewriter) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin,
{
    stream::try_unfold(Some((body, rewriter, Bytes::new())), |passing| async {
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
            if rewriter.since_turn >= SHARE {
                rewriter.since_turn = 0;
                tokio::task::yield_now().await;
            }
            if !out.is_empty() {
                return Ok(Some((out, Some((body, rewriter, left)))));
            }
        }
    })
}

type Rewrite = Box<dyn Fn(&str) -> Option<String> + Send>;

struct Rewriter {
    page: Page<Rewrite>,
    coding: Coding,
    /// How many bytes of the page were gone through since others had their turn.
    since_turn: usize,
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
            Coding::Plain => {
                self.since_turn += piece.len();
                self.page.take(piece, &mut out);
            }
            Coding::Gzip(from, to) => {
                from.write_all(piece)?;
                self.since_turn += from.get_ref().len();
                self.page.take(&std::mem::take(from.get_mut()), &mut out);
                to.write_all(&out)?;
                // What has come is shown, as if it had not been repacked.
                to.flush()?;
                out = std::mem::take(to.get_mut());
            }
            Coding::Deflate(from, to) => {
                from.write_all(piece)?;
                self.since_turn += from.get_ref().len();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::{FutureExt as _, StreamExt as _};
    use http_body_util::Full;

    use super::*;

    /// Two of them held every thread there is, each for seconds.
    #[tokio::test]
    async fn a_page_that_unpacks_to_much_more_lets_others_have_their_turn() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&vec![b'a'; 8 << 20]).unwrap();
        let packed = packed.finish().unwrap();
        let pieces = packed.len() / PIECE;
        let rewriter = Rewriter {
            page: Page::new(Box::new(|_: &str| None)),
            coding: Coding::Gzip(
                MultiGzDecoder::new(Vec::new()),
                GzEncoder::new(Vec::new(), Compression::fast()),
            ),
            since_turn: 0,
        };
        let mut stream = std::pin::pin!(rewritten(Full::new(Bytes::from(packed)), rewriter));
        let (mut turns, mut out) = (0, 0);
        loop {
            match stream.next().now_or_never() {
                None => turns += 1,
                Some(None) => break,
                Some(Some(piece)) => out += piece.unwrap().len(),
            }
        }
        assert!(
            out > 0 && pieces > 0 && turns >= pieces,
            "{turns} turns in {pieces} pieces"
        );
    }
}

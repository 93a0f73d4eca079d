//! Header blocks: names and values with their lengths, compressed in one zlib stream per direction that begins with the
//! protocol's own dictionary.

use std::sync::LazyLock;

use bytes::Buf;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::frame::Error;

/// Words of the dictionary that stand with their lengths before them.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// What stands after them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
    publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS {
        put(&mut dictionary, word);
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

fn put(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(&(text.len() as u32).to_be_bytes());
    into.extend_from_slice(text.as_bytes());
}

/// Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, v)| v)
    }

    fn parse(mut block: &[u8]) -> Result<Self, Error> {
        let count = block.try_get_u32().map_err(|_| Error::Headers)?;
        let mut headers = Self::default();
        for _ in 0..count {
            let mut text = || {
                let length = block.try_get_u32().map_err(|_| Error::Headers)? as usize;
                let (text, rest) = block.split_at_checked(length).ok_or(Error::Headers)?;
                block = rest;
                Ok(String::from_utf8_lossy(text).into_owned())
            };
            let (name, value) = (text()?.to_ascii_lowercase(), text()?);
            // Of several values, NUL between them, none of ours has more than one.
            let first = value.split('\0').next().unwrap_or_default().to_owned();
            headers.0.push((name, first));
        }
        Ok(headers)
    }
}

/// An attacker's kilobyte may inflate to a megabyte.
const LIMIT: usize = 64 << 10;

/// The client's direction.
pub struct Inflater(Decompress);

impl Inflater {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn headers(&mut self, block: &[u8]) -> Result<Headers, Error> {
        Headers::parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let (before, full) = (self.0.total_in(), out.len() == out.capacity());
            let result = self.0.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(block.len());
            block = &block[taken..];
            if let Err(error) = result {
                if error.needs_dictionary().is_none() {
                    return Err(Error::Compression);
                }
                self.0.set_dictionary(&DICTIONARY).map_err(|_| Error::Compression)?;
                continue;
            }
            if out.len() > LIMIT {
                return Err(Error::HeadersTooLong(LIMIT));
            }
            if out.len() == out.capacity() {
                out.reserve(out.len());
            } else if block.is_empty() {
                return Ok(out);
            } else if taken == 0 && !full {
                return Err(Error::Compression);
            }
        }
    }
}

/// Our direction, where no stream has headers worth telling.
pub struct Deflater(Compress);

impl Deflater {
    pub fn new() -> Result<Self, Error> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&DICTIONARY).map_err(|_| Error::Compression)?;
        Ok(Self(compress))
    }

    /// The block of no headers.
    pub fn empty(&mut self) -> Result<Vec<u8>, Error> {
        self.deflate(&0u32.to_be_bytes())
    }

    fn deflate(&mut self, mut plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(128 + plain.len());
        loop {
            let before = self.0.total_in();
            self.0
                .compress_vec(plain, &mut out, FlushCompress::Sync)
                .map_err(|_| Error::Compression)?;
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(plain.len());
            plain = &plain[taken..];
            if plain.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(128);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut block = (pairs.len() as u32).to_be_bytes().to_vec();
        for (name, value) in pairs {
            put(&mut block, name);
            put(&mut block, value);
        }
        block
    }

    #[test]
    fn the_dictionary_is_the_protocols() {
        let mut compress = Compress::new(Compression::default(), true);
        assert_eq!(DICTIONARY.len(), 1423);
        // Its Adler-32, by which both ends name it.
        assert_eq!(compress.set_dictionary(&DICTIONARY).unwrap(), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_share_one_stream() {
        let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::new());
        let long = "x".repeat(20_000);
        for pairs in [
            &[("streamtype", "error"), ("port", "80"), ("requestid", "0")][..],
            &[("streamtype", "data"), ("port", "80"), ("requestid", "0")],
            &[],
            &[("long", &long)],
            &[("streamtype", "resize")],
        ] {
            let sent = deflater.deflate(&block(pairs)).unwrap();
            let got = inflater.headers(&sent).unwrap();
            let expected = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(got, Headers(expected));
        }
        assert_eq!(
            inflater.headers(&deflater.empty().unwrap()).unwrap(),
            Headers::default()
        );
    }

    #[test]
    fn bad_blocks_are_refused() {
        let mut huge = Deflater::new().unwrap();
        let huge = huge.deflate(&vec![0; 1 << 20]).unwrap();
        let mut cut = Deflater::new().unwrap();
        let cut = cut.deflate(&[0, 0, 0, 1, 0, 0, 0, 9, b'x']).unwrap();
        for (bytes, expected) in [
            (huge, Error::HeadersTooLong(LIMIT)),
            (cut, Error::Headers),
            (b"no zlib stream".to_vec(), Error::Compression),
        ] {
            assert_eq!(Inflater::new().headers(&bytes), Err(expected));
        }
    }

    #[test]
    fn values_and_names() {
        let headers = Headers::parse(&block(&[("StreamType", "stdin\0other")])).unwrap();
        assert_eq!(headers.get("streamtype"), "stdin");
        assert_eq!(headers.get("port"), "");
    }
}

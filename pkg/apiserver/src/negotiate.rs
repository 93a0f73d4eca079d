//! What a client wants to get (Accept) and what it sends (Content-Type).

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use mk8s_api::status::Status;

use crate::request::Query;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
        }
    }
}

/// In which shape objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    Table,
    /// PartialObjectMetadata, or its list.
    Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub encoding: Encoding,
    pub shape: Shape,
    pub pretty: bool,
    pub gzip: bool,
}

impl Output {
    pub const JSON: Output = Output {
        encoding: Encoding::Json,
        shape: Shape::Object,
        pretty: false,
        gzip: false,
    };

    /// The first clause of Accept that can be answered; `shapes` says whether Table and metadata are possible here.
    pub fn negotiate(headers: &HeaderMap, query: &Query, shapes: bool, protobuf: bool) -> Result<Output, Status> {
        let mut output = Output {
            pretty: wants_pretty(headers, query),
            gzip: takes_gzip(headers),
            ..Output::JSON
        };
        match headers.get(ACCEPT).map(HeaderValue::as_bytes) {
            None | Some(b"application/json" | b"*/*") => return Ok(output),
            Some(_) => {}
        }
        for clause in &accepted(headers) {
            if let Some((encoding, shape)) = clause.answer(shapes, protobuf) {
                output.encoding = encoding;
                output.shape = shape;
                return Ok(output);
            }
        }
        Err(Status::not_acceptable(if protobuf {
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        } else {
            "only the following media types are accepted: application/json, application/yaml"
        }))
    }
}

/// Browsers and curl get indented JSON, as upstream gives them.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.get("pretty").is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    agent
        .is_some_and(|agent| agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0"))
}

/// The clauses of Accept, the most wanted first.
pub fn accepted(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut clauses: Vec<Clause<'_>> = values
        .flat_map(|value| value.split(','))
        .filter_map(Clause::parse)
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// Whether a client takes a compressed answer.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let value = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.split(',').any(|coding| coding.trim().starts_with("gzip")))
}

/// `media;as=KIND;g=GROUP;v=VERSION;q=QUALITY`
pub struct Clause<'a> {
    pub media: &'a str,
    pub as_: Option<&'a str>,
    pub group: Option<&'a str>,
    pub version: Option<&'a str>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Clause<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Clause {
            media: parts.next().filter(|media| !media.is_empty())?,
            as_: None,
            group: None,
            version: None,
            quality: 1.0,
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "as" => clause.as_ = Some(value),
                "g" => clause.group = Some(value),
                "v" => clause.version = Some(value),
                "q" => clause.quality = value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        Some(clause)
    }

    fn answer(&self, shapes: bool, protobuf: bool) -> Option<(Encoding, Shape)> {
        let encoding = match self.media {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            "application/vnd.kubernetes.protobuf" if protobuf => Encoding::Protobuf,
            _ => return None,
        };
        let shape = match self.as_ {
            None => Shape::Object,
            Some(as_) => {
                if !shapes || self.group != Some("meta.k8s.io") || self.version != Some("v1") {
                    return None;
                }
                match as_ {
                    "Table" if encoding != Encoding::Protobuf => Shape::Table,
                    "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
                    _ => return None,
                }
            }
        };
        Some((encoding, shape))
    }
}

/// The encoding of a request's body.
pub fn body_encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(Encoding::Json);
    };
    let text = value.to_str().unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim();
    match media {
        "" | "application/json" | "*/*" => Ok(Encoding::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        other => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf (got {other:?})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clauses_come_by_how_much_they_are_wanted() {
        let mut headers = HeaderMap::new();
        headers.append(
            ACCEPT,
            "a/b;q=0.5, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                .parse()
                .unwrap(),
        );
        headers.append(ACCEPT, "application/json;charset=utf-8;q=0.9,*/*;q=0".parse().unwrap());
        let clauses = accepted(&headers);
        let media: Vec<&str> = clauses.iter().map(|clause| clause.media).collect();
        assert_eq!(media, ["application/json", "application/json", "a/b", "*/*"]);
        assert_eq!(
            (clauses[0].as_, clauses[0].version),
            (Some("APIGroupDiscoveryList"), Some("v2"))
        );
        assert_eq!(clauses[1].as_, None);
    }

    #[test]
    fn accepts() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        type Answer = Option<(Encoding, Shape)>;
        let rows: [(&str, bool, bool, Answer); 9] = [
            ("application/json", true, true, Some((Encoding::Json, Shape::Object))),
            (table, true, true, Some((Encoding::Json, Shape::Table))),
            (table, false, true, Some((Encoding::Json, Shape::Object))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                true,
                true,
                Some((Encoding::Protobuf, Shape::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                true,
                false,
                Some((Encoding::Json, Shape::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                true,
                true,
                Some((Encoding::Protobuf, Shape::Metadata)),
            ),
            ("application/yaml", true, true, Some((Encoding::Yaml, Shape::Object))),
            (
                "text/html;q=0.9,*/*;q=0.8",
                true,
                true,
                Some((Encoding::Json, Shape::Object)),
            ),
            ("application/cbor", true, true, None),
        ];
        for (accept, shapes, protobuf, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let got = Output::negotiate(&headers, &Query::default(), shapes, protobuf);
            assert_eq!(got.ok().map(|output| (output.encoding, output.shape)), want, "{accept}");
        }
    }
}

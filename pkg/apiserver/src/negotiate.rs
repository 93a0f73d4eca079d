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
    /// PartialObjectMetadata.
    Metadata,
    /// PartialObjectMetadataList.
    MetadataList,
}

/// What an object may be shown as besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shapes {
    None,
    Metadata,
    /// As a table too.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub encoding: Encoding,
    pub shape: Shape,
    /// The version of meta.k8s.io that is asked for with a shape.
    pub shaped_in: &'static str,
    pub pretty: bool,
    pub gzip: bool,
}

impl Output {
    pub const JSON: Output = Output {
        encoding: Encoding::Json,
        shape: Shape::Object,
        shaped_in: SHAPES_IN[0],
        pretty: false,
        gzip: false,
    };

    /// The first clause of Accept that can be answered; `shapes` says what else than an object is possible here, `protobuf`
    /// whether the object itself has that form: its metadata always has.
    ///
    /// # Errors
    /// 406: there is none.
    pub fn negotiate(headers: &HeaderMap, query: &Query, shapes: Shapes, protobuf: bool) -> Result<Output, Status> {
        let mut output = Output {
            pretty: wants_pretty(headers, query),
            gzip: takes_gzip(headers),
            ..Output::JSON
        };
        match headers.get(ACCEPT).map(HeaderValue::as_bytes) {
            None | Some(b"application/json" | b"*/*" | b"") => return Ok(output),
            Some(_) => {}
        }
        for clause in &accepted(headers) {
            if let Some((encoding, shape)) = clause.answer(shapes, protobuf) {
                output.encoding = encoding;
                output.shape = shape;
                let version = SHAPES_IN.iter().find(|name| name.rsplit('/').next() == clause.version);
                output.shaped_in = version.unwrap_or(&SHAPES_IN[0]);
                output.pretty |= clause.pretty;
                return Ok(output);
            }
        }
        Err(Status::not_acceptable(format!(
            "only the following media types are accepted: {}",
            KINDS.join(", ")
        )))
    }

    /// How a refusal is told: as the client likes it, or in JSON.
    pub fn of_refusal(headers: &HeaderMap, query: &Query) -> Output {
        Output::negotiate(headers, query, Shapes::None, true).unwrap_or(Output::JSON)
    }
}

/// What Table and PartialObjectMetadata are versions of.
const SHAPES_IN: [&str; 2] = ["meta.k8s.io/v1", "meta.k8s.io/v1beta1"];

/// In the order in which they are offered.
pub const KINDS: &[&str] = &[JSON, YAML, PROTOBUF];
/// A list may be a watch.
pub const LISTED: &[&str] = &[JSON, YAML, PROTOBUF, STREAMS[0], STREAMS[1]];
pub const STREAMS: &[&str] = &[
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

/// A container's log is text, and a refusal an object.
pub const LOG: &[&str] = &["text/plain", JSON, YAML, PROTOBUF];

/// What a patch may be.
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The look at Content-Type that the route of a patch takes; a kind without a Go type knows no strategic merge.
///
/// # Errors
/// 415: it is none.
pub fn takes_patch(headers: &HeaderMap, strategic: bool) -> Result<(), Status> {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let known = |media: &str| PATCHES.contains(&media) && (strategic || !media.contains("strategic"));
    // Custom kinds have no route that would look.
    if strategic {
        consumes(text, PATCHES)?;
    }
    // Of several one is enough for the route, and none for its handler.
    if known(text.split(';').next().unwrap_or_default()) {
        return Ok(());
    }
    let mut kinds = PATCHES.to_vec();
    kinds.retain(|kind| strategic || !kind.contains("strategic"));
    Err(Status::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        kinds.join(", ")
    )))
}

/// The look at Content-Type that a route takes before its handler does: one of several is enough.
fn consumes(text: &str, kinds: &[&str]) -> Result<(), Status> {
    let media = |text: &str| text.split(';').next().unwrap_or_default().trim_matches(' ').to_string();
    if text.split(',').any(|one| kinds.contains(&&*media(one))) {
        return Ok(());
    }
    Err(said_by_router(Status::unsupported_media_type(
        "415: Unsupported Media Type",
    )))
}

/// The same look at a request that is read only, and needs none.
///
/// # Errors
/// 415: it names one that the route does not take.
pub fn takes(headers: &HeaderMap, kinds: &[&str]) -> Result<(), Status> {
    match headers.get(CONTENT_TYPE) {
        Some(value) if !value.is_empty() => consumes(value.to_str().unwrap_or_default(), kinds),
        _ => Ok(()),
    }
}

/// The look at Accept that a route takes before its handler does, by media types alone.
///
/// # Errors
/// 406: none of what the route has is among them.
pub fn offers(headers: &HeaderMap, kinds: &[&str]) -> Result<(), Status> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let fits = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default().trim_matches(' ');
        media == "*/*" || kinds.contains(&media)
    };
    if accept.is_empty() || accept.split(',').any(fits) {
        return Ok(());
    }
    Err(said_by_router(Status::not_acceptable(format!(
        "406: Not Acceptable\n\nAvailable representations: {}",
        kinds.join(", ")
    ))))
}

/// Browsers and curl get indented JSON, as upstream gives them.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(asked) = query.text("pretty") {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    agent
        .is_some_and(|agent| agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0"))
}

/// How many clauses of Accept are read: no client has a tenth of it, and each is compared with those before it, for anybody
/// who can connect.
const MOST_CLAUSES: usize = 64;

/// The clauses of Accept, the most wanted first.
pub fn accepted(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut clauses: Vec<Clause<'_>> = Vec::new();
    let parsed = values.flat_map(|value| value.split(',')).filter_map(Clause::parse);
    for clause in parsed.take(MOST_CLAUSES) {
        // Not an order that a sort could take: what says `*` comes after its neighbours, whatever it is worth.
        let mut at = clauses.len();
        while at > 0 && clause.precedes(&clauses[at - 1]) {
            at -= 1;
        }
        clauses.insert(at, clause);
    }
    clauses
}

/// Whether a client takes one of some media types.
pub fn is_any_wanted(headers: &HeaderMap, kinds: &[&str]) -> bool {
    let fits = |clause: &Clause<'_>| match clause.media.split_once('/') {
        Some(("*", _)) => true,
        Some((_, "*")) => clause.media == "application/*",
        _ => kinds.contains(&clause.media),
    };
    headers.get(ACCEPT).is_none_or(HeaderValue::is_empty) || accepted(headers).iter().any(fits)
}

/// Whether a client takes a compressed answer.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let value = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.split(',').any(|coding| coding.trim() == "gzip"))
}

/// `media;as=KIND;g=GROUP;v=VERSION;q=QUALITY`
pub struct Clause<'a> {
    pub media: &'a str,
    pub as_: Option<&'a str>,
    pub group: Option<&'a str>,
    pub version: Option<&'a str>,
    stream: &'a str,
    server_version: &'a str,
    pretty: bool,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Clause<'a>> {
        let mut parts = text.split(';').map(|part| part.trim_matches(' '));
        let media = parts
            .next()
            .filter(|media| *media == "*" || media.split('/').count() == 2)?;
        let mut clause = Clause {
            media: if media == "*" { "*/*" } else { media },
            as_: None,
            group: None,
            version: None,
            stream: "",
            server_version: "",
            pretty: false,
            quality: 1.0,
        };
        for part in parts {
            let Some((key, value)) = part.split_once('=').filter(|(_, value)| !value.is_empty()) else {
                continue;
            };
            match key.trim_matches(' ') {
                "as" => clause.as_ = Some(value),
                "g" => clause.group = Some(value),
                "v" => clause.version = Some(value),
                "q" => clause.quality = value.parse().unwrap_or(0.0),
                "stream" => clause.stream = value,
                "sv" => clause.server_version = value,
                "pretty" => clause.pretty = value == "1",
                _ => {}
            }
        }
        Some(clause)
    }

    fn precedes(&self, other: &Clause<'_>) -> bool {
        let any = |clause: &Clause<'_>| (clause.media.starts_with("*/"), clause.media.ends_with("/*"));
        let (own, others) = (any(self), any(other));
        self.quality > other.quality || (!own.0 && others.0) || (!own.1 && others.1)
    }

    fn answer(&self, shapes: Shapes, protobuf: bool) -> Option<(Encoding, Shape)> {
        let all: &[Encoding] = match self.media {
            JSON => &[Encoding::Json],
            YAML => &[Encoding::Yaml],
            PROTOBUF => &[Encoding::Protobuf],
            "*/*" | "application/*" => &[Encoding::Json, Encoding::Yaml, Encoding::Protobuf],
            _ => return None,
        };
        all.iter().find_map(|encoding| {
            let shape = self.shape(*encoding, shapes)?;
            let has_form = protobuf || *encoding != Encoding::Protobuf || shape != Shape::Object;
            has_form.then_some((*encoding, shape))
        })
    }

    /// The shape that is asked for, where an encoding can have it here.
    fn shape(&self, encoding: Encoding, shapes: Shapes) -> Option<Shape> {
        let streams = self.stream.is_empty() || (self.stream == "watch" && encoding != Encoding::Yaml);
        let serves = self.server_version.is_empty() || (shapes > Shapes::None && self.server_version == "v1");
        if !streams || !serves {
            return None;
        }
        if (self.as_, self.group, self.version) == (None, None, None) {
            return Some(Shape::Object);
        }
        if shapes == Shapes::None
            || self.group != Some("meta.k8s.io")
            || !matches!(self.version, Some("v1" | "v1beta1"))
        {
            return None;
        }
        match self.as_ {
            Some("Table") if shapes == Shapes::All && encoding != Encoding::Protobuf => Some(Shape::Table),
            Some("PartialObjectMetadata") => Some(Shape::Metadata),
            Some("PartialObjectMetadataList") => Some(Shape::MetadataList),
            _ => None,
        }
    }
}

/// The encoding of a request's body.
///
/// # Errors
/// 415: what a body of another kind is answered.
pub fn body_encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    let Some(value) = headers.get(CONTENT_TYPE).filter(|value| !value.is_empty()) else {
        return Ok(Encoding::Json);
    };
    match media_type(value.to_str().unwrap_or_default()).as_deref() {
        Some(JSON) => Ok(Encoding::Json),
        Some(YAML) => Ok(Encoding::Yaml),
        Some(PROTOBUF) => Ok(Encoding::Protobuf),
        _ => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            KINDS.join(", ")
        ))),
    }
}

/// A media type without its parameters, in small letters; None where they are none.
fn media_type(text: &str) -> Option<String> {
    let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
    let is_parameter = |text: &str| {
        let pair = text.trim().split_once('=');
        pair.is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    // One semicolon more than parameters is no fault.
    let parameters = parameters.trim_end();
    let parameters = parameters.strip_suffix(';').unwrap_or(parameters);
    let fits = text.find(";;").is_none() && (parameters.trim().is_empty() || parameters.split(';').all(is_parameter));
    fits.then(|| media.trim().to_ascii_lowercase())
}

/// What upstream's router refuses has details, and nothing in them.
fn said_by_router(status: Status) -> Status {
    Status {
        details: Some(serde_json::json!({})),
        ..status
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// It is looked at before anybody has said who he is.
    #[test]
    fn a_long_accept_is_read_in_part() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, "a/b;q=0.1,".repeat(50_000).parse().unwrap());
        headers.append(ACCEPT, "application/yaml".parse().unwrap());
        assert_eq!(accepted(&headers).len(), MOST_CLAUSES);
    }

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
        // A media type stands before `*` even where it is worth less.
        let mut other = HeaderMap::new();
        other.insert(ACCEPT, "*/*,text/html;q=0.1".parse().unwrap());
        assert_eq!(accepted(&other)[0].media, "text/html");
    }

    #[test]
    fn accepts() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        type Answer = Option<(Encoding, Shape)>;
        let rows: [(&str, Shapes, bool, Answer); 17] = [
            (
                "application/json",
                Shapes::All,
                true,
                Some((Encoding::Json, Shape::Object)),
            ),
            (table, Shapes::All, true, Some((Encoding::Json, Shape::Table))),
            (table, Shapes::Metadata, true, Some((Encoding::Json, Shape::Object))),
            (
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Shapes::Metadata,
                true,
                Some((Encoding::Json, Shape::Metadata)),
            ),
            (table, Shapes::None, true, Some((Encoding::Json, Shape::Object))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Shapes::All,
                true,
                Some((Encoding::Protobuf, Shape::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Shapes::All,
                false,
                Some((Encoding::Json, Shape::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Shapes::All,
                true,
                Some((Encoding::Protobuf, Shape::MetadataList)),
            ),
            (
                "application/*",
                Shapes::All,
                true,
                Some((Encoding::Json, Shape::Object)),
            ),
            (
                "application/json;q=0",
                Shapes::All,
                true,
                Some((Encoding::Json, Shape::Object)),
            ),
            (
                "application/json;stream=watch",
                Shapes::All,
                true,
                Some((Encoding::Json, Shape::Object)),
            ),
            ("application/json;stream=other", Shapes::All, true, None),
            ("application/json;v=v1", Shapes::All, true, None),
            ("garbage", Shapes::All, true, None),
            (
                "application/yaml",
                Shapes::All,
                true,
                Some((Encoding::Yaml, Shape::Object)),
            ),
            (
                "text/html;q=0.9,*/*;q=0.8",
                Shapes::All,
                true,
                Some((Encoding::Json, Shape::Object)),
            ),
            ("application/cbor", Shapes::All, true, None),
        ];
        for (accept, shapes, protobuf, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let got = Output::negotiate(&headers, &Query::default(), shapes, protobuf);
            assert_eq!(got.ok().map(|output| (output.encoding, output.shape)), want, "{accept}");
        }
    }
}

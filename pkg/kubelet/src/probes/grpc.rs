//! The gRPC health protocol: one call, by hand, since its one message is two fields.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Outcome, dial_error, host_port};

const SERVING: u64 = 1;
const UNIMPLEMENTED: &str = "12";
/// The message that counts has seven bytes. The container says what comes, for as long as the probe waits.
const BODY_LIMIT: usize = 10 << 10;

pub async fn ask(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = host_port(host, port);
    let connected = tokio::time::timeout(timeout, TcpStream::connect((host, port))).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let error = dial_error(host, port, &error);
            return Outcome::Failure(format!("error: failed to connect service at \"{address}\": {error}"));
        }
        Err(_) => {
            let limit = timeout.as_secs();
            return Outcome::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {limit}s: context deadline exceeded"
            ));
        }
    };
    match tokio::time::timeout(timeout, check(stream, &address, service)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(format!(
            "timeout: health rpc did not complete within {}s",
            timeout.as_secs()
        )),
    }
}

/// Length-prefixed HealthCheckRequest{1: service}.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// HealthCheckResponse{1: status}, after its length.
fn status(body: &[u8]) -> Option<u64> {
    let message = body.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, value, ..] if *value < 0x80 => Some(u64::from(*value)),
        _ => None,
    }
}

async fn check(stream: TcpStream, address: &str, service: &str) -> Outcome {
    let failed = |error: String| Outcome::Failure(format!("error: health rpc probe failed: {error}"));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(parts) => parts,
        Err(error) => return failed(error.to_string()),
    };
    let call = async {
        let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, "kube-probe/1.35")
            .body(Full::new(request(service)));
        let request = request.map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let early = response.headers().get("grpc-status").cloned();
        let message = response.headers().get("grpc-message").cloned();
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        let body = body.map_err(|e| e.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let code = trailers.get("grpc-status").cloned().or(early);
        let code = code
            .and_then(|c| c.to_str().ok().map(str::to_owned))
            .unwrap_or_default();
        let message = trailers.get("grpc-message").cloned().or(message);
        let message = message
            .and_then(|m| m.to_str().ok().map(str::to_owned))
            .unwrap_or_default();
        Ok::<_, String>((code, message, body.to_bytes()))
    };
    tokio::pin!(call);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut call => result,
        _ = &mut connection => call.await,
    };
    match result {
        Err(error) => failed(error),
        Ok((code, message, _)) if code == UNIMPLEMENTED => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok((code, message, _)) if code != "0" => failed(format!("rpc error: code = {code} desc = {message}")),
        Ok((_, _, body)) => match status(&body) {
            Some(SERVING) => Outcome::Success,
            Some(2) => Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
            Some(3) => Outcome::Failure("service unhealthy (responded with \"SERVICE_UNKNOWN\")".to_owned()),
            _ => Outcome::Failure("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use futures::StreamExt as _;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use mk8s_supervisor::job;

    use super::*;

    /// A container that says it is well, and `more` after it, and at last that this was all.
    async fn told(more: usize) -> Outcome {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = hyper::service::service_fn(move |_| async move {
            let pieces = std::iter::once(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]))
                .chain(std::iter::repeat_n(Bytes::from_static(&[0; 1024]), more))
                .map(Frame::data);
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            let frames = futures::stream::iter(pieces).chain(futures::stream::iter([Frame::trailers(trailers)]));
            Ok::<_, Infallible>(http::Response::new(StreamBody::new(frames.map(Ok::<_, Infallible>))))
        });
        let served = job::spawn("container", async move {
            let (stream, _) = listener.accept().await.unwrap();
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(http.serve_connection(TokioIo::new(stream), serve).await);
        });
        let outcome = ask("127.0.0.1", port, "", Duration::from_secs(30)).await;
        served.abort();
        outcome
    }

    #[tokio::test]
    async fn an_answer_without_end_is_none() {
        assert!(matches!(told(0).await, Outcome::Success));
        // Were it kept, a container could make the agent keep all that fits into the probe's time.
        assert!(matches!(told(1 << 10).await, Outcome::Failure(_)));
    }

    #[test]
    fn messages() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("a")[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        for (body, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0], None),
            (&[0, 0, 0, 0, 2, 9, 1], None),
        ] {
            assert_eq!(status(body), expected);
        }
    }
}

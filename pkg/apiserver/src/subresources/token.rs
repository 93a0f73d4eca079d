//! serviceaccounts/token: a token for an account, made and not stored.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::status::Status;

use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::handlers::decode::{self, Expected};
use crate::options::WriteOptions;
use crate::{respond, reviews};

pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let expected = Expected::kind(
        "authentication.k8s.io",
        "v1",
        "authentication.k8s.io/v1",
        "TokenRequest",
    );
    let mut request = decode::object(call, &body, &expected, options, &mut warnings)?;
    let (server, info) = (&call.server, &call.info);
    {
        let attributes = call.attributes(Operation::Create, &info.name, None, Options::Write(options));
        call.admit(&attributes, &mut request, &mut warnings).await?;
    }
    let authority = server.authenticator().authority();
    let issued = reviews::issue(&**server.cache(), authority, &info.namespace, &info.name, request);
    let issued = issued.map_err(|status| status.warned(&warnings))?;
    let mut response = respond::value(StatusCode::CREATED, call.output, respond::shape_token(call, issued)?)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

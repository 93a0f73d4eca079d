//! TokenReview: whose a token is, and for which of the asked-for audiences.

use mk8s_api::meta::string;
use mk8s_api::status::Status;
use serde_json::{Value, json};

use super::user_info;
use crate::filters::authn::Authenticator;

pub fn review(authenticator: &Authenticator, object: &Value) -> Result<Value, Status> {
    let token = string(object, &["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let own = &authenticator.authority().audiences;
    let asked: Vec<String> = serde_json::from_value(object["spec"]["audiences"].clone()).unwrap_or_default();
    let wanted = if asked.is_empty() { own } else { &asked };
    Ok(match authenticator.token(token, wanted) {
        Ok((user, audiences)) => {
            // A bootstrap token has no audiences of its own: it is for this API server.
            let good: Vec<String> = match audiences.is_empty() {
                true => own
                    .iter()
                    .filter(|audience| wanted.contains(audience))
                    .cloned()
                    .collect(),
                false => audiences,
            };
            if good.is_empty() {
                json!({"user": {}, "error": "the token is not meant for any of the audiences"})
            } else {
                json!({"authenticated": true, "user": user_info(&user), "audiences": good})
            }
        }
        Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
    })
}

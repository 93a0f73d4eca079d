//! What stands before the handlers: who asks (authn), as whom (impersonation), and whether they may (authz).

pub mod authn;
pub mod authz;
pub mod impersonation;
pub mod legacy_tokens;

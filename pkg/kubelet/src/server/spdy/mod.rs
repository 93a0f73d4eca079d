//! SPDY/3.1, the server's side, as far as Kubernetes' clients use it: streams that the client opens, with headers that
//! say what each is for. kubectl up to 1.29 speaks it for exec and attach, every kubectl for port-forward.
//!
//! None of those clients knows flow-control windows (they neither send WINDOW_UPDATE nor heed it), so neither does
//! this: what is not read stays in the connection, whose own flow control holds the sender back.

mod frame;
mod headers;
mod session;

pub use session::{Session, Stream, Writer};

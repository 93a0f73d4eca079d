//! A port that takes connections.

use std::time::Duration;

use tokio::net::TcpStream;

use super::{Outcome, dial_error, host_port};

pub async fn ask(host: &str, port: u16, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(dial_error(host, port, &error)),
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", host_port(host, port))),
    }
}

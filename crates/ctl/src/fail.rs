//! What etcdctl says when a call fails, and with which exit status. Not here: what the calls do.

use etch_cli::Failure;
use etch_client::Error;

use crate::{exit, log};

/// A failed call as the command's failure.
pub fn failed(error: Error) -> Failure {
    explain(&error);
    Failure::new(exit::ERROR, text(&error))
}

/// A client that could not be made: no endpoint, no login.
pub fn not_connected(error: Error) -> Failure {
    explain(&error);
    Failure::new(exit::BAD_CONNECTION, text(&error))
}

/// A failed call as a failure that says first what was to be done, such as `failed to grant lease`.
pub fn failed_to(what: &str, error: Error) -> Failure {
    explain(&error);
    Failure::new(exit::ERROR, format!("failed to {what} ({})", text(&error)))
}

/// Says why nobody was reached, under the words that etcd's client has for it: the failure itself only says that the
/// time is up.
fn explain(error: &Error) {
    if let Error::NoEndpoint(why) = error {
        let why = why.split(" (os error").next().unwrap_or(why);
        let why = format!(
            "rpc error: code = DeadlineExceeded desc = latest balancer error: connection error: desc = {}",
            etch_cli::go::quote(format!("transport: Error while dialing: {why}"))
        );
        log::line(
            "warn",
            "retrying of unary invoker failed",
            &[("logger", "etcd-client"), ("error", &why)],
        );
    }
}

/// An error in the words of Go's client.
pub fn text(error: &Error) -> String {
    match error {
        Error::NoEndpoint(_) => "context deadline exceeded".into(),
        Error::Unknown(why) => {
            format!("rpc error: code = Unavailable desc = error reading from server: {why}")
        }
        Error::Refused(refusal) => too_large(&refusal.message).unwrap_or_else(|| error.to_string()),
        Error::Closed => {
            "rpc error: code = Canceled desc = grpc: the client connection is closing".into()
        }
        _ => error.to_string(),
    }
}

/// Our library's words for an answer that is larger than allowed, in gRPC's.
fn too_large(message: &str) -> Option<String> {
    let sizes = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = sizes.split_once(" bytes, the limit is: ")?;
    let limit = limit.strip_suffix(" bytes")?;
    let text = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max";
    Some(format!("{text} ({found} vs. {limit})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_client::{Code, EtcdError, Refusal};

    #[test]
    fn errors_are_told_as_etcdctl_tells_them() {
        let large =
            "Error, decoded message length too large: found 27 bytes, the limit is: 10 bytes";
        let rows = [
            (Error::NoEndpoint("x".into()), "context deadline exceeded"),
            (Error::Deadline { sent: true }, "context deadline exceeded"),
            (EtcdError::Compacted.into(), "etcdserver: mvcc: required revision has been compacted"),
            (
                Error::Refused(Refusal::new(Code::OutOfRange, large)),
                "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (27 vs. 10)",
            ),
        ];
        for (error, want) in rows {
            assert_eq!(text(&error), want);
        }
    }
}

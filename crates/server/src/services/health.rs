//! `grpc.health.v1.Health` for the server as a whole (the service named ""). Not here: `/health` and its
//! like over HTTP.

use bytes::Bytes;
use etch_api::pb::grpc::health::v1::health_check_response::ServingStatus;
use etch_api::pb::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use etch_rpc::{Code, MessageStream, Status, StreamSender};
use prost::Message as _;

use super::decode;

fn encoded(status: ServingStatus) -> Bytes {
    HealthCheckResponse { status: status.into() }.encode_to_vec().into()
}

/// `Check`.
pub fn check(request: &HealthCheckRequest) -> Result<Bytes, Status> {
    if request.service.is_empty() {
        Ok(encoded(ServingStatus::Serving))
    } else {
        Err(Status::new(Code::NotFound, "unknown service"))
    }
}

/// `Watch`: the state now. It does not change while the server serves, and ends with the connection.
pub async fn watch(mut messages: MessageStream, sender: StreamSender) -> Status {
    match serve(&mut messages, &sender).await {
        Ok(()) => Status::new(Code::Cancelled, "context canceled"),
        Err(status) => status,
    }
}

async fn serve(messages: &mut MessageStream, sender: &StreamSender) -> Result<(), Status> {
    let no_request = || Status::new(Code::Internal, "no request");
    let message = messages.next().await?.ok_or_else(no_request)?;
    let request: HealthCheckRequest = decode(&message)?;
    let state = if request.service.is_empty() {
        ServingStatus::Serving
    } else {
        ServingStatus::ServiceUnknown
    };
    sender.send(encoded(state)).await?;
    sender.closed().await;
    Ok(())
}

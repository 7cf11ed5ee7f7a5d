//! Connections: how one is made (`dial`), how one to each endpoint is kept (`endpoint`), which of them a call takes
//! (`balancer`), and how a request goes into it (`wire`). Nothing here knows what is asked.

pub(crate) mod balancer;
pub(crate) mod dial;
pub(crate) mod endpoint;
pub(crate) mod srv;
pub(crate) mod wire;

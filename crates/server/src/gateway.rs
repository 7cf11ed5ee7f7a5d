//! The API as JSON on the client port: who may ask, and who answers. Not here: how a call in JSON is made
//! (`etch_transcode`), and JSON itself.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use etch_json::Gateway;
use etch_rpc::{Peer, PlainBody};
use etch_transcode::{Common, Gate, PREFIX};
use http::Response;
use http::request::Parts;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;

use crate::config::{Config, ETCD_VERSION};
use crate::http::{Pages, Secured, redirect};
use crate::net::port::Offer;
use crate::net::{Net, NetHandler};

/// What gRPC adds to the largest request, for what stands around it.
const ROOM: usize = 512 << 10;

/// What the gateway has in common for all connections.
pub fn common(config: &Config) -> Arc<Common> {
    let max_message =
        usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX).saturating_add(ROOM);
    Arc::new(Common { gateway: Gateway::new(), version: ETCD_VERSION, max_message })
}

/// A connection as the gateway sees it.
pub struct Front {
    net: Rc<Net>,
    secured: Option<Secured>,
    gate: Option<Gate<NetHandler>>,
}

/// An answer of these bytes.
fn whole(body: Bytes) -> PlainBody {
    Box::pin(Full::new(body).map_err(Into::into))
}

impl Front {
    /// For a connection of a port with these pages: only that of clients has a gateway.
    pub fn new(
        net: Rc<Net>,
        pages: Pages,
        peer: Rc<Peer>,
        secured: Option<Secured>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let common = net.member.gateway.clone().filter(|_| pages == Pages::Client);
        let gate = common.map(|common| {
            // Also where gRPC itself is not offered.
            let offer = Offer::Everything;
            let handler = NetHandler { net: Rc::clone(&net), offer, secured, stop: stop.clone() };
            Gate::new(common, Rc::new(handler), peer, stop)
        });
        Self { net, secured, gate }
    }

    /// The answer, if the request is for the gateway; the request back, if it is for the pages, with what TLS
    /// says of it.
    pub async fn respond(
        &self,
        mut head: Parts,
        body: PlainBody,
    ) -> Result<Response<PlainBody>, (Parts, PlainBody)> {
        head.extensions.extend(self.secured.map(Secured::into_extensions).unwrap_or_default());
        let Some(gate) = &self.gate else { return Err((head, body)) };
        etch_transcode::modernize(&mut head);
        let is_bare = head.uri.path() == PREFIX.trim_end_matches('/');
        if !is_bare && !etch_transcode::is_for_gateway(&head) {
            return Err((head, body));
        }
        let site = &self.net.member.site;
        if let Some(refused) = site.refuse(&head) {
            return Ok(refused.map(whole));
        }
        let mut response = if let Some(page) = site.at_once(&head) {
            page.map(whole)
        } else if is_bare {
            redirect(&head, PREFIX).map(whole)
        } else {
            gate.respond(&mut head, body).await
        };
        site.allow_origin(&head, response.headers_mut());
        Ok(response)
    }
}

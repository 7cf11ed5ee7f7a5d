//! `--namespace`: every key that a client names is moved under a prefix, and every key that it is shown is
//! moved back; what lies outside, no request can name. Not here: the arithmetic (`etch_client::Namespace`), and
//! watches, which do the same where they are shared (`watch`).

use bytes::Bytes;
use etch_api::pb::etcdserverpb as pb;
use etch_api::pb::v3electionpb as election;
use etch_api::pb::v3lockpb as lock;
use etch_client::Namespace;
use etch_rpc::{Code, Status};
use prost::Message;

/// The keys of a proxy's clients.
pub(super) struct Keys(Option<Namespace>);

impl Keys {
    /// Under this prefix; an empty one changes nothing.
    pub(super) fn new(prefix: &str) -> Self {
        Self((!prefix.is_empty()).then(|| Namespace::new(prefix)))
    }

    /// The prefix, if there is one.
    pub(super) fn namespace(&self) -> Option<&Namespace> {
        self.0.as_ref()
    }

    /// A request as the cluster gets it.
    pub(super) fn request(&self, path: &str, message: Bytes) -> Result<Bytes, Status> {
        match &self.0 {
            None => Ok(message),
            Some(namespace) => request(namespace, path, message),
        }
    }

    /// An answer as the client gets it.
    pub(super) fn answer(&self, path: &str, message: Bytes) -> Result<Bytes, Status> {
        match &self.0 {
            None => Ok(message),
            Some(namespace) => answer(namespace, path, message),
        }
    }
}

/// Decodes, changes, encodes.
fn changed<M: Message + Default>(
    message: Bytes,
    change: impl FnOnce(&mut M) -> Result<(), etch_client::Error>,
) -> Result<Bytes, Status> {
    let mut decoded = M::decode(message).map_err(|error| {
        Status::new(Code::Internal, format!("grpc: error unmarshalling: {error}"))
    })?;
    change(&mut decoded).map_err(|error| super::status(&error))?;
    Ok(decoded.encode_to_vec().into())
}

fn request(to: &Namespace, path: &str, message: Bytes) -> Result<Bytes, Status> {
    match path {
        "/etcdserverpb.KV/Range" | "/etcdserverpb.KV/RangeStream" => {
            changed(message, |r: &mut pb::RangeRequest| to.add_range(&mut r.key, &mut r.range_end))
        }
        "/etcdserverpb.KV/Put" => changed(message, |r: &mut pb::PutRequest| to.add_put(r)),
        "/etcdserverpb.KV/DeleteRange" => changed(message, |r: &mut pb::DeleteRangeRequest| {
            to.add_range(&mut r.key, &mut r.range_end)
        }),
        "/etcdserverpb.KV/Txn" => changed(message, |r: &mut pb::TxnRequest| to.add_txn(r)),
        "/v3lockpb.Lock/Lock" => changed(message, |r: &mut lock::LockRequest| add(to, &mut r.name)),
        "/v3lockpb.Lock/Unlock" => {
            changed(message, |r: &mut lock::UnlockRequest| add(to, &mut r.key))
        }
        "/v3electionpb.Election/Campaign" => {
            changed(message, |r: &mut election::CampaignRequest| add(to, &mut r.name))
        }
        "/v3electionpb.Election/Leader" | "/v3electionpb.Election/Observe" => {
            changed(message, |r: &mut election::LeaderRequest| add(to, &mut r.name))
        }
        "/v3electionpb.Election/Proclaim" => {
            changed(message, |r: &mut election::ProclaimRequest| add_leader(to, &mut r.leader))
        }
        "/v3electionpb.Election/Resign" => {
            changed(message, |r: &mut election::ResignRequest| add_leader(to, &mut r.leader))
        }
        // All keys of the store, and no way to leave any out.
        "/etcdserverpb.Maintenance/Snapshot" => Err(Status::new(
            Code::PermissionDenied,
            "a snapshot holds all keys, and this proxy shows a namespace only",
        )),
        _ => Ok(message),
    }
}

fn answer(from: &Namespace, path: &str, message: Bytes) -> Result<Bytes, Status> {
    match path {
        "/etcdserverpb.KV/Range" => changed(message, |r: &mut pb::RangeResponse| {
            from.strip_all(&mut r.kvs);
            Ok(())
        }),
        "/etcdserverpb.KV/RangeStream" => changed(message, |r: &mut pb::RangeStreamResponse| {
            r.range_response.iter_mut().for_each(|r| from.strip_all(&mut r.kvs));
            Ok(())
        }),
        "/etcdserverpb.KV/Put" => changed(message, |r: &mut pb::PutResponse| {
            from.strip_all(r.prev_kv.as_mut_slice());
            Ok(())
        }),
        "/etcdserverpb.KV/DeleteRange" => changed(message, |r: &mut pb::DeleteRangeResponse| {
            from.strip_all(&mut r.prev_kvs);
            Ok(())
        }),
        "/etcdserverpb.KV/Txn" => changed(message, |r: &mut pb::TxnResponse| {
            from.strip_txn(r);
            Ok(())
        }),
        "/etcdserverpb.Lease/LeaseTimeToLive" => {
            changed(message, |r: &mut pb::LeaseTimeToLiveResponse| {
                r.keys.retain(|key| from.has(key));
                r.keys.iter_mut().for_each(|key| from.strip(key));
                Ok(())
            })
        }
        "/v3lockpb.Lock/Lock" => changed(message, |r: &mut lock::LockResponse| {
            from.strip(&mut r.key);
            Ok(())
        }),
        "/v3electionpb.Election/Campaign" => {
            changed(message, |r: &mut election::CampaignResponse| {
                if let Some(leader) = &mut r.leader {
                    from.strip(&mut leader.name);
                    from.strip(&mut leader.key);
                }
                Ok(())
            })
        }
        "/v3electionpb.Election/Leader" | "/v3electionpb.Election/Observe" => {
            changed(message, |r: &mut election::LeaderResponse| {
                from.strip_all(r.kv.as_mut_slice());
                Ok(())
            })
        }
        _ => Ok(message),
    }
}

fn add(to: &Namespace, key: &mut Bytes) -> Result<(), etch_client::Error> {
    *key = to.add(key);
    Ok(())
}

fn add_leader(
    to: &Namespace,
    leader: &mut Option<election::LeaderKey>,
) -> Result<(), etch_client::Error> {
    if let Some(leader) = leader {
        add(to, &mut leader.name)?;
        add(to, &mut leader.key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::pb::mvccpb::KeyValue;

    fn wire(message: &impl Message) -> Bytes {
        message.encode_to_vec().into()
    }

    #[test]
    fn requests_cannot_name_what_lies_outside() {
        let keys = Keys::new("p/");
        for (key, end, want_key, want_end) in [
            ("a", "", "p/a", ""),
            ("a", "\0", "p/a", "p0"),
            ("\0", "\0", "p/\0", "p0"),
            ("", "z", "p/", "p/z"),
            ("z", "a", "p/z", "p/a"),
        ] {
            let request = pb::RangeRequest {
                key: Bytes::copy_from_slice(key.as_bytes()),
                range_end: Bytes::copy_from_slice(end.as_bytes()),
                ..<_>::default()
            };
            for path in ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/RangeStream"] {
                let sent = keys.request(path, wire(&request)).expect("a range");
                let sent = pb::RangeRequest::decode(sent).expect("a request");
                assert_eq!(
                    (&sent.key[..], &sent.range_end[..]),
                    (want_key.as_bytes(), want_end.as_bytes())
                );
            }
        }
        let nothing = keys.request("/etcdserverpb.KV/Put", Bytes::new()).expect_err("no key");
        assert_eq!(&*nothing.message, "etcdserver: key is not provided");
        assert!(keys.request("/etcdserverpb.Maintenance/Snapshot", Bytes::new()).is_err());
    }

    #[test]
    fn nested_transactions_are_moved_there_and_back() {
        use pb::request_op::Request;
        use pb::response_op::Response;
        let keys = Keys::new("p/");
        let put = pb::RequestOp {
            request: Some(Request::RequestPut(pb::PutRequest {
                key: "k".into(),
                ..<_>::default()
            })),
        };
        let inner = pb::TxnRequest {
            compare: vec![pb::Compare { key: "c".into(), ..<_>::default() }],
            failure: vec![put],
            ..<_>::default()
        };
        let inner = pb::RequestOp { request: Some(Request::RequestTxn(inner)) };
        let outer = pb::TxnRequest { success: vec![inner], ..<_>::default() };
        let sent = keys.request("/etcdserverpb.KV/Txn", wire(&outer)).expect("a transaction");
        let sent = pb::TxnRequest::decode(sent).expect("a request");
        let Some(Request::RequestTxn(inner)) = &sent.success[0].request else { panic!("{sent:?}") };
        let Some(Request::RequestPut(put)) = &inner.failure[0].request else { panic!("{inner:?}") };
        assert_eq!((&inner.compare[0].key[..], &put.key[..]), (&b"p/c"[..], &b"p/k"[..]));

        let kv = KeyValue { key: "p/k".into(), ..<_>::default() };
        let range = pb::RangeResponse { kvs: vec![kv], ..<_>::default() };
        let inner = pb::TxnResponse {
            responses: vec![pb::ResponseOp { response: Some(Response::ResponseRange(range)) }],
            ..<_>::default()
        };
        let outer = pb::TxnResponse {
            responses: vec![pb::ResponseOp { response: Some(Response::ResponseTxn(inner)) }],
            ..<_>::default()
        };
        let got = keys.answer("/etcdserverpb.KV/Txn", wire(&outer)).expect("an answer");
        let got = pb::TxnResponse::decode(got).expect("an answer");
        let Some(Response::ResponseTxn(inner)) = &got.responses[0].response else { panic!() };
        let Some(Response::ResponseRange(range)) = &inner.responses[0].response else { panic!() };
        assert_eq!(range.kvs[0].key, "k");
    }

    #[test]
    fn locks_elections_and_leases_show_the_namespace_only() {
        let keys = Keys::new("p/");
        let asked = lock::LockRequest { name: "l".into(), lease: 7 };
        let sent = keys.request("/v3lockpb.Lock/Lock", wire(&asked)).expect("a request");
        assert_eq!(lock::LockRequest::decode(sent).expect("a request").name, "p/l");
        let got = lock::LockResponse { key: "p/l/7".into(), ..<_>::default() };
        let got = keys.answer("/v3lockpb.Lock/Lock", wire(&got)).expect("an answer");
        assert_eq!(lock::LockResponse::decode(got).expect("an answer").key, "l/7");
        let leader = election::LeaderKey { name: "e".into(), key: "e/7".into(), ..<_>::default() };
        let resign = election::ResignRequest { leader: Some(leader) };
        let sent = keys.request("/v3electionpb.Election/Resign", wire(&resign)).expect("a request");
        let sent = election::ResignRequest::decode(sent).expect("a request").leader.expect("a key");
        assert_eq!((&sent.name[..], &sent.key[..]), (&b"p/e"[..], &b"p/e/7"[..]));
        let lease = pb::LeaseTimeToLiveResponse {
            keys: vec!["p/a".into(), "q/b".into()],
            ..<_>::default()
        };
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        let got = keys.answer(path, wire(&lease)).expect("an answer");
        assert_eq!(pb::LeaseTimeToLiveResponse::decode(got).expect("an answer").keys, ["a"]);
    }
}

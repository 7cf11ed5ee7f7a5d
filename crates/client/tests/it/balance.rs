//! Which endpoint a call goes to: each in its turn as long as all live, and none that is dead.

use crate::common::{Kind, Mode, Proxy, Server, until};
use crate::observe::observed;
use etch_client::{Client, Config};

/// A field of a span, as it was told last.
pub fn field<'a>(span: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = span.rsplit_once(&format!(" {name}="))?;
    Some(rest.split(' ').next()?.trim_matches('"'))
}

#[test]
fn calls_go_round_and_pass_over_a_dead_endpoint_at_once() {
    let mut endpoints = Vec::new();
    let (spans, _) = observed(async {
        let server = Server::start(Kind::Etch).await;
        let mut proxies = Vec::new();
        for _ in 0..3 {
            proxies.push(Proxy::start(server.address()).await);
        }
        endpoints.extend(proxies.iter().map(|proxy| proxy.endpoint.clone()));
        let client = Client::connect(Config::new(endpoints.clone())).await.expect("a client");
        until("all three are connected", || async {
            // More than a greeting takes: a call has gone through it.
            client.get("a").await.is_ok() && proxies.iter().all(|proxy| proxy.asked() > 2000)
        })
        .await;
        for _ in 0..300 {
            client.put("a", "1").await.expect("put");
        }
        proxies[0].set(Mode::Cut);
        for _ in 0..30 {
            client.member_list().await.expect("members");
        }
    });
    let of = |method: &str| {
        let method = format!("method=\"{method}\"");
        let calls: Vec<&String> = spans.iter().filter(|span| span.contains(&method)).collect();
        let went = |endpoint: &String| {
            calls.iter().filter(|span| field(span, "endpoint") == Some(endpoint)).count()
        };
        let went: Vec<usize> = endpoints.iter().map(went).collect();
        let attempts = |span: &&String| field(span, "attempts")?.parse::<u32>().ok();
        (went, calls.iter().filter_map(attempts).collect::<Vec<_>>())
    };
    let (went, attempts) = of("KV/Put");
    assert!(went.iter().all(|calls| (99..=101).contains(calls)), "{went:?}");
    assert_eq!(attempts, [1; 300]);
    // A read that meets the dying connection is sent again, to the next endpoint, without a pause: the first pause comes
    // when most of three have failed.
    let (went, attempts) = of("Cluster/MemberList");
    assert_eq!((went[0], went.iter().sum()), (0, 30), "{went:?}");
    assert!(went[1] > 0 && went[2] > 0, "{went:?}");
    assert!(attempts.iter().all(|attempts| *attempts <= 2), "{attempts:?}");
    assert!(attempts.iter().filter(|attempts| **attempts == 2).count() <= 1, "{attempts:?}");
}

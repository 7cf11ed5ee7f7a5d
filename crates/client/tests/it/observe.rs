//! What an operator sees of a client: spans of calls, dials and streams, and counters.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

use crate::common::{Kind, LIMIT, Server, server::free_port};
use etch_client::{Client, Config};

/// Spans, each as its name and fields.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("etch_client")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut text));
        let mut spans = self.0.lock().expect("no panic");
        spans.push(text);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock().expect("no panic");
        values.record(&mut Fields(&mut spans[span.into_u64() as usize - 1]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Counters, and how often each histogram was told something.
#[derive(Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

/// A histogram that counts.
struct Told(Arc<AtomicU64>);

impl HistogramFn for Told {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counts {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        self.0.lock().expect("no panic").entry(name.trim_end().into()).or_default().clone()
    }

    fn get(&self, name: &str) -> u64 {
        let counts = self.0.lock().expect("no panic");
        counts.get(name).map_or(0, |count| count.load(Ordering::SeqCst))
    }
}

impl metrics::Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Told(self.of(key))))
    }
}

/// Runs all of a test on one thread, where its spans and counters are caught.
pub fn observed(test: impl Future<Output = ()>) -> (Vec<String>, Counts) {
    let (spans, counts) = (Spans::default(), Counts::default());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // As long as there is one subscriber only, a place in the code that another test reaches first asks that test's
    // thread whether its spans are wanted, and remembers the answer.
    let _second = tracing::Dispatch::new(spans.clone());
    tracing::subscriber::with_default(spans.clone(), || {
        metrics::with_local_recorder(&counts, || {
            runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("hangs") });
        });
    });
    let spans = std::mem::take(&mut *spans.0.lock().expect("no panic"));
    (spans, counts)
}

fn has(spans: &[String], wanted: &[&str]) -> bool {
    spans.iter().any(|span| wanted.iter().all(|word| span.contains(word)))
}

#[test]
fn calls_dials_and_streams_have_spans_and_are_counted() {
    let (spans, counts) = observed(async {
        let server = Server::start(Kind::Etch).await;
        let client = server.client().await;
        client.put("a", "1").await.expect("put");
        client.get("").await.expect_err("no key");
        let mut watch = client.watch("a").await.expect("watch");
        let lease = client.lease_grant(60).await.expect("grant").id;
        let _kept = client.lease_keep_alive(lease).await.expect("kept");
        client.put("a", "2").await.expect("put");
        watch.next().await.expect("goes on").expect("an event");
        // Cut off: the stream breaks, and that is counted.
        client.close();
        let nobody = Config::new([format!("127.0.0.1:{}", free_port())])
            .dial_timeout(std::time::Duration::from_millis(100));
        let nobody = Client::connect(nobody).await.expect("a client");
        nobody.put("a", "1").await.expect_err("nobody");
    });
    let put = ["etch_client.call", "method=\"KV/Put\"", "attempts=1", "outcome=\"ok\""];
    assert!(has(&spans, &put), "{spans:#?}");
    assert!(has(&spans, &["etch_client.call", "KV/Put", "endpoint=\"http://127.0.0.1:"]));
    assert!(has(&spans, &["etch_client.call", "KV/Range", "outcome=\"refused\""]), "{spans:#?}");
    assert!(has(&spans, &["etch_client.call", "KV/Put", "outcome=\"no_endpoint\""]), "{spans:#?}");
    assert!(has(&spans, &["etch_client.dial", "endpoint=\"http://127.0.0.1:"]), "{spans:#?}");
    assert!(has(&spans, &["etch_client.stream", "of=\"watches\""]), "{spans:#?}");
    assert!(has(&spans, &["etch_client.stream", "of=\"leases\""]), "{spans:#?}");
    assert!(
        has(&spans, &["etch_client.open", "method=\"Watch/Watch\"", "endpoint="]),
        "{spans:#?}"
    );
    let calls = |labels: &str| counts.get(&format!("etch_client_calls_total {labels}"));
    assert_eq!(calls("method=KV/Put outcome=ok"), 2, "{:?}", counts.0);
    assert_eq!(calls("method=KV/Put outcome=no_endpoint"), 1);
    assert_eq!(calls("method=KV/Range outcome=refused"), 1);
    assert_eq!(counts.get("etch_client_call_seconds method=KV/Put"), 3);
    assert!(counts.get("etch_client_connections_total") >= 1);
    assert!(counts.get("etch_client_streams_opened_total method=Watch/Watch") >= 1);
}

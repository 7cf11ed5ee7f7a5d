//! The steps that watch keys, and that make leases and keep them.

use std::collections::VecDeque;

use etch_client::mirror::Syncer;
use etch_client::{Client, Error, Event, EventType, Result, WatchStream};

use crate::words::{Words, shown};
use crate::world::{Run, failed};

/// A watch, with what came and was not asked for yet.
pub struct Events {
    watch: WatchStream,
    left: VecDeque<Event>,
}

impl From<WatchStream> for Events {
    fn from(watch: WatchStream) -> Events {
        Events { watch, left: VecDeque::new() }
    }
}

impl Run {
    pub async fn watching(&self, client: &Client, words: &Words) -> Result<String> {
        let name = words.arg(0);
        match words.verb.as_str() {
            "watch" => {
                let watch = self.watch(client, words).await?;
                self.watches.set(name, watch.into());
                Ok("ok".into())
            }
            "cancel" => {
                drop(self.watches.take(name));
                Ok("ok".into())
            }
            "mirror" => self.mirror(client, words).await,
            _ => {
                let Some(mut events) = self.watches.take(name) else {
                    return Ok("no such watch".into());
                };
                let line = match words.verb.as_str() {
                    "progress" => self.progress(client, &mut events).await,
                    _ => self.events(&mut events, words).await,
                };
                self.watches.set(name, events);
                line.or_else(|error| match error {
                    Error::Compacted { revision } => {
                        Ok(format!("compacted {}", self.rel(revision)))
                    }
                    error => Ok(failed(&error)),
                })
            }
        }
    }

    async fn watch(&self, client: &Client, words: &Words) -> Result<WatchStream> {
        let mut watch = client.watch(words.arg(1));
        for (name, value) in &words.opts {
            watch = match name.as_str() {
                "prefix" => watch.prefix(),
                "from" => watch.from_key(),
                "range" => watch.range(value),
                "rev" => watch.rev(self.number(value)),
                "prev" => watch.prev_kv(),
                "noput" => watch.no_put(),
                "nodelete" => watch.no_delete(),
                _ => watch,
            };
        }
        watch.await
    }

    async fn progress(&self, client: &Client, events: &mut Events) -> Result<String> {
        client.request_progress().await?;
        loop {
            let Some(response) = events.watch.next().await else { return Ok("ended".into()) };
            let response = response?;
            if response.is_progress() {
                return Ok(format!("ok {}", self.rel(response.header.revision)));
            }
            events.left.extend(response.events);
        }
    }

    /// Reads so many events.
    async fn events(&self, events: &mut Events, words: &Words) -> Result<String> {
        let count: usize = words.arg(1).parse().unwrap_or_default();
        while events.left.len() < count {
            let Some(response) = events.watch.next().await else { return Ok("ended".into()) };
            events.left.extend(response?.events);
        }
        let list: Vec<String> = events.left.drain(..count).map(|e| self.event(&e)).collect();
        Ok(list.join(", "))
    }

    fn event(&self, event: &Event) -> String {
        let kv = event.kv.clone().unwrap_or_default();
        let (key, at) = (shown(&kv.key), self.rel(kv.mod_revision));
        let mut line = match event.r#type() {
            EventType::Put => format!("put {key}={}@{at}", shown(&kv.value)),
            EventType::Delete => format!("delete {key}@{at}"),
        };
        if let Some(before) = &event.prev_kv {
            line += &format!(" before {}", shown(&before.value));
        }
        line
    }

    async fn mirror(&self, client: &Client, words: &Words) -> Result<String> {
        let mut syncer = Syncer::new(client, words.arg(1));
        let mut base = syncer.base().await?;
        let mut keys = Vec::new();
        while let Some(piece) = base.next().await {
            for kv in piece?.kvs {
                keys.push(format!("{}={}", shown(&kv.key), shown(&kv.value)));
            }
        }
        self.watches.set(words.arg(0), syncer.updates().await?.into());
        Ok(format!("ok [{}]", keys.join(" ")))
    }

    pub async fn lease_step(&self, client: &Client, words: &Words) -> Result<String> {
        let name = words.arg(0);
        match words.verb.as_str() {
            "grant" => {
                let answer = client.lease_grant(self.number(words.arg(1))).await?;
                self.leases.set(name, answer.id);
                Ok(format!("{} for {}", self.header(words, &answer), answer.ttl))
            }
            "once" => {
                let ttl = client.lease_keep_alive_once(self.lease(name)).await?;
                Ok(format!("ok for {ttl}"))
            }
            "keep" => {
                let kept = client.lease_keep_alive(self.lease(name)).await?;
                let line = format!("ok for {}", kept.first().ttl);
                self.kept.set(name, kept);
                Ok(line)
            }
            "alive" => {
                let mut kept = self.kept.take(name).expect("kept before");
                let mut line = "ok";
                for _ in 0..self.number(words.arg(1)) {
                    if !matches!(kept.next().await, Some(Ok(_))) {
                        line = "lost";
                    }
                }
                self.kept.set(name, kept);
                Ok(line.into())
            }
            "lost" => {
                let error = self.kept.take(name).expect("kept before").lost().await;
                Ok(failed(&error))
            }
            "release" => {
                drop(self.kept.take(name));
                Ok("ok".into())
            }
            "left" => {
                let answer = client.lease_keys(self.lease(name)).await?;
                let (lives, keys) = (answer.ttl > 0, answer.keys.len());
                Ok(format!("ok lives {lives} of {} with {keys} keys", answer.granted_ttl))
            }
            _ => {
                let answer = client.lease_revoke(self.lease(name)).await?;
                Ok(self.header(words, &answer))
            }
        }
    }
}

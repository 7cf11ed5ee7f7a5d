//! The steps that read and write keys.

use std::time::Duration;

use etch_client::pb::response_op::Response;
use etch_client::{
    Client, Compare, Comparison, GetResponse, KeyValue, Op, Result, SortOrder, SortTarget, delete,
    get, put,
};

use crate::words::{Words, shown, value};
use crate::world::{Run, failed, no_answer};

/// Sets the options of a read, bound to a client or for a transaction.
macro_rules! get_options {
    ($run:expr, $words:expr, $get:expr) => {{
        let mut get = $get;
        for (name, value) in &$words.opts {
            get = match name.as_str() {
                "prefix" => get.prefix(),
                "from" => get.from_key(),
                "range" => get.range(value),
                "rev" => get.rev($run.number(value)),
                "limit" => get.limit($run.number(value)),
                "serializable" => get.serializable(),
                "keysonly" => get.keys_only(),
                "countonly" => get.count_only(),
                "minmod" => get.min_mod_rev($run.number(value)),
                "maxcreate" => get.max_create_rev($run.number(value)),
                "sort" => {
                    let (by, order) = sorting(value);
                    get.sort(by, order)
                }
                _ => get,
            };
        }
        get
    }};
}

macro_rules! put_options {
    ($run:expr, $words:expr, $put:expr) => {{
        let mut put = $put;
        for (name, value) in &$words.opts {
            put = match name.as_str() {
                "prev" => put.prev_kv(),
                "lease" => put.lease($run.lease(value)),
                "ignorevalue" => put.ignore_value(),
                _ => put,
            };
        }
        put
    }};
}

macro_rules! delete_options {
    ($words:expr, $delete:expr) => {{
        let mut delete = $delete;
        for (name, value) in &$words.opts {
            delete = match name.as_str() {
                "prefix" => delete.prefix(),
                "from" => delete.from_key(),
                "range" => delete.range(value),
                "prev" => delete.prev_kv(),
                _ => delete,
            };
        }
        delete
    }};
}

fn sorting(text: &str) -> (SortTarget, SortOrder) {
    let (by, order) = text.split_once(':').unwrap_or((text, ""));
    let by = match by {
        "value" => SortTarget::Value,
        "mod" => SortTarget::Mod,
        "create" => SortTarget::Create,
        "version" => SortTarget::Version,
        _ => SortTarget::Key,
    };
    (by, if order == "descend" { SortOrder::Descend } else { SortOrder::Ascend })
}

impl Run {
    pub async fn keys(&self, client: &Client, words: &Words) -> Result<String> {
        let key = words.arg(0);
        match words.verb.as_str() {
            "put" => {
                let put = client.put(key, value(words.arg(1)));
                let answer = put_options!(self, words, put).await?;
                let before = answer.prev_kv.iter().map(|kv| self.before(words, kv));
                Ok(self.header(words, &answer) + &before.collect::<String>())
            }
            "get" => {
                let answer = get_options!(self, words, client.get(key)).await?;
                Ok(self.found(words, &answer))
            }
            "await" => self.wait_for(client, words).await,
            "delete" => {
                let answer = delete_options!(words, client.delete(key)).await?;
                let before = answer.prev_kvs.iter().map(|kv| self.before(words, kv));
                let header = self.header(words, &answer);
                Ok(format!("{header} deleted {}{}", answer.deleted, before.collect::<String>()))
            }
            "txn" => self.txn(client, words).await,
            "compact" => {
                let answer = client.compact(self.number(key)).await?;
                Ok(self.header(words, &answer))
            }
            "ensure" => self.ensure(client, words).await,
            "fill" => {
                for n in 0..self.number(words.arg(1)) {
                    client.put(format!("{key}{n}"), n.to_string()).await?;
                }
                Ok("ok".into())
            }
            "pages" => self.pages(client, words).await,
            other => Ok(format!("what is {other}?")),
        }
    }

    fn pair(&self, words: &Words, kv: &KeyValue) -> String {
        let (key, value) = (shown(&kv.key), shown(&kv.value));
        if words.quiet {
            return format!("{key}={value}");
        }
        format!("{key}={value}({})@{}", kv.version, self.rel(kv.mod_revision))
    }

    fn before(&self, words: &Words, kv: &KeyValue) -> String {
        format!(" before {}", self.pair(words, kv))
    }

    fn found(&self, words: &Words, answer: &GetResponse) -> String {
        let kvs: Vec<String> = answer.kvs.iter().map(|kv| self.pair(words, kv)).collect();
        let kvs = kvs.join(" ");
        if words.quiet {
            return format!("ok [{kvs}]");
        }
        let header = self.header(words, answer);
        format!("{header} [{kvs}] of {} more {}", answer.count, answer.more)
    }

    /// Waits until a key has this value, or with the empty one, is not there.
    async fn wait_for(&self, client: &Client, words: &Words) -> Result<String> {
        loop {
            let read = get_options!(self, words, client.get(words.arg(0)));
            if let Ok(answer) = read.await {
                let found = answer.kvs.first().map_or(&b""[..], |kv| &kv.value[..]);
                if found == words.arg(1).as_bytes() {
                    return Ok("ok".into());
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Writes a key that is not there, once, however often it takes.
    async fn ensure(&self, client: &Client, words: &Words) -> Result<String> {
        let client = client.with_timeout(Duration::from_secs(2));
        loop {
            let put = put_options!(self, words, put(words.arg(0), value(words.arg(1))));
            let free = Compare::version(words.arg(0)).equal(0);
            match client.txn().when(free).then(put).await {
                Ok(_) => return Ok("ok".into()),
                Err(error) if !no_answer(&failed(&error)) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn pages(&self, client: &Client, words: &Words) -> Result<String> {
        let read = get_options!(self, words, client.get(words.arg(0)).prefix());
        let mut pages = read.stream().page(words.arg(1).parse().unwrap_or(1));
        let (mut keys, mut count) = (Vec::new(), 0);
        while let Some(page) = pages.next().await {
            let page = page?;
            count = page.count;
            let pair = |kv: &KeyValue| format!("{}={}", shown(&kv.key), shown(&kv.value));
            keys.extend(page.kvs.iter().map(pair));
        }
        Ok(format!("ok [{}] of {count}", keys.join(" ")))
    }

    async fn txn(&self, client: &Client, words: &Words) -> Result<String> {
        let mut txn = client.txn();
        for clause in words.args.split(|word| word == ";") {
            let Some((kind, rest)) = clause.split_first() else { continue };
            txn = match kind.as_str() {
                "when" => txn.when(self.comparison(rest)),
                "then" => txn.then(self.op(rest)),
                _ => txn.otherwise(self.op(rest)),
            };
        }
        let answer = txn.await?;
        let mut line = format!("{} {}", self.header(words, &answer), answer.succeeded);
        for one in answer.responses.iter().filter_map(|one| one.response.as_ref()) {
            line += &match one {
                Response::ResponsePut(_) => " put".to_owned(),
                Response::ResponseRange(range) => {
                    let quiet = Words { quiet: true, ..Words::default() };
                    format!(" {}", self.found(&quiet, range))
                }
                Response::ResponseDeleteRange(gone) => format!(" deleted {}", gone.deleted),
                Response::ResponseTxn(_) => " txn".to_owned(),
            };
        }
        Ok(line)
    }

    fn comparison(&self, words: &[String]) -> Comparison {
        let [what, key, sign, operand] = words else { panic!("no comparison: {words:?}") };
        let number = self.number(operand);
        let compare = match what.as_str() {
            "value" => {
                let compare = Compare::value(key);
                return match sign.as_str() {
                    "=" => compare.equal(operand),
                    "!=" => compare.not_equal(operand),
                    ">" => compare.greater(operand),
                    _ => compare.less(operand),
                };
            }
            "version" => Compare::version(key),
            "mod" => Compare::mod_revision(key),
            "create" => Compare::create_revision(key),
            _ => Compare::lease(key),
        };
        match sign.as_str() {
            "=" => compare.equal(number),
            "!=" => compare.not_equal(number),
            ">" => compare.greater(number),
            _ => compare.less(number),
        }
    }

    fn op(&self, words: &[String]) -> Op {
        let quoted: Vec<&str> =
            words.iter().map(|w| if w.is_empty() { "''" } else { w.as_str() }).collect();
        let inner = Words::parse(&quoted.join(" "));
        match inner.verb.as_str() {
            "put" => put_options!(self, inner, put(inner.arg(0), value(inner.arg(1)))).into(),
            "delete" => delete_options!(inner, delete(inner.arg(0))).into(),
            _ => get_options!(self, inner, get(inner.arg(0))).into(),
        }
    }
}

//! The steps of sessions, locks and elections.

use etch_client::concurrency::{Election, Mutex, Session};
use etch_client::{Client, Result, get};

use crate::words::{Words, shown};
use crate::world::{Run, plain};

impl Run {
    pub async fn together(&self, client: &Client, words: &Words) -> Result<String> {
        let name = words.arg(0);
        match words.verb.as_str() {
            "session" => {
                let session = Session::new(client).ttl(self.number(words.arg(1))).await?;
                self.sessions.set(name, session);
            }
            "gone" => drop(self.sessions.get(name).lost().await),
            "close" => self.sessions.take(name).expect("a session").close().await?,
            "lock" | "trylock" => {
                let mutex = Mutex::new(&self.sessions.get(words.arg(1)), words.arg(2));
                let guard = match words.verb.as_str() {
                    "lock" => mutex.lock().await?,
                    _ => mutex.try_lock().await?,
                };
                self.locks.set(name, guard);
            }
            "unlock" => {
                // One that failed goes on by itself, in the background.
                if let Some(guard) = self.locks.take(name) {
                    guard.unlock().await?;
                }
            }
            "owner" => {
                let guard = self.locks.take(name).expect("a lock");
                // A transaction that reads nothing may be answered by a member that is behind.
                let asked = client.txn().when(guard.is_owner()).then(get("x")).await;
                self.locks.set(name, guard);
                return Ok(format!("ok {}", asked?.succeeded));
            }
            "campaign" => {
                let election = Election::new(&self.sessions.get(words.arg(1)), words.arg(2));
                self.stands.set(name, election.campaign(words.arg(3)).await?);
            }
            "proclaim" => {
                let mut leadership = self.stands.take(name).expect("a leader");
                let said = leadership.proclaim(words.arg(1)).await;
                self.stands.set(name, leadership);
                return plain(said);
            }
            "resign" => {
                if let Some(leadership) = self.stands.take(name) {
                    leadership.resign().await?;
                }
            }
            _ => {
                let election = Election::new(&self.sessions.get(name), words.arg(1));
                return Ok(format!("ok {}", shown(&election.leader().await?.value)));
            }
        }
        Ok("ok".into())
    }
}

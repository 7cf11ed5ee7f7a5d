//! The thread itself: a current-thread runtime, the mailbox, and connections handed to it. Not here: what
//! a connection says.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use etch_rpc::{Limits, Stats};
use etch_state::watch::{Doorbell, Wake};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::port::{self, Accepted};
use super::{Net, Turns};
use crate::driver::helm::SharedHelm;
use crate::driver::mailbox::Mailbox;
use crate::member::Member;

/// Rings a net thread by its mailbox.
struct Rings(Arc<Mailbox>);

impl Wake for Rings {
    fn wake(&self) {
        self.0.ring();
    }
}

/// What a net thread starts with.
pub struct NetThread {
    /// Which one.
    pub number: usize,
    /// The member.
    pub member: Arc<Member>,
    /// Where its turns are taken.
    pub helm: Arc<SharedHelm>,
    /// Where its outcomes come in.
    pub mailbox: Arc<Mailbox>,
    /// Connections for it.
    pub accepted: mpsc::UnboundedReceiver<Accepted>,
    /// What its connections have done.
    pub stats: Arc<Stats>,
    /// How many it has.
    pub connections: Arc<AtomicUsize>,
    /// What each connection may cost.
    pub limits: Limits,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

impl NetThread {
    /// Runs until the server stops and the connections have drained.
    pub fn run(self) {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap_or_else(|e| panic!("no runtime for a net thread: {e}"));
        runtime.block_on(self.serve());
        // A task that waits for the disk must not hold up the stop.
        runtime.shutdown_background();
    }

    async fn serve(mut self) {
        let doorbell = Doorbell::new(Arc::new(Rings(Arc::clone(&self.mailbox))));
        let connections = Arc::clone(&self.connections);
        let turns = Turns { helm: self.helm, connections };
        let net = Net::new(self.member, self.number, turns, doorbell, self.stats);
        let mail = tokio::task::spawn_local(read_mail(Rc::clone(&net), self.mailbox));
        let watched = Rc::clone(&net);
        let watch = tokio::task::spawn_local(async move { watched.watch_leader().await });
        let answers = Rc::clone(&net);
        let let_go = tokio::task::spawn_local(async move { answers.let_go_of_roots().await });
        let gathers = Rc::clone(&net);
        let hand_over = tokio::task::spawn_local(async move { gathers.hand_over().await });
        let limits = Rc::new(self.limits);
        let mut connections = JoinSet::new();
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                accepted = self.accepted.recv() => {
                    let Some(accepted) = accepted else { break };
                    let serving = port::serve(accepted, Rc::clone(&net), Rc::clone(&limits), self.stop.clone());
                    let open = Arc::clone(&self.connections);
                    connections.spawn_local(async move {
                        serving.await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Some(_) = connections.join_next() => {}
                _ = stop.wait_for(|stopped| *stopped) => break,
            }
        }
        while connections.join_next().await.is_some() {}
        watch.abort();
        let_go.abort();
        hand_over.abort();
        mail.abort();
    }
}

async fn read_mail(net: Rc<Net>, mailbox: Arc<Mailbox>) {
    let mut outcomes = Vec::new();
    let mut tokens = Vec::new();
    loop {
        mailbox.receive(&mut outcomes).await;
        net.deliver(&mut outcomes);
        net.ring_streams(&mut tokens);
    }
}

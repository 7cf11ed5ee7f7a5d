//! The thread itself: a current-thread runtime, the mailbox, and connections handed to it. Not here: what
//! a connection says.

use std::rc::Rc;
use std::sync::Arc;

use etch_state::watch::{Doorbell, Wake};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::port::{self, Listener};
use super::{Net, NetHandler};
use crate::driver::mailbox::Mailbox;
use crate::member::Member;

/// Rings a net thread by its mailbox.
pub struct Rings(pub Arc<Mailbox>);

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
    /// Where its outcomes come in.
    pub mailbox: Arc<Mailbox>,
    /// Its own handles of the listening sockets.
    pub listeners: Vec<Listener>,
    /// What each connection may cost.
    pub limits: etch_rpc::Limits,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
}

impl NetThread {
    /// Runs until the server stops and the connections have drained.
    pub fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap_or_else(|e| panic!("no runtime for a net thread: {e}"));
        let local = LocalSet::new();
        runtime.block_on(local.run_until(self.serve()));
    }

    async fn serve(self) {
        let doorbell = Doorbell::new(Arc::new(Rings(Arc::clone(&self.mailbox))));
        let net = Net::new(self.member, self.number, doorbell);
        let mail = tokio::task::spawn_local(read_mail(Rc::clone(&net), self.mailbox));
        let handler = Rc::new(NetHandler(net));
        let mut ports = Vec::new();
        for listener in self.listeners {
            let serving =
                port::serve(listener, Rc::clone(&handler), self.limits.clone(), self.stop.clone());
            ports.push(tokio::task::spawn_local(serving));
        }
        for port in ports {
            // A listener's task ends with the stop signal, after its connections.
            let _ = port.await;
        }
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

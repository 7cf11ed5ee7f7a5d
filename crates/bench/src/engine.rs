//! The loop that waits for all connections of a load at once, on one thread, and asks its driver what to send.
//! Not here: what is sent (`closed`, `open`, `fanout`).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::link::{Event, Link};

/// What decides about a load.
pub trait Driver {
    /// Sends what is due on a connection; called at the start, after whatever came in on it, and on every
    /// connection when the time has come that `wake_at` has named.
    fn pump(&mut self, now: Instant, conn: usize, link: &mut Link);
    /// Something came in.
    fn event(&mut self, now: Instant, conn: usize, event: Event<'_>);
    /// When to pump though nothing comes in.
    fn wake_at(&self) -> Option<Instant>;
    /// True if all is done.
    fn finished(&self, now: Instant) -> bool;
}

/// Connections to one server.
pub struct Engine {
    epoll: OwnedFd,
    links: Vec<Link>,
    /// Connections whose socket was full: they wait to write as well.
    full: Vec<bool>,
}

impl Engine {
    /// Opens so many connections.
    pub fn connect(to: SocketAddr, connections: usize) -> Result<Engine, String> {
        let text = |e: io::Error| format!("a connection to {to}: {e}");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| text(e.into()))?;
        let mut links = Vec::with_capacity(connections);
        for at in 0..connections {
            let link = Link::connect(to).map_err(text)?;
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&epoll, link.socket(), data, epoll::EventFlags::IN)
                .map_err(|e| text(e.into()))?;
            links.push(link);
        }
        Ok(Engine { epoll, full: vec![false; links.len()], links })
    }

    /// Makes all calls those of a user.
    pub fn bear(&mut self, token: &str) {
        self.links.iter_mut().for_each(|link| link.bear(token));
    }

    /// How many there are.
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// Drives the load until it is finished, and fails if that takes longer than `limit`.
    pub fn run(&mut self, driver: &mut dyn Driver, limit: Duration) -> Result<(), String> {
        self.drive(driver, Instant::now() + limit).map_err(|e| format!("a load ended early: {e}"))
    }

    fn drive(&mut self, driver: &mut dyn Driver, give_up: Instant) -> io::Result<()> {
        let mut ready = Vec::with_capacity(256);
        self.pump_all(driver)?;
        loop {
            let now = Instant::now();
            if driver.finished(now) {
                return Ok(());
            }
            if now > give_up {
                return Err(io::Error::other("the server does not answer in time"));
            }
            let wake = driver.wake_at().map_or(give_up, |at| at.min(give_up));
            let wait = timespec(wake.saturating_duration_since(now));
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&wait)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            for one in &ready {
                self.ready(one.data.u64() as usize, driver)?;
            }
            if driver.wake_at().is_some_and(|at| at <= Instant::now()) {
                self.pump_all(driver)?;
            }
        }
    }

    fn ready(&mut self, conn: usize, driver: &mut dyn Driver) -> io::Result<()> {
        let now = Instant::now();
        let link = &mut self.links[conn];
        link.read(&mut |event| driver.event(now, conn, event))?;
        self.pump(now, conn, driver)
    }

    fn pump_all(&mut self, driver: &mut dyn Driver) -> io::Result<()> {
        let now = Instant::now();
        (0..self.links.len()).try_for_each(|conn| self.pump(now, conn, driver))
    }

    fn pump(&mut self, now: Instant, conn: usize, driver: &mut dyn Driver) -> io::Result<()> {
        let link = &mut self.links[conn];
        driver.pump(now, conn, link);
        link.flush()?;
        let full = link.wants_to_write();
        if full != self.full[conn] {
            self.full[conn] = full;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, full);
            let data = epoll::EventData::new_u64(conn as u64);
            epoll::modify(&self.epoll, link.socket(), data, flags)?;
        }
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

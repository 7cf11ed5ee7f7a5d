//! The watchers of a group, each at its client's seat, and what all of a seat are told at once: clients whose watchers
//! have the same ids share it. Not here: what a group tells (`group`).

use std::collections::HashMap;
use std::rc::Rc;

use bytes::{BufMut as _, Bytes};
use etch_rpc::{Run, RunBuf};
use prost::encoding::int64;

use super::Client;

/// The field of an answer that its id is.
const ID: u32 = 2;
/// Bytes of messages that are made in one piece, about.
const PIECE: usize = 64 << 10;

/// A watcher in a group.
pub(super) struct Member {
    /// Whose it is.
    pub(super) client: Rc<Client>,
    /// What its client calls it.
    pub(super) id: i64,
    /// The first revision that it wants.
    pub(super) from: i64,
    /// Whether it wants to hear of progress from time to time.
    pub(super) progress: bool,
}

/// The watchers of one client.
pub(super) struct Seat {
    pub(super) client: Rc<Client>,
    pub(super) watchers: Vec<Watching>,
    /// None of them begins later.
    pub(super) latest: i64,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Watching {
    pub(super) id: i64,
    pub(super) from: i64,
    pub(super) progress: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Members {
    seats: Vec<Seat>,
    places: HashMap<*const Client, usize>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Somebody in whose name the others are served as well.
    pub(super) fn first(&self) -> Option<&Rc<Client>> {
        self.seats.first().map(|seat| &seat.client)
    }

    pub(super) fn push(&mut self, member: Member) {
        let Member { client, id, from, progress } = member;
        let place = *self.places.entry(Rc::as_ptr(&client)).or_insert(self.seats.len());
        if place == self.seats.len() {
            self.seats.push(Seat { client, watchers: Vec::new(), latest: from });
        }
        let seat = &mut self.seats[place];
        seat.watchers.push(Watching { id, from, progress });
        seat.latest = seat.latest.max(from);
    }

    /// A client's watcher leaves.
    pub(super) fn remove(&mut self, client: &Rc<Client>, id: i64) {
        let Some(place) = self.places.get(&Rc::as_ptr(client)) else { return };
        let seat = &mut self.seats[*place];
        seat.watchers.retain(|watching| watching.id != id);
        if seat.watchers.is_empty() {
            self.remove_all(client);
        }
    }

    /// All of a client's watchers leave.
    pub(super) fn remove_all(&mut self, client: &Rc<Client>) {
        let Some(place) = self.places.remove(&Rc::as_ptr(client)) else { return };
        self.seats.swap_remove(place);
        if let Some(moved) = self.seats.get(place) {
            self.places.insert(Rc::as_ptr(&moved.client), place);
        }
    }

    /// All of them, one by one.
    pub(super) fn into_each(self) -> impl Iterator<Item = Member> {
        self.seats.into_iter().flat_map(|Seat { client, watchers, .. }| {
            watchers.into_iter().map(move |Watching { id, from, progress }| {
                let client = Rc::clone(&client);
                Member { client, id, from, progress }
            })
        })
    }
}

/// One message of the cluster's, for the watchers of many seats.
pub(super) struct Telling<'a> {
    message: &'a Bytes,
    ids: Vec<i64>,
    runs: Vec<Run>,
}

impl<'a> Telling<'a> {
    /// Of a message that bears no id.
    pub(super) fn new(message: &'a Bytes) -> Self {
        Self { message, ids: Vec::new(), runs: Vec::new() }
    }

    /// The message once for each watcher of a seat, under its id.
    pub(super) fn runs(&mut self, seat: &Seat) -> &[Run] {
        let ids = || seat.watchers.iter().map(|watching| watching.id);
        if !ids().eq(self.ids.iter().copied()) {
            self.ids.clear();
            self.ids.extend(ids());
            let each = RunBuf::LEAST + int64::encoded_len(ID, &i64::MAX) + self.message.len();
            let together = (PIECE / each).max(1);
            let run = |ids: &[i64]| {
                let mut run = RunBuf::with_capacity(ids.len() * each);
                for id in ids {
                    let len = int64::encoded_len(ID, id) + self.message.len();
                    let out = run.begin(len);
                    // Fields may come in any order.
                    int64::encode(ID, id, out);
                    out.put_slice(self.message);
                }
                run.end()
            };
            self.runs = self.ids.chunks(together).map(run).collect();
        }
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Proxy;
    use http::HeaderMap;

    fn member(client: &Rc<Client>, id: i64, from: i64) -> Member {
        Member { client: Rc::clone(client), id, from, progress: false }
    }

    #[test]
    fn who_leaves_leaves_the_others_at_their_seats() {
        Proxy::run_alone(async |proxy| {
            let clients: Vec<Rc<Client>> =
                (0..3).map(|_| Rc::new(Client::new(Rc::clone(&proxy), HeaderMap::new()))).collect();
            let mut members = Members::default();
            for (client, id) in [(0, 1), (1, 2), (2, 3), (2, 4), (0, 5)] {
                members.push(member(&clients[client], id, id));
            }
            members.remove_all(&clients[0]);
            members.remove(&clients[2], 3);
            members.push(member(&clients[2], 6, 6));
            members.remove(&clients[1], 2);
            assert_eq!(members.seats().len(), 1);
            assert_eq!(members.seats()[0].latest, 6);
            assert!(members.first().is_some_and(|first| Rc::ptr_eq(first, &clients[2])));
            let ids: Vec<i64> = members.into_each().map(|member| member.id).collect();
            assert_eq!(ids, [4, 6]);
        });
    }

    #[test]
    fn each_seat_is_told_under_its_own_ids() {
        Proxy::run_alone(async |proxy| {
            let client = || Rc::new(Client::new(Rc::clone(&proxy), HeaderMap::new()));
            let mut members = Members::default();
            for (client, ids) in [(client(), 0..900), (client(), 0..900), (client(), 5..6)] {
                ids.for_each(|id| members.push(member(&client, id, 1)));
            }
            let message = Bytes::from_static(&[0x58, 1]);
            let message = [&message[..], &[0x62, 200, 1], &[b'x'; 200]].concat().into();
            let mut telling = Telling::new(&message);
            let mut told =
                |seat: &Seat| -> Vec<usize> { telling.runs(seat).iter().map(Run::len).collect() };
            let [one, two, three] = members.seats() else { panic!("three seats") };
            let first = told(one);
            assert!(first.len() > 1 && first.iter().all(|len| *len <= PIECE), "{first:?}");
            assert_eq!(told(two), first);
            assert_eq!(told(three), [RunBuf::LEAST + 2 + message.len()]);
        });
    }
}

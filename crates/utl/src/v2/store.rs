//! The tree of etcd's second store, as far as what is in it at the end depends on it: paths, values, indexes, times
//! of expiry. Not here: watchers, its history of events, where its requests come from (`request`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::time;

/// Times before this count as none: they come from clients that wrote them wrong.
const LEAST_EXPIRY: i128 = 946_684_800 * time::SECOND;

/// A file or a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub created: u64,
    pub modified: u64,
    /// Nanoseconds since 1970; without this it stays for ever.
    pub expires: Option<i128>,
    pub value: Vec<u8>,
    /// What is in it, if it is a directory.
    pub children: Option<BTreeMap<String, Node>>,
}

impl Node {
    fn directory(index: u64, expires: Option<i128>) -> Self {
        let children = Some(BTreeMap::new());
        Self { created: index, modified: index, expires, value: Vec::new(), children }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.children.is_some()
    }
}

/// What a request asks of a node before it changes it. Zero and nothing match anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Previous<'a> {
    pub index: u64,
    pub value: &'a [u8],
}

impl Previous<'_> {
    /// Whether anything is asked at all.
    pub fn is_some(&self) -> bool {
        self.index > 0 || !self.value.is_empty()
    }

    fn holds(&self, node: &Node) -> bool {
        (self.index == 0 || self.index == node.modified)
            && (self.value.is_empty() || self.value == node.value)
    }
}

/// When a node is to expire, and whether its value stays as it is meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expiry {
    pub at: Option<i128>,
    pub is_refresh: bool,
}

/// The request does not fit what is there; nothing has changed. The server answered its client so then, and nobody
/// asks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The store.
#[derive(Debug)]
pub struct Store {
    root: Node,
    /// The number of changes.
    index: u64,
    /// Nodes that expire, soonest first.
    expiring: BTreeSet<(i128, String)>,
}

impl Default for Store {
    fn default() -> Self {
        Self { root: Node::directory(0, None), index: 0, expiring: BTreeSet::new() }
    }
}

impl Store {
    /// The store that a snapshot holds.
    ///
    /// # Errors
    /// The bytes are no store.
    pub fn from_snapshot(json: &[u8]) -> Result<Self, String> {
        let saved: Saved =
            serde_json::from_slice(json).map_err(|e| format!("the v2 store's snapshot: {e}"))?;
        let mut store =
            Self { root: saved.root.node()?, index: saved.index, expiring: BTreeSet::new() };
        let mut expiring = BTreeSet::new();
        walk(&store.root, "", &mut |path, node| {
            if let Some(at) = node.expires {
                expiring.insert((at, path.to_owned()));
            }
        });
        store.expiring = expiring;
        Ok(store)
    }

    /// The node at a path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.find(&clean(path)).ok()
    }

    /// Makes a node; a `unique` one gets a name below the path that nothing else has.
    pub fn create(
        &mut self,
        path: &str,
        is_dir: bool,
        value: &[u8],
        unique: bool,
        at: Option<i128>,
    ) -> Result<(), Refused> {
        if unique {
            let path = format!("{path}/{:020}", self.index + 1);
            return self.make(&clean(&path), is_dir, value, false, at);
        }
        self.make(&clean(path), is_dir, value, false, at)
    }

    /// Makes a node, in the place of a file if one is there.
    pub fn set(
        &mut self,
        path: &str,
        is_dir: bool,
        value: &[u8],
        expiry: Expiry,
    ) -> Result<(), Refused> {
        let path = clean(path);
        let held = match self.find(&path) {
            Ok(node) => Some(node.value.clone()),
            Err(Missing::Name) => None,
            Err(Missing::NoDirectory) => return Err(Refused),
        };
        if !expiry.is_refresh {
            return self.make(&path, is_dir, value, true, expiry.at);
        }
        let held = held.ok_or(Refused)?;
        self.make(&path, is_dir, &held, true, expiry.at)
    }

    /// Gives a file a new value, a file or a directory a new time of expiry.
    pub fn update(&mut self, path: &str, value: &[u8], expiry: Expiry) -> Result<(), Refused> {
        let (path, index) = (clean(path), self.index + 1);
        let node = self.find(&path).map_err(|_| Refused)?;
        if path == "/" || node.is_dir() && !value.is_empty() {
            return Err(Refused);
        }
        self.write(&path, value, index, expiry);
        Ok(())
    }

    /// Gives a file a new value if it is as it is thought to be.
    pub fn compare_and_swap(
        &mut self,
        path: &str,
        previous: Previous<'_>,
        value: &[u8],
        expiry: Expiry,
    ) -> Result<(), Refused> {
        let path = clean(path);
        let node = self.find(&path).map_err(|_| Refused)?;
        if node.is_dir() || !previous.holds(node) {
            return Err(Refused);
        }
        self.write(&path, value, self.index + 1, expiry);
        Ok(())
    }

    /// Removes a file, an empty directory, or with `recursive` a directory with all that is in it.
    pub fn delete(&mut self, path: &str, is_dir: bool, recursive: bool) -> Result<(), Refused> {
        let path = clean(path);
        let node = self.find(&path).map_err(|_| Refused)?;
        if path == "/" {
            return Err(Refused);
        }
        if let Some(children) = &node.children
            && !(recursive || is_dir && children.is_empty())
        {
            return Err(Refused);
        }
        self.remove(&path);
        self.index += 1;
        Ok(())
    }

    /// Removes a file if it is as it is thought to be.
    pub fn compare_and_delete(
        &mut self,
        path: &str,
        previous: Previous<'_>,
    ) -> Result<(), Refused> {
        let path = clean(path);
        let node = self.find(&path).map_err(|_| Refused)?;
        if node.is_dir() || !previous.holds(node) {
            return Err(Refused);
        }
        self.remove(&path);
        self.index += 1;
        Ok(())
    }

    /// Removes what has expired by then, each node as one change.
    pub fn expire(&mut self, until: i128) {
        while let Some((_, path)) = self.expiring.first().filter(|(at, _)| *at <= until).cloned() {
            self.index += 1;
            self.remove(&path);
        }
    }

    fn find(&self, path: &str) -> Result<&Node, Missing> {
        let mut node = &self.root;
        for name in parts(path) {
            let children = node.children.as_ref().ok_or(Missing::NoDirectory)?;
            node = children.get(name).ok_or(Missing::Name)?;
        }
        Ok(node)
    }

    fn find_mut(&mut self, path: &str) -> Option<&mut Node> {
        let mut node = &mut self.root;
        for name in parts(path) {
            node = node.children.as_mut()?.get_mut(name)?;
        }
        Some(node)
    }

    /// The directories on the way are made, too, and stay even where the node itself is refused.
    fn make(
        &mut self,
        path: &str,
        is_dir: bool,
        value: &[u8],
        replace: bool,
        at: Option<i128>,
    ) -> Result<(), Refused> {
        let (upper, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Err(Refused);
        }
        let index = self.index + 1;
        let mut node = &mut self.root;
        for name in parts(upper) {
            let children = node.children.as_mut().ok_or(Refused)?;
            node = children.entry(name.to_owned()).or_insert_with(|| Node::directory(index, None));
        }
        let children = node.children.as_mut().ok_or(Refused)?;
        let held = children.get(name);
        if held.is_some_and(|held| !replace || held.is_dir()) {
            return Err(Refused);
        }
        let before = held.and_then(|held| held.expires);
        let expires = at.filter(|at| *at >= LEAST_EXPIRY);
        let mut made = Node::directory(index, expires);
        if !is_dir {
            (made.value, made.children) = (value.to_vec(), None);
        }
        children.insert(name.to_owned(), made);
        self.index = index;
        self.expires(path, before, expires);
        Ok(())
    }

    fn write(&mut self, path: &str, value: &[u8], index: u64, expiry: Expiry) {
        let Some(node) = self.find_mut(path) else { return };
        if !node.is_dir() {
            if !expiry.is_refresh {
                node.value = value.to_vec();
            }
            node.modified = index;
        }
        let before = std::mem::replace(&mut node.expires, expiry.at);
        self.index = index;
        self.expires(path, before, expiry.at);
    }

    fn remove(&mut self, path: &str) {
        let (upper, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(upper) = self.find_mut(upper).and_then(|node| node.children.as_mut()) else {
            return;
        };
        let Some(gone) = upper.remove(name) else { return };
        walk(&gone, path, &mut |path, node| {
            if let Some(at) = node.expires {
                self.expiring.remove(&(at, path.to_owned()));
            }
        });
    }

    fn expires(&mut self, path: &str, before: Option<i128>, now: Option<i128>) {
        if let Some(at) = before {
            self.expiring.remove(&(at, path.to_owned()));
        }
        if let Some(at) = now {
            self.expiring.insert((at, path.to_owned()));
        }
    }
}

/// Why there is no node at a path.
enum Missing {
    /// There is no such name.
    Name,
    /// A file stands where the path goes on.
    NoDirectory,
}

/// Shows a node and all below it, upper ones first, in the order of their names.
pub fn walk(node: &Node, path: &str, see: &mut impl FnMut(&str, &Node)) {
    see(path, node);
    for (name, child) in node.children.iter().flatten() {
        walk(child, &format!("{path}/{name}"), see);
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// The shortest name for the same path, from the root on.
pub fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in parts(path).filter(|part| *part != ".") {
        if part == ".." {
            kept.pop();
        } else {
            kept.push(part);
        }
    }
    format!("/{}", kept.join("/"))
}

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Root")]
    root: SavedNode,
    #[serde(rename = "CurrentIndex")]
    index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedNode {
    created_index: u64,
    modified_index: u64,
    expire_time: String,
    value: String,
    children: Option<BTreeMap<String, SavedNode>>,
}

impl SavedNode {
    fn node(self) -> Result<Node, String> {
        let expires = time::parse(&self.expire_time)
            .ok_or_else(|| format!("the v2 store's snapshot: no time: {}", self.expire_time))?;
        let nodes = |children: BTreeMap<String, Self>| {
            children.into_iter().map(|(name, child)| Ok((name, child.node()?))).collect()
        };
        let children: Option<Result<_, String>> = self.children.map(nodes);
        Ok(Node {
            created: self.created_index,
            modified: self.modified_index,
            // The zero of Go's clock stands for never.
            expires: Some(expires).filter(|at| *at != time::ZERO),
            value: self.value.into_bytes(),
            children: children.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let mut store = Store::default();
        for path in ["/1/a", "/1/dir/x", "/1/dir/y"] {
            store.set(path, false, b"1", Expiry::default()).expect("set");
        }
        store
    }

    #[test]
    fn directories_on_the_way_get_the_index_of_the_change() {
        let store = store();
        let dir = store.get("/1/dir").expect("made");
        assert_eq!((dir.created, dir.modified, store.index), (2, 2, 3));
        assert_eq!(store.get("/1").map(|n| n.created), Some(1));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut store = store();
        let other = Previous { index: 0, value: b"2" };
        assert_eq!(store.create("/1/a", false, b"x", false, None), Err(Refused));
        assert_eq!(store.set("/1/a/b", false, b"x", Expiry::default()), Err(Refused));
        assert_eq!(store.set("/1/dir", false, b"x", Expiry::default()), Err(Refused));
        assert_eq!(store.update("/1/none", b"x", Expiry::default()), Err(Refused));
        assert_eq!(store.update("/1/dir", b"x", Expiry::default()), Err(Refused));
        assert_eq!(store.compare_and_swap("/1/a", other, b"x", Expiry::default()), Err(Refused));
        assert_eq!(store.compare_and_delete("/1/a", other), Err(Refused));
        assert_eq!(store.delete("/1/dir", true, false), Err(Refused));
        assert_eq!(store.delete("/1/dir", false, false), Err(Refused));
        assert_eq!(store.delete("/", true, true), Err(Refused));
        assert_eq!(store.index, 3);
        assert_eq!(store.get("/1/a").map(|n| &n.value[..]), Some(&b"1"[..]));
    }

    #[test]
    fn a_new_value_keeps_the_index_that_a_file_was_made_at_and_a_set_does_not() {
        let mut store = store();
        let known = Previous { index: 1, value: b"1" };
        store.compare_and_swap("/1/a", known, b"2", Expiry::default()).expect("as it was");
        let node = store.get("/1/a").expect("there");
        assert_eq!((node.created, node.modified), (1, 4));
        store.set("/1/a", false, b"3", Expiry::default()).expect("set");
        assert_eq!(store.get("/1/a").map(|n| (n.created, n.modified)), Some((5, 5)));
        store.create("/1/queue", false, b"q", true, None).expect("unique");
        assert!(store.get("/1/queue/00000000000000000006").is_some());
    }

    #[test]
    fn what_expires_goes_one_change_each_and_takes_along_what_is_in_it() {
        let mut store = store();
        let at = |s: i128| Some(LEAST_EXPIRY + s * time::SECOND);
        let expiry = |s| Expiry { at: at(s), is_refresh: false };
        store.set("/1/ttl", true, b"", expiry(5)).expect("set");
        store.set("/1/ttl/in", false, b"", expiry(9)).expect("set");
        store.set("/1/soon", false, b"v", expiry(4)).expect("set");
        store.update("/1/soon", b"", Expiry { is_refresh: true, ..expiry(6) }).expect("there");
        assert_eq!(store.get("/1/soon").map(|n| &n.value[..]), Some(&b"v"[..]));
        store.expire(at(5).expect("a time"));
        assert_eq!((store.get("/1/ttl"), store.index), (None, 8));
        assert!(store.get("/1/soon").is_some());
        store.expire(at(100).expect("a time"));
        assert_eq!((store.get("/1/soon"), store.index), (None, 9));
        assert!(store.expiring.is_empty());
    }

    #[test]
    fn paths_are_cut_short() {
        for (path, want) in [("", "/"), ("a//b/./c/", "/a/b/c"), ("/a/../../b", "/b")] {
            assert_eq!(clean(path), want);
        }
    }
}

//! The initial cluster that a snapshot is restored for: `NAME=URL,NAME=URL,…`, checked as etcd checks it. Not
//! here: members' ids (`etch_state::members`).

use std::collections::BTreeMap;

use etch_cli::{Matches, go};
use etch_state::members::Member;

/// The members of the cluster to be, by name, with their peer URLs.
type Map = BTreeMap<String, Vec<String>>;

/// Reads the flags: all members, and the name of the one to be restored.
///
/// # Errors
/// etcd's own words.
pub fn members(matches: &Matches) -> Result<Vec<Member>, String> {
    let name = matches.text("name");
    let advertised = matches.text("initial-advertise-peer-urls");
    let ours = urls(advertised.split(','))?;
    let map = parse(matches.text("initial-cluster"))?;
    let Some(listed) = map.get(name) else {
        let name = go::quote(name);
        return Err(format!(
            "couldn't find local name {name} in the initial cluster configuration"
        ));
    };
    check_advertised(name, listed, &ours)?;
    let mut seen = Vec::new();
    for url in map.values().flatten() {
        if seen.contains(&url) {
            return Err(format!(
                "initial cluster {} has duplicate url",
                matches.text("initial-cluster")
            ));
        }
        seen.push(url);
    }
    let token = matches.text("initial-cluster-token");
    Ok(map.iter().map(|(name, urls)| Member::new(name, urls, token, None)).collect())
}

/// What we advertise must be what the cluster's list says of us.
fn check_advertised(name: &str, listed: &[String], ours: &[String]) -> Result<(), String> {
    if listed == ours {
        return Ok(());
    }
    let all: Vec<String> = ours.iter().map(|url| format!("{name}={url}")).collect();
    let missing: Vec<String> = listed
        .iter()
        .filter(|url| !ours.contains(url))
        .map(|url| format!("{name}={url}"))
        .collect();
    if !missing.is_empty() {
        let (first, other) = (ours.first(), listed.iter().find(|url| !ours.contains(url)));
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} \
             (resolved urls: {} != {})",
            missing.join(","),
            ours.join(","),
            go::quote(first.map_or("", String::as_str)),
            go::quote(other.map_or("", String::as_str)),
        ));
    }
    Err(format!(
        "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
        ours.iter().filter(|u| !listed.contains(u)).cloned().collect::<Vec<_>>().join(","),
        all.join(",")
    ))
}

fn parse(text: &str) -> Result<Map, String> {
    let mut map: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for part in text.split(',') {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        map.entry(name.to_owned()).or_default().push(url);
    }
    map.into_iter().map(|(name, list)| Ok((name, urls(list.into_iter())?))).collect()
}

/// Peer URLs, sorted. The rules are those of etcd's `types.NewURLs`.
fn urls<'u>(list: impl Iterator<Item = &'u str>) -> Result<Vec<String>, String> {
    let mut urls = Vec::new();
    for url in list {
        let url = url.trim();
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("URL scheme must be http, https, unix, or unixs: {url}"));
        };
        match scheme {
            "http" | "https" => {
                let (host, path) = rest.split_once('/').map_or((rest, ""), |(h, _)| (h, "/"));
                let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
                if port.is_none() {
                    return Err(format!("URL address does not have the form \"host:port\": {url}"));
                }
                if !path.is_empty() {
                    return Err(format!("URL must not contain a path: {url}"));
                }
            }
            "unix" | "unixs" => {}
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
        }
        urls.push(url.to_owned());
    }
    if urls.is_empty() {
        return Err("no valid URLs given".to_owned());
    }
    urls.sort();
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_checked_as_etcd_checks_them() {
        let map = parse("a=http://h:1,b=https://g:2,a=http://i:3").expect("right");
        assert_eq!(map["a"], ["http://h:1", "http://i:3"]);
        let rows = [
            ("a=htp://x", "URL scheme must be http, https, unix, or unixs: htp://x"),
            ("a", "URL scheme must be http, https, unix, or unixs: "),
            ("a=http://h", "URL address does not have the form \"host:port\": http://h"),
            ("a=http://h:1/x", "URL must not contain a path: http://h:1/x"),
        ];
        for (text, why) in rows {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
    }
}

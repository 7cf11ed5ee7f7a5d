//! `member`: who belongs to the cluster. Not here: how members look (`display::cluster`).

use std::io::Write as _;

use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::pb;

use crate::connect::Ctl;
use crate::display::{Format, print};
use crate::{bad_args, bad_feature, exit, program};

/// The command.
pub fn command() -> Command {
    let short = "Membership related commands. Use `etcdctl member --help` to see subcommands";
    let peers = |help| Flag::text("peer-urls", "", help);
    let consistency = Flag::text("consistency", "l", "Linearizable(l) or Serializable(s)");
    let children = vec![
        Command::new("add <memberName> [options]", "Adds a member into the cluster", add).flags(
            vec![
                peers("comma separated peer URLs for the new member."),
                Flag::switch("learner", "indicates if the new member is raft learner"),
            ],
        ),
        Command::new("remove <memberID>", "Removes a member from the cluster", remove),
        Command::new("update <memberID> [options]", "Updates a member in the cluster", update)
            .flags(vec![peers("comma separated peer URLs for the updated member.")]),
        Command::new("list", "Lists all members in the cluster", list)
            .long(LIST)
            .flags(vec![consistency.values(&["l", "s"])]),
        Command::new("promote <memberID>", "Promotes a non-voting member in the cluster", promote)
            .long("Promotes a non-voting learner member to a voting one in the cluster.\n"),
    ];
    Command::parent("member <subcommand>", short, children)
        .long("Membership related commands")
        .group(program::CLUSTER)
}

const LIST: &str =
    "When --write-out is set to simple, this command prints out comma-separated member lists for each endpoint.
The items in the lists are ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.
";

fn add(matches: &Matches) -> Result<(), Failure> {
    let [name] = &matches.args[..] else {
        if matches.args.is_empty() {
            return Err(bad_args("member name not provided"));
        }
        let urls = matches.args.iter().filter(|word| word.to_lowercase().starts_with("http"));
        let hints: String = urls.map(|url| format!(", did you mean --peer-urls={url}")).collect();
        return Err(bad_args(format!("too many arguments{hints}")));
    };
    let urls = peer_urls(matches)?;
    let ctl = Ctl::new(matches)?;
    for url in &urls {
        check_url(url.trim()).map_err(|why| Failure::new(exit::ERROR, why))?;
    }
    let answer = ctl.ask(async |client| match matches.is_on("learner") {
        true => client.member_add_as_learner(&urls).await,
        false => client.member_add(&urls).await,
    })?;
    let member = answer.member.clone().unwrap_or_default();
    let cluster = answer.header.map_or(0, |header| header.cluster_id);
    ctl.display.members(&answer, |out| {
        let learner = if member.is_learner { " as learner " } else { " " };
        let _ = writeln!(out, "Member {:16x} added{learner}to cluster {cluster:16x}", member.id);
    })?;
    match ctl.display.format {
        Format::Simple => {
            print(settings(name, member.id, &answer, matches.text("peer-urls")).as_bytes())
        }
        _ => Ok(()),
    }
}

/// What the new member is to be started with.
fn settings(name: &str, id: u64, answer: &pb::MemberAddResponse, urls: &str) -> String {
    let of = |member: &pb::Member| {
        let name = if member.id == id { name } else { &member.name };
        let named = member.peer_ur_ls.iter().map(|url| format!("{name}={url}"));
        named.collect::<Vec<_>>()
    };
    let cluster = answer.members.iter().flat_map(of).collect::<Vec<_>>().join(",");
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        go::quote(name),
        go::quote(cluster),
        go::quote(urls)
    )
}

fn peer_urls(matches: &Matches) -> Result<Vec<String>, Failure> {
    match matches.text("peer-urls") {
        "" => Err(bad_args("member peer urls not provided")),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

/// Whether a URL can be a peer's, with the reasons that Go's client has before it asks anybody.
fn check_url(url: &str) -> Result<(), String> {
    let has_scheme_chars = |scheme: &&str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let scheme = match url.split_once(':') {
        Some(("", _)) => return Err(format!("parse {}: missing protocol scheme", go::quote(url))),
        Some((scheme, _)) if has_scheme_chars(&scheme) => scheme.to_ascii_lowercase(),
        Some((first, _)) if !first.contains('/') => {
            let why = "first path segment in URL cannot contain colon";
            return Err(format!("parse {}: {why}", go::quote(url)));
        }
        _ => String::new(),
    };
    match scheme.as_str() {
        "http" | "https" => {
            let rest = &url[scheme.len() + 1..];
            let rest = rest.strip_prefix("//").unwrap_or_default();
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (host, rest) = rest.split_at(end);
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            let name = host.rsplit_once(':').map(|(name, _)| name);
            if !name.is_some_and(|n| !n.contains(':') || (n.starts_with('[') && n.ends_with(']'))) {
                return Err(format!("URL address does not have the form \"host:port\": {url}"));
            }
            if rest.starts_with('/') {
                return Err(format!("URL must not contain a path: {url}"));
            }
            Ok(())
        }
        "unix" | "unixs" => Ok(()),
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
}

fn id_of(matches: &Matches) -> Result<u64, Failure> {
    let [id] = &matches.args[..] else {
        return Err(bad_args("member ID is not provided"));
    };
    parse_id(id).map_err(|why| bad_args(format!("bad member ID arg ({why}), expecting ID in Hex")))
}

/// A member's identifier, which is written in hexadecimal.
pub fn parse_id(text: &str) -> Result<u64, String> {
    let is_hex = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let why = if is_hex { "value out of range" } else { "invalid syntax" };
    let parsed = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
    parsed.ok_or_else(|| format!("strconv.ParseUint: parsing {}: {why}", go::quote(text)))
}

fn remove(matches: &Matches) -> Result<(), Failure> {
    let id = id_of(matches)?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.member_remove(id).await)?;
    let cluster = answer.header.map_or(0, |header| header.cluster_id);
    ctl.display.members(&answer, |out| {
        let _ = writeln!(out, "Member {id:16x} removed from cluster {cluster:16x}");
    })
}

fn update(matches: &Matches) -> Result<(), Failure> {
    let id = id_of(matches)?;
    let urls = peer_urls(matches)?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.member_update(id, &urls).await)?;
    let cluster = answer.header.map_or(0, |header| header.cluster_id);
    ctl.display.members(&answer, |out| {
        let _ = writeln!(out, "Member {id:16x} updated in cluster {cluster:16x}");
    })
}

fn promote(matches: &Matches) -> Result<(), Failure> {
    let id = id_of(matches)?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| client.member_promote(id).await)?;
    let cluster = answer.header.map_or(0, |header| header.cluster_id);
    ctl.display.members(&answer, |out| {
        let _ = writeln!(out, "Member {id:16x} promoted in cluster {cluster:16x}");
    })
}

fn list(matches: &Matches) -> Result<(), Failure> {
    let is_serializable = match matches.text("consistency") {
        "s" => true,
        "l" => false,
        // The value that etcdctl names is that of `get`.
        _ => return Err(bad_feature("unknown consistency flag \"l\"")),
    };
    let ctl = Ctl::new(matches)?;
    let answer = ctl.ask(async |client| match is_serializable {
        true => client.member_list_serializable().await,
        false => client.member_list().await,
    })?;
    ctl.display.member_list(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_looked_at_before_anybody_is_asked() {
        for url in ["http://127.0.0.1:1", "https://[::1]:2380", "unix://x", "HTTP://h:1"] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for (url, why) in [
            ("nonsense", "URL scheme must be http, https, unix, or unixs: nonsense"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("localhost:2380", "URL scheme must be http, https, unix, or unixs: localhost:2380"),
            (
                "127.0.0.1:1",
                "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
            ),
            (":1", "parse \":1\": missing protocol scheme"),
            ("http://host", "URL address does not have the form \"host:port\": http://host"),
            ("http://::1:2", "URL address does not have the form \"host:port\": http://::1:2"),
            ("http://h:1/", "URL must not contain a path: http://h:1/"),
        ] {
            assert_eq!(check_url(url), Err(why.to_owned()));
        }
    }

    #[test]
    fn identifiers_are_hexadecimal() {
        assert_eq!(parse_id("ffffffffffffffff"), Ok(u64::MAX));
        let wrong = |text: &str, why: &str| {
            let why = format!("strconv.ParseUint: parsing \"{text}\": {why}");
            assert_eq!(parse_id(text), Err(why));
        };
        wrong("", "invalid syntax");
        wrong("+1", "invalid syntax");
        wrong("x", "invalid syntax");
        wrong("10000000000000000", "value out of range");
    }
}

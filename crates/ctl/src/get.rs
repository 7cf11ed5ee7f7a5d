//! `get`: reads a key, or a range of them; many keys as a stream. Not here: how answers look (`display::kv`).

use etch_cli::{Command, Failure, Flag, Matches};
use etch_client::{Client, Error, Get, RangeStream, SortOrder, SortTarget, pb};

use crate::connect::Ctl;
use crate::display::{Display, Format, print};
use crate::fail::failed;
use crate::{bad_args, bad_feature, program, words};

/// The command.
pub fn command() -> Command {
    let usage = "get [options] <key> [range_end]";
    Command::new(usage, "Gets the key or a range of keys", run).group(program::KV).flags(flags())
}

/// Its flags, which a transaction's lines have as well.
pub fn flags() -> Vec<Flag> {
    let sort_by = "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION";
    vec![
        Flag::text("consistency", "l", "Linearizable(l) or Serializable(s)").values(&["l", "s"]),
        Flag::text("order", "", "Order of results; ASCEND or DESCEND (ASCEND by default)")
            .values(&["ASCEND", "DESCEND"]),
        Flag::text("sort-by", "", sort_by).values(&["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]),
        Flag::int("limit", 0, "Maximum number of results"),
        Flag::switch("prefix", "Get keys with matching prefix"),
        Flag::switch(
            "from-key",
            "Get keys that are greater than or equal to the given key using byte compare",
        ),
        Flag::int("rev", 0, "Specify the kv revision"),
        Flag::switch("keys-only", "Get only the keys"),
        Flag::switch("count-only", "Get only the count"),
        Flag::switch(
            "print-value-only",
            "Only write values when using the \"simple\" output format",
        ),
        Flag::int("min-create-rev", 0, "Minimum create revision"),
        Flag::int("max-create-rev", 0, "Maximum create revision"),
        Flag::int("min-mod-rev", 0, "Minimum modification revision"),
        Flag::int("max-mod-rev", 0, "Maximum modification revision"),
        Flag::switch("stream", "Use the RangeStream RPC"),
    ]
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let request = request(matches)?.into_request();
    let mut ctl = Ctl::new(matches)?;
    ctl.display.value_only = matches.is_on("print-value-only");
    let refused = refused(matches, &ctl.display);
    if refused.is_none() && ctl.display.format != Format::Table && is_long(&request) {
        return ctl.run(print_long(&ctl, request));
    }
    let answer = if matches.is_on("stream") {
        ctl.ask(async |client| gather(stream(&client, request)).await)?
    } else {
        ctl.ask(async |client| client.kv().range(client.options().clone(), request).await)?
    };
    // As in etcdctl the cluster is asked first, and may have something worse to say.
    match refused {
        Some(failure) => Err(failure),
        None => ctl.display.get(&answer),
    }
}

/// Forms that do not go with these flags.
fn refused(matches: &Matches, display: &Display) -> Option<Failure> {
    if matches.is_on("count-only") && display.format != Format::Fields {
        return Some(bad_args("--count-only is only for `--write-out=fields`"));
    }
    if matches.is_on("print-value-only") && display.format != Format::Simple {
        return Some(bad_args("print-value-only is only for `--write-out=simple`"));
    }
    None
}

/// Whether an answer may be larger than what should be held in memory, and can come in pieces: in the order of the
/// keys and without filters, which look at all keys before the first one is known.
fn is_long(request: &pb::RangeRequest) -> bool {
    const SHORT: i64 = 1000;
    let in_order = request.sort_order == SortOrder::None as i32;
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let few = request.count_only || (1..=SHORT).contains(&request.limit);
    !request.range_end.is_empty() && in_order && filters == [0; 4] && !few
}

fn stream(client: &Client, request: pb::RangeRequest) -> RangeStream {
    client.kv().range_stream(client.options().clone(), request)
}

/// Prints an answer of any length in the memory of one piece. The time for a command is the time that one piece may
/// take.
async fn print_long(ctl: &Ctl, mut request: pb::RangeRequest) -> Result<(), Failure> {
    let mut out = Vec::new();
    // All forms but the simple one begin with the header, which a stream has at its end: it is asked for first, and
    // the keys are those of that moment.
    if ctl.display.format != Format::Simple {
        let head = pb::RangeRequest { limit: 1, ..request.clone() };
        let asked = ctl.client.kv().range(ctl.client.options().clone(), head);
        let answer = in_time(ctl, asked).await?.map_err(failed)?;
        if !answer.more {
            return ctl.display.get(&answer);
        }
        if request.revision <= 0 {
            request.revision = answer.header.map_or(0, |header| header.revision);
        }
        ctl.display.get_head(answer.header.as_ref(), &mut out);
    }
    let mut stream = stream(&ctl.client, request);
    let mut end = (false, 0);
    let mut first = true;
    while let Some(piece) = in_time(ctl, stream.next()).await? {
        let piece = piece.map_err(failed)?;
        ctl.display.get_keys(&piece.kvs, first, &mut out);
        print(&out)?;
        out.clear();
        first &= piece.kvs.is_empty();
        end = (piece.more, piece.count);
    }
    ctl.display.get_tail(end.0, end.1, &mut out);
    print(&out)
}

async fn in_time<T>(ctl: &Ctl, work: impl Future<Output = T>) -> Result<T, Failure> {
    let late = |_| failed(Error::Deadline { sent: true });
    tokio::time::timeout(ctl.limit(), work).await.map_err(late)
}

/// A stream's pieces as one answer.
async fn gather(mut stream: RangeStream) -> etch_client::Result<pb::RangeResponse> {
    let mut whole = pb::RangeResponse::default();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        let mut kvs = std::mem::take(&mut whole.kvs);
        kvs.extend(piece.kvs);
        whole = pb::RangeResponse { kvs, ..piece };
    }
    Ok(whole)
}

/// Refuses flags that exclude each other.
pub fn check_range(prefix: bool, from_key: bool, has_end: bool) -> Result<(), Failure> {
    if prefix && from_key {
        let why = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
        return Err(bad_args(why));
    }
    if has_end && (prefix || from_key) {
        let why =
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        return Err(bad_args(why));
    }
    Ok(())
}

/// What is asked for.
pub fn request(matches: &Matches) -> Result<Get, Failure> {
    let Some(key) = matches.args.first() else {
        let why = "get command needs one argument as key and an optional argument as range_end";
        return Err(bad_args(why));
    };
    let (prefix, from_key) = (matches.is_on("prefix"), matches.is_on("from-key"));
    check_range(prefix, from_key, false)?;
    if matches.is_on("keys-only") && matches.is_on("count-only") {
        let why = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(bad_args(why));
    }
    let serializable = is_serializable(matches.text("consistency"))?;
    let end = matches.args.get(1);
    check_range(prefix, from_key, end.is_some())?;
    let (target, order) = sort(matches)?;
    let mut get = etch_client::get(words::bytes(key)).limit(matches.number("limit"));
    if let Some(end) = end {
        get = get.range(words::bytes(end));
    }
    if prefix {
        get = get.prefix();
    }
    if from_key {
        get = get.from_key();
    }
    if serializable {
        get = get.serializable();
    }
    if matches.number("rev") > 0 {
        get = get.rev(matches.number("rev"));
    }
    if matches.is_on("keys-only") {
        get = get.keys_only();
    }
    if matches.is_on("count-only") {
        get = get.count_only();
    }
    filter(matches, get.sort(target, order))
}

/// Whether a member may answer from its own state.
pub fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        other => {
            let other = etch_cli::go::quote(other);
            Err(bad_feature(format!("unknown consistency flag {other}")))
        }
    }
}

fn sort(matches: &Matches) -> Result<(SortTarget, SortOrder), Failure> {
    let (order, target) = (matches.text("order"), matches.text("sort-by"));
    let by = match order.to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(bad_feature(format!("bad sort order {order}"))),
    };
    let of = match target.to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(bad_feature(format!("bad sort target {target}"))),
    };
    Ok((of, by))
}

fn filter(matches: &Matches, mut get: Get) -> Result<Get, Failure> {
    let bounds = |what: &str, least: i64, most: i64| {
        if most > 0 && least > most {
            let why = format!("getMin{what}Rev(={least}) > getMax{what}Rev(={most})");
            return Err(bad_feature(why));
        }
        Ok((least, most))
    };
    let number = |flag| matches.number(flag).max(0);
    let (least, most) = bounds("Create", number("min-create-rev"), number("max-create-rev"))?;
    get = get.min_create_rev(least).max_create_rev(most);
    let (least, most) = bounds("Mod", number("min-mod-rev"), number("max-mod-rev"))?;
    Ok(get.min_mod_rev(least).max_mod_rev(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_client::KeyRange;

    fn asked(line: &str) -> Result<pb::RangeRequest, Failure> {
        crate::words::tests::matches(flags(), line).and_then(|m| request(&m)).map(Get::into_request)
    }

    #[test]
    fn flags_make_the_request() {
        let all = asked("'' --prefix --rev 7 --keys-only").expect("right");
        let range = KeyRange::All;
        assert_eq!(KeyRange::new(all.key.clone(), all.range_end.clone()), range);
        assert_eq!((all.revision, all.keys_only), (7, true));
        let sorted = asked("a --order descend --sort-by=MODIFY").expect("right");
        assert_eq!(sorted.sort_order, SortOrder::Descend as i32);
        assert_eq!(sorted.sort_target, SortTarget::Mod as i32);
    }

    #[test]
    fn wrong_calls_are_refused_in_etcdctls_words() {
        let rows = [
            (
                "",
                128,
                "get command needs one argument as key and an optional argument as range_end",
            ),
            ("a --order x", 4, "bad sort order x"),
            ("a --consistency x", 4, "unknown consistency flag \"x\""),
            ("a --min-mod-rev 3 --max-mod-rev 2", 4, "getMinModRev(=3) > getMaxModRev(=2)"),
            (
                "a b --prefix",
                128,
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
            ),
        ];
        for (line, code, why) in rows {
            assert_eq!(asked(line), Err(Failure::new(code, why)), "{line}");
        }
    }

    #[test]
    fn only_what_can_come_in_pieces_is_streamed() {
        let long = |line| is_long(&asked(line).expect("right"));
        assert!(long("a --prefix"));
        assert!(long("a b --limit 100000"));
        assert!(long("a --from-key --order ascend"));
        for short in
            ["a", "a --prefix --limit 5", "a --prefix --order descend", "a b --min-mod-rev 2"]
        {
            assert!(!long(short), "{short}");
        }
    }
}

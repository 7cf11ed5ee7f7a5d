//! Whole calls: what a program answers, on which stream, and with which exit status. The texts are those that
//! etcdctl and etcdutl 3.7.1 answer to the like.

use crate::{Args, Command, Failure, Flag, Group, Program, Streams, run};

const KEYS: Group = Group("Key-value commands");
const TOOLS: Group = Group("Utility commands");

fn ok(_: &crate::Matches) -> Result<(), Failure> {
    Ok(())
}

fn refuse(_: &crate::Matches) -> Result<(), Failure> {
    Err(Failure::new(128, "put command needs 1 argument"))
}

fn program() -> Program {
    let lease = Command::parent(
        "lease <subcommand>",
        "Lease related commands",
        vec![Command::new("grant <ttl>", "Creates leases", ok)],
    );
    let get = Command::new("get [options] <key>", "Gets the key", ok).flags(vec![Flag::int(
        "limit",
        0,
        "Maximum number of results",
    )]);
    let write_out = Flag::text("write-out", "simple", "set the output format").short('w');
    let root = Command::parent(
        "ctl",
        "A client.",
        vec![
            get.group(KEYS),
            Command::new("put <key>", "Puts the key", refuse).group(KEYS),
            lease.group(KEYS),
            Command::new("hash <file>", "Hashes", ok).args(Args::Exactly(1)).group(TOOLS),
        ],
    );
    Program {
        name: "ctl",
        root: root.persistent(vec![write_out.hidden()]),
        groups: vec![KEYS, TOOLS],
        help_group: Some(TOOLS),
        help_has_long: true,
        help_footer: "More.",
        hide_root_help: true,
        repeats_errors: false,
    }
}

fn call_of(program: Program, line: &str) -> (u8, String, String) {
    let words: Vec<String> =
        line.split(' ').filter(|w| !w.is_empty()).map(|w| w.replace("''", "")).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(program, &words, &mut Streams { out: &mut out, err: &mut err });
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (code, text(out), text(err))
}

fn call(line: &str) -> (u8, String, String) {
    call_of(program(), line)
}

const ROOT: &str = "\
A client.

Usage:
  ctl [command]

Key-value commands
  get         Gets the key
  lease       Lease related commands
  put         Puts the key

Utility commands
  hash        Hashes
  help        Help about any command

Use \"ctl [command] --help\" for more information about a command.
More.
";

const GET: &str = "\
Usage:
  ctl get [options] <key> [flags]

Flags:
  -h, --help        help for get
      --limit int   Maximum number of results
";

#[test]
fn help_has_etcdctls_form() {
    for line in ["", "-h", "--help", "help"] {
        assert_eq!(call(line), (0, ROOT.into(), String::new()), "{line}");
    }
    let get = format!("Gets the key\n\n{GET}More.\n");
    for line in ["get --help", "-w json get -h", "help get", "ge --help"] {
        assert_eq!(call(line), (0, get.clone(), String::new()), "{line}");
    }
    let (code, out, _) = call("lease nothing");
    assert_eq!(code, 0);
    assert!(out.starts_with("Lease related commands\n\nUsage:\n  ctl lease [command]\n"), "{out}");
}

#[test]
fn wrong_calls_say_why_and_show_the_usage() {
    let (code, out, err) = call("get a --limit");
    assert_eq!((code, out), (1, String::new()));
    assert_eq!(err, format!("Error: flag needs an argument: --limit\n{GET}\n"));
    let (code, _, err) = call("hash");
    assert_eq!(code, 1);
    assert!(err.starts_with("Error: accepts 1 arg(s), received 0\nUsage:\n"), "{err}");
    assert_eq!(
        call("getx"),
        (
            1,
            String::new(),
            "Error: unknown command \"getx\" for \"ctl\"\n\nDid you mean this?\n\tget\n\n\
             Run 'ctl --help' for usage.\n"
                .into()
        )
    );
    assert_eq!(call("put"), (128, String::new(), "Error: put command needs 1 argument\n".into()));
}

#[test]
fn etcdutls_manner_is_to_say_it_twice() {
    let mut program = program();
    program.repeats_errors = true;
    let (_, _, err) = call_of(program.clone(), "nosuch");
    assert_eq!(
        err,
        "Error: unknown command \"nosuch\" for \"ctl\"\nRun 'ctl --help' for usage.\n\
         Error: unknown command \"nosuch\" for \"ctl\"\n"
    );
    let (_, _, err) = call_of(program, "get --nope");
    assert!(err.ends_with("\n\nError: unknown flag: --nope\n"), "{err}");
}

#[test]
fn required_flags_are_required() {
    let mut program = program();
    program.root.children[0].flags.push(Flag::text("data-dir", "", "where").required());
    let (code, _, err) = call_of(program, "get a");
    assert_eq!(code, 1);
    assert!(err.starts_with("Error: required flag(s) \"data-dir\" not set\nUsage:\n"), "{err}");
}

#[test]
fn shells_are_told_what_may_come_next() {
    let rows = [
        ("__complete ge", "get\tGets the key\n:4\n"),
        ("__completeNoDesc lease ''", "grant\n:4\n"),
        ("__complete get --l", "--limit\tMaximum number of results\n:4\n"),
        ("__complete get ''", ":0\n"),
    ];
    for (line, want) in rows {
        let (code, out, err) = call(line);
        assert_eq!((code, out.as_str()), (0, want), "{line}");
        assert!(err.starts_with("Completion ended with directive: "), "{err}");
    }
}

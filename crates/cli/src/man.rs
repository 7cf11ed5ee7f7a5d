//! A program's page of the manual, made from its tree of commands: asked for through a hidden command, for whoever
//! packs the program. Not here: help (`help`), which is etcd's to the letter.

use std::fmt::Write as _;

use crate::command::{Command, Program};
use crate::flag::Flag;

/// The hidden command that prints the page.
pub(crate) const COMMAND: &str = "__man";

/// The page, in the language of man(7).
pub(crate) fn page(program: &Program) -> String {
    let root = &program.root;
    let name = program.name.replace(' ', "\\-");
    let mut out =
        format!(".TH {} 1\n.SH NAME\n{name} \\- {}\n", name.to_uppercase(), one_line(root));
    let _ = writeln!(out, ".SH SYNOPSIS\n.B {}\n[options] command [arguments]", text(program.name));
    out.push_str(".SH COMMANDS\n");
    commands(root, program.name, &mut out);
    if !root.persistent.is_empty() {
        out.push_str(".SH OPTIONS\nAll commands take these.\n");
        root.persistent.iter().for_each(|flag| option(flag, &mut out));
    }
    out.push_str(".SH SEE ALSO\n.BR etch (1),\n.BR etchctl (1),\n.BR etchutl (1)\n");
    out
}

/// Every command that does something, in the order of their names.
fn commands(parent: &Command, path: &str, out: &mut String) {
    let mut children: Vec<&Command> = parent.children.iter().filter(|c| c.is_listed()).collect();
    children.sort_by_key(|c| c.name());
    for command in children {
        if command.run.is_some() && command.name() != "help" {
            section(command, path, out);
        }
        commands(command, &format!("{path} {}", command.name()), out);
    }
}

fn section(command: &Command, path: &str, out: &mut String) {
    let _ = writeln!(out, ".SS {} {}", text(path), text(command.usage));
    let about = if command.long.is_empty() { command.short } else { &command.long };
    paragraphs(about.trim(), out);
    if !command.example.is_empty() {
        out.push_str(".PP\nExamples:\n");
        paragraphs(command.example, out);
    }
    let flags = command.flags.iter().chain(&command.persistent);
    flags.filter(|flag| !flag.hidden).for_each(|flag| option(flag, out));
}

/// Lines as they are.
fn paragraphs(lines: &str, out: &mut String) {
    let _ = writeln!(out, ".nf\n{}\n.fi", text(lines));
}

fn option(flag: &Flag, out: &mut String) {
    let (left, right) = flag.columns();
    let _ = writeln!(out, ".TP\n.B {}\n{}", text(left.trim()), text(&right));
}

fn one_line(command: &Command) -> String {
    text(command.short.trim_end_matches('.'))
}

/// A text without what man(7) would take for an order.
fn text(given: &str) -> String {
    let safe = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    };
    given.lines().map(safe).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;

    #[test]
    fn commands_with_their_flags_are_on_the_page() {
        let nothing = |_: &crate::Matches| -> Result<(), Failure> { Ok(()) };
        let hidden = Flag::switch("secret", "not shown").hidden();
        let list = Command::new("list <a>", "Lists \\ all", nothing)
            .long("Lists.\n.all")
            .flags(vec![Flag::int("limit", 5, "at the most").short('l'), hidden]);
        let mut old = Command::new("old", "not shown", nothing);
        old.hidden = true;
        let root = Command::parent(
            "x",
            "A tool.",
            vec![Command::parent("member", "not a command", vec![list]), old],
        )
        .persistent(vec![Flag::text("user", "", "who").hidden()]);
        let program = Program {
            name: "etch x",
            root,
            groups: Vec::new(),
            help_group: None,
            help_has_long: false,
            help_footer: "",
            hide_root_help: false,
            repeats_errors: false,
        };
        assert_eq!(
            page(&program),
            ".TH ETCH\\-X 1\n.SH NAME\netch\\-x \\- A tool\n.SH SYNOPSIS\n.B etch x\n\
             [options] command [arguments]\n.SH COMMANDS\n.SS etch x member list <a>\n.nf\nLists.\n\\&.all\n.fi\n\
             .TP\n.B \\-l, \\-\\-limit int\nat the most (default 5)\n\
             .SH OPTIONS\nAll commands take these.\n.TP\n.B \\-\\-user string\nwho\n\
             .SH SEE ALSO\n.BR etch (1),\n.BR etchctl (1),\n.BR etchutl (1)\n"
        );
    }
}

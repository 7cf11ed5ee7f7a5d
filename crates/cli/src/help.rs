//! A command's help and usage, as texts. Not here: when they are shown (`run`), the lines of flags (`flag`).

use crate::command::{Command, Group, Program};
use crate::parse::Found;

/// The least width of the column of commands' names.
const NAME_WIDTH: usize = 11;

/// What `--help` shows.
pub(crate) fn help(program: &Program, found: &Found<'_>) -> String {
    let command = found.command();
    let mut out = String::new();
    let about = if command.long.is_empty() { command.short } else { &command.long };
    if program.help_has_long && !about.is_empty() {
        out.push_str(about.trim_end());
        out.push_str("\n\n");
    }
    out.push_str(&usage(program, found, true));
    if !program.help_footer.is_empty() {
        out.push_str(program.help_footer);
        out.push('\n');
    }
    out
}

/// How a command is called, what is below it, and its flags.
pub(crate) fn usage(program: &Program, found: &Found<'_>, with_help: bool) -> String {
    let command = found.command();
    let path = path(program, found);
    let is_root = found.path.len() == 1;
    let (own, above) = found.usages(with_help && !(is_root && program.hide_root_help));
    let mut out = "Usage:".to_owned();
    if command.run.is_some() {
        out.push_str(&format!("\n  {}", use_line(program, found, &own, &above)));
    }
    let has_listed = command.children.iter().any(Command::is_listed);
    if has_listed {
        out.push_str(&format!("\n  {path} [command]"));
    }
    if !command.aliases.is_empty() {
        let names = [&[command.name()], command.aliases].concat();
        out.push_str(&format!("\n\nAliases:\n  {}", names.join(", ")));
    }
    if !command.example.is_empty() {
        out.push_str(&format!("\n\nExamples:\n{}", command.example));
    }
    if has_listed {
        out.push_str(&children(program, command, is_root));
    }
    for (heading, lines) in [("Flags", own), ("Global Flags", above)] {
        if !lines.is_empty() {
            out.push_str(&format!("\n\n{heading}:\n{}", lines.trim_end()));
        }
    }
    if has_listed {
        out.push_str(&format!(
            "\n\nUse \"{path} [command] --help\" for more information about a command."
        ));
    }
    out.push('\n');
    out
}

/// The program's name and the commands' down to this one.
pub(crate) fn path(program: &Program, found: &Found<'_>) -> String {
    let names = found.path[1..].iter().map(|c| c.name());
    [program.name].into_iter().chain(names).collect::<Vec<_>>().join(" ")
}

fn use_line(program: &Program, found: &Found<'_>, own: &str, above: &str) -> String {
    let command = found.command();
    let mut line = match found.path.split_last() {
        Some((_, [])) | None => program.name.to_owned(),
        Some((_, upper)) => {
            let upper = Found { path: upper.to_vec(), rest: Vec::new() };
            format!("{} {}", path(program, &upper), command.usage)
        }
    };
    let has_flags = !own.is_empty() || !above.is_empty();
    if has_flags && !command.hides_flags && !line.contains("[flags]") {
        line.push_str(" [flags]");
    }
    line
}

fn children(program: &Program, command: &Command, is_root: bool) -> String {
    let names = command.children.iter().map(|c| c.name().len());
    let width = names.max().unwrap_or(0).max(NAME_WIDTH);
    let list = |heading: &str, group: Option<Group>| {
        let mut lines: Vec<String> = command
            .children
            .iter()
            .filter(|c| (c.is_listed() || c.name() == "help") && c.group == group)
            .map(|c| format!("\n  {:width$} {}", c.name(), c.short))
            .collect();
        lines.sort();
        if lines.is_empty() { String::new() } else { format!("\n\n{heading}{}", lines.concat()) }
    };
    if !is_root || program.groups.is_empty() {
        return list("Available Commands:", None);
    }
    let mut out: String = program.groups.iter().map(|g| list(g.0, Some(*g))).collect();
    out.push_str(&list("Additional Commands:", None));
    out
}

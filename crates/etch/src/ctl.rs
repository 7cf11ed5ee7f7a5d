//! `etchctl` with the commands that etcdctl had before 3.6 and run-books still hold: those on files, which are
//! `etch_utl`'s. Not here: commands themselves; `etch_ctl` opens no data directory, `etch_utl` no socket.

use etch_cli::{Failure, Flag, Matches, Program};

/// The whole program, under the name that it was called by.
pub fn program(name: &'static str) -> Program {
    let mut program = etch_ctl::program(name);
    // Called by etcd's name, the program shows the commands of etcd 3.7; it takes the old ones all the same.
    let is_shown = name != "etcdctl";
    let mut migrate = etch_utl::migrate_command();
    for command in &mut program.root.children {
        match command.name() {
            "snapshot" => {
                command.children.extend(etch_utl::snapshot_commands().into_iter().map(|mut old| {
                    old.hidden = !is_shown;
                    old
                }))
            }
            "defrag" => {
                let help = "Optional. If present, defragments a data directory not in use by etcd.";
                let flag = Flag::text("data-dir", "", help);
                command.flags.push(if is_shown { flag } else { flag.hidden() });
                command.run = Some(defrag);
                migrate.group = command.group;
            }
            _ => {}
        }
    }
    migrate.hidden = !is_shown;
    program.root.children.push(migrate);
    program
}

fn defrag(matches: &Matches) -> Result<(), Failure> {
    match matches.text("data-dir") {
        "" => etch_ctl::defrag(matches),
        _ => etch_utl::defrag_data_dir(matches),
    }
}

#[cfg(test)]
mod tests {
    use etch_cli::Command;

    use super::*;

    fn find<'c>(command: &'c Command, name: &str) -> &'c Command {
        command.children.iter().find(|c| c.name() == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn old_commands_are_there_and_shown_only_under_our_own_name() {
        for (name, is_hidden) in [("etcdctl", true), ("etchctl", false), ("etch ctl", false)] {
            let program = program(name);
            assert_eq!(find(&program.root, "migrate").hidden, is_hidden);
            let snapshot = find(&program.root, "snapshot");
            assert_eq!(find(snapshot, "restore").hidden, is_hidden);
            assert_eq!(find(snapshot, "status").hidden, is_hidden);
            let defrag = find(&program.root, "defrag");
            let data_dir = defrag.flags.iter().find(|flag| flag.name == "data-dir");
            assert_eq!(data_dir.map(|flag| flag.hidden), Some(is_hidden));
        }
    }
}

//! Commands that `watch` and `lock` run. Not here: when.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use crate::{exit, words};

/// How a command ended, if not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In Go's words.
    pub why: String,
    /// Its exit status; that of an error where it never ran.
    pub code: u8,
}

/// Runs a command with these variables beside ours; it reads nothing.
pub async fn run(words: &[String], variables: Vec<(&'static str, OsString)>) -> Result<(), Ended> {
    let words: Vec<OsString> =
        words.iter().map(|word| OsString::from_vec(words::bytes(word).into())).collect();
    let work = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(variables).stdin(Stdio::null());
        let name = words[0].to_string_lossy().into_owned();
        command.status().map_err(|e| not_run(&name, &e)).and_then(judge)
    });
    work.await.unwrap_or_else(|e| Err(Ended { why: e.to_string(), code: exit::ERROR }))
}

fn judge(status: ExitStatus) -> Result<(), Ended> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => {
            // A status has eight bits.
            Err(Ended { why: format!("exit status {code}"), code: code as u8 })
        }
        (None, Some(number)) => {
            let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
            Err(Ended { why: format!("signal: {}{dumped}", signal(number)), code: u8::MAX })
        }
        (None, None) => Err(Ended { why: "it has not ended".into(), code: exit::ERROR }),
    }
}

fn not_run(name: &str, error: &std::io::Error) -> Ended {
    let why = if error.kind() == ErrorKind::NotFound && !name.contains('/') {
        let name = etch_cli::go::quote(name);
        format!("exec: {name}: executable file not found in $PATH")
    } else {
        etch_cli::go::io_error("fork/exec", name.as_ref(), error)
    };
    Ended { why, code: exit::ERROR }
}

/// A signal as Go calls it.
fn signal(number: i32) -> String {
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(words: &[&str]) -> Result<(), Ended> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(run(&words, vec![("ETCD_TEST", "a\nb".into())]))
    }

    #[test]
    fn ends_are_told_as_go_tells_them() {
        assert_eq!(ended(&["sh", "-c", "test \"$ETCD_TEST\" = 'a\nb'"]), Ok(()));
        let rows: [(&[&str], &str, u8); 4] = [
            (&["sh", "-c", "exit 3"], "exit status 3", 3),
            (&["sh", "-c", "kill -9 $$"], "signal: killed", 255),
            (&["no-such-thing"], "exec: \"no-such-thing\": executable file not found in $PATH", 1),
            (&["/no/such"], "fork/exec /no/such: no such file or directory", 1),
        ];
        for (words, why, code) in rows {
            assert_eq!(ended(words), Err(Ended { why: why.into(), code }), "{words:?}");
        }
    }
}

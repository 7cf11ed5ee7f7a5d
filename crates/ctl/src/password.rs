//! A secret from the keyboard. Not here: what it is for.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stdin, stdout};

use etch_cli::Failure;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::exit;

/// Asks for a secret, which a terminal does not show as it is typed.
pub fn ask(prompt: &str) -> Result<String, Failure> {
    print!("{prompt}");
    // A prompt that nobody sees keeps nobody from answering.
    let _ = stdout().flush();
    let silence = Silence::begin();
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line);
    drop(silence);
    println!();
    read.map_err(|e| Failure::new(exit::ERROR, e.to_string()))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed; dropped, it does again.
struct Silence(Termios);

impl Silence {
    fn begin() -> Option<Self> {
        if !stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // There is nobody to tell if the terminal is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

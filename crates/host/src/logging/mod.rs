//! The log: lines as zap writes them for etcd (`level`, `ts`, `caller`, `msg`, then the fields), to the
//! outputs that `--log-outputs` names. Not here: what is logged, and the rotation of files (`rotate`).
//!
//! A line is formatted into a buffer of its own thread and leaves in one `write`. Below the level, a call
//! costs one atomic load: its fields are not even evaluated.

mod encode;
mod output;
mod rotate;
mod value;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

pub use encode::Fields;
pub use output::Outputs;
pub use rotate::Rotation;
pub use value::{Value, go_duration, push_json_string};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For who looks for a fault.
    Debug,
    /// What happens in a life without trouble.
    Info,
    /// What somebody may want to look at.
    Warn,
    /// What somebody should look at.
    Error,
    /// The process cannot go on with what it was doing.
    Panic,
    /// The process ends.
    Fatal,
}

impl Level {
    /// The name in the log and in `--log-level`.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }

    /// The level of this name, in lower or in upper case; nothing means info.
    pub fn parse(name: &str) -> Option<Level> {
        Some(match name {
            "debug" | "DEBUG" => Level::Debug,
            "info" | "INFO" | "" => Level::Info,
            "warn" | "WARN" | "warning" | "WARNING" => Level::Warn,
            "error" | "ERROR" => Level::Error,
            "dpanic" | "DPANIC" | "panic" | "PANIC" => Level::Panic,
            "fatal" | "FATAL" => Level::Fatal,
            _ => return None,
        })
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Columns for people, the fields as JSON behind them.
    Console,
}

/// A handle on the log; clones are cheap and write to the same outputs.
#[derive(Clone)]
pub struct Logger {
    inner: Arc<Inner>,
    name: Option<&'static str>,
}

struct Inner {
    level: Level,
    format: Format,
    outputs: Outputs,
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A line longer than this gives its buffer back.
const KEEP_BUFFER: usize = 64 * 1024;

impl Logger {
    /// A log of everything from `level` on.
    pub fn new(level: Level, format: Format, outputs: Outputs) -> Logger {
        Logger { inner: Arc::new(Inner { level, format, outputs }), name: None }
    }

    /// JSON on stderr from info on: for what has to be said before the configuration is known.
    pub fn bootstrap() -> Logger {
        Logger::new(Level::Info, Format::Json, Outputs::stderr())
    }

    /// A log that keeps nothing.
    pub fn discard() -> Logger {
        Logger::new(Level::Fatal, Format::Json, Outputs::none())
    }

    /// The same log under a name of a part (`"logger":"raft"`).
    #[must_use]
    pub fn named(&self, name: &'static str) -> Logger {
        Logger { inner: Arc::clone(&self.inner), name: Some(name) }
    }

    /// True if lines of this level are kept.
    pub fn enabled(&self, level: Level) -> bool {
        level >= self.inner.level
    }

    /// Writes a line; the macros call this, and whoever forwards another library's log.
    /// `file` is as `file!()` gives it.
    pub fn write(
        &self,
        level: Level,
        file: &str,
        line: u32,
        message: &str,
        fields: impl FnOnce(&mut Fields<'_>),
    ) {
        if !self.enabled(level) {
            return;
        }
        let now = SystemTime::now();
        LINE.with(|buffer| {
            // A value's Display that logs would find the buffer taken: its line gets one of its own.
            let mut own = String::new();
            let mut shared = buffer.try_borrow_mut().ok();
            let out = shared.as_deref_mut().unwrap_or(&mut own);
            out.clear();
            let head = encode::Head { level, now, logger: self.name, file, line, message };
            match self.inner.format {
                Format::Json => encode::json(out, &head, fields),
                Format::Console => encode::console(out, &head, fields),
            }
            self.inner.outputs.write(out.as_bytes());
            if out.capacity() > KEEP_BUFFER {
                *out = String::new();
            }
        });
    }
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logger({})", self.inner.level.name())
    }
}

/// Logs at a level: `log_at!(log, Level::Info, "what happened", "key" => value)`.
#[macro_export]
macro_rules! log_at {
    ($log:expr, $level:expr, $message:expr $(, $key:expr => $value:expr)* $(,)?) => {{
        let log: &$crate::logging::Logger = &$log;
        let level = $level;
        if log.enabled(level) {
            log.write(level, file!(), line!(), $message, |_fields| {
                $(_fields.add($key, &$value);)*
            });
        }
    }};
}

/// Logs at debug level: `log_debug!(log, "what happened", "key" => value)`.
#[macro_export]
macro_rules! log_debug {
    ($log:expr, $($rest:tt)+) => { $crate::log_at!($log, $crate::logging::Level::Debug, $($rest)+) };
}

/// Logs at info level.
#[macro_export]
macro_rules! log_info {
    ($log:expr, $($rest:tt)+) => { $crate::log_at!($log, $crate::logging::Level::Info, $($rest)+) };
}

/// Logs at warn level.
#[macro_export]
macro_rules! log_warn {
    ($log:expr, $($rest:tt)+) => { $crate::log_at!($log, $crate::logging::Level::Warn, $($rest)+) };
}

/// Logs at error level.
#[macro_export]
macro_rules! log_error {
    ($log:expr, $($rest:tt)+) => { $crate::log_at!($log, $crate::logging::Level::Error, $($rest)+) };
}

/// Logs at fatal level; ending the process is the caller's.
#[macro_export]
macro_rules! log_fatal {
    ($log:expr, $($rest:tt)+) => { $crate::log_at!($log, $crate::logging::Level::Fatal, $($rest)+) };
}

#[cfg(test)]
mod tests;

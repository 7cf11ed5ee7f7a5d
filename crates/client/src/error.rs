//! How a call can end badly: one kind for each thing that a caller would do differently. The table of etcd's own
//! errors is `etch_api::Error`; this file only sorts what came back into it.

use std::fmt;

use etch_api::Code;
pub use etch_api::Error as EtcdError;

/// The result of a call.
///
/// ```
/// fn first(answer: etch_client::GetResponse) -> etch_client::Result<etch_client::KeyValue> {
///     answer.kvs.into_iter().next().ok_or(etch_client::Error::NotLeading)
/// }
/// assert!(first(Default::default()).is_err());
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a call ended, if not well.
///
/// A caller who drops a future sees none of these: the call is cancelled, on the server too.
///
/// ```
/// use etch_client::{Error, EtcdError};
///
/// fn what_to_do(error: &Error) -> &'static str {
///     match error {
///         Error::Refused(_) if error.is(EtcdError::Compacted) => "read again from the newest revision",
///         Error::Refused(_) => "mend the request",
///         Error::NoEndpoint(_) => "nothing was sent; try later",
///         error if error.may_have_happened() => "look what the state is before writing again",
///         _ => "give up",
///     }
/// }
/// assert_eq!(what_to_do(&Error::Deadline { sent: true }), "look what the state is before writing again");
/// assert_eq!(what_to_do(&Error::Deadline { sent: false }), "give up");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The server answered, with an error.
    Refused(Refusal),
    /// No endpoint could be reached within the dial timeout. The request never left.
    NoEndpoint(String),
    /// The call's time limit passed.
    Deadline {
        /// Whether the request had left by then. If it had, a write may have happened.
        sent: bool,
    },
    /// The request left, and the connection was lost before its answer came. A write may have happened,
    /// so it is not repeated; a read is repeated until its retries are used up, and only then ends so.
    Unknown(String),
    /// The client was closed.
    Closed,
    /// The answer is from another cluster than the one that this client began with.
    ClusterMismatch {
        /// The cluster of the first answer.
        expected: u64,
        /// The cluster of this answer.
        found: u64,
    },
    /// The history that a watch needs is gone.
    Compacted {
        /// The oldest revision from which a watch can start.
        revision: i64,
    },
    /// The watch ended because its reader fell behind and had asked for this ([`crate::Overflow::Fail`]).
    SlowConsumer,
    /// The lease ran out, was revoked, or could not be kept alive in time.
    LeaseLost(i64),
    /// The configuration or an argument makes no sense; nothing was sent.
    Invalid(String),
    /// The cluster is older than what is supported, and the configuration asked to refuse that.
    OldCluster(String),
    /// The lock is held by somebody else ([`crate::concurrency::Mutex::try_lock`]).
    Locked,
    /// Nobody leads, or this candidate does not.
    NotLeading,
    /// A server answered with older state than one before it ([`crate::Client::ordered`]).
    OutOfOrder,
    /// What was found under a key is not what this library writes there.
    Malformed(String),
}

/// An answer that says no.
///
/// ```
/// use etch_client::{Code, EtcdError, Refusal};
///
/// let refusal = Refusal::new(Code::InvalidArgument, "etcdserver: key is not provided");
/// assert_eq!(refusal.error, Some(EtcdError::EmptyKey));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The text, as sent.
    pub message: String,
    /// Which of etcd's errors it is, if it is one.
    pub error: Option<EtcdError>,
}

impl Refusal {
    /// Sorts a code and a text.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        let message = message.into();
        let error = EtcdError::from_message(&message);
        Refusal { code, message, error }
    }
}

impl Error {
    /// Whether this is the given one of etcd's errors.
    pub fn is(&self, error: EtcdError) -> bool {
        self.etcd() == Some(error)
    }

    /// Which of etcd's errors this is.
    pub fn etcd(&self) -> Option<EtcdError> {
        match self {
            Error::Refused(refusal) => refusal.error,
            Error::Compacted { .. } => Some(EtcdError::Compacted),
            _ => None,
        }
    }

    /// The gRPC code that etcd's own client would report for it.
    pub fn code(&self) -> Code {
        match self {
            Error::Refused(refusal) => refusal.code,
            Error::NoEndpoint(_) | Error::Unknown(_) => Code::Unavailable,
            Error::Deadline { .. } => Code::DeadlineExceeded,
            Error::Closed => Code::Canceled,
            Error::Compacted { .. } => Code::OutOfRange,
            Error::LeaseLost(_) => Code::NotFound,
            Error::Invalid(_) => Code::InvalidArgument,
            Error::ClusterMismatch { .. } | Error::OldCluster(_) => Code::FailedPrecondition,
            Error::Locked | Error::NotLeading | Error::OutOfOrder => Code::FailedPrecondition,
            Error::SlowConsumer => Code::ResourceExhausted,
            Error::Malformed(_) => Code::DataLoss,
        }
    }

    /// Whether a write that ended so may have been carried out all the same.
    ///
    /// Besides lost connections these are the server's own time limits and changes of leader: the entry may be
    /// in the log, and be applied later.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Error::Unknown(_) | Error::Deadline { sent: true } => true,
            // It was carried out, by a cluster that was not meant.
            Error::ClusterMismatch { .. } => true,
            Error::Refused(refusal) => match refusal.error {
                Some(error) => matches!(
                    error,
                    EtcdError::Timeout
                        | EtcdError::TimeoutDueToLeaderFail
                        | EtcdError::TimeoutDueToConnectionLost
                        | EtcdError::TimeoutWaitAppliedIndex
                        | EtcdError::LeaderChanged
                        | EtcdError::Stopped
                        | EtcdError::Canceled
                        | EtcdError::DeadlineExceeded
                ),
                None => matches!(
                    refusal.code,
                    Code::Unavailable | Code::Internal | Code::Unknown | Code::Canceled
                ),
            },
            _ => false,
        }
    }

    /// Whether trying again later, unchanged, may help: for reads, and for streams that resume.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Error::NoEndpoint(_) | Error::Unknown(_) => true,
            Error::Refused(refusal) => matches!(refusal.code, Code::Unavailable | Code::Internal),
            _ => false,
        }
    }

    /// Whether a new token may help; the server has not carried the request out.
    pub(crate) fn wants_token(&self) -> bool {
        matches!(
            self.etcd(),
            Some(EtcdError::InvalidAuthToken | EtcdError::UserEmpty | EtcdError::AuthOldRevision)
        )
    }

    /// What a status from the server means.
    pub(crate) fn from_status(status: &tonic::Status) -> Error {
        let code = Code::from_u32(status.code() as i32 as u32);
        if code == Code::DeadlineExceeded {
            return Error::Deadline { sent: true };
        }
        Error::Refused(Refusal::new(code, status.message()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(refusal) if refusal.error.is_some() => f.write_str(&refusal.message),
            Error::Refused(refusal) => {
                write!(f, "rpc error: code = {:?} desc = {}", refusal.code, refusal.message)
            }
            Error::NoEndpoint(why) if why.is_empty() => f.write_str("no endpoint is available"),
            Error::NoEndpoint(why) => write!(f, "no endpoint is available: {why}"),
            Error::Deadline { .. } => f.write_str("context deadline exceeded"),
            Error::Unknown(why) => {
                write!(f, "the connection was lost before the answer came: {why}")
            }
            Error::Closed => f.write_str("the client is closed"),
            Error::ClusterMismatch { expected, found } => {
                write!(f, "cluster {found:x} answered where cluster {expected:x} did before")
            }
            Error::Compacted { .. } => f.write_str(EtcdError::Compacted.message()),
            Error::SlowConsumer => f.write_str("the watch's reader fell behind"),
            Error::LeaseLost(id) => write!(f, "lease {id:x} is lost"),
            Error::Invalid(why) => f.write_str(why),
            Error::OldCluster(version) => write!(f, "old cluster version {version}"),
            Error::Locked => f.write_str("the lock is held by another session"),
            Error::NotLeading => f.write_str("no leader, or not this candidate"),
            Error::OutOfOrder => f.write_str("the answer is older than one before it"),
            Error::Malformed(what) => write!(f, "unexpected content: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<EtcdError> for Error {
    fn from(error: EtcdError) -> Error {
        Error::Refused(Refusal {
            code: error.nominal_code(),
            message: error.message().to_owned(),
            error: Some(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_table_is_told_by_its_text() {
        for &error in EtcdError::ALL {
            let refused = Error::Refused(Refusal::new(error.code(), error.message()));
            assert!(refused.is(error), "{error:?}");
            assert_eq!(refused.to_string(), error.message());
        }
    }

    #[test]
    fn a_write_that_may_be_in_the_log_is_told_from_one_that_is_not() {
        let refused = |error: EtcdError| Error::from(error).may_have_happened();
        assert!(refused(EtcdError::Timeout));
        assert!(refused(EtcdError::LeaderChanged));
        assert!(!refused(EtcdError::NoLeader));
        assert!(!refused(EtcdError::NoSpace));
        assert!(!refused(EtcdError::InvalidAuthToken));
        assert!(Error::Unknown(String::new()).may_have_happened());
        assert!(!Error::NoEndpoint(String::new()).may_have_happened());
        assert!(!Error::Deadline { sent: false }.may_have_happened());
    }
}

//! The one table of request errors: each error's gRPC code and its exact text.
//!
//! Clients of etcd recognise an error by its text, so the text matters even more than the code.
//! Operational errors (a full disk, a peer that is gone) are not in here, nor is the mapping to HTTP.

use std::{borrow::Cow, fmt};

/// A gRPC status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are gRPC's own.
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// Every code, at the place of its number.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The code with this number; numbers that gRPC does not know are `Unknown`.
    pub fn from_u32(number: u32) -> Code {
        let known = usize::try_from(number).ok().and_then(|n| Code::ALL.get(n));
        known.copied().unwrap_or(Code::Unknown)
    }
}

macro_rules! errors {
    ($($name:ident, $code:ident, $text:literal;)*) => {
        /// A request that was refused, or that could not be carried out.
        ///
        /// The names are those of etcd's own list, without its prefix.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Error {
            $(#[doc = $text] $name,)*
        }

        impl Error {
            /// Every request error there is.
            pub const ALL: &'static [Error] = &[$(Error::$name,)*];

            /// The code the table gives, and that a client library reports. See [`Error::code`] for what is sent.
            pub const fn nominal_code(self) -> Code {
                match self {
                    $(Error::$name => Code::$code,)*
                }
            }

            /// The exact text, as sent.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Error::$name => $text,)*
                }
            }

            /// The error with exactly this text.
            pub fn from_message(message: &str) -> Option<Error> {
                match message {
                    $($text => Some(Error::$name),)*
                    _ => None,
                }
            }
        }
    };
}

errors! {
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion, InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    MemberBadUrls, InvalidArgument, "etcdserver: given member URLs are invalid";
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    UserEmpty, InvalidArgument, "etcdserver: user name is empty";
    RoleEmpty, InvalidArgument, "etcdserver: role name is empty";
    AuthFailed, InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven, InvalidArgument, "etcdserver: permission not given";
    InvalidAuthMgmt, InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision, InvalidArgument, "etcdserver: revision of auth store is old";
    WrongDowngradeVersionFormat, InvalidArgument, "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion, InvalidArgument, "etcdserver: invalid downgrade target version";
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRev, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    LeaseTtlTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    TooManyRequests, ResourceExhausted, "etcdserver: too many requests";
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    MemberNotFound, NotFound, "etcdserver: member not found";
    LeaseExist, FailedPrecondition, "etcdserver: lease already exists";
    MemberExist, FailedPrecondition, "etcdserver: member ID already exist";
    PeerUrlExist, FailedPrecondition, "etcdserver: Peer URLs already exists";
    MemberNotEnoughStarted, FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members";
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady, FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    ClusterIdMismatch, FailedPrecondition, "etcdserver: cluster ID mismatch";
    RootUserNotExist, FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleNotExist, FailedPrecondition, "etcdserver: root user does not have root role";
    UserAlreadyExist, FailedPrecondition, "etcdserver: user name already exists";
    UserNotFound, FailedPrecondition, "etcdserver: user name not found";
    RoleAlreadyExist, FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound, FailedPrecondition, "etcdserver: role name not found";
    RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted, FailedPrecondition, "etcdserver: permission is not granted to the role";
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    NotCapable, FailedPrecondition, "etcdserver: not capable";
    NotSupportedForLearner, FailedPrecondition, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    ClusterVersionUnavailable, FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess, FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade, FailedPrecondition, "etcdserver: no inflight downgrade job";
    PermissionDenied, PermissionDenied, "etcdserver: permission denied";
    InvalidAuthToken, Unauthenticated, "etcdserver: invalid auth token";
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
    NoLeader, Unavailable, "etcdserver: no leader";
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    Stopped, Unavailable, "etcdserver: server stopped";
    Timeout, Unavailable, "etcdserver: request timed out";
    TimeoutDueToLeaderFail, Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost, Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex, Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    WatchCanceled, Canceled, "etcdserver: watch canceled";
    Canceled, Canceled, "etcdserver: request canceled";
    DeadlineExceeded, DeadlineExceeded, "etcdserver: context deadline exceeded";
}

impl Error {
    /// The gRPC code as sent.
    ///
    /// It is the table's, but for two errors: etcd's server hands these to gRPC as the client library's
    /// values, in which gRPC sees no status, so that they leave as `Unknown` with their text.
    pub const fn code(self) -> Code {
        match self {
            Error::TooManyRequests | Error::MemberNotEnoughStarted => Code::Unknown,
            other => other.nominal_code(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

/// How a call ended badly: what goes into `grpc-status` and `grpc-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The gRPC code.
    pub code: Code,
    /// The text; not yet percent-encoded.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status that is not in the table.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status { code, message: message.into() }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        Status { code: error.code(), message: Cow::Borrowed(error.message()) }
    }
}

impl fmt::Display for Status {
    /// As etcd writes it where a status becomes text, for instance in a watch's cancel reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {:?} desc = {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_leads_back_to_its_error() {
        for &error in Error::ALL {
            assert_eq!(Error::from_message(error.message()), Some(error));
            assert!(error.message().starts_with("etcdserver: "));
        }
        assert_eq!(Error::from_message("etcdserver: no such thing"), None);
        assert_eq!(Error::from_message("key not found"), None);
    }

    /// How many rows each code has in etcd 3.7.1's own list.
    #[test]
    fn the_list_is_complete() {
        let rows = |code| Error::ALL.iter().filter(|e| e.nominal_code() == code).count();
        assert_eq!(Error::ALL.len(), 63);
        assert_eq!(rows(Code::InvalidArgument), 18);
        assert_eq!(rows(Code::OutOfRange), 3);
        assert_eq!(rows(Code::ResourceExhausted), 2);
        assert_eq!(rows(Code::NotFound), 2);
        assert_eq!(rows(Code::FailedPrecondition), 24);
        assert_eq!(rows(Code::Canceled), 2);
        assert_eq!(rows(Code::PermissionDenied), 1);
        assert_eq!(rows(Code::Unauthenticated), 1);
        assert_eq!(rows(Code::Unavailable), 8);
        assert_eq!(rows(Code::DataLoss), 1);
        assert_eq!(rows(Code::DeadlineExceeded), 1);
    }

    #[test]
    fn codes_are_as_sent() {
        assert_eq!(Error::Compacted.code() as u8, 11);
        assert_eq!(Error::TooManyRequests.code(), Code::Unknown);
        assert_eq!(Error::TooManyRequests.nominal_code(), Code::ResourceExhausted);
        assert_eq!(Error::MemberNotEnoughStarted.code(), Code::Unknown);
        let others = Error::ALL.iter().filter(|e| e.code() != e.nominal_code()).count();
        assert_eq!(others, 2);
    }

    #[test]
    fn code_numbers_round_trip() {
        for code in Code::ALL {
            assert_eq!(Code::from_u32(code as u32), code);
        }
        assert_eq!(Code::from_u32(17), Code::Unknown);
    }

    #[test]
    fn a_status_reads_like_etcds() {
        let status = Status::from(Error::PermissionDenied);
        assert_eq!(
            status.to_string(),
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
    }
}

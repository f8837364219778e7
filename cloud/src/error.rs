//! What went wrong with a cloud, as far as it changes what is done next.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asked too often: the same again, later.
    Throttled,
    /// It did not answer, or not as itself: the same again.
    Unavailable,
    /// No answer within its time: the same again, with less under way.
    Late,
    /// What was named does not exist, or does not yet.
    NotFound,
    /// The name is in use.
    Exists,
    /// No room for this type in this zone: another type or zone may have some.
    NoCapacity,
    /// The type cannot do what was asked of it, or is not offered there: another one may.
    NotOffered,
    /// The account may not have more: somebody has to ask for it.
    Quota,
    AddressInUse,
    /// Missing, or their time is over.
    Credentials,
    /// This machine's clock is wrong.
    Clock,
    /// The identity may not do this.
    Denied,
    /// Anything else: the request is wrong, or the state of things is.
    Refused,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudError {
    /// What was attempted, and on what: `register the image "x"`.
    pub attempted: String,
    pub kind: Kind,
    /// The cloud's own word for it; empty where it did not answer.
    pub code: String,
    pub message: String,
}

impl CloudError {
    pub fn new(
        attempted: impl Into<String>,
        kind: Kind,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        // Whatever answers is not trusted to be brief.
        let message: String = message.into();
        CloudError {
            attempted: attempted.into(),
            kind,
            code: code.into(),
            message: message.chars().take(400).collect(),
        }
    }

    /// Whether the very same may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Unavailable | Kind::Late)
    }

    /// What whoever runs the failover can do.
    pub fn remedy(&self) -> &'static str {
        match self.kind {
            Kind::Throttled | Kind::Unavailable | Kind::Late => {
                "run the same command again: it goes on where it stopped"
            }
            Kind::NotFound => {
                "somebody removed it, or it is another region's: see the cloud's console"
            }
            Kind::Exists => {
                "remove what has the name, if it is nobody's, and run the same command again"
            }
            Kind::NoCapacity | Kind::NotOffered => {
                "name more instance types, or subnets of other zones, in the plan"
            }
            Kind::Quota => {
                "ask the cloud for a higher quota (Service Quotas), or remove what is not needed"
            }
            Kind::AddressInUse => {
                "remove what has the address, or let the plan give another one (`address`)"
            }
            Kind::Credentials => "renew the credentials, and run the same command again",
            Kind::Clock => "set this machine's clock, and run the same command again",
            Kind::Denied => "give the identity the right (terraform/aws/roles has them all)",
            Kind::Refused => "see the cloud's answer; then run the same command again",
        }
    }
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.attempted, self.message)?;
        match self.code.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.code),
        }
    }
}

impl std::error::Error for CloudError {}

/// What an AWS error code means; codes of EC2 (API reference, "Error codes"), EBS direct, Scheduler, Service
/// Quotas, KMS and STS.
pub(crate) fn kind_of(status: u16, code: &str) -> Kind {
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "SlowDown"
        | "EC2ThrottledException"
        | "ConcurrentLimitExceededException"
        | "ConcurrentSnapshotLimitExceeded" => Kind::Throttled,
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientCapacity"
        | "InsufficientReservedInstanceCapacity" => Kind::NoCapacity,
        "Unsupported" | "UnsupportedOperation" | "InvalidInstanceType" => Kind::NotOffered,
        "VcpuLimitExceeded"
        | "InstanceLimitExceeded"
        | "VolumeLimitExceeded"
        | "SnapshotLimitExceeded"
        | "MaxIOPSLimitExceeded"
        | "PendingSnapshotLimitExceeded"
        | "ServiceQuotaExceededException"
        | "PrivateIpAddressLimitExceeded"
        | "InsufficientFreeAddressesInSubnet"
        | "NetworkInterfaceLimitExceeded" => Kind::Quota,
        "InvalidIPAddress.InUse" => Kind::AddressInUse,
        "InvalidAMIName.Duplicate" | "ConflictException" => Kind::Exists,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "AuthFailure"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch" => Kind::Credentials,
        "UnauthorizedOperation"
        | "AccessDenied"
        | "AccessDeniedException"
        | "DependencyAccessDeniedException" => Kind::Denied,
        "ResourceNotFoundException" | "NoSuchResourceException" | "InvalidAMIID.Unavailable" => {
            Kind::NotFound
        }
        _ if code.ends_with(".NotFound") || code.ends_with("NotFoundException") => Kind::NotFound,
        _ if status >= 500 || status == 429 => Kind::Unavailable,
        _ => Kind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_by_what_is_done_next() {
        for (status, code, kind) in [
            (503, "RequestLimitExceeded", Kind::Throttled),
            (500, "InsufficientInstanceCapacity", Kind::NoCapacity),
            (400, "InvalidSnapshot.NotFound", Kind::NotFound),
            (400, "InvalidParameterValue", Kind::Refused),
            (500, "InternalError", Kind::Unavailable),
            (503, "", Kind::Unavailable),
        ] {
            assert_eq!(kind_of(status, code), kind, "{code}");
        }
    }

    #[test]
    fn an_error_names_what_was_attempted_and_the_cloud_s_word() {
        let error = CloudError::new("start \"db\"", Kind::Refused, "InvalidX", "no such x");
        assert_eq!(
            error.to_string(),
            "cannot start \"db\": no such x (InvalidX)"
        );
        assert!(!error.is_transient());
    }
}

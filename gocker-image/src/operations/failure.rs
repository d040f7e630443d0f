//! What kind of failure an error is, for programs that ask by the exit status.

use super::{NotPulled, registry_error};
use crate::digest::VerifyError;
use crate::image::ImageError;
use crate::registry::RegistryError;
use crate::store::StoreError;
use crate::trust::TrustError;
use crate::unpack::UnpackError;

/// The kinds of failures that have an exit status of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// What was named is not there.
    NotFound,
    /// Something is not what its digest or signature says.
    NotVerified,
    /// The disk is full.
    NoSpace,
    /// A registry was not reached, or broke off.
    Network,
    /// A registry lets nobody in without, or with these, credentials.
    NotLetIn,
    /// Anything else.
    Other,
}

impl Failure {
    /// What kind of failure `error` is: the first kind that anything in its chain has.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        if super::is_full(error) {
            // whatever it was that found no room
            return Self::NoSpace;
        }
        error.chain().find_map(kind).unwrap_or(Self::Other)
    }

    /// The exit status, which stays what it is: `--help` has the table.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Other => 1,
            // 2 is a wrong command line
            Self::NotFound => 3,
            Self::NotVerified => 4,
            Self::NoSpace => 5,
            Self::Network => 6,
            Self::NotLetIn => 7,
        }
    }
}

fn kind(cause: &(dyn std::error::Error + 'static)) -> Option<Failure> {
    if let Some(error) = registry_error(cause) {
        return of_registry(error);
    }
    // an io::Error shows its content, but does not name it as its cause
    let inner = cause
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    if cause.is::<VerifyError>() || inner.is_some_and(|inner| inner.is::<VerifyError>()) {
        return Some(Failure::NotVerified);
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return match error {
            StoreError::NoBundle(_) | StoreError::NotMounted(_) => Some(Failure::NotFound),
            StoreError::Damaged { .. } => Some(Failure::NotVerified),
            _ => None,
        };
    }
    if let Some(ImageError::NoPlatform { .. } | ImageError::WrongPlatform { .. }) =
        cause.downcast_ref()
    {
        return Some(Failure::NotFound);
    }
    if let Some(UnpackError::DiffId { .. }) = cause.downcast_ref() {
        return Some(Failure::NotVerified);
    }
    if let Some(error) = cause.downcast_ref::<TrustError>() {
        let is_verdict = matches!(
            error,
            TrustError::Rejected { .. } | TrustError::Unsigned(_) | TrustError::NotSigned { .. }
        );
        return is_verdict.then_some(Failure::NotVerified);
    }
    cause.is::<NotPulled>().then_some(Failure::NotFound)
}

fn of_registry(error: &RegistryError) -> Option<Failure> {
    match error.decisive() {
        RegistryError::Token { source, .. }
            if matches!(**source, RegistryError::Transport { .. }) =>
        {
            Some(Failure::Network)
        }
        RegistryError::Token { .. }
        | RegistryError::Unauthorized { .. }
        | RegistryError::Challenge { .. }
        | RegistryError::Realm { .. }
        | RegistryError::Credentials { .. } => Some(Failure::NotLetIn),
        RegistryError::Content(_) | RegistryError::Digest { .. } | RegistryError::Length { .. } => {
            Some(Failure::NotVerified)
        }
        error if error.status() == Some(403) => Some(Failure::NotLetIn),
        error if error.is_not_found() => Some(Failure::NotFound),
        error if error.is_of_the_network() => Some(Failure::Network),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use nix::errno::Errno;

    use super::*;
    use crate::digest::Digest;
    use crate::errno::{CallError, Cause};

    #[test]
    fn every_kind_is_told_by_what_lies_in_the_chain() {
        let digest = Digest::of(b"x");
        let damaged = StoreError::Damaged {
            expected: digest.clone(),
            actual: digest.clone(),
        };
        let full = CallError::new("write", "f", Errno::ENOSPC);
        let table = [
            (
                anyhow::Error::from(NotPulled("a".to_owned())),
                Failure::NotFound,
                3,
            ),
            (
                StoreError::NoBundle("a".to_owned()).into(),
                Failure::NotFound,
                3,
            ),
            (damaged.into(), Failure::NotVerified, 4),
            (TrustError::Unsigned(digest).into(), Failure::NotVerified, 4),
            (StoreError::from(full).into(), Failure::NoSpace, 5),
            (Cause::from(Errno::EIO).into(), Failure::Other, 1),
        ];
        for (error, expected, status) in table {
            let text = format!("{error:#}");
            let error = Err::<(), _>(error).context("pull \"a\"").unwrap_err();
            assert_eq!(Failure::of(&error), expected, "{text}");
            assert_eq!(expected.exit_status(), status);
        }
    }
}

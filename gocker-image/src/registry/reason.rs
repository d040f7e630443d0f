//! Why a request broke, as far as a user can act on it.

use std::fmt;

use super::answer::printable;

/// The innermost cause of a broken request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportReason {
    /// An errno of the socket.
    Errno(nix::errno::Errno),
    /// No answer in time.
    TimedOut,
    /// The name has no address.
    Lookup,
    /// A TLS hello was answered with something else.
    PlainText,
    /// The host's certificate is not believed.
    Certificate(String),
    /// The other end closed.
    Closed,
    /// Whatever else the client says.
    Text(String),
}

impl TransportReason {
    /// Finds the cause that a user can act on in the chain of `error`.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut innermost = error.to_string();
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(reason) = known(cause) {
                return reason;
            }
            innermost = cause.to_string();
            next = match cause
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
            {
                Some(inner) => Some(inner),
                None => cause.source(),
            };
        }
        Self::Text(printable(&innermost))
    }

    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::PlainText | Self::Lookup | Self::Certificate(_) | Self::Text(_) => false,
            Self::Errno(_) | Self::TimedOut | Self::Closed => true,
        }
    }
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<TransportReason> {
    if let Some(error) = cause.downcast_ref::<reqwest::Error>()
        && error.is_timeout()
    {
        return Some(TransportReason::TimedOut);
    }
    match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidMessage(_)) => return Some(TransportReason::PlainText),
        Some(error @ rustls::Error::InvalidCertificate(_)) => {
            return Some(TransportReason::Certificate(printable(&error.to_string())));
        }
        _ => {}
    }
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        if let Some(errno) = error.raw_os_error() {
            return Some(TransportReason::Errno(nix::errno::Errno::from_raw(errno)));
        }
        match error.kind() {
            std::io::ErrorKind::TimedOut => return Some(TransportReason::TimedOut),
            std::io::ErrorKind::UnexpectedEof => return Some(TransportReason::Closed),
            _ => {}
        }
    }
    let text = cause.to_string();
    if text.contains("failed to lookup address") {
        return Some(TransportReason::Lookup);
    }
    let closed = [
        "connection closed before message completed",
        "end of file before message",
    ];
    closed
        .iter()
        .any(|known| text.contains(known))
        .then_some(TransportReason::Closed)
}

impl fmt::Display for TransportReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => {
                write!(f, "{} ({errno:?})", errno.desc().to_ascii_lowercase())
            }
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Lookup => f.write_str("the host name has no address, or no name server answers"),
            Self::PlainText => f.write_str("the answer is not TLS"),
            Self::Closed => f.write_str("the connection was closed before the answer was complete"),
            Self::Certificate(text) | Self::Text(text) => f.write_str(text),
        }
    }
}

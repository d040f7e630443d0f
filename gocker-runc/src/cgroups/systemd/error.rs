//! What can go wrong between us and systemd.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// No systemd, no answer, or one that says no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody is at any of the places where systemd listens.
    #[error("--systemd-cgroup: no {manager} answers at {}", tried(.places))]
    Absent {
        /// `systemd`, or `systemd of user 1000`.
        manager: String,
        /// Where it was looked for, and what the kernel said.
        places: Vec<(PathBuf, String)>,
    },
    /// The wire broke, or carried what is no D-Bus.
    #[error("{step}: D-Bus")]
    Wire {
        /// What was asked for.
        step: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nothing came back in time.
    #[error("{step}: systemd does not answer within {} s", limit.as_secs())]
    TimedOut {
        /// What was asked for.
        step: String,
        /// How long was waited.
        limit: Duration,
    },
    /// An answer that says no.
    #[error("{step}: systemd: {text} ({name})")]
    Refused {
        /// What was asked for.
        step: String,
        /// The error's name in D-Bus.
        name: String,
        /// What systemd says.
        text: String,
    },
    /// A property that systemd does not take, and the field that asked for it.
    #[error("{field}: property {property} of {unit:?}: systemd: {text} ({name})")]
    Property {
        /// The field of the configuration.
        field: String,
        /// The property that it became.
        property: String,
        /// The unit.
        unit: String,
        /// The error's name in D-Bus.
        name: String,
        /// What systemd says.
        text: String,
    },
    /// The unit was not started or stopped.
    #[error("{step}: systemd: the job ended as {result:?}")]
    Job {
        /// What was asked for.
        step: String,
        /// systemd's word: `failed`, `canceled`, `timeout`, ...
        result: String,
    },
}

fn tried(places: &[(PathBuf, String)]) -> String {
    let places: Vec<String> = places
        .iter()
        .map(|(place, answer)| format!("{place:?} ({answer})"))
        .collect();
    places.join(" or ")
}

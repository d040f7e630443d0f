//! Whose systemd it is, and where it listens.

use std::env;
use std::path::PathBuf;

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::address;
use super::dbus::{Connection, Place};
use super::error::Error;

/// Whose systemd it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Instance {
    /// The machine's.
    System,
    /// The caller's own.
    User,
}

impl Instance {
    /// Where units go that nobody chose a slice for.
    pub(super) fn default_slice(self) -> &'static str {
        match self {
            Self::System => "system.slice",
            Self::User => "user.slice",
        }
    }

    /// Begins a conversation.
    pub(super) fn connect(self) -> Result<Connection, Error> {
        let manager = match self {
            Self::System => "systemd".to_owned(),
            Self::User => format!("systemd of user {}", Uid::current()),
        };
        Connection::open(&self.places(), &manager)
    }

    /// Where it listens: directly before by a bus, unless the environment says otherwise.
    fn places(self) -> Vec<Place> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let direct = |directory: PathBuf| Place {
            socket: directory.join("systemd/private"),
            is_bus: false,
        };
        let bus = |socket| Place {
            socket,
            is_bus: true,
        };
        let buses = |address: Option<String>| {
            let sockets = address.map(|address| address::sockets(&address));
            sockets.unwrap_or_default().into_iter().map(bus)
        };
        match self {
            Self::System => match variable("DBUS_SYSTEM_BUS_ADDRESS") {
                Some(address) => buses(Some(address)).collect(),
                None => vec![
                    direct("/run".into()),
                    bus("/run/dbus/system_bus_socket".into()),
                ],
            },
            Self::User => {
                let own = PathBuf::from(format!("/run/user/{}", Uid::current()));
                let directory = variable("XDG_RUNTIME_DIR").map_or(own, PathBuf::from);
                let mut places = vec![direct(directory.clone())];
                places.extend(buses(variable("DBUS_SESSION_BUS_ADDRESS")));
                places.push(bus(directory.join("bus")));
                places
            }
        }
    }
}

//! Sockets, and the addresses that D-Bus writes them as.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::UnixAddr;

use crate::sys::unix_socket::connect_within;

/// Connects to a socket within the limit: a listener whose queue is full keeps a caller waiting, too.
pub(super) fn connect_to(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let address = match path.as_os_str().as_bytes().strip_prefix(b"\0") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(path)?,
    };
    Ok(connect_within(&address, limit)?)
}

/// The sockets in a D-Bus address such as `unix:path=/run/user/1000/bus,guid=…;unix:abstract=x`.
pub(super) fn sockets(address: &str) -> Vec<PathBuf> {
    let of_one = |address: &str| {
        let pairs = address.strip_prefix("unix:")?;
        pairs
            .split(',')
            .find_map(|pair| match pair.split_once('=')? {
                ("path", path) => Some(unescaped(path, Vec::new())),
                ("abstract", name) => Some(unescaped(name, vec![0])),
                _ => None,
            })
    };
    address.split(';').filter_map(of_one).collect()
}

/// Resolves `%2f` and the like.
fn unescaped(text: &str, mut bytes: Vec<u8>) -> PathBuf {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let byte = escape
            .get(1..3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(b'%'));
        rest = &escape[if byte.is_some() { 3 } else { 1 }..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, expected) in [
            ("unix:path=/run/user/1000/bus", vec!["/run/user/1000/bus"]),
            (
                "unix:path=/a%20b,guid=1;unix:abstract=/c",
                vec!["/a b", "\0/c"],
            ),
            ("tcp:host=x,port=1", vec![]),
            ("unix:guid=1;unix:path=100%", vec!["100%"]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(sockets(address), expected, "{address}");
        }
    }
}

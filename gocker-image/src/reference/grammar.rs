//! The parts of a reference, and what each may look like.

use super::{DEFAULT_REGISTRY, OFFICIAL, REPOSITORY_MAX, ReferenceError};

/// A colon after the last slash begins a tag; one before it belongs to a port.
pub(super) fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !tag.contains(']') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// Separates the registry from the repository and fills in the defaults.
pub(super) fn split_name(text: &str, name: &str) -> Result<(String, String), ReferenceError> {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    if !is_host(registry) {
        let host = registry.to_owned();
        return Err(ReferenceError::Host {
            reference: text.to_owned(),
            host,
        });
    }
    if let Some(component) = repository.split('/').find(|part| !is_component(part)) {
        let component = component.to_owned();
        return Err(ReferenceError::Repository {
            reference: text.to_owned(),
            component,
        });
    }
    let registry = match registry.to_ascii_lowercase() {
        host if host == "index.docker.io" => DEFAULT_REGISTRY.to_owned(),
        host if registry == DEFAULT_REGISTRY || looks_like_host(&host) => host,
        // only its capitals tell that it is a host
        _ => registry.to_owned(),
    };
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("{OFFICIAL}{repository}")
    } else {
        repository.to_owned()
    };
    if repository.len() > REPOSITORY_MAX {
        return Err(ReferenceError::TooLong(text.to_owned()));
    }
    Ok((registry, repository))
}

pub(super) fn looks_like_host(first: &str) -> bool {
    first == "localhost"
        || first.starts_with('[')
        || first
            .bytes()
            .any(|byte| matches!(byte, b'.' | b':') || byte.is_ascii_uppercase())
}

/// `name`, `name:port`, `[v6]` or `[v6]:port`.
fn is_host(text: &str) -> bool {
    let is_port = |port: &str| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|number| number != 0)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return false;
        };
        let port_is_good = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return address.parse::<std::net::Ipv6Addr>().is_ok() && port_is_good;
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.len() <= 253 && host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// `[a-z0-9]+((?:[._]|__|[-]+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = text;
    loop {
        let word = rest.bytes().take_while(|byte| alphanumeric(*byte)).count();
        rest = &rest[word..];
        if word == 0 {
            return false;
        }
        if rest.is_empty() {
            return true;
        }
        let joint = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'.' | b'_' | b'-'))
            .count();
        let (separator, after) = rest.split_at(joint);
        let is_joint = matches!(separator, "." | "_" | "__")
            || (joint > 0 && separator.bytes().all(|byte| byte == b'-'));
        if !is_joint {
            return false;
        }
        rest = after;
    }
}

/// Whether a text is a tag: `[\w][\w.-]{0,127}`.
pub(crate) fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

//! Descriptors that a caller hands to the container's process: a service manager by
//! `LISTEN_FDS`, and after those whoever says `--preserve-fds`.
//!
//! Spec: sd_listen_fds(3)

use anyhow::bail;

/// How many sockets a service manager hands to this very process.
pub(super) fn listened() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// What the container's process is told of `count` such sockets: its own id is that of the
/// first process of its PID namespace.
pub(super) fn variables(count: u32) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    let mut all = vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
    all.extend(std::env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    all
}

/// Checks that descriptors are open from 3 on, `listened` and then `preserved` ones, before this
/// program opens any of its own: one of those would go to the container in their place.
///
/// # Errors
/// The descriptor that is not open.
pub(super) fn check(listened: u32, preserved: u32) -> anyhow::Result<()> {
    let what = || match listened {
        0 => format!("--preserve-fds {preserved}"),
        _ => format!("LISTEN_FDS={listened} and --preserve-fds {preserved}"),
    };
    let count = listened.checked_add(preserved);
    let end = count
        .and_then(|count| i32::try_from(count).ok())
        .and_then(|count| count.checked_add(3));
    let Some(end) = end else {
        bail!("{}: too many", what());
    };
    match (3..end).find(|fd| !crate::sys::process::is_open(*fd)) {
        Some(fd) => bail!("{}: descriptor {fd} is not open", what()),
        None => Ok(()),
    }
}

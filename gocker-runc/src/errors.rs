//! An error with its causes, as one line and, where the usual cause is known, a hint.

use std::error::Error;

use nix::errno::Errno;

use crate::sys::errno::describe;

/// The error and its causes, outermost first, joined by `: `.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    chain(error.as_ref())
}

/// The same for any error.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = step(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&step(error));
        cause = error.source();
    }
    // One line, whatever a file's name holds.
    text.replace('\n', "\\n")
}

fn step(error: &(dyn Error + 'static)) -> String {
    if let Some(errno) = error.downcast_ref::<Errno>() {
        return describe(*errno);
    }
    match error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::raw_os_error)
    {
        Some(errno) => describe(Errno::from_raw(errno)),
        None => error.to_string(),
    }
}

/// What usually lies behind an error that reads like `text`.
pub(crate) fn hint(text: &str) -> Option<&'static str> {
    let known: &[(&[&str], &str)] = &[
        (
            &["clone3", "(EPERM)"],
            "run as root, or give the container a user namespace that this user may make",
        ),
        (
            &["clone3", "(ENOSPC)"],
            "no more namespaces may be made here: see the limits in /proc/sys/user",
        ),
        (
            &["make \"/run/gocker-runc", "(EACCES)"],
            "an ordinary user sets XDG_RUNTIME_DIR, or names another directory with --root",
        ),
        (
            &["mount \"sysfs\"", "(EPERM)"],
            "in a user namespace sysfs needs a new network namespace beside it; \
             without one, bind /sys (type \"none\", options rbind, ro)",
        ),
        (
            &["mount \"proc\"", "(EPERM)"],
            "in a user namespace proc needs a new PID namespace beside it, \
             and a /proc of the caller's of which nothing is hidden",
        ),
        (
            &["mount \"mqueue\"", "(EPERM)"],
            "in a user namespace mqueue needs a new IPC namespace beside it",
        ),
        (
            &["prlimit", "(EPERM)"],
            "raising a hard limit needs CAP_SYS_RESOURCE, which this user does not have",
        ),
        (
            &["oomScoreAdj", "(EACCES)"],
            "a value below the caller's own needs CAP_SYS_RESOURCE, which this user does not have",
        ),
        (
            &["connect to the", "socket", "(ETIMEDOUT)"],
            "whoever listens there does not accept connections: its queue is full",
        ),
        (
            &["connect to the", "socket", "(ECONNREFUSED)"],
            "nobody listens there: it is no stream socket, or its maker has ended",
        ),
        (
            &["process.capabilities", "(EPERM)"],
            "a container gets no capability that the runtime does not have itself",
        ),
        (
            &["pivot_root", "(EINVAL)"],
            "an initramfs cannot be pivoted: use --no-pivot",
        ),
        (
            &["open_tree", "(ENOSYS)"],
            "shared volumes need open_tree(2), which this kernel or a seccomp filter lacks",
        ),
    ];
    known
        .iter()
        .find(|(words, _)| words.iter().all(|word| text.contains(word)))
        .map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_joined_and_errnos_explained() {
        let error = Err::<(), _>(Errno::EPERM)
            .context("clone3")
            .context("create \"web\"");
        let text = one_line(&error.expect_err("is an error"));
        assert_eq!(
            text,
            "create \"web\": clone3: operation not permitted (EPERM)"
        );
        assert!(hint(&text).is_some());
    }
}

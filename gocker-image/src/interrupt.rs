//! SIGINT and SIGTERM while something is in the making: what is complete is kept, what is not
//! goes, and then the signal ends the process as it would have.

use std::io::{PipeReader, pipe};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::errno::CallError;

/// Whether the process is about to end by a signal.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Runs `work`. If a signal comes meanwhile, `tidy` is run beside it, and the process ends. The
/// threads that `work` starts leave the signals alone.
///
/// # Errors
/// When the signals cannot be held; then `work` was not run.
pub fn guarded<T>(tidy: &(dyn Fn() + Sync), work: impl FnOnce() -> T) -> Result<T, CallError> {
    let failed = |call| move |errno: Errno| CallError::new(call, "", errno);
    let mut held = SigSet::empty();
    held.add(Signal::SIGINT);
    held.add(Signal::SIGTERM);
    let (reader, writer) = pipe().map_err(|error| CallError::new("pipe2", "", error))?;
    let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC).map_err(failed("signalfd"))?;
    let before = SigSet::thread_get_mask().map_err(failed("sigprocmask"))?;
    held.thread_block().map_err(failed("sigprocmask"))?;
    let result = thread::scope(|scope| {
        scope.spawn(|| watch(&signals, &reader, tidy));
        let result = work();
        // the watcher sees the end of its pipe
        drop(writer);
        result
    });
    wait_if_ending();
    before.thread_set_mask().map_err(failed("sigprocmask"))?;
    Ok(result)
}

/// Does not return if a signal is ending the process: nothing more is to be said then.
pub fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(50));
    }
}

fn watch(signals: &SignalFd, end: &PipeReader, tidy: &(dyn Fn() + Sync)) {
    loop {
        let mut both = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        let polled = poll(&mut both, PollTimeout::NONE);
        let [signalled, ended] = both.map(|fd| fd.any().unwrap_or_default());
        if polled.is_ok() && signalled {
            break;
        }
        if ended || matches!(polled, Err(errno) if errno != Errno::EINTR) {
            return;
        }
    }
    let Ok(Some(info)) = signals.read_signal() else {
        return;
    };
    let number = i32::try_from(info.ssi_signo).unwrap_or_default();
    let Ok(signal) = Signal::try_from(number) else {
        return;
    };
    ENDING.store(true, Ordering::SeqCst);
    tidy();
    let mut only = SigSet::empty();
    only.add(signal);
    if only.thread_unblock().is_ok() && raise(signal).is_ok() {
        // the default action has ended the process
    }
    std::process::exit(128 + number);
}

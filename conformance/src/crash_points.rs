//! `kill -9` at chosen instants: strace(1) delivers the signal before the n-th system call of a
//! name, so that no instant depends on the machine's speed.

use std::collections::HashMap;
use std::path::Path;

/// Debian's strace.
pub const STRACE: &str = "/usr/bin/strace";

/// Whether strace(1) is installed.
#[must_use]
pub fn has_strace() -> bool {
    Path::new(STRACE).exists()
}

/// How many instants of a command are tried: about `GOCKER_CRASH_POINTS`, or as many as usual.
///
/// # Panics
/// When the variable is no number.
#[must_use]
pub fn points(usual: usize) -> usize {
    let asked = std::env::var("GOCKER_CRASH_POINTS").ok();
    asked.map_or(usual, |count| count.parse().expect("a number"))
}

/// A system call of a command's: its name, and how many of that name it is in its thread.
/// (strace(1) counts each name in each thread by itself.)
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The name.
    pub name: String,
    /// The first is 1.
    pub nth: usize,
}

impl Call {
    /// What has strace(1) kill its tracee before this call.
    #[must_use]
    pub fn kill_before(&self) -> String {
        format!("inject={}:signal=KILL:when={}", self.name, self.nth)
    }

    /// What has strace(1) hold its tracee before this call, for longer than a test waits.
    #[must_use]
    pub fn hold_before(&self) -> String {
        format!("inject={}:delay_enter=60s:when={}", self.name, self.nth)
    }

    /// What has strace(1) fail this call, which the kernel does not see then.
    #[must_use]
    pub fn fail_with(&self, errno: &str) -> String {
        format!("inject={}:error={errno}:when={}", self.name, self.nth)
    }
}

/// The calls in what `strace -o FILE` has written, with their lines; of `strace -f`, too.
#[must_use]
pub fn calls_in(trace: &str) -> Vec<(Call, &str)> {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let (thread, line) = line.split_at(digits);
        let line = line.trim_start();
        // Others are of signals, of the end, and the second halves of calls.
        let Some((name, _)) = line
            .split_once('(')
            .filter(|_| line.starts_with(|first: char| first.is_ascii_lowercase()))
        else {
            continue;
        };
        let nth = counts.entry((thread, name)).or_default();
        *nth += 1;
        let (name, nth) = (name.to_owned(), *nth);
        calls.push((Call { name, nth }, line));
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name_and_thread() {
        let trace = "7  open(1) = 3\n\
                     8  open(2 <unfinished ...>\n\
                     7  read(3) = 1\n\
                     8  <... open resumed>) = 4\n\
                     7  open(\"(\") = 5\n\
                     7  --- SIGCHLD {} ---\n\
                     7  +++ exited with 0 +++\n";
        let calls = calls_in(trace);
        let found: Vec<_> = (calls.iter())
            .map(|(call, line)| (call.name.as_str(), call.nth, *line))
            .collect();
        let expected = [
            ("open", 1, "open(1) = 3"),
            ("open", 1, "open(2 <unfinished ...>"),
            ("read", 1, "read(3) = 1"),
            ("open", 2, "open(\"(\") = 5"),
        ];
        assert_eq!(found, expected);
        assert_eq!(
            calls_in("close(3) = 0\n")[0].0.kill_before(),
            "inject=close:signal=KILL:when=1"
        );
    }
}

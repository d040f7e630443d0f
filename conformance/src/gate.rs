//! A gate between a test and the threads of its servers: what comes to it waits until the test
//! has done what it wants to do meanwhile.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long anyone waits at most; longer than any step of a test takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gate that is closed at first. Its clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    arrived: usize,
}

impl Gate {
    /// Waits here until the gate is open.
    pub fn pass(&self) {
        self.lock().arrived += 1;
        self.0.1.notify_all();
        self.wait_while(|state| !state.is_open);
    }

    /// Waits until somebody has come to the gate; false if nobody does.
    #[must_use]
    pub fn has_visitor(&self) -> bool {
        self.wait_while(|state| state.arrived == 0)
    }

    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        self.lock().is_open = true;
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if it took too long.
    fn wait_while(&self, is_so: impl Fn(&State) -> bool) -> bool {
        let waited = (self.0.1).wait_timeout_while(self.lock(), PATIENCE, |state| is_so(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

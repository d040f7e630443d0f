//! What a runtime owes to a bundle that it cannot serve.

use crate::binaries::{Kind, runtime};
use crate::test_bundle::TestBundle;

impl TestBundle {
    /// `run` fails without having run anything and leaves nothing behind; gocker-runc says why in
    /// one line that has all of these words, a peer in its own words.
    ///
    /// # Panics
    /// When it does otherwise.
    #[track_caller]
    pub fn assert_refused(&self, words: &[&str]) {
        let output = self.run();
        assert!(output.stdout.is_empty(), "should not run: {output}");
        if runtime().kind == Kind::Gocker {
            let line = output.one_line_failure();
            for word in words {
                assert!(line.contains(word), "should say {word:?}: {output}");
            }
        } else {
            output.failure();
        }
        self.assert_nothing_left();
    }
}

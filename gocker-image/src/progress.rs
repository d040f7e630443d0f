//! How a pull looks while it goes on, on standard error: one bar per layer on a
//! terminal, else one line per finished layer.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::digest::Digest;
use crate::operations::{LayerEvent, Progress};
use crate::report;

const TEMPLATE: &str = "{prefix}  {bar:30} {bytes:>10} of {total_bytes:<10} {binary_bytes_per_sec}";

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Bars,
    Lines,
    Nothing,
}

/// The progress of the layers of one image.
pub(crate) struct LayerProgress {
    program: &'static str,
    look: Look,
    bars: MultiProgress,
    layers: Mutex<HashMap<Digest, Layer>>,
}

struct Layer {
    bytes: u64,
    bar: ProgressBar,
}

impl LayerProgress {
    /// Progress for `program`, in the way that standard error can show it.
    pub(crate) fn new(program: &'static str, quiet: bool) -> Self {
        let look = match (quiet, io::stderr().is_terminal()) {
            (true, _) => Look::Nothing,
            (false, true) => Look::Bars,
            (false, false) => Look::Lines,
        };
        // ten times a second is enough for an eye
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bars = MultiProgress::with_draw_target(target);
        Self {
            program,
            look,
            bars,
            layers: Mutex::default(),
        }
    }

    fn begin(&self, layer: &Digest, bytes: u64) {
        let bar = match self.look {
            Look::Bars => self.bars.add(bar(layer, bytes)),
            Look::Lines | Look::Nothing => ProgressBar::hidden(),
        };
        self.lock().insert(layer.clone(), Layer { bytes, bar });
    }

    fn advance(&self, layer: &Digest, bytes: u64) {
        if let Some(layer) = self.lock().get(layer) {
            layer.bar.inc(bytes);
        }
    }

    fn end(&self, digest: &Digest) {
        let Some(layer) = self.lock().remove(digest) else {
            return;
        };
        layer.bar.finish_and_clear();
        self.line(digest, &size_text(layer.bytes));
    }

    /// One line about a layer; it stays on the terminal.
    fn line(&self, layer: &Digest, text: &str) {
        let line = format!("{}  {text}", short(layer));
        match self.look {
            Look::Bars => self.bars.suspend(|| report::say(&format!("{line}\n"))),
            Look::Lines => report::say(&format!("{line}\n")),
            Look::Nothing => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Layer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for LayerProgress {
    fn layer(&self, layer: &Digest, event: LayerEvent) {
        match event {
            LayerEvent::Exists => self.line(layer, "is here already"),
            LayerEvent::Present => self.line(layer, "is there already"),
            LayerEvent::Mounted => self.line(layer, "was there, in another repository"),
            LayerEvent::Waiting => self.line(layer, "is being unpacked by another process"),
            LayerEvent::Begin { bytes } => self.begin(layer, bytes),
            LayerEvent::Advance { bytes } => self.advance(layer, bytes),
            LayerEvent::Done => self.end(layer),
        }
    }

    fn warn(&self, text: &str) {
        self.bars.suspend(|| report::warn(self.program, text));
    }

    fn note(&self, text: &str) {
        self.bars.suspend(|| report::note(self.program, text));
    }
}

impl Drop for LayerProgress {
    /// Takes unfinished bars away, so that an error stands on a line of its own.
    fn drop(&mut self) {
        for layer in self.lock().values() {
            layer.bar.finish_and_clear();
        }
    }
}

fn bar(digest: &Digest, size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size);
    bar.set_style(style());
    bar.set_prefix(short(digest).to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template(TEMPLATE);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// The first digits, as people tell digests apart.
pub(crate) fn short(digest: &Digest) -> &str {
    &digest.hex()[..12]
}

/// Bytes for people: `1.0 MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_040_818, "1016.4 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size_text(bytes), expected);
        }
    }

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}

//! `events ID`

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::operations::events::{events, stats};

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// How often to print the figures
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        allow_hyphen_values = true
    )]
    interval: String,
    /// Print the figures once
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    stats: bool,
}

/// Prints events, one JSON object a line.
///
/// # Errors
/// A bad duration, and the operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let interval = parse_duration(&args.interval).with_context(|| {
        format!(
            "--interval {:?} is no duration, as 5s, 1m30s and 500ms are",
            args.interval
        )
    })?;
    ensure!(
        !interval.is_zero(),
        "duration interval must be greater than 0"
    );
    if args.stats {
        super::print(line(&stats(root, &args.id)?).as_bytes())?;
    } else {
        events(root, &args.id, interval, &mut |event| {
            let mut stdout = io::stdout().lock();
            let text = line(event);
            match stdout
                .write_all(text.as_bytes())
                .and_then(|()| stdout.flush())
            {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
                written => written.map(|()| true).context("write to stdout"),
            }
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(event: &Value) -> String {
    format!("{event}\n")
}

/// A duration as Go writes it: numbers with units.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, unit) = rest.split_at(end);
        let length = unit
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(unit.len());
        let (unit, after) = unit.split_at(length);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * seconds;
        sum = sum.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("5s", 5000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("2h", 7_200_000),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for bad in ["", "5", "-5s", "s", "5x", "5s3", "1..5s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}

//! `kill ID [SIGNAL]`

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::bail;
use nix::sys::signal::Signal;

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Obsolete: one that does not run is no error
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    all: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The signal's number or name
    #[arg(
        value_name = "SIGNAL",
        default_value = "SIGTERM",
        allow_hyphen_values = true
    )]
    signal: String,
}

/// Sends the signal.
///
/// # Errors
/// An unknown signal, and the operation's.
pub(crate) fn run(root: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let signal = parse_signal(&args.signal)?;
    crate::operations::kill::kill(root, &args.id, signal, args.all)?;
    Ok(ExitCode::SUCCESS)
}

/// The largest number that Linux has, SIGRTMAX.
const MAX_SIGNAL: i32 = 64;

/// `9`, `KILL` and `SIGKILL` are the same; so are `RTMIN+1` and 35.
fn parse_signal(text: &str) -> anyhow::Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=MAX_SIGNAL).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {text:?}: numbers go from 0 to {MAX_SIGNAL}");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(signal) = Signal::from_str(&format!("SIG{name}")) {
        return Ok(signal as i32);
    }
    let from = |base: i32, offset: &str| offset.parse::<i32>().ok().map(|offset| base + offset);
    let real_time = match name.strip_prefix("RT") {
        Some("MIN") => Some(libc::SIGRTMIN()),
        Some("MAX") => Some(libc::SIGRTMAX()),
        Some(rest) => match (rest.strip_prefix("MIN+"), rest.strip_prefix("MAX-")) {
            (Some(offset), _) => from(libc::SIGRTMIN(), offset),
            (_, Some(offset)) => offset
                .parse::<i32>()
                .ok()
                .map(|offset| libc::SIGRTMAX() - offset),
            _ => None,
        },
        None => None,
    };
    match real_time.filter(|number| (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(number)) {
        Some(number) => Ok(number),
        None => bail!("unknown signal {text:?}: give a number, or a name such as TERM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        let cases = [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("0", 0),
            ("RTMIN+1", 35),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_signal(text).expect(text), expected, "{text}");
        }
        for bad in ["", "NOPE", "65", "-1", "RTMIN+99", "9x"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}

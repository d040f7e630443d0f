//! Signals by the names and numbers that images and engines give them.

use nix::sys::signal::Signal;

/// The real-time signals that the kernel has beside the others.
const REAL_TIME: std::ops::RangeInclusive<u8> = 34..=64;

/// Takes the name or the number of a signal, to be written as it is: `TERM`, `SIGTERM`, `15`,
/// `SIGRTMIN+3`.
///
/// # Errors
/// If there is no such signal.
pub fn parse_signal(text: &str) -> Result<String, String> {
    if is_signal(text) {
        return Ok(text.to_owned());
    }
    Err(format!("there is no signal {text:?}"))
}

fn is_signal(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .is_ok_and(|number: u8| (1..=*REAL_TIME.end()).contains(&number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let distance = |rest: &str, sign| match rest.strip_prefix(sign) {
        Some(digits) => digits
            .parse()
            .is_ok_and(|number: usize| number < REAL_TIME.count()),
        None => rest.is_empty(),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return distance(rest, '+');
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return distance(rest, '-');
    }
    format!("SIG{name}").parse::<Signal>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for good in [
            "TERM",
            "SIGTERM",
            "sigquit",
            "int",
            "9",
            "1",
            "37",
            "64",
            "RTMIN",
            "SIGRTMIN+3",
            "RTMAX-1",
            "SIGRTMAX",
        ] {
            assert!(is_signal(good), "{good}");
        }
        for bad in [
            "",
            "0",
            "65",
            "-1",
            "+1",
            "FOO",
            "SIG",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "TERM ",
            "999",
        ] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}

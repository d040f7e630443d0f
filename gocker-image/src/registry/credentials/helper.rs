//! Programs that keep secrets: `docker-credential-NAME get|store|erase`, with a registry's name
//! or JSON on standard input, and JSON on standard output.
//!
//! Spec: docker-credential-helpers' README

use std::io::{self, Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use serde::{Deserialize, Serialize};

use super::{Credential, CredentialsError};
use crate::registry::answer::printable;

const ANSWER_LIMIT: u64 = 1 << 20;
/// How long a helper may take: somebody may have to unlock its key ring.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether the helper has ended.
const POLL: Duration = Duration::from_millis(5);
/// The user's name beside an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// Asks for the credential of `server`.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credential>, CredentialsError> {
    let helper = Helper { name };
    let (status, output) = helper.run("get", server.as_bytes(), TIME_LIMIT)?;
    if !status.success() {
        return helper.refused(status, &output).map(|()| None);
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| helper.wrong("its answer is not JSON with Username and Secret"))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credential::IdentityToken(answer.secret),
        _ => Credential::Password {
            user: answer.username,
            password: answer.secret,
        },
    }))
}

/// Has it keep a credential for `server`.
pub(super) fn store(
    name: &str,
    server: &str,
    credential: &Credential,
) -> Result<(), CredentialsError> {
    let helper = Helper { name };
    let (user, secret) = match credential {
        Credential::Password { user, password } => (user.as_str(), password),
        Credential::IdentityToken(token) => (TOKEN_USER, token),
    };
    let question = serde_json::to_vec(&Answer {
        server_url: server.to_owned(),
        username: user.to_owned(),
        secret: secret.clone(),
    });
    let question = question.map_err(|error| helper.wrong(&error.to_string()))?;
    let (status, output) = helper.run("store", &question, TIME_LIMIT)?;
    if status.success() {
        return Ok(());
    }
    Err(helper.wrong(&said(status, &output)))
}

/// Has it forget `server`; false if it knew nothing of it.
pub(super) fn erase(name: &str, server: &str) -> Result<bool, CredentialsError> {
    let helper = Helper { name };
    let (status, output) = helper.run("erase", server.as_bytes(), TIME_LIMIT)?;
    if status.success() {
        return Ok(true);
    }
    helper.refused(status, &output).map(|()| false)
}

struct Helper<'a> {
    name: &'a str,
}

impl Helper<'_> {
    fn wrong(&self, reason: &str) -> CredentialsError {
        CredentialsError::Helper {
            name: self.name.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// An error, unless the helper only has nothing.
    fn refused(&self, status: ExitStatus, output: &[u8]) -> Result<(), CredentialsError> {
        let said = said(status, output);
        if said.contains("credentials not found") {
            Ok(())
        } else {
            Err(self.wrong(&said))
        }
    }

    fn run(
        &self,
        action: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<(ExitStatus, Vec<u8>), CredentialsError> {
        if self.name.contains('/') {
            return Err(self.wrong("a helper's name has no slash"));
        }
        let failed = |error: io::Error| self.wrong(&error.to_string());
        let mut command = Command::new(format!("docker-credential-{}", self.name));
        command
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        // Ctrl-C is for the helper, too, even while this program holds its own signals back
        let held = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
        let spawned = command.spawn();
        let restored = held.and_then(|held| held.thread_set_mask());
        let mut helper = spawned.map_err(failed)?;
        restored.map_err(|errno| failed(errno.into()))?;
        let (sender, receiver) = channel();
        let (stdin, stdout, input) = (helper.stdin.take(), helper.stdout.take(), input.to_vec());
        // threads of their own, for a helper that neither reads nor writes must not hold us up
        thread::spawn(move || {
            let written = stdin.map_or(Ok(()), |mut stdin| stdin.write_all(&input));
            let mut output = Vec::new();
            let read = stdout.map(|stdout| stdout.take(ANSWER_LIMIT).read_to_end(&mut output));
            // who waits for it may have given up
            drop(sender.send((written.and(read.transpose().map(|_| ())), output)));
        });
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = helper.try_wait().map_err(failed)? {
                break status;
            }
            if Instant::now() >= end {
                helper.kill().map_err(failed)?;
                helper.wait().map_err(failed)?;
                let seconds = limit.as_secs();
                return Err(self.wrong(&format!("does not answer within {seconds} seconds")));
            }
            thread::sleep(POLL);
        };
        let left = end.saturating_duration_since(Instant::now()) + POLL;
        let received = receiver.recv_timeout(left);
        let (talk, output) = received.map_err(|_| self.wrong("leaves its output open"))?;
        if status.success() {
            talk.map_err(failed)?;
        }
        Ok((status, output))
    }
}

fn said(status: ExitStatus, output: &[u8]) -> String {
    let said = printable(&String::from_utf8_lossy(output));
    if said.is_empty() {
        status.to_string()
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_cannot_be_run_is_named() {
        for name in ["gocker-test-missing", "../x"] {
            let error = get(name, "a.io").unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

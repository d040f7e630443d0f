//! `login` and `logout`: keep and forget the credentials of a registry.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::{Context as _, bail};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::Context;
use crate::cli::{LoginArgs, LogoutArgs};
use crate::interrupt;
use crate::reference::Reference;
use crate::registry::Credential;
use crate::report;

/// The most bytes of a password.
const MOST_PASSWORD: u64 = 64 << 10;

/// Asks the registry whether it knows the user, and keeps the credential if it does.
pub(crate) fn login(context: &Context, args: &LoginArgs) -> anyhow::Result<()> {
    let (registry, key) = target(&args.registry)?;
    let credential = asked(args)?;
    let name = &args.registry;
    let client = context.client(Some((registry.clone(), credential.clone())))?;
    client
        .login(&registry)
        .with_context(|| format!("login at {name:?}"))?;
    let files = context.auth_files();
    let path = files
        .keep(&key, &credential)
        .with_context(|| format!("keep the credential for {name:?}"))?;
    Ok(report::print(&format!(
        "logged in at {key}, kept in {path:?}\n"
    ))?)
}

/// Forgets what is kept for a registry, or for all.
pub(crate) fn logout(context: &Context, args: &LogoutArgs) -> anyhow::Result<()> {
    let key = match &args.registry {
        Some(registry) => Some(target(registry)?.1),
        None => None,
    };
    let forgotten = context.auth_files().forget(key.as_deref());
    let what = key.as_deref().unwrap_or("all registries");
    match forgotten.with_context(|| format!("logout from {what:?}"))? {
        Some(path) => Ok(report::print(&format!("removed {what} from {path:?}\n"))?),
        None => bail!("logout from {what:?}: no credentials are kept for it"),
    }
}

/// A credential of the command line for `registry`: `USER:PASSWORD`.
pub(super) fn given(
    registry: &str,
    text: Option<&str>,
) -> anyhow::Result<Option<(String, Credential)>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => {
            let otherwise = format!("say --creds {text}:PASSWORD, or log in before");
            (text.to_owned(), password_of_terminal(&otherwise)?)
        }
    };
    if user.is_empty() {
        bail!("--creds: the user's name is missing");
    }
    Ok(Some((
        registry.to_owned(),
        Credential::Password { user, password },
    )))
}

/// The registry of what a user wants to log in at, and the key that it is kept under.
fn target(text: &str) -> anyhow::Result<(String, String)> {
    let text = text.trim_end_matches('/');
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    // a registry alone is no reference, but with any repository it is one
    let with_path = if path.is_empty() {
        format!("{host}/any")
    } else {
        text.to_owned()
    };
    match Reference::repository_of(&with_path) {
        Ok(reference) if reference.short_name().is_none() => {
            let registry = reference.registry().to_owned();
            let key = if path.is_empty() {
                registry.clone()
            } else {
                reference.name()
            };
            Ok((registry, key))
        }
        _ => bail!("{text:?} is not a registry: write its host, with its port if it has one"),
    }
}

fn asked(args: &LoginArgs) -> anyhow::Result<Credential> {
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin => bail!("--password-stdin: say --username, too"),
        None => {
            report::say("user name: ");
            one_line()?
        }
    };
    if user.is_empty() || user.contains(':') {
        bail!("{user:?} is not a user's name at a registry");
    }
    let password = if args.password_stdin {
        let mut text = String::new();
        let read = io::stdin()
            .lock()
            .take(MOST_PASSWORD)
            .read_to_string(&mut text);
        read.context("read the password from standard input")?;
        text.trim_end_matches(['\n', '\r']).to_owned()
    } else {
        password_of_terminal("say --password-stdin")?
    };
    if password.is_empty() {
        bail!("the password is empty");
    }
    Ok(Credential::Password { user, password })
}

/// Asks for a password, without showing it. Without a terminal, says what to do `otherwise`.
fn password_of_terminal(otherwise: &str) -> anyhow::Result<String> {
    let terminal = io::stdin();
    if !terminal.is_terminal() {
        bail!("there is no terminal to ask for a password at: {otherwise}");
    }
    report::say("password: ");
    let shown = tcgetattr(&terminal).context("tcgetattr")?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    // the plain structure, which threads may share
    let shown = libc::termios::from(shown);
    let show = || tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &Termios::from(shown));
    // whoever gives up is to see what they type next; the process ends, so nobody is told
    let tidy = || show().unwrap_or_default();
    // the echo goes only when a signal would bring it back
    let read = interrupt::guarded(&tidy, || {
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden).context("tcsetattr")?;
        one_line()
    });
    show().context("tcsetattr")?;
    report::say("\n");
    read?
}

fn one_line() -> anyhow::Result<String> {
    let mut line = String::new();
    let read = io::stdin().lock().take(MOST_PASSWORD).read_line(&mut line);
    read.context("read from standard input")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

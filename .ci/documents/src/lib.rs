//! Shell completions and man pages, made of the same definitions that the programs parse their
//! command lines with. The programs themselves carry none of it.
//!
//! ```text
//! DIR/                               laid out like /usr/share
//!   bash-completion/completions/     gocker-runc gocker-image gocker
//!   zsh/site-functions/              _gocker-runc ...
//!   fish/vendor_completions.d/       gocker-runc.fish ...
//!   man/man1/ man/man8/              gocker.1 gocker-run.1 ... gocker-runc.8 gocker-runc-exec.8 ...
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

/// A program and the section of the manual that it belongs to.
struct Program {
    command: Command,
    section: &'static str,
}

/// Writes all documents beneath `dir`, which is made if it is not there.
///
/// # Errors
/// The file that cannot be written.
pub fn write(dir: &Path) -> Result<()> {
    for program in programs() {
        for (shell, place) in [
            (Shell::Bash, "bash-completion/completions"),
            (Shell::Zsh, "zsh/site-functions"),
            (Shell::Fish, "fish/vendor_completions.d"),
        ] {
            write_completion(&program.command, shell, &dir.join(place))?;
        }
        let command = quiet_switches(program.command.disable_help_subcommand(true));
        let mut command = with_exit_statuses(command, None);
        // Gives the subcommands their full names.
        command.build();
        let pages = dir.join(format!("man/man{}", program.section));
        fs::create_dir_all(&pages).with_context(|| format!("make {pages:?}"))?;
        write_pages(&command, program.section, &pages)?;
    }
    Ok(())
}

fn programs() -> [Program; 3] {
    let program = |command: Command, section| Program {
        // What --version adds to the number is nothing for a heading.
        command: command.version(env!("CARGO_PKG_VERSION")),
        section,
    };
    [
        program(gocker_runc::command(), "8"),
        program(gocker_image::cli::Cli::command(), "8"),
        program(gocker_image::front::Cli::command(), "1"),
    ]
}

fn write_completion(command: &Command, shell: Shell, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("make {dir:?}"))?;
    let name = command.get_name().to_owned();
    let file = match shell {
        // bash-completion looks for a file of the program's very name.
        Shell::Bash => name.clone(),
        Shell::Zsh => format!("_{name}"),
        _ => format!("{name}.{shell}"),
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), name.clone(), &mut text);
    let mut text = String::from_utf8(text).context("completions are UTF-8")?;
    if shell == Shell::Bash {
        // clap_complete 4.6 takes a dash in the program's name for a step to a subcommand in
        // one half of the script and not in the other, and then completes no subcommand's flags.
        text = text.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"));
    }
    write_file(&dir.join(file), text.as_bytes())
}

/// Takes "default: false" and "true, false" away from switches, which say as much by being one.
fn quiet_switches(command: Command) -> Command {
    let is_switch = |arg: &Arg| arg.get_default_values() == ["false"];
    command
        .mut_args(|arg| {
            let switch = is_switch(&arg);
            arg.hide_default_value(switch).hide_possible_values(switch)
        })
        .mut_subcommands(quiet_switches)
}

/// Has each page tell what the exit status says: as the program does, where a command's are no
/// others.
fn with_exit_statuses(command: Command, above: Option<&StyledStr>) -> Command {
    let command = match (command.get_after_help(), above) {
        (None, Some(above)) => command.after_help(above.clone()),
        _ => command,
    };
    let own = command.get_after_help().cloned();
    command.mut_subcommands(|command| with_exit_statuses(command, own.as_ref()))
}

fn write_pages(command: &Command, section: &str, dir: &Path) -> Result<()> {
    let man = Man::new(command.clone()).section(section);
    let mut text = Vec::new();
    man.render(&mut text).context("render a man page")?;
    let text = String::from_utf8(text).context("man pages are UTF-8")?;
    // the heading that clap_mangen gives to what stands behind a command's help
    let text = text.replace(".SH EXTRA\nExit status:\n", ".SH \"EXIT STATUS\"\n");
    write_file(&dir.join(man.get_filename()), text.as_bytes())?;
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| write_pages(command, section, dir))
}

fn write_file(path: &Path, text: &[u8]) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {path:?}"))
}

//! What users do with the documents: complete a command line, read a page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use tempfile::TempDir;

fn written() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    documents::write(dir.path()).expect("written");
    dir
}

/// What bash offers for the last of `words`.
fn bash_offers(dir: &Path, words: &[&str]) -> Vec<String> {
    let script = r#"
        source "$1" || exit 1
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        function="$(complete -p "$1")" && function="${function#*-F }" && function="${function%% *}"
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .arg(dir.join("bash-completion/completions").join(words[0]))
        .args(words)
        .output()
        .expect("bash runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "{words:?}: {stderr}");
    let offers = String::from_utf8(output.stdout).expect("UTF-8");
    offers.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_subcommands_and_flags_of_each_program() {
    let dir = written();
    let cases: &[(&[&str], &[&str])] = &[
        (&["gocker-runc", "cr"], &["create"]),
        (&["gocker-runc", "--log-f"], &["--log-format"]),
        (&["gocker-runc", "exec", "--no-n"], &["--no-new-privs"]),
        (&["gocker-runc", "--log-format", "j"], &["json"]),
        (&["gocker-image", "unb"], &["unbundle"]),
        (&["gocker-image", "pull", "--plat"], &["--platform"]),
        (&["gocker", "pr"], &["prune"]),
        (&["gocker", "image", "ls", "--qu"], &["--quiet"]),
    ];
    for (words, expected) in cases {
        assert_eq!(bash_offers(dir.path(), words), *expected, "{words:?}");
    }
}

#[test]
fn each_program_has_a_completion_for_each_shell() {
    let dir = written();
    for program in ["gocker-runc", "gocker-image", "gocker"] {
        for file in [
            format!("zsh/site-functions/_{program}"),
            format!("fish/vendor_completions.d/{program}.fish"),
        ] {
            let text = fs::read_to_string(dir.path().join(&file)).expect("read");
            assert!(
                text.contains("--root") || text.contains("-l root"),
                "{file}"
            );
        }
    }
}

/// The page's text as a reader sees it, without a line's breaks in words.
fn rendered(page: &Path) -> String {
    let lint = Command::new("mandoc")
        .args(["-T", "lint", "-W", "error"])
        .arg(page)
        .output()
        .expect("mandoc runs");
    let complaints = String::from_utf8_lossy(&lint.stdout);
    assert!(lint.status.success(), "{page:?}: {complaints}");
    let output = Command::new("mandoc")
        .args(["-T", "utf8", "-O", "width=400"])
        .arg(page)
        .output()
        .expect("mandoc runs");
    // Bold and underlined letters are struck over.
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let letters: Vec<char> = text.chars().collect();
    let kept = letters
        .iter()
        .enumerate()
        .filter(|(index, letter)| **letter != '\u{8}' && letters.get(index + 1) != Some(&'\u{8}'));
    kept.map(|(_, letter)| *letter).collect()
}

fn check_pages(command: &clap::Command, dir: &Path, section: &str) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let text = rendered(&dir.join(format!("{name}.{section}")));
    assert!(text.contains(name), "{name}: {text}");
    for argument in command.get_arguments().filter(|one| !one.is_hide_set()) {
        let flag = argument.get_long().map(|long| format!("--{long}"));
        let short = argument.get_short().map(|short| format!("-{short}"));
        for flag in flag.iter().chain(&short) {
            assert!(text.contains(flag), "{name}: {flag} is missing: {text}");
        }
    }
    for command in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        check_pages(command, dir, section);
    }
}

fn check_exit_statuses(command: &clap::Command, dir: &Path, section: &str) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let text = rendered(&dir.join(format!("{name}.{section}")));
    let (_, statuses) = text.split_once("EXIT STATUS").expect(name);
    for number in 0..=2 {
        let begin = format!("{number}  ");
        let mut lines = statuses.lines().map(str::trim_start);
        let is_told = lines.any(|line| line.starts_with(&begin));
        assert!(is_told, "{name}: {number} is missing: {text}");
    }
    for command in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        check_exit_statuses(command, dir, section);
    }
}

#[test]
fn each_man_page_of_the_image_tools_tells_the_exit_statuses() {
    let dir = written();
    for (mut command, section) in [
        (gocker_image::cli::Cli::command(), "8"),
        (gocker_image::front::Cli::command(), "1"),
    ] {
        command.build();
        let pages = dir.path().join(format!("man/man{section}"));
        check_exit_statuses(&command, &pages, section);
    }
}

#[test]
fn each_man_page_renders_and_names_every_flag() {
    let dir = written();
    let pages = |section: &str| -> PathBuf { dir.path().join(format!("man/man{section}")) };
    for (command, section) in [
        (gocker_runc::command(), "8"),
        (gocker_image::cli::Cli::command(), "8"),
        (gocker_image::front::Cli::command(), "1"),
    ] {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        check_pages(&command, &pages(section), section);
    }
}

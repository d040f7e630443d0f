//! Layers that try to leave the root, lie, or take too much.

use super::*;

fn refused(entries: &[Made], text: &str) {
    let root = Root::new();
    let error = root.apply(&archive(entries)).unwrap_err();
    assert!(in_full(&error).contains(text), "{}", in_full(&error));
    assert!(root.is_alone(), "something was made outside of the root");
}

#[test]
fn names_that_climb_are_errors() {
    refused(
        &[file("../x", "")],
        "entry \"../x\": its name climbs out of the root",
    );
    refused(&[file("a/../../x", "")], "climbs out of the root");
    refused(&[dir("..")], "climbs out of the root");
    refused(&[file("/x", "")], "entry \"/x\": its name is absolute");
    refused(
        &[file("ok", ""), hard_link("l", "../x")],
        r#"its link target "../x" climbs out of the root"#,
    );
    refused(&[file("ok", ""), hard_link("l", "/ok")], "\" is absolute");
    refused(
        &[hard_link("l", "none")],
        "hard link to \"none\", which does not exist",
    );
    refused(&[hard_link("l", ".")], "does not exist");
    refused(&[file(".", "")], "the root can only be a directory");
    refused(&[symlink("./", "/etc")], "the root can only be a directory");
    let long = file("x", "").pax("path", b"../../x");
    refused(&[long], "climbs out of the root");
}

#[test]
fn symlinks_are_followed_inside_of_the_root_only() {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let target = outside.path().to_str().unwrap();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    let root = Root::with(&[&[
        symlink("out", target),
        file("out/victim", "evil"),
        symlink("up", "../../../../../.."),
        file("up/climbed", "evil"),
        symlink("self", "/proc/self/root"),
        file("self/x", "evil"),
    ]]);
    assert_eq!(
        fs::read_to_string(outside.path().join("victim")).unwrap(),
        "safe"
    );
    assert!(root.is_alone());
    let inside = format!("{}/victim", &target[1..]);
    assert_eq!(fs::read_to_string(root.path.join(inside)).unwrap(), "evil");
    assert_eq!(
        fs::read_to_string(root.path.join("climbed")).unwrap(),
        "evil"
    );
}

#[test]
fn an_entry_replaces_a_symlink_and_not_its_target() {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "safe").unwrap();
    let target = victim.to_str().unwrap();
    let root = Root::with(&[
        &[
            symlink("f", target),
            symlink("d", outside.path().to_str().unwrap()),
        ],
        &[file("f", "new").mode(0o600), dir("d").mode(0o700)],
    ]);
    assert_eq!(root.list(), ["d/", "f new"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o644);
    // A hard link to a symlink is the symlink, whatever that points at.
    let root = Root::with(&[&[symlink("s", target), hard_link("h", "s"), file("h", "x")]]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
    assert_eq!(root.list(), ["h x".to_owned(), format!("s -> {target}")]);
}

#[test]
fn what_is_no_archive_is_said_so() {
    let good = archive(&[file("a", "text"), file("b", "more")]);
    let mut damaged = good.clone();
    damaged[1024 + 3] = b'!';
    let garbage = [&good[..], b"garbage"].concat();
    let cases: [(&[u8], &str); 6] = [
        (b"this is no tar archive", "cut off at byte 22"),
        (
            &[b'x'; 2048],
            "not a tar archive: no valid header at byte 0",
        ),
        (&good[..700], "entry \"a\": the archive is cut off"),
        (
            &good[..1024 + 100],
            "after entry \"a\": the archive is cut off",
        ),
        (
            &damaged,
            "after entry \"a\": not a tar archive: no valid header at byte 1024",
        ),
        (&garbage, "garbage follows the end of the archive"),
    ];
    for (bytes, text) in cases {
        let error = Root::new().apply(bytes).unwrap_err();
        assert!(
            in_full(&error).contains(text),
            "{} is not {text}",
            in_full(&error)
        );
    }
    refused(&[made(b'V', "label")], "entry type 'V' is not supported");
    refused(&[file("a", "").pax("size", b"-1")], "invalid \"size\"");
    refused(
        &[made(b'x', "pax")],
        "extended header at the end describes no entry",
    );
}

#[test]
fn ids_out_of_range_are_errors() {
    let huge = Made {
        ids: (1 << 32, 0),
        ..file("a", "")
    };
    refused(&[huge], "uid that is not a number in range");
    refused(
        &[file("a", "").pax("gid", b"4294967296")],
        "invalid \"gid\"",
    );
}

#[test]
fn budgets_are_limits() {
    let small = Budgets {
        bytes: 10,
        file_bytes: 8,
        entries: 3,
        path_depth: 4,
        xattr_bytes: 16,
        ratio: 1,
    };
    let many: Vec<Made> = ["a", "b", "c", "d"].map(dir).to_vec();
    let cases = [
        (vec![file("a", "123456789")], "limit of 8 bytes in one file"),
        (
            vec![file("a", "123456"), file("b", "123456")],
            "limit of 10 bytes in one layer",
        ),
        (many, "limit of 3 entries"),
        (vec![dir("a/b/c/d/e")], "more than 4 components"),
        (
            vec![file("a", "").pax("SCHILY.xattr.user.long", b"12345678")],
            "extended attributes",
        ),
    ];
    for (entries, text) in cases {
        let error = Root::new()
            .apply_within(&archive(&entries), &small)
            .unwrap_err();
        assert!(in_full(&error).contains(text), "{}", in_full(&error));
    }
}

//! What a layer takes away, in every order of its entries.

use super::*;

/// Calls `check` with every order of `entries`.
fn permute(entries: &mut Vec<Made>, from: usize, check: &mut dyn FnMut(&[Made])) {
    if from + 1 >= entries.len() {
        return check(entries);
    }
    for index in from..entries.len() {
        entries.swap(from, index);
        permute(entries, from + 1, check);
        entries.swap(from, index);
    }
}

/// Applies `upper` in every order over `lower`.
fn check(lower: &[Made], upper: &[Made], expected: &[&str]) {
    permute(&mut upper.to_vec(), 0, &mut |upper| {
        let root = Root::with(&[lower, upper]);
        let order: Vec<_> = upper
            .iter()
            .map(|e| String::from_utf8_lossy(&e.name))
            .collect();
        assert_eq!(root.list(), expected, "order: {order:?}");
    });
}

fn wh(name: &str) -> Made {
    file(name, "")
}

#[test]
fn a_whiteout_takes_the_lower_file_and_not_the_new_one() {
    let lower = [
        file("x", "old"),
        file("y", "old"),
        dir("d"),
        file("d/a", "old"),
    ];
    check(&lower, &[wh(".wh.x")], &["d/", "d/a old", "y old"]);
    check(
        &lower,
        &[wh(".wh.x"), file("x", "new")],
        &["d/", "d/a old", "x new", "y old"],
    );
    check(&lower, &[wh(".wh.d")], &["x old", "y old"]);
    check(
        &lower,
        &[wh(".wh.d"), file("d", "file")],
        &["d file", "x old", "y old"],
    );
}

#[test]
fn a_whiteout_of_a_directory_leaves_what_is_new_in_it() {
    let lower = [
        dir("d").mode(0o700),
        file("d/a", "old"),
        dir("d/s"),
        file("d/s/b", "old"),
    ];
    check(
        &lower,
        &[wh(".wh.d"), file("d/new", "1")],
        &["d/", "d/new 1"],
    );
    check(
        &lower,
        &[wh(".wh.d"), dir("d"), file("d/new", "1")],
        &["d/", "d/new 1"],
    );
    check(
        &lower,
        &[wh(".wh.d"), file("d/s/new", "1")],
        &["d/", "d/s/", "d/s/new 1"],
    );
    permute(
        &mut vec![wh(".wh.d"), file("d/new", "1")],
        0,
        &mut |upper| {
            let root = Root::with(&[&lower, upper]);
            assert_eq!(
                root.metadata("d").mode() & 0o7777,
                0o755,
                "the old mode stayed"
            );
        },
    );
}

#[test]
fn an_opaque_marker_takes_all_that_is_lower() {
    let lower = [
        dir("d").mode(0o711),
        file("d/a", "old"),
        dir("d/s"),
        file("d/s/b", "old"),
    ];
    let opaque = || wh("d/.wh..wh..opq");
    check(&lower, &[opaque()], &["d/"]);
    check(&lower, &[opaque(), file("d/a", "new")], &["d/", "d/a new"]);
    check(
        &lower,
        &[opaque(), dir("d/s"), file("d/s/c", "new")],
        &["d/", "d/s/", "d/s/c new"],
    );
    let root = Root::with(&[&lower, &[opaque()]]);
    assert_eq!(
        root.metadata("d").mode() & 0o7777,
        0o711,
        "the directory itself stays"
    );
    let at_root = [wh(".wh..wh..opq"), file("z", "new"), wh(".wh.d")];
    check(&lower, &at_root, &["z new"]);
}

#[test]
fn whiteouts_of_nothing_are_no_errors() {
    let lower = [file("x", "old")];
    let upper = [
        wh(".wh.none"),
        wh("none/.wh.x"),
        wh("none/.wh..wh..opq"),
        wh("x/.wh.y"),
    ];
    check(&lower, &upper, &["x old"]);
}

#[test]
fn a_hard_link_reaches_what_its_layer_whites_out() {
    let lower = [
        file("a", "old"),
        dir("d"),
        dir("d/s"),
        file("d/s/b", "deep"),
    ];
    check(
        &lower,
        &[wh(".wh.a"), hard_link("l", "a")],
        &["d/", "d/s/", "d/s/b deep", "l old"],
    );
    check(
        &lower,
        &[wh(".wh.d"), hard_link("l", "d/s/b")],
        &["a old", "l deep"],
    );
    let opaque = [wh("d/.wh..wh..opq"), hard_link("d/l", "d/s/b")];
    check(&lower, &opaque, &["a old", "d/", "d/l deep"]);
    let again = [wh(".wh.d"), hard_link("d/l", "d/s/b"), file("d/new", "1")];
    check(&lower, &again, &["a old", "d/", "d/l deep", "d/new 1"]);
}

#[test]
fn names_that_only_look_like_whiteouts() {
    let root = Root::new();
    for bad in [".wh.", ".wh..", ".wh...", "d/.wh.."] {
        let error = root.apply(&archive(&[file(bad, "")])).unwrap_err();
        assert!(
            in_full(&error).contains("not a valid whiteout"),
            "{bad}: {}",
            in_full(&error)
        );
    }
    let reserved = [
        file(".wh..wh.aufs", ""),
        dir(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2", "x"),
    ];
    let mut warnings = Vec::new();
    let fd = fs::File::open(&root.path).unwrap().into();
    let archive = archive(&reserved);
    layer::apply(fd, &archive[..], &Budgets::default(), &mut |text| {
        warnings.push(text)
    })
    .unwrap();
    assert_eq!(root.list(), [""; 0]);
    assert_eq!(warnings.len(), 3);
}

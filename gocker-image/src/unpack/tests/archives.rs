//! Dialects of tar, and our reader beside that of the `tar` crate.

use super::super::tar_stream::{Kind, TarStream};
use super::*;

#[test]
fn long_names_come_in_three_ways() {
    let long = "d/".repeat(70) + "file";
    let mut gnu = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    gnu.append_data(&mut header, &long, &b"g"[..]).unwrap();
    let gnu = gnu.into_inner().unwrap();
    let pax = archive(&[file("short", "g").pax("path", long.as_bytes())]);
    let mut ustar = tar::Header::new_ustar();
    ustar.set_path(&long).unwrap();
    ustar.set_size(1);
    ustar.set_mode(0o644);
    ustar.set_cksum();
    let mut prefix = ustar.as_bytes().to_vec();
    prefix.extend_from_slice(b"g");
    prefix.resize(2048, 0);
    for bytes in [gnu, pax, prefix] {
        let root = Root::new();
        root.apply_within(&bytes, &Budgets::default()).unwrap();
        assert_eq!(fs::read_to_string(root.path.join(&long)).unwrap(), "g");
    }
}

#[test]
fn names_need_not_be_utf_8() {
    let name = Made {
        name: b"caf\xe9".to_vec(),
        ..file("", "x")
    };
    let root = Root::with(&[&[name]]);
    use std::os::unix::ffi::OsStrExt;
    assert!(
        root.path
            .join(std::ffi::OsStr::from_bytes(b"caf\xe9"))
            .exists()
    );
}

#[test]
fn sparse_files_have_their_holes_in_all_formats() {
    const SIZE: usize = 1 << 20;
    let mut expected = vec![0; SIZE];
    expected[..3].copy_from_slice(b"abc");
    expected[SIZE - 4..].copy_from_slice(b"wxyz");
    let content = "abcwxyz";
    let (size, offset) = (SIZE.to_string(), (SIZE - 4).to_string());
    let pax = |entry: Made| {
        entry
            .pax("GNU.sparse.name", b"s")
            .pax("GNU.sparse.realsize", size.as_bytes())
    };
    let map = format!("0,3,{offset},4");
    let mut text_map = format!("2\n0\n3\n{offset}\n4\n").into_bytes();
    text_map.resize(512, 0);
    text_map.extend_from_slice(content.as_bytes());
    let v00 = (file("x", content).pax("GNU.sparse.size", size.as_bytes()))
        .pax("GNU.sparse.name", b"s")
        .pax("GNU.sparse.offset", b"0")
        .pax("GNU.sparse.numbytes", b"3")
        .pax("GNU.sparse.offset", offset.as_bytes())
        .pax("GNU.sparse.numbytes", b"4");
    let v01 = pax(file("x", content)).pax("GNU.sparse.map", map.as_bytes());
    let v10 = Made {
        content: text_map,
        ..pax(file("x", ""))
    };
    let v10 = v10
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0");
    for entry in [v00, v01, v10] {
        let root = Root::with(&[&[entry, file("after", "1")]]);
        assert!(fs::read(root.path.join("s")).unwrap() == expected);
        let blocks = root.metadata("s").blocks() * 512;
        assert!(blocks < SIZE as u64 / 2, "{blocks} bytes are in use");
        assert_eq!(fs::read_to_string(root.path.join("after")).unwrap(), "1");
    }
    let lying = pax(file("x", content)).pax("GNU.sparse.map", b"0,3,1,4");
    let error = Root::new().apply(&archive(&[lying])).unwrap_err();
    assert!(
        in_full(&error).contains("map of a sparse file is invalid"),
        "{}",
        in_full(&error)
    );
}

#[test]
fn a_pax_size_moves_the_next_header() {
    // The header says 0, so a reader that obeys it would take the content for
    // a header: an entry is smuggled past one of two readers.
    let inner = archive(&[file("smuggled", "")]);
    let size = inner.len().to_string();
    let mut bytes = Vec::new();
    append(&mut bytes, &file("outer", "").pax("size", size.as_bytes()));
    bytes.extend_from_slice(&inner);
    append(&mut bytes, &file("next", ""));
    bytes.extend_from_slice(&[0; 1024]);
    let root = Root::new();
    root.apply(&bytes).unwrap();
    assert!(!root.path.join("smuggled").exists());
    assert_eq!(fs::read(root.path.join("outer")).unwrap(), inner);
    assert!(root.path.join("next").exists());
}

#[test]
fn both_readers_see_the_same_entries() {
    let entries = [
        dir("d/"),
        file("d/a", &"x".repeat(1000)),
        file("d/b", "")
            .pax("path", b"d/renamed")
            .pax("uid", b"70000"),
        symlink("d/l", "a"),
        hard_link("d/h", "d/a"),
        Made {
            ids: (3_000_000, 4_000_000),
            ..file("big", "1")
        },
        made(b'6', "fifo"),
        file("end", ""),
    ];
    let bytes = archive(&entries);
    let mut ours = Vec::new();
    let mut stream = TarStream::new(&bytes[..]);
    while let Some(entry) = stream.next_entry().unwrap() {
        let has_link = matches!(entry.kind, Kind::Symlink | Kind::HardLink);
        let link = has_link.then_some(entry.link);
        ours.push((entry.path, link, entry.size, entry.uid, entry.mode));
    }
    stream.finish().unwrap();
    let mut theirs = Vec::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        theirs.push((
            entry.path_bytes().into_owned(),
            entry.link_name_bytes().map(std::borrow::Cow::into_owned),
            entry.size(),
            u32::try_from(header.uid().unwrap()).unwrap(),
            header.mode().unwrap(),
        ));
    }
    assert_eq!(ours, theirs);
}

//! Turns the system call tables of two crates into one sorted table, which is read without
//! any set-up at run time.
//!
//! `syscalls` is generated from the kernel's own tables and covers most architectures;
//! `syscall-numbers` has those that it lacks.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

/// The table's columns; `gocker-runc/src/seccomp/arch.rs` reads them by this order.
const COLUMNS: usize = 16;
/// What stands where an architecture lacks a call.
const NONE: i32 = -1;

type Table = BTreeMap<String, [i32; COLUMNS]>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut table = Table::new();
    macro_rules! from_syscalls {
        ($($column:literal $arch:ident),*) => {$(
            // The iterator ends before the last one.
            let last = syscalls::$arch::Sysno::last();
            for call in syscalls::$arch::Sysno::iter().chain([last]) {
                add(&mut table, $column, call.name(), call.id());
            }
        )*};
    }
    from_syscalls!(0 x86_64, 1 x86, 3 aarch64, 4 arm, 5 mips, 6 mips64, 8 powerpc, 9 powerpc64,
        10 s390x, 11 riscv64, 12 loongarch64);
    macro_rules! from_syscall_numbers {
        ($($column:literal $arch:ident $last:literal),*) => {$(
            for number in 0..=$last {
                if let Some(name) = syscall_numbers::$arch::sys_call_name(number) {
                    let name = name.strip_prefix("SYS_").unwrap_or(name);
                    add(&mut table, $column, name, i32::try_from(number)?);
                }
            }
        )*};
    }
    from_syscall_numbers!(7 mipsn32 6999, 13 m68k 999, 14 sh 999);
    for number in 0x4000_0000..0x4000_0400 {
        if let Some(name) = syscall_numbers::x32::sys_call_name(number) {
            add(&mut table, 2, name, i32::try_from(number)?);
        }
    }
    add_what_the_crates_lack(&mut table);
    let out = Path::new(&env::var("OUT_DIR")?).join("syscall_table.rs");
    fs::write(out, render(&table)?)?;
    Ok(())
}

fn add(table: &mut Table, column: usize, name: &str, number: i32) {
    table.entry(name.to_owned()).or_insert([NONE; COLUMNS])[column] = number;
}

fn add_what_the_crates_lack(table: &mut Table) {
    // ARM's private calls, beyond its table (arch/arm/include/uapi/asm/unistd.h).
    for (name, number) in [
        ("breakpoint", 0x000f_0001),
        ("cacheflush", 0x000f_0002),
        ("set_tls", 0x000f_0005),
    ] {
        add(table, 4, name, number);
    }
    // One crate gives the 32-bit time calls the kernel's suffix, profiles do not.
    let suffixed: Vec<_> = table
        .iter()
        .filter_map(|(name, row)| {
            let short = name
                .strip_suffix("_time32")
                .or_else(|| name.strip_suffix("32"))?;
            Some((short.to_owned(), *row))
        })
        .collect();
    for (short, row) in suffixed {
        for column in [7, 13, 14] {
            let missing =
                row[column] != NONE && table.get(&short).is_some_and(|known| known[column] == NONE);
            if missing {
                add(table, column, &short, row[column]);
            }
        }
    }
    // The kernel calls it fstatat where profiles say newfstatat.
    let number = table.get("fstatat").map_or(NONE, |row| row[3]);
    add(table, 3, "newfstatat", number);
    // A table of 64-bit calls has those for 64-bit times on 32-bit machines, too.
    for row in table.values_mut() {
        for column in [3, 11, 12] {
            if (403..=423).contains(&row[column]) {
                row[column] = NONE;
            }
        }
    }
    let s390 = s390_from_s390x_and_x86(table);
    for (name, number) in s390 {
        add(table, 15, &name, number);
    }
}

/// The 31-bit mode of s390x: its own numbers, and x86's where it has 16-bit ids, 32-bit
/// offsets or 32-bit times beside the wide ones (arch/s390/kernel/syscalls/syscall.tbl).
fn s390_from_s390x_and_x86(table: &Table) -> Vec<(String, i32)> {
    const X86: usize = 1;
    const S390X: usize = 10;
    const ALSO_X86: [&str; 8] = [
        "_llseek",
        "_newselect",
        "getrlimit",
        "ioperm",
        "mmap2",
        "stime",
        "time",
        "ugetrlimit",
    ];
    const OWN: [(&str, i32); 3] = [
        ("fadvise64_64", 264),
        ("fstatat64", 293),
        ("sendfile64", 223),
    ];
    let mut numbers = Vec::new();
    for (name, row) in table {
        let own = OWN.iter().find(|(own, _)| own == name);
        let narrow = table
            .get(&format!("{name}32"))
            .is_some_and(|wide| wide[X86] != NONE && row[X86] != NONE);
        let wide = row[S390X] == NONE && (name.ends_with("32") || name.ends_with("64"));
        let number = match own {
            Some((_, number)) => *number,
            None if matches!(name.as_str(), "newfstatat" | "select" | "semtimedop") => NONE,
            None if narrow || wide || ALSO_X86.contains(&name.as_str()) => row[X86],
            None => row[S390X],
        };
        if number != NONE {
            numbers.push((name.clone(), number));
        }
    }
    numbers
}

/// The names in one text, where each ends, and the numbers of each: no pointer in it, so
/// that nothing is relocated when the program starts.
fn render(table: &Table) -> Result<String, std::fmt::Error> {
    let mut names = String::new();
    let mut ends = String::new();
    let mut numbers = String::new();
    for (name, row) in table {
        names.push_str(name);
        write!(ends, "{},", names.len())?;
        writeln!(numbers, "{row:?},")?;
    }
    Ok(format!(
        "static NAMES: &str = {names:?};\n\
         static ENDS: [u16; {count}] = [{ends}];\n\
         static NUMBERS: [[i32; {COLUMNS}]; {count}] = [{numbers}];\n",
        count = table.len(),
    ))
}

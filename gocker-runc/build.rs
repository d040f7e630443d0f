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
const COLUMNS: usize = 15;
/// What stands where an architecture lacks a call.
const NONE: i32 = -1;

type Table = BTreeMap<String, [i32; COLUMNS]>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut table = Table::new();
    macro_rules! from_syscalls {
        ($($column:literal $arch:ident),*) => {$(
            for call in syscalls::$arch::Sysno::iter() {
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
    // The names of the 32-bit time calls in userspace and in every profile are those
    // without the kernel's suffix.
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
            let missing = table
                .get(&short)
                .is_some_and(|known| known[column] == NONE && row[column] != NONE);
            if missing {
                add(table, column, &short, row[column]);
            }
        }
    }
    if let Some(fstatat) = table.get("fstatat").copied() {
        for (column, number) in fstatat.into_iter().enumerate() {
            if number != NONE
                && table
                    .get("newfstatat")
                    .is_none_or(|row| row[column] == NONE)
            {
                add(table, column, "newfstatat", number);
            }
        }
    }
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

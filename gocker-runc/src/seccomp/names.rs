//! System call names, and their numbers on each architecture.

// NAMES, ENDS and NUMBERS, made by build.rs.
include!(concat!(env!("OUT_DIR"), "/syscall_table.rs"));

/// How many architectures the table has.
pub(super) const COLUMNS: usize = NUMBERS[0].len();

/// A system call's numbers, one for each column of the table; negative where there is none.
pub(super) type Row = &'static [i32; COLUMNS];

/// Finds the call named `name` on any architecture.
pub(super) fn find(name: &str) -> Option<Row> {
    let (mut low, mut high) = (0, ENDS.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        match name.cmp(at(middle)) {
            std::cmp::Ordering::Less => high = middle,
            std::cmp::Ordering::Greater => low = middle + 1,
            std::cmp::Ordering::Equal => return Some(&NUMBERS[middle]),
        }
    }
    None
}

fn at(index: usize) -> &'static str {
    let start = index.checked_sub(1).map_or(0, |before| ENDS[before]);
    &NAMES[usize::from(start)..usize::from(ENDS[index])]
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    (0..ENDS.len()).map(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_numbers() {
        // x86_64, x86, x32, aarch64, arm
        let cases = [
            ("read", [0, 3, 0x4000_0000, 63, 3]),
            ("execve", [59, 11, 0x4000_0208, 221, 11]),
            ("socketcall", [-1, 102, -1, -1, -1]),
            ("clone3", [435, 435, 0x4000_01b3, 435, 435]),
            ("set_tls", [-1, -1, -1, -1, 0xf_0005]),
            ("newfstatat", [262, -1, 0x4000_0106, 79, -1]),
        ];
        for (name, expected) in cases {
            let row = find(name).expect(name);
            assert_eq!(row[..5], expected, "{name}");
        }
        // The 31-bit mode of s390x has it by ipc(2) only.
        let semtimedop = find("semtimedop").expect("known");
        assert_eq!([semtimedop[10], semtimedop[15]], [392, -1]);
        for unknown in ["", "a", "reads", "zzz", "read\0"] {
            assert_eq!(find(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn every_name_is_found_at_its_place() {
        let names: Vec<_> = all().collect();
        assert!(names.is_sorted());
        assert!(names.iter().all(|name| find(name).is_some()));
    }
}

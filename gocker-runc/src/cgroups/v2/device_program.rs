//! Device rules as a BPF program, which the kernel runs at each access to a device.
//!
//! ```text
//! r1 -> { access << 16 | kind, major, minor }      the kernel's question
//! r2 kind   r3 access still to be decided   r4 major   r5 minor
//!
//! from the last rule to the first, where the rule covers the device:
//!     a rule that denies some of r3       -> no
//!     a rule that allows                  -> take what it allows out of r3; nothing left -> yes
//! at the end                              -> no
//! ```
//!
//! So each kind of access is decided by the last rule that covers it, as the specification
//! wants it, also where one open(2) asks for two kinds.
//!
//! See <https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller>.

use bundles::config::linux::resources::{DeviceAccess, DeviceKind, DeviceRule};

use crate::cgroups::device_rules::bits;
use crate::sys::bpf::Instruction;

const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for ordered `rules`.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, 0),
        copy(ACCESS, KIND),
        shift_right(ACCESS, 16),
        and(KIND, 0xFFFF),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let Some(block) = rule_block(rule) else {
            continue;
        };
        program.extend(block);
        if decides_all(rule) {
            // The kernel refuses a program with instructions that nothing leads to.
            return program;
        }
    }
    program.extend(answer(0));
    program
}

/// Whether no access gets past the rule.
fn decides_all(rule: &DeviceRule) -> bool {
    rule.kind == DeviceKind::All
        && rule.major.is_none()
        && rule.minor.is_none()
        && rule.access == DeviceAccess::ALL
}

/// The instructions of one rule; None for a number that no device has.
fn rule_block(rule: &DeviceRule) -> Option<Vec<Instruction>> {
    let access = i32::from(bits(rule.access));
    let verdict = match (rule.allow, rule.access == DeviceAccess::ALL) {
        (true, true) => answer(1).to_vec(),
        (false, true) => answer(0).to_vec(),
        (true, false) => {
            let [set, exit] = answer(1);
            vec![
                and(ACCESS, !access),
                jump_unless_equal(ACCESS, 0, 2),
                set,
                exit,
            ]
        }
        (false, false) => {
            let [set, exit] = answer(0);
            vec![jump_if_set(ACCESS, access, 1), jump(2), set, exit]
        }
    };
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(1),
        DeviceKind::Char => Some(2),
    };
    let number = |number: Option<u32>| number.map(i32::try_from).transpose().ok();
    let conditions = [
        (KIND, kind),
        (MAJOR, number(rule.major)?),
        (MINOR, number(rule.minor)?),
    ];
    let conditions: Vec<(u8, i32)> = conditions
        .into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect();
    // A condition that does not hold leads past those after it and the verdict.
    let length = conditions.len() + verdict.len();
    let tests = conditions
        .iter()
        .enumerate()
        .map(|(index, (register, value))| {
            let past = i16::try_from(length - index - 1).unwrap_or(i16::MAX);
            jump_unless_equal(*register, *value, past)
        });
    Some(tests.chain(verdict.iter().copied()).collect())
}

// Opcodes: the class in the low bits, what to do in the high ones.
const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xBF;
const SHIFT_RIGHT: u8 = 0x77;
const AND_32: u8 = 0x54;
const SET: u8 = 0xB7;
const JUMP: u8 = 0x05;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_IF_SET: u8 = 0x45;
const EXIT: u8 = 0x95;

fn load(register: u8, offset: i16) -> Instruction {
    Instruction::new(LOAD_WORD, (register, 1), offset, 0)
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction::new(COPY, (to, from), 0, 0)
}

fn shift_right(register: u8, by: i32) -> Instruction {
    Instruction::new(SHIFT_RIGHT, (register, 0), 0, by)
}

fn and(register: u8, mask: i32) -> Instruction {
    Instruction::new(AND_32, (register, 0), 0, mask)
}

fn jump(past: i16) -> Instruction {
    Instruction::new(JUMP, (0, 0), past, 0)
}

fn jump_unless_equal(register: u8, value: i32, past: i16) -> Instruction {
    Instruction::new(JUMP_UNLESS_EQUAL, (register, 0), past, value)
}

fn jump_if_set(register: u8, mask: i32, past: i16) -> Instruction {
    Instruction::new(JUMP_IF_SET, (register, 0), past, mask)
}

/// Ends the program: 1 allows, 0 denies.
fn answer(value: i32) -> [Instruction; 2] {
    [
        Instruction::new(SET, (0, 0), 0, value),
        Instruction::new(EXIT, (0, 0), 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::device_rules::tests::{Numbers, accesses, last_match_allows};

    /// Runs `program` for one access, as the kernel would; panics where it would refuse.
    fn run(program: &[Instruction], device: (DeviceKind, u32, u32), access: u8) -> bool {
        let (kind, major, minor) = device;
        let kind = if kind == DeviceKind::Block { 1 } else { 2 };
        let context = [u32::from(access) << 16 | kind, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0_usize;
        loop {
            let Instruction {
                code,
                offset,
                value,
                ..
            } = program[at];
            let (to, from) = program[at].registers();
            let (to, from) = (usize::from(to), usize::from(from));
            let wide = i64::from(value).cast_unsigned();
            let mut jumps = false;
            match code {
                LOAD_WORD => {
                    let word = usize::try_from(offset / 4).expect("is in the context");
                    registers[to] = context[word].into();
                }
                COPY => registers[to] = registers[from],
                SHIFT_RIGHT => registers[to] >>= value,
                AND_32 => registers[to] = registers[to] & wide & 0xFFFF_FFFF,
                SET => registers[to] = wide,
                JUMP => jumps = true,
                JUMP_UNLESS_EQUAL => jumps = registers[to] != wide,
                JUMP_IF_SET => jumps = registers[to] & wide != 0,
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x} is not known"),
            }
            let past = if jumps {
                usize::try_from(offset).expect("leads onwards")
            } else {
                0
            };
            at += 1 + past;
        }
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
        for _ in 0..4000 {
            let rules = numbers.rules();
            let program = compile(&rules);
            for (device, access) in accesses() {
                let expected = last_match_allows(&rules, device, access);
                assert_eq!(
                    run(&program, device, access),
                    expected,
                    "{device:?} of {rules:?}"
                );
            }
        }
    }

    #[test]
    fn every_instruction_can_be_reached() {
        let mut numbers = Numbers(0xD1B5_4A32_D192_ED03);
        for _ in 0..1000 {
            let program = compile(&numbers.rules());
            let mut reached = vec![false; program.len()];
            let mut open = vec![0];
            while let Some(at) = open.pop() {
                if std::mem::replace(&mut reached[at], true) {
                    continue;
                }
                let Instruction { code, offset, .. } = program[at];
                let past = at + 1 + usize::try_from(offset).expect("leads onwards");
                match code {
                    EXIT => (),
                    JUMP => open.push(past),
                    JUMP_UNLESS_EQUAL | JUMP_IF_SET => open.extend([at + 1, past]),
                    _ => open.push(at + 1),
                }
            }
            assert!(reached.iter().all(|reached| *reached));
        }
    }

    #[test]
    fn a_number_beyond_any_device_matches_nothing() {
        let rule = DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(u32::MAX),
            minor: None,
            access: DeviceAccess::ALL,
        };
        assert_eq!(compile(&[rule]), compile(&[]));
    }
}

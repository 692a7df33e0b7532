//! What the general registers are known to hold at an instruction, as far as calls and jumps through them need it.

use iced_x86::{Instruction, Mnemonic, OpAccess, OpKind, Register, UsedRegister};

/// What a register holds, on each way to an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Value {
    /// Anything.
    #[default]
    Unknown,
    /// This address.
    Address(u64),
    /// Any of the four-byte entries of the table that is there, sign-extended.
    Entry(u64),
    /// Where a table leads.
    Target(Table),
}

/// A jump table, and what its entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Four bytes each, to be added to the table's own address.
    Relative(u64),
    /// Addresses.
    Absolute(u64),
}

impl Table {
    /// Where an entry is.
    pub(super) fn entry(self, index: u64) -> u64 {
        match self {
            Self::Relative(table) => table.wrapping_add(4 * index),
            Self::Absolute(table) => table.wrapping_add(8 * index),
        }
    }
}

/// What the sixteen general registers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Values([Value; 16]);

impl Values {
    /// What a register holds.
    pub(super) fn get(&self, register: Register) -> Value {
        if register.is_gpr64() { self.0[register.number()] } else { Value::Unknown }
    }

    /// What is known where two ways meet.
    pub(super) fn meet(mut self, other: &Self) -> Self {
        for (value, other) in self.0.iter_mut().zip(&other.0) {
            if value != other {
                *value = Value::Unknown;
            }
        }
        self
    }

    /// What is left behind a call.
    ///
    /// # Reference
    /// System V ABI, AMD64 supplement, 3.2.1 (registers that belong to the calling function).
    pub(super) fn behind_call(self) -> Self {
        let mut left = Self::default();
        for register in [
            Register::RBX,
            Register::RBP,
            Register::RSP,
            Register::R12,
            Register::R13,
            Register::R14,
            Register::R15,
        ] {
            left.0[register.number()] = self.get(register);
        }
        left
    }

    /// What is known behind an instruction. `pointer` reads a pointer that nothing can write.
    pub(super) fn behind(
        mut self,
        instruction: &Instruction,
        used: &[UsedRegister],
        pointer: impl Fn(u64) -> Option<u64>,
    ) -> Self {
        let result = self.result(instruction, pointer);
        let is_written = |used: &&UsedRegister| {
            use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            matches!(used.access(), Write | CondWrite | ReadWrite | ReadCondWrite)
        };
        for register in used.iter().filter(is_written).map(|used| used.register().full_register()) {
            if register.is_gpr64() {
                self.0[register.number()] = Value::Unknown;
            }
        }
        let has_result = result != Value::Unknown && instruction.op0_kind() == OpKind::Register;
        if has_result && instruction.op0_register().is_gpr64() {
            self.0[instruction.op0_register().number()] = result;
        }
        self
    }

    /// What the instruction's first operand holds behind it.
    fn result(&self, instruction: &Instruction, pointer: impl Fn(u64) -> Option<u64>) -> Value {
        let target_of = |slot| pointer(slot).map(Value::Address);
        let known = match instruction.mnemonic() {
            Mnemonic::Lea => rip_relative(instruction).map(Value::Address),
            Mnemonic::Mov if instruction.op1_kind() == OpKind::Register => {
                Some(self.get(instruction.op1_register()))
            }
            Mnemonic::Mov if instruction.op1_kind() == OpKind::Memory => rip_relative(instruction)
                .and_then(target_of)
                .or_else(|| self.absolute_table(instruction).map(Value::Target)),
            Mnemonic::Movsxd if instruction.op1_kind() == OpKind::Memory => {
                self.table(instruction, 4).map(Value::Entry)
            }
            Mnemonic::Add if instruction.op1_kind() == OpKind::Register => {
                match (self.get(instruction.op0_register()), self.get(instruction.op1_register())) {
                    (Value::Entry(table), Value::Address(base))
                    | (Value::Address(base), Value::Entry(table))
                        if table == base =>
                    {
                        Some(Value::Target(Table::Relative(table)))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        known.unwrap_or_default()
    }

    /// The table of addresses that the memory operand is any entry of.
    pub(super) fn absolute_table(&self, instruction: &Instruction) -> Option<Table> {
        self.table(instruction, 8).map(Table::Absolute)
    }

    /// The table that the memory operand is an entry of, given how many bytes an entry has.
    fn table(&self, instruction: &Instruction, entry_bytes: u32) -> Option<u64> {
        let is_entry = instruction.memory_index().is_gpr64()
            && instruction.memory_index_scale() == entry_bytes
            && instruction.segment_prefix() == Register::None;
        let displacement = instruction.memory_displacement64();
        match (self.get(instruction.memory_base()), instruction.memory_base()) {
            (Value::Address(table), _) if is_entry && displacement == 0 => Some(table),
            (_, Register::None) if is_entry => Some(displacement),
            _ => None,
        }
    }
}

/// The address of a memory operand that is always the same.
pub(super) fn rip_relative(instruction: &Instruction) -> Option<u64> {
    let is_constant =
        instruction.memory_base() == Register::RIP && instruction.segment_prefix() == Register::None;
    is_constant.then(|| instruction.ip_rel_memory_address())
}

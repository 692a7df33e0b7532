//! Functions: their extent, their bytes, and the instructions in them.

use super::{Reason, process::Process, unwind::UnwindTables};
use core::ops::Range;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use std::{collections::BTreeMap, rc::Rc, vec::Vec};

/// The most that a PLT's stub takes: ENDBR64 and a jump with prefixes, each at most 15 bytes.
const STUB_BYTES: u64 = 32;

/// A function, or a PLT's stub.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) range: Range<u64>,
    code: Vec<u8>,
    /// Whether there is an unwind entry for it. Without one, nobody knows where it ends.
    pub(super) has_entry: bool,
}

impl Function {
    /// The instruction at an address of the function, if there is one that ends in it.
    pub(super) fn instruction(&self, address: u64) -> Option<Instruction> {
        let instruction = self.decoder(address)?.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// Whether nothing is to be executed from an address to the function's end.
    pub(super) fn is_padding_from(&self, address: u64) -> bool {
        let is_padding = |found: Instruction| matches!(found.mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
        self.decoder(address).is_none_or(|decoder| decoder.into_iter().all(is_padding))
    }

    fn decoder(&self, address: u64) -> Option<Decoder<'_>> {
        let offset = usize::try_from(address.checked_sub(self.range.start)?).ok()?;
        let code = self.code.get(offset..)?;
        Some(Decoder::with_ip(64, code, address, DecoderOptions::NONE))
    }
}

/// The functions that the walk came to.
#[derive(Debug)]
pub(super) struct Functions {
    process: Process,
    tables: UnwindTables,
    by_start: BTreeMap<u64, Rc<Function>>,
}

impl Functions {
    pub(super) fn new(process: Process) -> Self {
        Self { process, tables: UnwindTables::default(), by_start: BTreeMap::new() }
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// The function that an address is in.
    pub(super) fn at(&mut self, address: u64) -> Result<Rc<Function>, Reason> {
        let nearest = self.by_start.range(..=address).next_back();
        if let Some((_, function)) = nearest.filter(|(_, function)| function.range.contains(&address)) {
            return Ok(Rc::clone(function));
        }
        let _ = self.process.code(&(address..address.saturating_add(1))).ok_or(Reason::NotCode)?;
        let Some(range) = self.tables.function_at(&self.process, address) else {
            let code = self.process.constant_from(address, STUB_BYTES).ok_or(Reason::NotCode)?;
            let range = address..address + code.len() as u64;
            return Ok(Rc::new(Function { range, code, has_entry: false }));
        };
        let code = self.process.code(&range).ok_or(Reason::NotCode)?;
        let function = Rc::new(Function { range, code, has_entry: true });
        let _ = self.by_start.insert(function.range.start, Rc::clone(&function));
        Ok(function)
    }
}

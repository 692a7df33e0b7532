//! The walk itself: from instruction to instruction, on every way.

use super::{
    FpuFree, KernelPath, NotFpuFree, Reason,
    function::{Function, Functions},
    path::Kind,
    process::Process,
    report::Refusal,
    rules,
    values::{Table, Value, Values, rip_relative},
};
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    rc::Rc,
    vec::Vec,
};

/// More instructions than that are not looked at: a path has hundreds.
const LIMIT: usize = 20_000;

/// Walks along a path.
pub(super) fn walk(path: &KernelPath) -> Result<FpuFree, NotFpuFree> {
    let open = |error: std::io::Error| {
        Refusal { address: path.entries().next().unwrap_or_default(), reason: Reason::Process(error.kind()) }
            .bare()
    };
    let mut walk = Walk::new(path, Process::open().map_err(open)?);
    match walk.run() {
        Ok(()) => Ok(FpuFree { instructions: walk.known.len(), functions: walk.functions_seen.len() }),
        Err(refusal) => Err(refusal.report(&mut walk.functions, &walk.origins)),
    }
}

/// A jump through a table, whose entries are taken one by one.
#[derive(Debug)]
struct TableJump {
    /// The jump's own address.
    address: u64,
    function: Rc<Function>,
    table: Table,
    next_index: u64,
    values: Values,
}

#[derive(Debug)]
struct Walk<'a> {
    path: &'a KernelPath,
    functions: Functions,
    functions_seen: BTreeSet<u64>,
    /// What is known at each instruction that was come to.
    known: HashMap<u64, Values>,
    /// From where each was come to first, if it is no way in.
    origins: HashMap<u64, u64>,
    /// The instruction that is looked at.
    current: Option<u64>,
    /// Where what is known has changed.
    ready: Vec<u64>,
    jumps: VecDeque<TableJump>,
    /// Where the tables begin that were jumped through: another ends there.
    tables: BTreeSet<u64>,
    infos: InstructionInfoFactory,
}

impl<'a> Walk<'a> {
    fn new(path: &'a KernelPath, process: Process) -> Self {
        Self {
            path,
            functions: Functions::new(process),
            functions_seen: BTreeSet::new(),
            known: HashMap::new(),
            origins: HashMap::new(),
            current: None,
            ready: Vec::new(),
            jumps: VecDeque::new(),
            tables: BTreeSet::new(),
            infos: InstructionInfoFactory::new(),
        }
    }

    /// Goes everywhere. Tables come when there is nothing else, an entry of each in turn: what is found behind the
    /// first entries jumps through the tables that are next to this one.
    fn run(&mut self) -> Result<(), Refusal> {
        for entry in self.path.entries() {
            self.come_to(entry, Values::default());
        }
        loop {
            if let Some(address) = self.ready.pop() {
                self.current = Some(address);
                self.step(address).map_err(|reason| Refusal { address, reason })?;
            } else if let Some(jump) = self.jumps.pop_front() {
                let address = jump.address;
                self.current = Some(address);
                self.take_entry(jump).map_err(|reason| Refusal { address, reason })?;
            } else {
                return Ok(());
            }
        }
    }

    /// There is a way to an address, with that in the registers.
    fn come_to(&mut self, address: u64, values: Values) {
        let met = self.known.get(&address).map_or(values, |known| known.meet(&values));
        let before = self.known.insert(address, met);
        if before != Some(met) {
            self.ready.push(address);
        }
        if let (None, Some(current)) = (before, self.current) {
            let _ = self.origins.insert(address, current);
        }
    }

    /// Looks at one instruction, and at where it leads.
    fn step(&mut self, address: u64) -> Result<(), Reason> {
        if self.known.len() > LIMIT {
            return Err(Reason::TooLong { limit: LIMIT });
        }
        let function = self.functions.at(address)?;
        if function.has_entry {
            let _ = self.functions_seen.insert(function.range.start);
        }
        let instruction = function.instruction(address).ok_or(Reason::NoInstruction)?;
        let is_stub = instruction.mnemonic() == Mnemonic::Endbr64
            || instruction.is_jmp_near_indirect() && rip_relative(&instruction).is_some();
        if !function.has_entry && !is_stub {
            return Err(Reason::NoUnwindEntry);
        }
        let info = self.infos.info(&instruction);
        rules::check(&instruction, info)?;

        let before = self.known[&address];
        let process = self.functions.process();
        let values = before.behind(&instruction, info.used_registers(), |slot| process.pointer(slot));
        // A place in the function whose address is taken is a way in: asm may resume there.
        if instruction.mnemonic() == Mnemonic::Lea
            && let Some(place) = rip_relative(&instruction).filter(|place| function.range.contains(place))
        {
            self.come_to(place, Values::default());
        }
        let next = instruction.next_ip();
        match instruction.flow_control() {
            FlowControl::Next => self.jump(&function, next, values),
            FlowControl::ConditionalBranch => {
                self.jump(&function, near_target(&instruction).ok_or(Reason::IndirectJump)?, values);
                self.jump(&function, next, values);
            }
            FlowControl::UnconditionalBranch => {
                self.jump(&function, near_target(&instruction).ok_or(Reason::IndirectJump)?, values);
            }
            FlowControl::IndirectBranch => self.jump_through(function, &instruction, before)?,
            FlowControl::Call => {
                let target = near_target(&instruction).ok_or(Reason::IndirectCall)?;
                self.call(&function, target, next, values)?;
            }
            FlowControl::IndirectCall if instruction.is_call_near_indirect() => {
                let target = self.fixed_target(&instruction, &before)?.ok_or(Reason::IndirectCall)?;
                self.call(&function, target, next, values)?;
            }
            FlowControl::IndirectCall => return Err(Reason::IndirectCall),
            // Of these, the rules let RET and the undefined instructions pass.
            FlowControl::Return
            | FlowControl::Interrupt
            | FlowControl::Exception
            | FlowControl::XbeginXabortXend => {}
        }
        Ok(())
    }

    /// Goes on in the function, or elsewhere as a call that does not come back.
    fn jump(&mut self, function: &Function, target: u64, values: Values) {
        if self.path.kind(target) != Kind::Walked {
            return;
        }
        let stays = function.range.contains(&target);
        self.come_to(target, if stays { values } else { Values::default() });
    }

    fn jump_through(
        &mut self,
        function: Rc<Function>,
        instruction: &Instruction,
        values: Values,
    ) -> Result<(), Reason> {
        if !instruction.is_jmp_near_indirect() {
            return Err(Reason::IndirectJump);
        }
        let address = instruction.ip();
        // What it was taken for before may be too much.
        self.jumps.retain(|jump| jump.address != address);
        if let Some(target) = self.fixed_target(instruction, &values)? {
            self.jump(&function, target, values);
            return Ok(());
        }
        let table = match values.get(instruction.op0_register()) {
            Value::Target(table) if instruction.op0_kind() == OpKind::Register => table,
            _ if instruction.op0_kind() == OpKind::Memory => {
                values.absolute_table(instruction).ok_or(Reason::IndirectJump)?
            }
            _ => return Err(Reason::IndirectJump),
        };
        let _ = self.tables.insert(table.entry(0));
        self.jumps.push_back(TableJump { address, function, table, next_index: 0, values });
        Ok(())
    }

    /// Goes where a table's next entry leads, if it has one more.
    fn take_entry(&mut self, mut jump: TableJump) -> Result<(), Reason> {
        let entry = jump.table.entry(jump.next_index);
        let process = self.functions.process();
        let target = match jump.table {
            Table::Absolute(_) => process.pointer(entry),
            Table::Relative(table) => process
                .constant(entry)
                .map(|bytes| table.wrapping_add_signed(i64::from(i32::from_le_bytes(bytes)))),
        };
        let is_first = jump.next_index == 0;
        let leads = target.filter(|target| jump.function.range.contains(target));
        match leads {
            Some(target) if is_first || !self.tables.contains(&entry) => {
                self.jump(&jump.function, target, jump.values);
                jump.next_index += 1;
                self.jumps.push_back(jump);
                Ok(())
            }
            None if is_first => Err(Reason::IndirectJump),
            _ => Ok(()),
        }
    }

    /// Goes into the function that is called, and on behind it.
    fn call(&mut self, function: &Function, target: u64, next: u64, values: Values) -> Result<(), Reason> {
        let left = match self.path.kind(target) {
            Kind::Diverging => return Ok(()),
            Kind::Site | Kind::Door => values.behind_call(),
            Kind::Walked => {
                if function.range.contains(&target) && target != function.range.start {
                    return Err(Reason::CallIntoItself);
                }
                self.come_to(target, Values::default());
                values.behind_call()
            }
        };
        if !function.is_padding_from(next) {
            self.come_to(next, left);
        }
        Ok(())
    }

    /// Where an indirect call or jump leads, if it always leads there.
    fn fixed_target(&self, instruction: &Instruction, values: &Values) -> Result<Option<u64>, Reason> {
        if instruction.op0_kind() == OpKind::Register {
            return Ok(match values.get(instruction.op0_register()) {
                Value::Address(target) => Some(target),
                _ => None,
            });
        }
        let Some(slot) = rip_relative(instruction) else { return Ok(None) };
        let target = self.functions.process().pointer(slot);
        target.map(Some).ok_or(Reason::WritablePointer { slot: slot as usize })
    }
}

/// The target of a direct call or jump.
fn near_target(instruction: &Instruction) -> Option<u64> {
    (instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch64())
}

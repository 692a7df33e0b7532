//! Register programs: real moves between memory and the parked registers, one component each. A witness that
//! does not depend on XSAVE and XRSTOR.
//!
//! The bytes of a component are those of [`Area::component`](crate::xstate::Area::component). Programs write
//! and read what a program in user mode can: of FIP and FDP the low 32 bits (FLDENV and FNSAVE have no more),
//! of the x87 tag word which registers are empty.

use super::{
    parked::ParkedRegs,
    window::{Area, Op},
};
use crate::{
    Component, ComponentSet, Rfbm,
    arch::{OpError, RestoreOp},
    xstate::{self, Rounding, SaveInstruction, initial_value},
};
use core::{arch::naked_asm, mem::offset_of};

impl ParkedRegs {
    /// Loads a component from `bytes`, with moves. The other components keep their values.
    ///
    /// BNDREGS and BNDCSR have no moves while MPX is off: XRSTOR of that component alone does it, as for a
    /// component whose instructions CPUID does not list.
    ///
    /// # Errors
    /// [`OpError::Missing`] if parked CPUs do not have the component, [`OpError::TooShort`], and #GP for reserved
    /// bits of MXCSR (the registers are unchanged then) or of BNDCSR.
    pub(crate) fn write(&mut self, component: Component, bytes: &[u8]) -> Result<(), OpError> {
        let size = self.size(component, bytes.len())?;
        if component == Component::X87 {
            let mut image = X87Image::new(bytes);
            // SAFETY: (a) Every x86-64 CPU has an x87. (b) It reads one `X87Image`. (c) It cannot fault: FNINIT
            // has discarded what was pending, and the first FLDENV leaves eight empty registers.
            unsafe { self.change(write_x87, (&raw mut image).cast(), ComponentSet::EMPTY) }?;
            return Ok(());
        }
        let Some((write, _)) = self.moves(component) else {
            let mut area = Area::zeroed();
            let offset = self.offset(component)?;
            area.bytes_mut()[512] = 1 << component.number();
            area.bytes_mut()[offset..offset + size].copy_from_slice(&bytes[..size]);
            return self.restore(RestoreOp::Xrstor, alone(component), &area.bytes()[..]);
        };
        // SAFETY: (a) `moves` looked. (b) It reads the bytes of the component from the operand, which has them
        // (`size`). (c) All but LDMXCSR, the first instruction of `write_sse`, are moves from memory of ours.
        unsafe { self.change(write, bytes.as_ptr().cast_mut(), ComponentSet::EMPTY) }?;
        Ok(())
    }

    /// Stores a component to `bytes`, with moves; where there are none ([`write`](Self::write)), by XSAVE.
    ///
    /// # Errors
    /// [`OpError::Missing`] and [`OpError::TooShort`].
    pub(crate) fn read(&self, component: Component, bytes: &mut [u8]) -> Result<(), OpError> {
        let size = self.size(component, bytes.len())?;
        if component == Component::X87 {
            let mut state = X87State { environment: [0; 28], st: [[0; 10]; 8] };
            // SAFETY: (a) Every x86-64 CPU has an x87. (b) FNSAVE writes 108 bytes, an `X87State`. (c) It does not
            // wait, so it cannot fault.
            unsafe { self.look(read_x87, (&raw mut state).cast(), ComponentSet::EMPTY) }?;
            bytes[..size].copy_from_slice(&state.component());
            return Ok(());
        }
        let Some((_, read)) = self.moves(component) else {
            let mut area = Area::zeroed();
            let offset = self.offset(component)?;
            self.save(SaveInstruction::Xsave, alone(component), &mut area.bytes_mut()[..])?;
            bytes[..size].copy_from_slice(&area.bytes()[offset..offset + size]);
            return Ok(());
        };
        // SAFETY: (a) `moves` looked. (b) It writes the bytes of the component, which the operand has (`size`).
        // (c) They are moves to memory of ours.
        unsafe { self.look(read, bytes.as_mut_ptr(), ComponentSet::EMPTY) }?;
        Ok(())
    }

    /// Writes a component's initial values, with moves. Whether it counts as in use afterwards is the CPU's
    /// affair.
    ///
    /// # Errors
    /// [`OpError::Missing`].
    pub(crate) fn clear(&mut self, component: Component) -> Result<(), OpError> {
        let size = self.size(component, usize::MAX)?;
        self.write(component, &initial_value(component, size))
    }

    /// Writes one 32-bit lane of one vector register: lanes 0 to 15 of ZMM0–31, as far as they are enabled. With
    /// AVX-512 by a masked move, otherwise by inserting the part that has it.
    ///
    /// # Errors
    /// [`OpError::Missing`] if there is no such lane.
    pub(crate) fn change_lane(&mut self, register: u8, lane: u8, value: u32) -> Result<(), OpError> {
        let (component, at) = xstate::lane(register, lane).ok_or(OpError::Missing("that lane"))?;
        let size = self.size(component, usize::MAX)?;
        if self.features().moves().avx512bw {
            let mut change = LaneChange { value, masks: [0; 32] };
            change.masks[usize::from(register)] = 1 << lane;
            // SAFETY: (a) AVX512F and AVX512BW, just looked up. (b) It reads a `LaneChange`. (c) Moves from memory
            // of ours cannot fault.
            unsafe { self.change(change_lane, (&raw mut change).cast(), ComponentSet::EMPTY) }?;
            return Ok(());
        }
        let mut bytes = [0; 1024];
        self.read(component, &mut bytes[..size])?;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self.write(component, &bytes[..size])
    }

    /// Sets rounding control in MXCSR and in the x87 control word.
    pub(crate) fn set_rounding(&mut self, rounding: Rounding) {
        let mut operand = RoundingChange { environment: [0; 28], mxcsr: 0, control: rounding as u32 };
        // SAFETY: (a) Every x86-64 CPU has x87 and SSE. (b) It reads and writes a `RoundingChange`. (c) LDMXCSR
        // loads what STMXCSR gave but for rounding control, no reserved bit. FNSTENV masks every x87 exception,
        // so FLDENV, which waits, finds none.
        let never = unsafe { self.change(set_rounding, (&raw mut operand).cast(), ComponentSet::EMPTY) };
        debug_assert!(never.is_ok(), "{never:?}");
    }

    fn size(&self, component: Component, found_bytes: usize) -> Result<usize, OpError> {
        let size = self.features().component_bytes(component).ok_or(OpError::Missing("that component"))?;
        if found_bytes < size {
            return Err(OpError::TooShort { needed_bytes: size, found_bytes });
        }
        Ok(size)
    }

    /// Where an extended component lies in the standard format.
    fn offset(&self, component: Component) -> Result<usize, OpError> {
        let place = self.features().layout().place(component).map(|place| place.offset_bytes as usize);
        place.ok_or(OpError::Missing("that component"))
    }

    /// The programs that write and read a component, where there are any and the CPU has their instructions.
    fn moves(&self, component: Component) -> Option<(Op, Op)> {
        let has = self.features().moves();
        let (is_there, write, read): (_, Op, Op) = match component {
            Component::SSE => (true, write_sse, read_sse),
            // VINSERTF128 would clear ZMM_Hi256.
            Component::AVX if has.avx512f => (true, write_avx_evex, read_avx),
            Component::AVX => (has.avx, write_avx, read_avx),
            Component::OPMASK if has.avx512bw => (true, write_opmask, read_opmask),
            Component::ZMM_HI256 => (has.avx512f, write_zmm_hi256, read_zmm_hi256),
            Component::HI16_ZMM => (has.avx512f, write_hi16_zmm, read_hi16_zmm),
            _ => return None,
        };
        is_there.then_some((write, read))
    }
}

fn alone(component: Component) -> Rfbm {
    Rfbm::new(ComponentSet::EMPTY.with(component))
}

/// The x87 environment in 64-bit mode: 32-bit protected-mode form (Intel SDM volume 1, figure 8-9).
type Environment = [u8; 28];
const ENV_FCW: usize = 0;
const ENV_FSW: usize = 4;
const ENV_FTW: usize = 8;
const ENV_FIP: usize = 12;
const ENV_FOP: usize = 18;
const ENV_FDP: usize = 20;

/// What `write_x87` loads.
#[repr(C)]
struct X87Image {
    /// Every register empty, every exception masked, and TOP where it will be: eight pushes come back to it.
    before: Environment,
    after: Environment,
    st: [[u8; 16]; 8],
}

impl X87Image {
    /// Of the component's bytes, of which there are 152.
    fn new(bytes: &[u8]) -> Self {
        let mut before = [0; 28];
        before[ENV_FCW..][..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        // TOP: bits 11 to 13 of FSW.
        before[ENV_FSW + 1] = bytes[3] & 0x38;
        before[ENV_FTW..][..2].fill(0xff);
        let mut after = [0; 28];
        after[ENV_FCW..][..2].copy_from_slice(&bytes[..2]);
        after[ENV_FSW..][..2].copy_from_slice(&bytes[2..4]);
        // Two bits a register: 3 empty, and of the others the CPU finds out itself which one it is.
        let tags = (0..8).filter(|i| bytes[4] & 1 << i == 0).fold(0_u16, |tags, i| tags | 3 << (2 * i));
        after[ENV_FTW..][..2].copy_from_slice(&tags.to_le_bytes());
        after[ENV_FOP..][..2].copy_from_slice(&bytes[6..8]);
        after[ENV_FIP..][..4].copy_from_slice(&bytes[8..12]);
        after[ENV_FDP..][..4].copy_from_slice(&bytes[16..20]);
        let st = core::array::from_fn(|i| core::array::from_fn(|n| bytes[24 + i * 16 + n]));
        Self { before, after, st }
    }
}

/// What FNSAVE stores (Intel SDM volume 1, figure 8-9, and the registers by their place in the stack).
#[repr(C)]
struct X87State {
    environment: Environment,
    st: [[u8; 10]; 8],
}

impl X87State {
    fn component(&self) -> [u8; 152] {
        let environment = &self.environment;
        let mut bytes = [0; 152];
        bytes[..2].copy_from_slice(&environment[ENV_FCW..][..2]);
        bytes[2..4].copy_from_slice(&environment[ENV_FSW..][..2]);
        let tags = u16::from_le_bytes([environment[ENV_FTW], environment[ENV_FTW + 1]]);
        bytes[4] = (0..8).filter(|i| tags >> (2 * i) & 3 != 3).fold(0, |tags, i| tags | 1 << i);
        bytes[6] = environment[ENV_FOP];
        bytes[7] = environment[ENV_FOP + 1] & 7;
        bytes[8..12].copy_from_slice(&environment[ENV_FIP..][..4]);
        bytes[16..20].copy_from_slice(&environment[ENV_FDP..][..4]);
        for (slot, st) in bytes[24..].chunks_mut(16).zip(&self.st) {
            slot[..10].copy_from_slice(st);
        }
        bytes
    }
}

/// What `change_lane` loads: the value, and for each register the lanes that get it.
#[repr(C)]
struct LaneChange {
    value: u32,
    masks: [u16; 32],
}

/// What `set_rounding` works on.
#[repr(C)]
struct RoundingChange {
    environment: Environment,
    mxcsr: u32,
    control: u32,
}

/// Programs: ops (see [`Op`] for the contract) with the component's bytes at RDI. `.irp` repeats a line for each
/// register, `\i` being its number.
macro_rules! programs {
    ($($(#[$doc:meta])* $name:ident: $($line:literal),+ $(, { $($operand:tt)+ })?;)+) => {$(
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "sysv64" fn $name() {
            naked_asm!($($line,)+ "ret" $(, $($operand)+)?)
        }
    )+};
}

programs! {
    /// RDI = an `X87Image`. FNINIT discards pending exceptions, for which FLDENV would wait; ST7 is pushed first.
    write_x87:
        "fninit",
        "fldenv [rdi + {before}]",
        ".irp i, 7, 6, 5, 4, 3, 2, 1, 0",
        "fld tbyte ptr [rdi + {st} + 16 * \\i]",
        ".endr",
        "fldenv [rdi + {after}]",
        {
            before = const offset_of!(X87Image, before),
            after = const offset_of!(X87Image, after),
            st = const offset_of!(X87Image, st)
        };
    /// RDI = an `X87State`, written. The x87 is reset.
    read_x87: "fnsave [rdi]";
    /// LDMXCSR comes first because it can fault. MOVUPS leaves bits 128 and up alone.
    write_sse:
        "ldmxcsr [rdi]",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movups xmm\\i, [rdi + 4 + 16 * \\i]",
        ".endr";
    read_sse:
        "stmxcsr [rdi]",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movups [rdi + 4 + 16 * \\i], xmm\\i",
        ".endr";
    write_avx:
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vinsertf128 ymm\\i, ymm\\i, [rdi + 16 * \\i], 1",
        ".endr";
    /// Keeps bits 256 and up.
    write_avx_evex:
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vinserti32x4 zmm\\i, zmm\\i, [rdi + 16 * \\i], 1",
        ".endr";
    read_avx:
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vextractf128 [rdi + 16 * \\i], ymm\\i, 1",
        ".endr";
    write_opmask:
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7",
        "kmovq k\\i, [rdi + 8 * \\i]",
        ".endr";
    read_opmask:
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7",
        "kmovq [rdi + 8 * \\i], k\\i",
        ".endr";
    write_zmm_hi256:
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vinserti64x4 zmm\\i, zmm\\i, [rdi + 32 * \\i], 1",
        ".endr";
    read_zmm_hi256:
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vextracti64x4 [rdi + 32 * \\i], zmm\\i, 1",
        ".endr";
    write_hi16_zmm:
        ".irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        "vmovups zmm\\i, [rdi + 64 * (\\i - 16)]",
        ".endr";
    read_hi16_zmm:
        ".irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        "vmovups [rdi + 64 * (\\i - 16)], zmm\\i",
        ".endr";
    /// RDI = a `LaneChange`. K1 is kept in R8. A register whose mask is zero keeps all its lanes.
    change_lane:
        "kmovq r8, k1",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, \
         16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        "kmovw k1, word ptr [rdi + {masks} + 2 * \\i]",
        "vpbroadcastd zmm\\i {{k1}}, dword ptr [rdi + {value}]",
        ".endr",
        "kmovq k1, r8",
        {
            masks = const offset_of!(LaneChange, masks),
            value = const offset_of!(LaneChange, value)
        };
    /// RDI = a `RoundingChange`. Bits 13 and 14 of MXCSR, 10 and 11 of FCW.
    set_rounding:
        "mov ecx, [rdi + {control}]",
        "stmxcsr [rdi + {mxcsr}]",
        "mov eax, [rdi + {mxcsr}]",
        "and eax, {keep_mxcsr}",
        "mov edx, ecx",
        "shl edx, 13",
        "or eax, edx",
        "mov [rdi + {mxcsr}], eax",
        "ldmxcsr [rdi + {mxcsr}]",
        "fnstenv [rdi + {environment}]",
        "mov eax, [rdi + {environment}]",
        "and eax, {keep_fcw}",
        "shl ecx, 10",
        "or eax, ecx",
        "mov [rdi + {environment}], eax",
        "fldenv [rdi + {environment}]",
        {
            control = const offset_of!(RoundingChange, control),
            mxcsr = const offset_of!(RoundingChange, mxcsr),
            environment = const offset_of!(RoundingChange, environment),
            keep_mxcsr = const !(3 << 13),
            keep_fcw = const !(3 << 10)
        };
}

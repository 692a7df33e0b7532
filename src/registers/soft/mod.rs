//! The software register file: the XSAVE feature set in plain Rust, after the manual.

mod fault;
mod frame;
mod piece;
mod register_file;
mod restore;
mod save;
mod value;

pub use fault::{MemoryOperand, SoftFault};
pub use frame::SoftFrame;

use super::{RegisterFile, Unsupported, image::Version, pattern};
use crate::{
    Component, ComponentSet, Pkru, Value,
    xstate::{CpuidReader, CpuidResult, Layout, SaveInstruction, XcompBv, XsaveFeatures, initial_value},
};
use alloc::{collections::BTreeMap, vec::Vec};
use core::{
    fmt,
    hash::{Hash, Hasher},
};

/// Registers in software, with all their bytes: those of one logical processor in 64-bit mode, at one privilege
/// level and not in VMX non-root operation. It is any CPU that a [`Layout`] describes, and the methods are its
/// instructions.
///
/// Two are equal when they are the same CPU and software could not tell their registers apart: values, PKRU,
/// IA32_XFD and IA32_XFD_ERR. What the processor keeps for its optimisations does not count (XINUSE bits of
/// components in their initial configuration, XMODIFIED, XRSTOR_INFO): the manual lets it be more or less any
/// time, so no software may depend on it.
///
/// # What the manual leaves to the processor
/// - XINUSE is as small as may be: a component is in use if its value is not the initial one, or if it came from
///   memory with its XSTATE_BV bit set and has not been written since (section 13.8.3).
/// - The modified optimisation is there for every component. A write of the same value counts as one.
/// - Only bytes are accessed that must be (section 13.13 allows any byte of the components at hand): what is
///   stored or loaded, and the header, whole.
/// - An XRSTOR that faults leaves the registers alone, or changes as much as it comes to: see
///   [`with_torn_restores`](Self::with_torn_restores).
/// - Of several faults the first is raised in this order: #UD, alignment, the header (#PF, #GP), XFD (#NM),
///   MXCSR (#PF, #GP), the components (#PF).
/// - Reserved bytes between registers are stored as zero and others are not written, as Intel CPUs do. Unlike
///   there, an FIP that is not canonical is kept as it is.
///
/// ```
/// use fpuswitch::{Component, Rfbm, Value, registers::{MemoryOperand, Program, RegisterFile, SoftRegs}};
/// use fpuswitch::xstate::{Area, Format};
///
/// let mut regs = SoftRegs::default();
/// regs.run(Program::Fill(Component::AVX, Value::new(7).unwrap()));
///
/// let mut area = Area::initial(regs.layout(), Format::Compacted);
/// regs.xsavec(Rfbm::ALL, &MemoryOperand::at(0x1000), &mut area)?;
/// // The init optimisation: nothing but AVX is in the image.
/// assert_eq!(area.xstate_bv().0, 1 << 2);
///
/// let before = regs.clone();
/// regs.restore_initial(Rfbm::ALL);
/// regs.xrstor(Rfbm::ALL, &MemoryOperand::at(0x1000), &area)?;
/// assert_eq!(regs, before);
/// # Ok::<(), fpuswitch::registers::SoftFault>(())
/// ```
///
/// # Reference
/// Intel SDM volume 1, chapter 13 "Managing State Using the XSAVE Feature Set".
#[derive(Clone)]
pub struct SoftRegs {
    layout: Layout,
    instruction: SaveInstruction,
    torn_restores: bool,
    #[cfg(feature = "explore")]
    one_area: bool,
    /// What is enabled, and always x87 and SSE: FXSAVE saves them whatever XCR0 says.
    values: BTreeMap<Component, Vec<u8>>,
    xfd: ComponentSet,
    xfd_err: ComponentSet,
    tracking: Tracking,
}

/// What the processor keeps for the init and the modified optimisation.
///
/// # Reference
/// Intel SDM volume 1, section 13.6 "Processor Tracking of XSAVE-Managed State".
#[derive(Clone, Debug, Default)]
struct Tracking {
    /// Components loaded from memory and not written since: in use even if their value is the initial one.
    loaded: ComponentSet,
    /// The complement of XMODIFIED.
    unmodified: ComponentSet,
    /// XRSTOR_INFO: the address of the area and its XCOMP_BV.
    xrstor_info: Option<(u64, XcompBv)>,
    /// The image that XRSTOR_INFO is about, if it was one.
    image: Option<Version>,
}

/// The CPU of [`SoftRegs::default`]: Intel's layout with AVX-512 and PKRU, and the whole XSAVE feature set.
struct DefaultCpu;

impl CpuidReader for DefaultCpu {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let [eax, ebx, ecx, edx] = match (leaf, subleaf) {
            (0x0, _) => [0x0d, 0, 0, 0],
            (0x1, _) => [0, 0, 1 << 27, 1 << 24],
            (0xd, 0) => [0x2e7, 2696, 2696, 0],
            (0xd, 1) => [0x1f, 0, 0, 0],
            (0xd, 2) => [256, 576, 0, 0],
            (0xd, 5) => [64, 1088, 0, 0],
            (0xd, 6) => [512, 1152, 0, 0],
            (0xd, 7) => [1024, 1664, 0, 0],
            (0xd, 9) => [8, 2688, 0, 0],
            _ => [0; 4],
        };
        CpuidResult { eax, ebx, ecx, edx }
    }

    fn xcr0(&self) -> u64 {
        0x2e7
    }
}

impl Default for SoftRegs {
    /// A CPU with x87, SSE, AVX, AVX-512 and PKRU, all instructions, and registers as after reset.
    fn default() -> Self {
        // The description is the constant above.
        Self::new(&Layout::from_cpuid(&DefaultCpu).expect("the default CPU does not contradict itself"))
    }
}

impl SoftRegs {
    /// Registers as after reset of a CPU with this layout. PKRU is there if XCR0 enables it.
    pub fn new(layout: &Layout) -> Self {
        let kept = layout.enabled() | ComponentSet::LEGACY;
        let initial = |component| {
            let size = layout.place(component).map_or(0, |place| place.size_bytes as usize);
            (component, initial_value(component, size))
        };
        Self {
            layout: layout.clone(),
            instruction: SaveInstruction::best(layout),
            torn_restores: false,
            #[cfg(feature = "explore")]
            one_area: false,
            values: kept.iter().map(initial).collect(),
            xfd: ComponentSet::EMPTY,
            xfd_err: ComponentSet::EMPTY,
            tracking: Tracking::default(),
        }
    }

    /// The same, with images saved by another instruction than [the best](SaveInstruction::best) there is.
    /// XSAVEOPT is used on an image only if nothing but saves has written it
    /// ([`XsaveImage::is_edited`](super::XsaveImage::is_edited)), XSAVE otherwise. With FXSAVE, it is a CPU without
    /// XSAVE from now on, after reset.
    ///
    /// # Errors
    /// [`Unsupported`] if the CPU lacks it.
    pub fn with_save_instruction(mut self, instruction: SaveInstruction) -> Result<Self, Unsupported> {
        if !instruction.is_on(&self.layout) {
            return Err(Unsupported(instruction.name()));
        }
        if instruction == SaveInstruction::Fxsave && self.layout.has_xsave() {
            let legacy = Layout::fxsave_only().with_mxcsr_mask(self.layout.mxcsr_mask());
            return Ok(Self { torn_restores: self.torn_restores, ..Self::new(&legacy) });
        }
        self.instruction = instruction;
        Ok(self)
    }

    /// The same, but a restore that meets an absent byte has loaded what lies before it (`true`), or has
    /// changed nothing (`false`, as it is at first). Real CPUs have been seen to change nothing, and the
    /// registers count as unspecified all the same.
    #[must_use]
    pub fn with_torn_restores(mut self, torn: bool) -> Self {
        self.torn_restores = torn;
        self
    }

    /// The same, but every image is saved as if it lay where the last one was that was restored, and XSAVEOPT is used on
    /// all: how a program is fooled that keeps one area for several tasks.
    #[cfg(feature = "explore")]
    #[must_use]
    pub fn with_one_area(mut self) -> Self {
        self.one_area = true;
        self
    }

    /// Whether the rules for XSAVEOPT are ignored.
    pub(super) fn has_one_area(&self) -> bool {
        #[cfg(feature = "explore")]
        return self.one_area;
        #[cfg(not(feature = "explore"))]
        false
    }

    /// The layout, which says what CPU this is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Which instruction saves images.
    pub fn save_instruction(&self) -> SaveInstruction {
        self.instruction
    }

    /// The bytes of a component ([shapes](crate::xstate::Area#shapes)).
    ///
    /// # Errors
    /// [`Unsupported`] if it is not enabled.
    pub fn read_back(&self, component: Component) -> Result<Vec<u8>, Unsupported> {
        let enabled = self.layout.enabled().contains(component);
        let value = self.values.get(&component).filter(|_| enabled);
        value.cloned().ok_or(Unsupported("a component that is not enabled"))
    }

    /// XGETBV with ECX = 1: XCR0 AND XINUSE. SSE is in it also if only MXCSR is not 1F80H. XFD makes no
    /// difference.
    ///
    /// # Errors
    /// #UD without XSAVE, #GP without that register.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 13.6.
    pub fn xinuse(&self) -> Result<ComponentSet, SoftFault> {
        if !self.layout.has_xsave() {
            return Err(SoftFault::InvalidOpcode("XGETBV"));
        }
        if !self.layout.features().contains(XsaveFeatures::XGETBV1) {
            return Err(SoftFault::NoExtendedControlRegister(1));
        }
        let in_use = self.tracked_in_use();
        let with_mxcsr = if self.has_initial_mxcsr() { in_use } else { in_use.with(Component::SSE) };
        Ok(with_mxcsr & self.layout.enabled())
    }

    /// XINUSE, in which SSE stands for the XMM registers alone.
    fn tracked_in_use(&self) -> ComponentSet {
        self.values.iter().fold(self.tracking.loaded, |set, (component, value)| {
            if value::is_initial(*component, value) { set } else { set.with(*component) }
        })
    }

    fn has_initial_mxcsr(&self) -> bool {
        value::has_initial_mxcsr(&self.values[&Component::SSE])
    }

    /// RDPKRU.
    ///
    /// # Errors
    /// #UD without PKRU.
    ///
    /// # Reference
    /// Intel SDM volume 2, "RDPKRU—Read Protection Key Rights for User Pages".
    pub fn rdpkru(&self) -> Result<Pkru, SoftFault> {
        self.pkru().ok_or(SoftFault::InvalidOpcode("RDPKRU"))
    }

    /// WRPKRU.
    ///
    /// # Errors
    /// #UD without PKRU.
    ///
    /// # Reference
    /// Intel SDM volume 2, "WRPKRU—Write Data to User Page Key Register".
    pub fn wrpkru(&mut self, pkru: Pkru) -> Result<(), SoftFault> {
        self.rdpkru().map_err(|_| SoftFault::InvalidOpcode("WRPKRU"))?;
        self.set_pkru(pkru);
        Ok(())
    }

    /// IA32_XFD_ERR: the components of the last #NM that XFD caused.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 13.14 "Extended Feature Disable (XFD)".
    pub fn xfd_err(&self) -> ComponentSet {
        self.xfd_err
    }

    /// Writes IA32_XFD_ERR, as a #NM handler does when it is done.
    pub fn set_xfd_err(&mut self, xfd_err: ComponentSet) {
        self.xfd_err = xfd_err;
    }

    /// Executes an instruction that needs `components` and changes nothing.
    ///
    /// # Errors
    /// #UD if one of them is not enabled; #NM if XFD disables one of them, and IA32_XFD_ERR says which.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 13.14 "Extended Feature Disable (XFD)".
    pub fn require(&mut self, components: ComponentSet) -> Result<(), SoftFault> {
        if components & self.layout.enabled() != components {
            return Err(SoftFault::NotEnabled(components - self.layout.enabled()));
        }
        self.require_not_disabled(components)
    }

    fn require_not_disabled(&mut self, components: ComponentSet) -> Result<(), SoftFault> {
        let disabled = components & self.xfd;
        if disabled == ComponentSet::EMPTY {
            return Ok(());
        }
        self.xfd_err = disabled;
        Err(SoftFault::DeviceNotAvailable(disabled))
    }

    /// Writes a component other than by loading it, if it is enabled and not disabled.
    fn write(&mut self, component: Component, write: impl FnOnce(&mut [u8])) {
        let usable = self.layout.enabled().contains(component) && !self.xfd.contains(component);
        if let Some(value) = self.values.get_mut(&component).filter(|_| usable) {
            write(value);
            self.tracking.loaded = self.tracking.loaded.without(component);
            self.tracking.unmodified = self.tracking.unmodified.without(component);
        }
    }

    fn fill(&mut self, component: Component, filling: Value) {
        if component != Component::PKRU {
            self.write(component, |value| {
                value.copy_from_slice(&pattern::bytes(component, value.len(), filling));
            });
        }
    }
}

impl fmt::Debug for SoftRegs {
    /// As [`Value`]s: the bytes are thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.keys().filter(|component| **component != Component::PKRU);
        f.debug_map().entries(values.map(|component| (component, self.get(*component)))).finish()?;
        write!(f, " PKRU {:?} XFD {:?} XFD_ERR {:?} {:?}", self.pkru(), self.xfd, self.xfd_err, self.tracking)
    }
}

impl PartialEq for SoftRegs {
    fn eq(&self, other: &Self) -> bool {
        let architectural = |regs: &Self| (regs.xfd, regs.xfd_err);
        self.layout == other.layout
            && self.values == other.values
            && architectural(self) == architectural(other)
    }
}

impl Eq for SoftRegs {}

impl Hash for SoftRegs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.values, self.xfd, self.xfd_err).hash(state);
    }
}

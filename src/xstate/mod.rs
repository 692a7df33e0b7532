//! What an XSAVE image is made of. Data only, no unsafe, every target.
//!
//! The registers of a task that is not running lie in memory, in an *XSAVE area*. What the CPU can keep
//! there is divided into numbered [state components](Component), and XCR0 says which are enabled. An area
//! looks like this, in bytes:
//!
//! ```text
//!   0    24     32             160              416    512        576
//!   +----+------+--------------+----------------+------+----------+------------------------------+
//!   |x87 |MXCSR |ST0 to ST7    |XMM0 to XMM15   |      | header   | AVX, opmask, ZMM, PKRU, ...  |
//!   +----+------+--------------+----------------+------+----------+------------------------------+
//!   |<--------------- legacy region ------------------>|  64      |<------ extended region ----->|
//!                                                      |
//!        XSTATE_BV (8): which components are in it  ---+--- XCOMP_BV (8): the format --- 48 reserved
//! ```
//!
//! # Three formats
//! [`Format::Fxsave`] is the legacy region alone, from CPUs before XSAVE. In [`Format::Standard`] each
//! component has a fixed offset, which CPUID tells and which is not the same on all CPUs. In
//! [`Format::Compacted`] bit 63 of XCOMP_BV is set, and the components that it names lie one behind the
//! other. Where a component lies is the matter of a [`Layout`]: of this CPU, of one that was
//! [described](CpuidDump) elsewhere, of a [core file](Layout::from_note), or [guessed](Layout::from_regset).
//! [`Area::convert`] goes from one to another.
//!
//! # The init optimisation
//! A save need not write a component that is in its initial configuration: it clears the XSTATE_BV bit, and
//! what is in memory there is left over from whatever was before. A restore does not load it either. So the
//! bit belongs to the value, images of equal registers may differ in most of their bytes, and only
//! [values](Area::same_values) can be compared. [`Area`] reads and writes by these rules. One field is not
//! under them: MXCSR, which the standard format loads from memory whatever XSTATE_BV says. And zeros are no
//! initial configuration: FCW and MXCSR of zero unmask every exception.
//!
//! # As the outside sees it
//! ptrace, core files, KVM and signal frames show an image in forms of their own, all of them the standard format
//! or its first 512 bytes, and each with rules for what is around it. [`Area`] has a pair of methods for each:
//!
//! | view | written | read back |
//! |---|---|---|
//! | `struct user_fpregs_struct` (NT_PRFPREG) | [`user_fpregs`](Area::user_fpregs) | [`set_user_fpregs`](Area::set_user_fpregs) |
//! | NT_X86_XSTATE | [`regset`](Area::regset) | [`set_regset`](Area::set_regset) |
//! | notes of a core file | [`xstate_note`](Area::xstate_note), [`layout_note`](Layout::layout_note) | [`from_notes`](Area::from_notes) |
//! | `struct kvm_xsave` | [`kvm_xsave`](Area::kvm_xsave) | [`set_kvm_xsave`](Area::set_kvm_xsave) |
//! | signal frame | [`signal_frame`](Area::signal_frame) | [`SignalFrame`] |
//!
//! PKRU is in these forms, and not in a thread's image: its home in memory is the thread's. So what writes a view
//! is given it, and what reads one gives it back.
//!
//! # What is never trusted
//! Bytes may come from a signal frame, a core file or another machine. Nothing in them is believed for the
//! safety of an access: offsets come from the layout, and are held against the length at each use. Whether a
//! CPU would take the image is another question, asked with [`Area::check`]; whether a kernel should take it
//! from a user, a third, [`Area::check_user_image`]. A layout is checked when it is made: CPUID of another
//! machine is input, too.
//!
//! # Examples
//! A debugger has a register set (NT_X86_XSTATE) of a stopped thread, and wants YMM7: half of it is XMM7, the
//! other half is in AVX state.
//!
//! ```
//! use fpuswitch::xstate::{Area, Layout};
//! # let mut regset = vec![0; 2440];
//! # regset[464] = 0xe7;
//! # regset[465] = 0x02;
//! # regset[512] = 0b110;
//! # regset[272..288].fill(0x11);
//! # regset[688..704].fill(0x22);
//! # let regset = &regset[..];
//! let layout = Layout::from_regset(regset)?;
//! let area = Area::over(regset, &layout)?;
//! let ymm7 = area.register("ymm7".parse()?)?;
//! assert_eq!(
//!     ymm7.to_string(),
//!     "22222222_22222222_22222222_22222222_11111111_11111111_11111111_11111111",
//! );
//! // ZMM_Hi256 is not in the image: the rest of ZMM7 is zero, whatever the bytes are.
//! assert_eq!(area.register("zmm7".parse()?)?.bytes()[32..], [0; 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Reference
//! Intel SDM volume 1, chapter 13 "Managing State Using the XSAVE Feature Set"; section 10.5 "FXSAVE and
//! FXRSTOR Instructions". The components have the numbers of section 13.1.

mod aligned;
mod area;
mod bitmaps;
mod check;
mod component;
mod convert;
mod cpuid;
mod foreign;
mod instruction;
mod layout;
mod legacy;
mod register;
mod views;

pub use aligned::AlignedBytes;
pub(crate) use area::initial_value;
pub use area::{Area, AreaError, OwnedArea};
pub use bitmaps::{Rfbm, XcompBv, XstateBv};
pub use check::Refusal;
pub use component::{Component, ComponentSet, UnknownComponent};
pub use convert::ConvertError;
pub use cpuid::{CpuidDump, CpuidDumpError, CpuidLineProblem, CpuidReader, CpuidResult};
pub use instruction::SaveInstruction;
#[cfg(all(feature = "live", target_arch = "x86_64", target_os = "linux"))]
pub(crate) use layout::LEGACY_BYTES;
pub use layout::{Format, Layout, LayoutError, Place, XsaveFeatures};
pub use legacy::{LegacyRegion, Rounding};
pub(crate) use legacy::{SSE_BYTES, X87_BYTES};
pub(crate) use register::lane;
pub use register::{Register, RegisterValue, UnknownRegister};
pub use views::{FrameKind, LegacyOnly, NoteError, SignalFrame, Tag, TagWord, ViewError};
pub(crate) use views::{MAGIC1_AT, MAGIC2_BYTES, SOFTWARE, XSTATE_SIZE_AT};

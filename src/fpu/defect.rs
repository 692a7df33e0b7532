//! Planted errors: what a checker must find.

/// An error in the mechanism that can be switched on, so that a checker can show that it would find it.
///
/// Most are bugs that a kernel had: `check::corpus` has a list of events for each. A [`Planted`](crate::check::Planted)
/// policy asks for one, and the slot of each CPU keeps it ([`OwnerSlot::with_defect`](super::OwnerSlot::with_defect)).
/// Exists with the feature `explore` only; without it, the comparisons are with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "explore"),
    allow(unreachable_pub, dead_code, reason = "part of the interface with the feature only")
)]
pub enum Defect {
    // Claims: the wrong one of the two invalidations, or none.
    /// A retry of a signal's save believes what an earlier attempt found in the owner slot (Linux, CVE-2019-19602,
    /// 59c4bd853abc: the compiler kept it over the retry). The frame gets whatever is in the registers by then.
    RetryTrustsOldOwner,
    /// `exec` clears the owner of the CPU that it runs on, and leaves last_cpu (Linux, 1f69383b203e, 2023). The CPU that the
    /// program was on before still claims the task with the old program's registers.
    ExecClearsOwner,
    /// `exec` ends no claim at all.
    ExecKeepsClaim,
    /// A write to the image of another task does not reset its last_cpu (Linux, 089f9fba56fa, 2012). What a debugger writes
    /// is lost.
    WriteKeepsLastCpu,
    /// A write to the image of a task whose registers are the truth: they are not saved first, and need_fpu_load is not
    /// set.
    WriteWithoutSave,
    /// A CPU that loses power keeps its owner (Linux, 644c15418638, 2012). The task finds registers as after reset.
    PowerLossKeepsOwner,
    /// A signal return whose load faults leaves the claim of the task that the registers were kept for (Linux,
    /// d8778e393afa, 2021). That task finds a half-loaded frame of another.
    FailedLoadKeepsOwner,
    /// A kernel FPU section does not clear the owner of the registers that it clobbers.
    KernelFpuKeepsOwner,
    /// A kernel FPU section saves the current task, whether its registers are the truth or not. The second section of a run
    /// saves what the first left.
    KernelFpuSavesAgain,
    /// Names are compared without their generation, a child inherits last_cpu, and `exit` does not clear the owner (arm64
    /// Linux, 2017: registers of dead tasks). A child finds the registers of a dead task whose slot it has.
    DeadOwnerMatches,
    /// Names are compared without their generation, and a child takes over the last_cpu of its slot, where `exit` leaves it.
    /// `exit` clears the owner of the CPU on which it happens; another CPU still names the dead task, whose registers the
    /// child finds there.
    ChildInheritsLastCpu,
    /// Room for a dynamic component does not end the claim of another CPU (arm64 Linux, SVE, 751ecf6afd65, 2024,
    /// CVE-2024-50275). That CPU still has the old IA32_XFD.
    GrowKeepsClaim,
    /// `exit` ends no claim (Genode, a task destroyed while the FPU was its). A CPU claims a dead task.
    ExitKeepsClaim,

    // Loads and saves that are left out, or done though they must not be.
    /// The swap to a guest and back saves registers without a look at need_fpu_load (Linux KVM, e751732486eb, 2019). It
    /// saves what a kernel FPU section left.
    GuestSwapSavesAnyway,
    /// A guest's state is loaded at the swap, and its entry has no look at need_fpu_load, which a softirq sets (Linux KVM,
    /// 2620fe268e80, 2020). The guest runs with what the softirq left.
    GuestEntryLoadsNothing,
    /// A guest can be put that was not loaded (Linux KVM, f958bd2314d1, 2019). The program's state counts as the guest's.
    PutWithoutLoad,
    /// A load at switch-in, by the count of uses, takes a state for unused while a signal is delivered (Linux, 2008: used_math
    /// was cleared too early). The registers are initialised instead.
    PreloadInitialises,
    /// A return skips the load if the task was on this CPU last, whatever became of the registers since.
    ReturnTrustsLastCpu,
    /// A return arms the first-use trap, instead of loading, where the registers are another task's (LazyFP, CVE-2018-3665),
    /// under a policy that says that user code has its own.
    ReturnBehindTrap,
    /// Switch-in believes that the registers were loaded ahead for the task that it switches to; they were loaded for the
    /// one that was current (MINIX).
    PreloadOfAnother,
    /// A save changes a register, and leaves the registers live (powerpc Linux, 5e1d824f9a28, 2023: f0 became FPSCR).
    SaveClobbers,
    /// Only x87 and SSE are saved, as FXSAVE does (several user-level runtimes).
    SaveLegacyOnly,
    /// A restore asks for what was in use at the save (Caladan). What was not keeps another task's values.
    RestoreWhatWasInUse,
    /// A system call gives up the control words too (OSv).
    CallKeepsNothing,
    /// A signal handler starts in the registers as they are (Graphene).
    HandlerKeepsRegisters,

    // Who may use the registers.
    /// Kernel code may use the FPU inside a section of other kernel code (Linux, 2012: a flag of the current task alone was
    /// looked at).
    UsableInSection,
    /// Kernel code may use the FPU of a CPU that is not online yet (Linux, 2297554f01df, 2025).
    UsableOffline,
    /// A kernel thread that borrows the memory of the task before it counts as a user task (Linux, 12f7764ac612, 2021).
    KernelThreadIsUser,

    // Images that nobody looked at.
    /// The image that a debugger writes is not checked (Linux, 814fb7bb7db5, CVE-2017-15537), and a restore that faults is
    /// taken for one that was done. The registers stay the previous task's.
    WriteNotChecked,
    /// The frame that a signal return copies is not checked (Linux, 484cea4f362e, 2021), and neither is the restore.
    FrameNotChecked,
    /// A signal return that is refused leaves the state as it is (Linux, efa165504943, 2021).
    RefusedReturnKeepsState,
    /// What is faulted in is as long as the frame says that it is (Linux, d877550eaf2d, CVE-2024-26603). The retries do not
    /// end.
    FaultInBelievesFrame,
    /// What is copied of components in their initial configuration is zero, FCW and MXCSR too (Linux, f9dfb5e390fa, 2021).
    InitialCopiedAsZero,
    /// An image that is reset is zero, FCW and MXCSR too (Chimera).
    ResetIsZero,
    /// The components that a frame does not hold are initialised behind the load, and not before: in the standard format AVX
    /// brings an MXCSR along. Registers with bytes alone show it.
    InitialBehindLoad,
    /// The size of the compacted format is taken for an area in the standard format (Asterinas). Registers with bytes alone
    /// show it.
    AreaTooSmall,
    /// XSAVEOPT is used on an area that held something else since the last XRSTOR from there. The software registers alone
    /// show it.
    XsaveoptOfReusedArea,

    // PKRU.
    /// A PKRU of 0, its initial configuration, is taken for none, and the default is loaded (Linux, 510b80a6a0f1, 2021).
    InitialPkruIsDefault,
    /// A debugger's PKRU goes to the image, where nobody reads it (Linux, 4a804c4f8356, 2022).
    PkruWriteToImage,
    /// The PKRU that is written to a frame does not count at the return (Linux, ae6012d72fa6, 2024).
    FramePkruIgnored,
    /// `fork` takes the parent's PKRU from memory, where it is stale.
    ForkReadsStalePkru,
    /// The guest's PKRU stays in the register behind its exit (Linux KVM, 37486135d3a7, 2020).
    GuestPkruStays,
    /// Switch-in leaves PKRU as it is (Wasmtime's fibers).
    SwitchKeepsPkru,
    /// Where a frame holds no PKRU, whatever is there is loaded (CRIU).
    GarbagePkru,

    // IA32_XFD.
    /// A CPU that comes online believes what its slot remembers of IA32_XFD (Linux, 10e4b5166df9, CVE-2024-35801).
    OnlineKeepsXfd,
    /// A guest's own IA32_XFD counts at its next load, though its image was saved before with a component that it disables
    /// (Linux KVM, b45f72177594, 2026). The restore faults, if the component is in use.
    GuestXfdCrossesSave,
    /// User code may use a dynamic component before the image has room for it (arm64 Linux, d2907cbe9ea0, 2026: the mode
    /// changed before the size).
    XfdBeforeRoom,

    // Not wrong: what must not be found.
    /// A save writes last_cpu, which every load has written.
    SaveWritesLastCpu,
    /// `exit` does not clear the owner: a dead task's name matches nothing.
    ExitKeepsOwner,
}

//! The bugs, in the order of the catalogue.

use super::{Bug, Tier};
use crate::{
    check::{Group, Invariant},
    fpu::{Defect, policy::Builtin},
};

/// Each bug: name, number, year, whose, and where to look; what goes wrong; what is broken, under which policy, by which
/// defect, with events of which groups, and on which registers. Its events are in the file of its name.
macro_rules! bugs {
    ($(
        $id:literal $number:literal $year:literal $system:literal $source:literal
        $what:literal
        $invariant:ident $policy:ident $defect:ident [$($group:ident)*] $tier:ident $(. $mark:ident)?;
    )*) => {
        &[$(
            Bug {
                id: $id,
                number: $number,
                year: $year,
                system: $system,
                source: $source,
                what: $what,
                invariant: Invariant::$invariant,
                tier: Tier::$tier,
                policy: Builtin::$policy,
                defect: Defect::$defect,
                groups: &[$(Group::$group),*],
                pkru_in_xsave: false,
                harmless: false,
                events: include_str!(concat!("../../../corpus/", $id, ".events")),
            } $(. $mark())?
        ),*]
    };
}

pub(super) const BUGS: &[Bug] = bugs! {
    "retry-trusts-old-owner" "1" 2019 "Linux" "CVE-2019-19602, 59c4bd853abc"
    "a retried save to a signal frame believes the owner that its first attempt found"
    I12 OwnerSlot RetryTrustsOldOwner [Signals] Explorer;

    "exec-clears-owner" "2" 2023 "Linux" "1f69383b203e"
    "exec clears the owner of its CPU where it has to reset last_cpu"
    I5 OwnerSlot ExecClearsOwner [] Explorer;

    "exec-keeps-claim" "pattern" 0 "none" "1f69383b203e, without any invalidation"
    "exec ends no claim"
    I5 OwnerSlot ExecKeepsClaim [] Explorer;

    "write-keeps-last-cpu" "3" 2012 "Linux" "089f9fba56fa"
    "a debugger's write does not reset last_cpu, and is lost"
    I5 OwnerSlot WriteKeepsLastCpu [] Explorer;

    "write-without-save" "pattern" 0 "none" "need_fpu_load clear while the image is edited"
    "a debugger's write goes to an image that is not the truth"
    I2 OwnerSlot WriteWithoutSave [] Explorer;

    "power-loss-keeps-owner" "4" 2012 "Linux" "644c15418638"
    "a CPU that loses power keeps its owner"
    I5 OwnerSlot PowerLossKeepsOwner [Power] Explorer;

    "failed-load-keeps-owner" "5" 2021 "Linux" "d8778e393afa"
    "a signal return that faults leaves another task's claim on the registers that it changed"
    I5 OwnerSlot FailedLoadKeepsOwner [Signals] Explorer;

    "kernel-fpu-keeps-owner" "6" 0 "any" "what kernel_fpu_begin prevents"
    "a kernel FPU section leaves the claim on the registers that it uses"
    I5 OwnerSlot KernelFpuKeepsOwner [] Explorer;

    "kernel-fpu-saves-again" "7" 0 "any" "what kernel_fpu_begin prevents"
    "the second kernel FPU section of a run saves what the first one left"
    I4 OwnerSlot KernelFpuSavesAgain [] Explorer;

    "dead-owner-matches" "8" 2017 "arm64 Linux" "registers of dead tasks"
    "a new task finds the registers of the dead one whose name it has"
    I13 OwnerSlot DeadOwnerMatches [] Explorer;

    "grow-keeps-claim" "9" 2024 "arm64 Linux" "CVE-2024-50275, 751ecf6afd65"
    "room for a dynamic component leaves the claim of a CPU that has the old XFD"
    I8 OwnerSlot GrowKeepsClaim [Dynamic] Explorer;

    "guest-swap-saves-anyway" "10a" 2019 "Linux KVM" "e751732486eb"
    "the swap of guest and program saves registers that are nobody's"
    I4 OwnerSlot GuestSwapSavesAnyway [Guest] Explorer;

    "guest-entry-loads-nothing" "10b" 2020 "Linux KVM" "2620fe268e80"
    "a guest is entered with what a softirq left in the registers"
    I1 OwnerSlot GuestEntryLoadsNothing [Guest] Explorer;

    "put-without-load" "11" 2019 "Linux KVM" "f958bd2314d1"
    "a guest is put that was not loaded, and the program's state becomes the guest's"
    I4 OwnerSlot PutWithoutLoad [Guest] Explorer;

    "preload-initialises" "12" 2008 "Linux" "fpu_counter against used_math"
    "a load at switch-in takes a state for unused while a signal is delivered"
    I2 TrapRestore PreloadInitialises [Signals] Explorer;

    "usable-in-section" "13" 2012 "Linux" "irq_fpu_usable by TS_USEDFPU"
    "an interrupt uses the FPU inside a kernel FPU section"
    I11 OwnerSlot UsableInSection [] Explorer;

    "kernel-thread-is-user" "14" 2021 "Linux" "12f7764ac612"
    "a kernel thread on borrowed memory is loaded like a user task"
    I6 Eager KernelThreadIsUser [] Explorer;

    "save-clobbers" "16" 2023 "powerpc Linux" "5e1d824f9a28"
    "a save changes a register that stays live"
    I5 OwnerSlot SaveClobbers [] Explorer;

    "usable-offline" "18" 2025 "Linux" "2297554f01df"
    "kernel code uses the FPU of a CPU that is not online yet"
    I11 OwnerSlot UsableOffline [Power] Explorer;

    "write-not-checked" "20" 2017 "Linux" "CVE-2017-15537, 814fb7bb7db5"
    "a debugger's image is not checked, and the restore that faults is ignored"
    I9 OwnerSlot WriteNotChecked [] Explorer;

    "frame-not-checked" "21" 2021 "Linux" "484cea4f362e"
    "a signal frame is copied without a check"
    I9 OwnerSlot FrameNotChecked [Signals] Explorer;

    "refused-return-keeps-state" "22" 2021 "Linux" "efa165504943"
    "a signal return that is refused leaves the old state"
    I2 OwnerSlot RefusedReturnKeepsState [Signals] Explorer;

    "child-inherits-last-cpu" "23" 0 "any" "what generations in names prevent"
    "a child in a dead task's slot inherits a claim on the dead task's registers"
    I13 OwnerSlot ChildInheritsLastCpu [] Explorer;

    "fault-in-believes-frame" "24" 2024 "Linux" "CVE-2024-26603, d877550eaf2d"
    "what is faulted in is as long as the frame says, and the retries do not end"
    I14 OwnerSlot FaultInBelievesFrame [Signals] Explorer;

    "initial-copied-as-zero" "25" 2021 "Linux" "f9dfb5e390fa"
    "components in their initial configuration are copied as zeros, FCW and MXCSR too"
    I4 OwnerSlot InitialCopiedAsZero [] Explorer;

    "initial-behind-load" "26" 0 "x86" "Intel SDM volume 1, 13.8.1"
    "what a frame lacks is initialised behind the load, and an MXCSR comes along with AVX"
    I2 OwnerSlot InitialBehindLoad [Signals] Host;

    "return-behind-trap" "28" 2018 "x86 kernels" "CVE-2018-3665"
    "user code runs on another task's registers behind a trap"
    I1 OwnerSlot ReturnBehindTrap [] Explorer;

    "initial-pkru-is-default" "29" 2021 "Linux" "510b80a6a0f1"
    "a PKRU in its initial configuration is taken for none"
    I7 OwnerSlot InitialPkruIsDefault [Pkru] Explorer;

    "pkru-write-to-image" "30" 2022 "Linux" "4a804c4f8356"
    "a debugger's PKRU goes to where nobody reads it"
    I7 OwnerSlot PkruWriteToImage [Pkru] Explorer;

    "frame-pkru-ignored" "31" 2024 "Linux" "ae6012d72fa6"
    "the PKRU in a signal frame does not count"
    I7 OwnerSlot FramePkruIgnored [Signals] Explorer;

    "fork-reads-stale-pkru" "31b" 0 "any" "memory's PKRU is right for tasks that are out"
    "fork takes the parent's PKRU from memory"
    I7 OwnerSlot ForkReadsStalePkru [Pkru] Explorer;

    "guest-pkru-stays" "31c" 2020 "Linux KVM" "37486135d3a7"
    "the kernel goes on with the guest's PKRU"
    I7 OwnerSlot GuestPkruStays [Guest] Explorer;

    "online-keeps-xfd" "32" 2024 "Linux" "CVE-2024-35801, 10e4b5166df9"
    "a CPU that comes online believes what it remembers of XFD"
    I8 OwnerSlot OnlineKeepsXfd [Power] Explorer;

    "guest-xfd-crosses-save" "32b" 2026 "Linux KVM" "b45f72177594"
    "a guest's XFD disables what its image was saved with before"
    I8 OwnerSlot GuestXfdCrossesSave [Guest Dynamic] Explorer;

    "restore-what-was-in-use" "33" 0 "Caladan" "runtime/preempt.c"
    "a restore leaves out what was initial at the save"
    I2 OwnerSlot RestoreWhatWasInUse [] Explorer;

    "save-legacy-only" "34" 0 "user-level runtimes" "FXSAVE, or 128 bits a register"
    "a save leaves AVX out"
    I4 OwnerSlot SaveLegacyOnly [] Explorer;

    "reset-is-zero" "35" 0 "Chimera" "a zeroed image"
    "a new image is zero, FCW and MXCSR too"
    I4 OwnerSlot ResetIsZero [] Explorer;

    "area-too-small" "36" 0 "Asterinas" "the compacted size"
    "an area in the standard format has the compacted size"
    I10 OwnerSlot AreaTooSmall [] Software;

    "switch-keeps-pkru" "37" 0 "Wasmtime" "PKRU of fibers"
    "a task runs with the PKRU of the one before"
    I7 OwnerSlot SwitchKeepsPkru [Pkru] Explorer;

    "exit-keeps-claim" "38" 0 "Genode" "a task destroyed with the FPU"
    "exit ends no claim, and a CPU claims a dead task"
    I13 OwnerSlot ExitKeepsClaim [] Explorer;

    "garbage-pkru" "39" 0 "CRIU" "PKRU of a frame that has none"
    "a program is locked out of its memory by a PKRU that nobody wrote"
    I7 OwnerSlot GarbagePkru [Signals] Explorer;

    "handler-keeps-registers" "40" 0 "Graphene" "registers at the entry"
    "a handler starts in the registers that were interrupted"
    I2 OwnerSlot HandlerKeepsRegisters [Signals] Explorer;

    "xsaveopt-of-reused-area" "41" 0 "x86" "Intel SDM volume 1, 13.9"
    "XSAVEOPT leaves out what it takes for unchanged in an area that held something else"
    I4 OwnerSlot XsaveoptOfReusedArea [] Software;

    "call-keeps-nothing" "42" 0 "OSv" "control words at a voluntary switch"
    "a system call gives up what a function call keeps"
    I4 CallBoundary CallKeepsNothing [] Explorer;

    "preload-of-another" "43" 0 "MINIX" "the current process is not the next"
    "what was loaded ahead for one task counts as another's"
    I2 EagerOwner PreloadOfAnother [] Explorer;

    "return-trusts-last-cpu" "pattern" 0 "none" "a load skipped where need_fpu_load may be set"
    "a return loads nothing if the task was here last"
    I1 OwnerSlot ReturnTrustsLastCpu [] Explorer;

    "xfd-before-room" "F" 2026 "arm64 Linux" "d2907cbe9ea0"
    "user code may use a component that the image has no room for yet"
    I10 OwnerSlot XfdBeforeRoom [Dynamic] Explorer;

    "save-writes-last-cpu" "harmless" 0 "Linux" "last_cpu at schedule-out"
    "a save writes last_cpu, which the load has written"
    I5 OwnerSlot SaveWritesLastCpu [] Explorer.harmless;

    "exit-keeps-owner" "harmless" 0 "Linux" "the owner at exit"
    "exit leaves an owner whose name matches nothing"
    I13 OwnerSlot ExitKeepsOwner [] Explorer.harmless;
};

//! Events that a machine refuses: every reason, in words that name what the event asks for and what the machine
//! has, and without a trace in the machine.

mod support;

use fpuswitch::{
    EventError,
    fpu::{Policy, policy::Builtin},
    registers::{AbstractRegs, SoftRegs, UserFrames},
    xstate::Layout,
};
use std::collections::BTreeSet;
use support::{Checked, events};

/// What happened before, on two CPUs; then events that cannot happen, and why.
type Refused = (&'static str, &'static [(&'static str, &'static str)]);

const REFUSED: &[Refused] = &[
    (
        "",
        &[
            ("idle c2", "c2 does not exist: the machine has 2 CPUs, from c0"),
            ("online c2", "c2 does not exist: the machine has 2 CPUs, from c0"),
            ("online c1", "c1 is online already"),
            ("in c0 T0", "T0 does not exist"),
            ("migrate T0 c0", "T0 does not exist"),
            ("spawn T1", "T1 cannot be next: expected T0"),
            ("kernel-thread T0.2", "T0.2 cannot be next: expected T0"),
            ("entry c0 interrupt", "c0 is idle: the event needs a task running there"),
            ("kernel-fpu-begin c0 task", "c0 is idle: the event needs a task running there"),
            ("idle c0", "c0 is idle: expected its schedule-out first"),
            ("kernel-fpu-end c0", "no kernel FPU section is open on c0"),
        ],
    ),
    (
        "out c0",
        &[
            ("out c0", "c0 is between two tasks: expected somebody to switch out"),
            ("exec c0", "c0 is between two tasks: the event needs a task running there"),
            ("kernel-fpu-begin c0 hardirq", "c0 is between two tasks: expected the end of the switch first"),
            ("offline c0", "c0 is between two tasks: expected idle"),
            ("power-loss c0", "c0 is between two tasks: expected idle, or no user task running"),
        ],
    ),
    (
        "spawn T0; offline c1",
        &[
            ("in c1 T0", "c1 is offline"),
            ("migrate T0 c1", "c1 is offline"),
            ("kernel-fpu-begin c1 hardirq", "c1 is offline"),
            ("kernel-fpu-end c1", "c1 is offline"),
            ("invalidate-registers c1", "c1 is offline"),
            ("power-loss c1", "c1 is offline"),
            ("offline c1", "c1 is offline"),
        ],
    ),
    (
        "spawn T0",
        &[
            ("migrate T0 c2", "c2 does not exist: the machine has 2 CPUs, from c0"),
            ("write T0.2 AVX 1", "T0.2 does not exist"),
            ("frame T1 short", "T1 does not exist"),
            ("spawn T0", "slot of T0 still belongs to T0, which has not exited or still runs"),
            ("kernel-thread T0.2", "slot of T0.2 still belongs to T0, which has not exited or still runs"),
            ("return c0 T0", "c0 is idle, not T0"),
            ("frame T0 absent", "T0 has no signal frame"),
            ("read T0 x87", "x87 is no component of this machine's images"),
            ("write T0 PKRU 1", "PKRU is no component of this machine's images"),
            ("write T0 TILEDATA 1", "TILEDATA is no component of this machine's images"),
        ],
    ),
    (
        "spawn T0; in c0 T0; spawn T1",
        &[
            ("in c0 T1", "c0 is running T0: expected its schedule-out first"),
            ("idle c0", "c0 is running T0: expected its schedule-out first"),
            ("offline c0", "c0 is running T0: expected idle"),
            ("power-loss c0", "c0 is running T0: expected idle, or no user task running"),
            ("in c1 T0", "T0 runs on c0"),
            ("migrate T0 c1", "T0 runs on c0"),
            ("return c0 T1", "c0 is running T0, not T1"),
            ("return c0 T2", "T2 does not exist"),
            ("fork c0 T1", "slot of T1 still belongs to T1, which has not exited or still runs"),
            ("fork c0 T3", "T3 cannot be next: expected T2"),
            ("entry c0 interrupt", "T0 is in the kernel on c0: expected its return to user first"),
            ("user-write c0 AVX 1", "T0 is in the kernel on c0: expected its return to user first"),
            ("user-pkru c0 0x0", "T0 is in the kernel on c0: expected its return to user first"),
            ("first-use c0", "T0 is in the kernel on c0: expected its return to user first"),
            ("fpu-fault c0", "T0 is in the kernel on c0: expected its return to user first"),
            ("signal-save c0", "T0 is at signal step Idle: expected a signal delivery"),
            ("signal-fault-in c0", "T0 is at signal step Idle: expected a frame access that faulted"),
            ("signal-enter c0", "T0 is at signal step Idle: expected a frame that was written"),
            ("sigreturn-load c0", "T0 is at signal step Idle: expected a signal return"),
        ],
    ),
    (
        "spawn T0; in c0 T0; return c0 T0",
        &[
            ("out c0", "T0 runs user code on c0: expected its kernel entry first"),
            ("return c0 T0", "T0 runs user code on c0: expected its kernel entry first"),
            ("kernel-fpu-begin c0 hardirq", "T0 runs user code on c0: expected its kernel entry first"),
            ("invalidate-registers c0", "T0 runs user code on c0: expected its kernel entry first"),
            ("copy-to-memory c0", "T0 runs user code on c0: expected its kernel entry first"),
            ("exec c0", "T0 runs user code on c0: expected its kernel entry first"),
            ("user-write c0 opmask 1", "opmask is no component of this machine's images"),
            ("user-write c0 PKRU 1", "PKRU is no component of this machine's images"),
        ],
    ),
    (
        "spawn T0; in c0 T0; kernel-fpu-begin c0 softirq",
        &[
            ("kernel-fpu-begin c0 hardirq", "kernel FPU section (HardIrq) inside another (SoftIrq) on c0"),
            ("out c0", "a kernel FPU section (SoftIrq) is open on c0: expected its end first"),
            ("return c0 T0", "a kernel FPU section (SoftIrq) is open on c0: expected its end first"),
            ("exit c0", "a kernel FPU section (SoftIrq) is open on c0: expected its end first"),
            (
                "invalidate-registers c0",
                "a kernel FPU section (SoftIrq) is open on c0: expected its end first",
            ),
        ],
    ),
    (
        "spawn T0; in c0 T0; exit c0",
        &[
            ("exit c0", "T0 has exited"),
            ("exec c0", "T0 has exited"),
            ("fork c0 T1", "T0 has exited"),
            ("return c0 T0", "T0 has exited"),
            ("move-to-cpu c0", "T0 has exited"),
            ("read T0 AVX", "T0 has exited"),
            ("frame T0 short", "T0 has exited"),
            ("spawn T0.2", "slot of T0.2 still belongs to T0, which has not exited or still runs"),
        ],
    ),
    (
        "spawn T0; in c0 T0; exit c0; out c0",
        &[
            ("in c0 T0", "T0 has exited"),
            ("spawn T0", "T0 cannot be next: expected T0.2"),
            ("kernel-thread T0.3", "T0.3 cannot be next: expected T0.2"),
        ],
    ),
    (
        "spawn T0; in c0 T0; exit c0; out c0; spawn T0.2",
        &[
            ("in c0 T0", "T0 is dead: its slot holds T0.2"),
            ("migrate T0 c1", "T0 is dead: its slot holds T0.2"),
            ("read T0 AVX", "T0 is dead: its slot holds T0.2"),
            ("read T0.3 AVX", "T0.3 does not exist"),
        ],
    ),
    (
        "kernel-thread T0; in c0 T0",
        &[
            ("return c0 T0", "T0 is a kernel thread and has no FPU state"),
            ("exec c0", "T0 is a kernel thread and has no FPU state"),
            ("copy-to-cpu c0", "T0 is a kernel thread and has no FPU state"),
            ("signal-deliver c0", "T0 is a kernel thread and has no FPU state"),
            ("write T0 AVX 1", "T0 is a kernel thread and has no FPU state"),
            ("frame T0 short", "T0 is a kernel thread and has no FPU state"),
            ("entry c0 interrupt", "T0 is in the kernel on c0: expected its return to user first"),
        ],
    ),
    (
        "spawn T0; in c0 T0; signal-deliver c0",
        &[
            ("return c0 T0", "T0 is at signal step Save: expected the end of the signal delivery or return"),
            ("signal-deliver c0", "T0 is at signal step Save: expected none"),
            ("signal-enter c0", "T0 is at signal step Save: expected a frame that was written"),
            ("signal-fault-in c0", "T0 is at signal step Save: expected a frame access that faulted"),
            ("sigreturn c0", "T0 is at signal step Save: expected none"),
            ("exec c0", "T0 is at signal step Save: expected none"),
        ],
    ),
    (
        "spawn T0; in c0 T0; signal-deliver c0; frame T0 absent; signal-save c0",
        &[("signal-save c0", "T0 is at signal step SaveFaulted: expected a signal delivery")],
    ),
    (
        "spawn T0; in c0 T0; signal-deliver c0; signal-save c0",
        &[
            ("return c0 T0", "T0 is at signal step Saved: expected the end of the signal delivery or return"),
            ("signal-save c0", "T0 is at signal step Saved: expected a signal delivery"),
        ],
    ),
    (
        "spawn T0; in c0 T0; sigreturn c0",
        &[
            ("return c0 T0", "T0 is at signal step Load: expected the end of the signal delivery or return"),
            ("sigreturn c0", "T0 is at signal step Load: expected none"),
            ("signal-deliver c0", "T0 is at signal step Load: expected none"),
            ("fork c0 T1", "T0 is at signal step Load: expected the end of the signal return"),
        ],
    ),
    (
        "spawn T0; in c0 T0; sigreturn c0; frame T0 absent; sigreturn-load c0",
        &[("sigreturn-load c0", "T0 is at signal step LoadFaulted: expected a signal return")],
    ),
    (
        "spawn T0; in c0 T0; softirq-begin c0",
        &[
            ("softirq-begin c0", "a softirq is being served on c0: expected its end first"),
            ("return c0 T0", "a softirq is being served on c0: expected its end first"),
            ("out c0", "a softirq is being served on c0: expected its end first"),
            (
                "kernel-fpu-begin c0 task",
                "the FPU is not usable (Task) on c0 while a softirq is being served there",
            ),
            (
                "kernel-fpu-begin c0 hardirq",
                "the FPU is not usable (HardIrq) on c0 while a softirq is being served there",
            ),
        ],
    ),
    (
        "spawn T0; in c0 T0; softirq-begin c0; kernel-fpu-begin c0 softirq",
        &[
            ("kernel-fpu-begin c0 hardirq", "kernel FPU section (HardIrq) inside another (SoftIrq) on c0"),
            ("softirq-end c0", "a kernel FPU section (SoftIrq) is open on c0: expected its end first"),
        ],
    ),
    (
        "spawn T0; in c0 T0",
        &[
            ("softirq-end c0", "no softirq is being served on c0"),
            ("guest-put c0", "the guest of T0 is not loaded: expected guest-load first"),
            ("guest-enter c0", "the guest of T0 is not loaded: expected guest-load first"),
            ("guest-exit c0", "T0 is in the kernel on c0: expected its return to user first"),
            ("permit c0 AVX", "AVX is no dynamic component of this machine"),
            (
                "dynamic-grow c0",
                "T0 wants no dynamic component: expected a dynamic-use that is permitted first",
            ),
            ("user-memory c0 T1 read 0", "T1 does not exist"),
            ("kernel-pkru c1 0x0", "c1 is idle: the event needs a task running there"),
            ("sigreturn-copy c0", "T0 is at signal step Idle: expected a signal return"),
        ],
    ),
    (
        "spawn T0; in c0 T0; guest-load c0",
        &[
            ("guest-load c0", "the guest of T0 is loaded: expected guest-put first"),
            ("return c0 T0", "the guest of T0 is loaded: expected guest-put first"),
            ("exec c0", "the guest of T0 is loaded: expected guest-put first"),
            ("exit c0", "the guest of T0 is loaded: expected guest-put first"),
            ("fork c0 T1", "the guest of T0 is loaded: expected guest-put first"),
            ("signal-deliver c0", "the guest of T0 is loaded: expected guest-put first"),
            ("read T0 AVX", "the guest of T0 is loaded: expected guest-put first"),
            ("write T0 AVX 1", "the guest of T0 is loaded: expected guest-put first"),
            ("write-pkru T0 none", "the guest of T0 is loaded: expected guest-put first"),
        ],
    ),
    (
        "spawn T0; in c0 T0; guest-load c0; guest-enter c0",
        &[
            ("entry c0 interrupt", "c0 runs the guest of T0: expected guest-exit first"),
            ("fpu-fault c0", "c0 runs the guest of T0: expected guest-exit first"),
            ("guest-put c0", "T0 runs user code on c0: expected its kernel entry first"),
            ("guest-enter c0", "T0 runs user code on c0: expected its kernel entry first"),
        ],
    ),
    (
        "spawn T0; in c0 T0; return c0 T0",
        &[
            ("guest-exit c0", "c0 runs the program of T0, not its guest"),
            ("softirq-begin c0", "T0 runs user code on c0: expected its kernel entry first"),
            ("user-memory c0 T0 read 0", "T0 runs user code on c0: expected its kernel entry first"),
            ("kernel-pkru c0 0x0", "T0 runs user code on c0: expected its kernel entry first"),
            ("dynamic-use c0 AVX", "AVX is no dynamic component of this machine"),
        ],
    ),
    (
        "kernel-thread T0; in c0 T0",
        &[
            ("user-worker c0 T1", "T0 is a kernel thread and has no FPU state"),
            ("guest-load c0", "T0 is a kernel thread and has no FPU state"),
            ("permit c0 TILEDATA", "T0 is a kernel thread and has no FPU state"),
            ("read-pkru T0", "T0 is a kernel thread and has no FPU state"),
            ("user-memory c0 T0 read 0", "T0 is a kernel thread and has no FPU state"),
        ],
    ),
    (
        "spawn T0; in c0 T0; return c0 T0; kernel-thread T1",
        &[
            ("fpu-fault c0", "T0 is not FPU-free: expected fpu-free first"),
            ("fpu-free T0", "T0 runs user code on c0: expected its kernel entry first"),
            ("fpu-free T1", "T1 is a kernel thread and has no FPU state"),
            ("fpu-free T2", "T2 does not exist"),
        ],
    ),
    (
        "spawn T0; fpu-free T0; in c0 T0; return c0 T0",
        &[
            ("user-write c0 AVX 1", "T0 is FPU-free: expected fpu-fault for an FPU instruction of its"),
            ("first-use c0", "T0 is FPU-free: expected fpu-fault for an FPU instruction of its"),
        ],
    ),
];

const REFUSED_WITHOUT_TRAP: &[Refused] = &[
    (
        "spawn T0; in c0 T0; return c0 T0",
        &[
            ("first-use c0", "no first-use trap is armed on c0"),
            ("user-write c0 TILEDATA 1", "XFD disables TILEDATA on c0: expected dynamic-use first"),
        ],
    ),
    (
        "spawn T0; in c0 T0; permit c0 TILEDATA; return c0 T0; dynamic-use c0 TILEDATA; dynamic-grow c0
         return c0 T0",
        &[("dynamic-use c0 TILEDATA", "XFD does not disable TILEDATA on c0")],
    ),
];

/// On a CPU without XSAVE, under any policy.
const REFUSED_WITHOUT_XSAVE: &[Refused] = &[(
    "spawn T0; in c0 T0; signal-deliver c0",
    &[
        ("frame T0 bad-header", "the signal frames of this machine have nothing that BadHeader could change"),
        ("frame T0 bad-magic", "the signal frames of this machine have nothing that BadMagic could change"),
        ("frame T0 no-pkru", "PKRU is no component of this machine's images"),
        ("user-memory c0 T0 read 0", "PKRU is no component of this machine's images"),
        ("permit c0 TILEDATA", "TILEDATA is no dynamic component of this machine"),
    ],
)];

const REFUSED_WITH_TRAP: &[Refused] = &[
    (
        "spawn T0; in c0 T0; return c0 T0",
        &[
            ("user-write c0 AVX 1", "the first-use trap is armed on c0: expected first-use first"),
            ("dynamic-use c0 TILEDATA", "the first-use trap is armed on c0: expected first-use first"),
        ],
    ),
    (
        "spawn T0; in c0 T0; return c0 T0; first-use c0",
        &[("first-use c0", "no first-use trap is armed on c0")],
    ),
];

/// Asserts each row, and returns the names of the reasons.
fn check<R: UserFrames + Clone + PartialEq + std::fmt::Debug>(
    regs: &R,
    policy: impl Policy,
    table: &[Refused],
) -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for (before, refused) in table {
        let mut checked = Checked::on(regs, policy.clone(), 2);
        checked.run(before);
        for (text, message) in *refused {
            for event in events(text) {
                let machine = checked.machine.clone();
                let error = checked.follow(event).expect_err(text);
                assert_eq!(error.to_string(), *message, "{text} after {before}, under {}", policy.name());
                assert_eq!(checked.machine, machine, "{text} after {before}, under {}", policy.name());
                let debug = format!("{error:?}");
                reasons.extend(debug.split([' ', '(']).next().map(str::to_owned));
            }
        }
    }
    reasons
}

#[test]
fn every_reason_is_given_in_words_and_leaves_the_machine_alone() {
    let mut reasons = BTreeSet::new();
    for policy in Builtin::ALL {
        let regs = &AbstractRegs::default();
        reasons.extend(check(regs, policy, REFUSED));
        reasons.extend(check(&SoftRegs::new(&Layout::fxsave_only()), policy, REFUSED_WITHOUT_XSAVE));
        let traps = matches!(policy, Builtin::TrapRestore | Builtin::FullLazy);
        reasons.extend(check(regs, policy, if traps { REFUSED_WITH_TRAP } else { REFUSED_WITHOUT_TRAP }));
    }

    let (_, body) = include_str!("../src/error.rs").split_once("pub enum EventError {\n").expect("the enum");
    let (body, _) = body.split_once("\n}").expect("its end");
    let names = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(char::is_uppercase));
    let variants: BTreeSet<_> =
        names.filter_map(|line| line.split([' ', '(', ',']).next()).map(str::to_owned).collect();
    assert_eq!(reasons, variants);
}

/// The parent's old state is given up and its new one is not there: there is nothing to copy. In a signal
/// delivery there is.
#[test]
fn a_task_inside_a_signal_return_cannot_fork() {
    for policy in Builtin::ALL {
        let mut checked = Checked::new(policy, 1);
        checked.run(
            "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7; entry c0 exception; signal-deliver c0",
        );
        checked.run("fork c0 T1; signal-save c0; fork c0 T2; signal-enter c0; sigreturn c0");
        for steps in ["", "frame T0 absent; sigreturn-load c0", "signal-fault-in c0"] {
            let machine = checked.run(steps).machine.clone();
            let error = checked.follow(events("fork c0 T3")[0]);
            assert!(matches!(error, Err(EventError::WrongStep { .. })), "{}: {error:?}", policy.name());
            assert_eq!(checked.machine, machine);
        }
        checked.run("sigreturn-load c0; fork c0 T3");
    }
}

//! Signal delivery and return as steps, with everything in between that went wrong in kernels. How to read a
//! story: `support/story.rs`.

mod support;

use fpuswitch::{
    Component, TaskId,
    fpu::{Policy, SignalStep, policy::Builtin},
    machine::Task,
    registers::{RegisterFile, UserFrames},
};
use support::{
    Checked,
    register_files::on_every_register_file,
    story::{T0_OUT, T0_RAN, tell_all},
};

/// Delivery in the usual case, until the handler runs and has changed AVX.
const HANDLER: &str = "signal-deliver c0; signal-save c0; signal-enter c0; return c0 T0; user-write c0 AVX 8
    entry c0 system-call";

#[test]
fn a_handler_starts_afresh_and_its_return_brings_the_state_back() {
    tell_all(
        T0_RAN,
        "signal-deliver c0 | –
         signal-save c0    | already live, frame written
         signal-enter c0   | –
         return c0 T0      | already live
         user-write c0 AVX 8; entry c0 system-call
         sigreturn c0      | –
         sigreturn-load c0 | frame loaded
         return c0 T0      | already live
         read T0 AVX",
    );
}

#[test]
fn a_state_that_only_memory_has_is_loaded_before_it_goes_to_the_frame() {
    tell_all(
        T0_OUT,
        "in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt; out c0
         in c0 T0; signal-deliver c0
         signal-save c0    | already live, frame written | already live, frame written | restored, frame written | restored, frame written | evicted T1, restored, frame written
         signal-enter c0   | –
         return c0 T0      | already live",
    );
}

/// CVE-2019-19602: the retry must not use what the first attempt knew about the registers.
#[test]
fn a_retry_looks_again_whose_the_registers_are() {
    let faulted = "signal-deliver c0; frame T0 absent
         signal-save c0     | already live, frame faulted";
    tell_all(
        T0_RAN,
        &format!(
            "{faulted}
             kernel-fpu-begin c0 softirq | saved
             kernel-fpu-end c0           | restored | restored | load deferred | load deferred | load deferred
             signal-fault-in c0          | –
             signal-save c0     | already live, frame written | already live, frame written | restored, frame written | restored, frame written | restored, frame written
             signal-enter c0; sigreturn c0; sigreturn-load c0; return c0 T0"
        ),
    );
    tell_all(
        T0_RAN,
        &format!(
            "{faulted}
             out c0; in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt; out c0; in c0 T0
             signal-fault-in c0 | –
             signal-save c0     | already live, frame written | already live, frame written | restored, frame written | restored, frame written | evicted T1, restored, frame written
             signal-enter c0; sigreturn c0; sigreturn-load c0; return c0 T0"
        ),
    );
    // The registers that it knew are on another CPU.
    tell_all(
        T0_RAN,
        &format!(
            "{faulted}
             out c0; idle c0
             in c1 T0           | restored | restored | load deferred | load deferred | flushed T0 on c0, load deferred
             signal-fault-in c1 | –
             signal-save c1     | already live, frame written | already live, frame written | restored, frame written | restored, frame written | restored, frame written
             signal-enter c1; sigreturn c1; sigreturn-load c1; return c1 T0"
        ),
    );
}

/// The way from a signal to a new thread leads through a save that has to keep the registers.
#[test]
fn a_task_can_fork_on_its_way_to_the_handler() {
    tell_all(
        T0_RAN,
        "signal-deliver c0 | –
         fork c0 T3        | saved
         signal-save c0    | already live, frame written
         signal-enter c0   | –
         return c0 T0      | already live
         read T3 AVX       | already in memory, read 7",
    );
}

/// d8778e393afa, 2021: T1's failed load changed registers that were kept for T0.
#[test]
fn a_failed_return_takes_the_registers_from_whom_they_were_kept_for() {
    tell_all(
        T0_RAN,
        "fork c0 T3; out c0
         in c0 T3          | restored      | restored      | load deferred | load deferred | load deferred
         sigreturn c0; frame T3 absent
         sigreturn-load c0 | frame faulted | frame faulted | frame faulted | frame faulted | evicted T0, frame faulted
         out c0            | saved         | saved         | already in memory | already in memory | kept
         in c0 T0          | restored      | restored      | load deferred | load deferred | load deferred
         return c0 T0      | already live  | already live  | restored      | restored      | restored
         entry c0 interrupt; out c0; in c0 T3; signal-fault-in c0
         sigreturn-load c0 | frame loaded  | frame loaded  | frame loaded  | frame loaded  | evicted T0, frame loaded
         return c0 T3      | already live",
    );
}

/// A failed load of a task that owns the registers: they hold nothing that is still needed, whatever happens
/// before the page is there.
#[test]
fn a_failed_return_of_the_owner_is_tried_again() {
    for between in ["", "kernel-fpu-begin c0 softirq; kernel-fpu-end c0", "out c0; idle c0; in c0 T0"] {
        tell_all(
            T0_RAN,
            &format!(
                "{HANDLER}
                 sigreturn c0       | –
                 frame T0 absent    | –
                 sigreturn-load c0  | frame faulted
                 {between}
                 signal-fault-in c0 | –
                 sigreturn-load c0  | frame loaded
                 return c0 T0       | already live
                 read T0 AVX"
            ),
        );
    }
}

/// What T0 sees in SSE and AVX behind a return from a frame that was changed, as the machine's registers have
/// it. The tests of the reference model say the same of the model.
#[track_caller]
fn after_return<R: UserFrames + Clone>(regs: &R, change: &str, load: &str) -> [(u8, u8); Builtin::ALL.len()] {
    Builtin::ALL.map(|policy| {
        let mut checked = Checked::on(regs, policy, 1);
        checked.run("spawn T0; in c0 T0; return c0 T0; user-write c0 SSE 3; user-write c0 AVX 7");
        checked.run("entry c0 interrupt").run(HANDLER).run(change).run("sigreturn c0");
        let loaded = checked.apply("sigreturn-load c0".parse().expect("an event"));
        assert_eq!(
            loaded.map(|outcome| outcome.to_string()).ok().as_deref(),
            Some(load),
            "{}",
            policy.name()
        );
        checked.run("return c0 T0");
        let regs = checked.machine.cpus()[0].regs();
        let number = |component| regs.get(component).number();
        assert!(task(&checked).frames().is_empty(), "{}: the frame is still there", policy.name());
        (number(Component::SSE), number(Component::AVX))
    })
}

fn task<P: Policy, R: UserFrames>(checked: &Checked<P, R>) -> &Task<R> {
    checked.machine.task(TaskId::first(0)).expect("T0")
}

#[test]
fn a_frame_restores_what_it_still_holds() {
    on_every_register_file!(|regs| {
        const POLICIES: usize = Builtin::ALL.len();
        assert_eq!(after_return(regs, "", "frame loaded"), [(3, 7); POLICIES]);
        assert_eq!(after_return(regs, "frame T0 short", "frame loaded"), [(3, 0); POLICIES]);
        assert_eq!(
            after_return(regs, "frame T0 bad-mxcsr", "frame refused, initialised"),
            [(0, 0); POLICIES]
        );
        assert_eq!(after_return(regs, "frame T0 unmapped", "frame refused, initialised"), [(0, 0); POLICIES]);
        // What only frames of a CPU with XSAVE have.
        assert_eq!(
            after_return(regs, "frame T0 bad-header", "frame refused, initialised"),
            [(0, 0); POLICIES]
        );
        assert_eq!(after_return(regs, "frame T0 bad-magic", "frame loaded"), [(3, 0); POLICIES]);
        assert_eq!(after_return(regs, "frame T0 bad-size", "frame loaded"), [(3, 0); POLICIES]);
        // A legacy load looks at MXCSR, and at no header.
        assert_eq!(
            after_return(regs, "frame T0 bad-magic; frame T0 bad-header", "frame loaded"),
            [(3, 0); POLICIES]
        );
        assert_eq!(
            after_return(regs, "frame T0 bad-size; frame T0 bad-mxcsr", "frame refused, initialised"),
            [(0, 0); POLICIES]
        );
    });
}

/// The checker looks away while a task has no state, so that the task must have one as soon as it can.
#[test]
fn a_task_is_without_a_state_from_the_beginning_of_a_return_to_its_end() {
    let ends = ["sigreturn-load c0", "sigreturn-copy c0", "frame T0 bad-header; sigreturn-load c0"];
    for (policy, end) in Builtin::ALL.into_iter().flat_map(|policy| ends.map(|end| (policy, end))) {
        let mut checked = Checked::new(policy, 1);
        for (list, is_returning) in [
            (T0_RAN, false),
            ("signal-deliver c0; frame T0 absent; signal-save c0", false),
            ("signal-fault-in c0; signal-save c0", false),
            ("signal-enter c0; return c0 T0; entry c0 system-call", false),
            ("sigreturn c0", true),
            ("frame T0 absent; sigreturn-load c0", true),
            ("signal-fault-in c0", true),
            (end, false),
        ] {
            checked.run(list);
            let signal = task(&checked).fpstate().signal();
            assert_eq!(signal.is_returning(), is_returning, "{list} under {}", policy.name());
        }
    }
}

/// By the way of a kernel buffer: the image becomes the truth, and the policy says when it is loaded.
#[test]
fn the_slow_path_leaves_the_state_in_memory() {
    tell_all(
        T0_RAN,
        &format!(
            "{HANDLER}
             sigreturn c0
             sigreturn-copy c0 | restored, frame copied | restored, frame copied | load deferred, frame copied | load deferred, frame copied | load deferred, frame copied
             return c0 T0      | already live           | already live           | restored                    | restored                    | restored
             read T0 AVX"
        ),
    );
    // And what it may not read, it refuses as the fast path does.
    for (change, after) in [("bad-header", ""), ("bad-mxcsr", ""), ("unmapped", "")] {
        tell_all(
            T0_RAN,
            &format!(
                "{HANDLER}
                 frame T0 {change}; sigreturn c0
                 sigreturn-copy c0 | frame refused, initialised
                 return c0 T0      | already live
                 {after}"
            ),
        );
    }
    for change in ["bad-magic", "bad-size", "short"] {
        tell_all(
            T0_RAN,
            &format!(
                "{HANDLER}\nframe T0 {change}; sigreturn c0; sigreturn-copy c0; read T0 AVX; return c0 T0"
            ),
        );
    }
}

#[test]
fn the_slow_path_faults_and_goes_on_too() {
    for absent in ["absent", "rest-absent"] {
        tell_all(
            T0_RAN,
            &format!(
                "{HANDLER}
                 sigreturn c0; frame T0 {absent}
                 sigreturn-copy c0  | frame faulted
                 kernel-fpu-begin c0 softirq; kernel-fpu-end c0; out c0; in c0 T1; return c0 T1; entry c0 interrupt
                 out c0; in c0 T0
                 signal-fault-in c0 | –
                 sigreturn-copy c0
                 return c0 T0; read T0 AVX"
            ),
        );
    }
    // The copy harms nobody's registers: they are not even touched.
    tell_all(
        T0_RAN,
        "fork c0 T3; out c0; in c0 T3; sigreturn c0; frame T3 rest-absent
         sigreturn-copy c0 | frame faulted
         out c0; in c0 T0
         return c0 T0      | already live  | already live  | restored          | restore skipped   | already live",
    );
}

/// Legacy region and header were there, and the load got as far as that.
#[test]
fn a_frame_that_is_there_in_part_harms_no_kept_registers() {
    tell_all(
        T0_RAN,
        "fork c0 T3; out c0
         in c0 T3; sigreturn c0; frame T3 rest-absent
         sigreturn-load c0 | frame faulted | frame faulted | frame faulted | frame faulted | evicted T0, frame faulted
         out c0; in c0 T0
         return c0 T0      | already live  | already live  | restored      | restored      | restored",
    );
    tell_all(
        T0_RAN,
        "signal-deliver c0; frame T0 rest-absent
         signal-save c0     | already live, frame faulted
         signal-fault-in c0 | –
         signal-save c0     | already live, frame written
         signal-enter c0; return c0 T0; entry c0 system-call; sigreturn c0; sigreturn-load c0; return c0 T0",
    );
}

/// CVE-2024-26603 faulted in what the frame said of its size, found that present, and tried for ever. Here each attempt is
/// the last, or finds every page.
#[test]
fn retries_end() {
    tell_all(
        T0_RAN,
        "signal-deliver c0; frame T0 unmapped
         signal-save c0     | already live, frame faulted
         signal-fault-in c0 | frame not mapped
         return c0 T0       | already live
         read T0 AVX",
    );
    for attempt in ["sigreturn-load c0", "sigreturn-copy c0"] {
        tell_all(
            T0_RAN,
            &format!(
                "{HANDLER}
                 sigreturn c0; frame T0 short; frame T0 rest-absent
                 {attempt}          | frame faulted
                 frame T0 unmapped
                 signal-fault-in c0 | frame refused, initialised
                 return c0 T0       | already live"
            ),
        );
        tell_all(
            T0_RAN,
            &format!(
                "{HANDLER}
                 sigreturn c0; frame T0 short; frame T0 rest-absent; {attempt}
                 signal-fault-in c0 | –
                 {attempt}
                 return c0 T0"
            ),
        );
        // A frame that says that it is smaller than it is: what does not count is not read, and not faulted in.
        for change in ["bad-size", "bad-magic"] {
            tell_all(
                T0_RAN,
                &format!(
                    "{HANDLER}
                     sigreturn c0; frame T0 {change}; frame T0 rest-absent; {attempt}
                     return c0 T0"
                ),
            );
        }
    }
}

#[test]
fn a_refused_frame_takes_the_registers_of_their_owner_properly() {
    tell_all(
        T0_RAN,
        "fork c0 T3; out c0; in c0 T3; sigreturn c0; frame T3 bad-header
         sigreturn-load c0 | frame refused, initialised | frame refused, initialised | frame refused, initialised | frame refused, initialised | evicted T0, frame refused, initialised
         return c0 T3      | already live
         entry c0 interrupt; out c0
         in c0 T0          | restored      | restored      | load deferred | load deferred | load deferred
         return c0 T0      | already live  | already live  | restored      | restored      | evicted T3, restored",
    );
}

#[test]
fn a_program_without_a_frame_returns_to_what_it_forged() {
    tell_all(
        T0_RAN,
        "sigreturn c0      | –
         sigreturn-load c0 | frame loaded
         return c0 T0      | already live
         read T0 AVX",
    );
}

#[test]
fn a_signal_ends_with_its_task_or_stays_with_it() {
    on_every_register_file!(|regs| for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 2);
        checked
            .run(T0_RAN)
            .run("signal-deliver c0; frame T0 absent; signal-save c0; out c0; idle c0; in c1 T0");
        assert_eq!(task(&checked).fpstate().signal(), SignalStep::SaveFaulted, "{}", policy.name());
        assert_eq!(task(&checked).frames().len(), 1, "{}", policy.name());
        checked.run("exit c1");
        assert_eq!(task(&checked).fpstate().signal(), SignalStep::Idle, "{}", policy.name());
        assert_eq!(task(&checked).frames(), [], "{}", policy.name());
    });
}

/// A fifth handler inside four others makes the machine forget the oldest frame, and so does the reference
/// model: the fifth return is to a forged one.
#[test]
fn the_oldest_of_five_frames_is_forgotten() {
    on_every_register_file!(|regs| for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 1);
        checked.run("spawn T0; in c0 T0; return c0 T0");
        for number in 1..=5 {
            checked.run(&format!("user-write c0 AVX {number}; entry c0 interrupt; signal-deliver c0"));
            checked.run("signal-save c0; signal-enter c0; return c0 T0");
        }
        for number in [5, 4, 3, 2, 0] {
            checked.run("entry c0 system-call; sigreturn c0; sigreturn-load c0; return c0 T0");
            let regs = checked.machine.cpus()[0].regs();
            assert_eq!(regs.get(Component::AVX).number(), number, "{}", policy.name());
        }
    });
}

use super::*;
use std::{format, vec::Vec};

/// One line of the recordings for each event and function in them, and each form of it.
const REAL: &str = r" daemon-21602   [001] d..2.  1315.529643: sched_switch: prev_comm=daemon prev_pid=21602 prev_prio=120 prev_state=X ==> next_comm=rustc next_pid=21583 next_prio=120
    workload-104     [000] d..2.     3.699255: sched_switch: prev_comm=workload prev_pid=104 prev_prio=120 prev_state=S ==> next_comm=workload next_pid=108 next_prio=120
   opt cgu.1-21613   [001] dNs1.  1315.800084: sched_migrate_task: comm=opt cgu.0 pid=21611 prio=120 orig_cpu=0 dest_cpu=1
       rustc-21605   [000] .....  1315.569072: sched_process_fork: comm=rustc pid=21605 child_comm=rustc child_pid=21606
       rustc-21605   [000] .....  1315.559756: sched_process_exec: filename=/usr/bin/rustc pid=21605 old_pid=21605
    workload-105     [000] .....     4.442056: sched_process_exit: comm=workload pid=105 prio=120
   lto cgu.1-21619   [001] .....  1316.036200: sched_process_exit: comm=lto cgu.1 pid=21619 prio=120 group_dead=false
    workload-104     [001] .....     4.861219: sys_enter: NR 101 (4204, 69, 202, 7ffeac20aed0, 4203, 0)
 daemon-2524    [001] .....  1315.524894: sys_exit: NR 202 = -110
   lto cgu.1-21619   [001] d....  1315.952361: page_fault_user: address=0x7fe724fb7000 ip=0x556987be873a error_code=0x6
    workload-105     [001] d..1.     3.940583: signal_deliver: sig=14 errno=0 code=128 sa_handler=401fb0 sa_flags=14000000
        init-1       [001] b....     3.913626: x86_fpu_regs_activated: x86/fpu: 000000005b8273c5 load: 1 xfeatures: 217 xcomp_bv: 0
        init-1       [001] d..2.     3.916617: x86_fpu_regs_deactivated: x86/fpu: 000000005b8273c5 load: 0 xfeatures: 217 xcomp_bv: 0
    workload-105     [000] ...1.     4.442231: x86_fpu_dropped: x86/fpu: 000000003dfbfb1f load: 0 xfeatures: 217 xcomp_bv: 0
        init-1       [001] .....     3.913704: x86_fpu_copy_src: x86/fpu: 000000005b8273c5 load: 0 xfeatures: 217 xcomp_bv: 0
        init-1       [001] .....     3.913733: x86_fpu_copy_dst: x86/fpu: 00000000d98ac0a3 load: 0 xfeatures: 217 xcomp_bv: 0
        init-1       [001] d....     3.912326: switch_fpu_return <-exit_to_user_mode_prepare
    workload-105     [001] .N.1.     4.984380: kernel_fpu_begin_mask <-_sha256_update
        init-1       [001] d..2.     3.912792: kernel_fpu_end <-blake2s_compress
    workload-103     [000] .....     3.917525: fpu_flush_thread <-flush_thread
        init-1       [001] .....     3.913515: fpu_clone <-copy_thread
    workload-105     [000] .....     4.442148: fpu__drop <-do_exit
    workload-105     [001] .....     3.940731: fpu__clear_user_states <-arch_do_signal_or_restart
    workload-105     [001] .....     3.941075: fpu__restore_sig <-restore_sigcontext
    workload-105     [001] b....     3.940776: fpregs_mark_activate <-fpu__clear_user_states
    workload-105     [001] .....     3.940657: copy_fpstate_to_sigframe <-arch_do_signal_or_restart
    workload-104     [001] .....     4.861690: xstateregs_get <-copy_regset_to_user
    workload-104     [001] .....     4.862389: xstateregs_set <-ptrace_request
      <idle>-0       [001] d.h1.     3.920126: local_timer_entry: vector=236
      <idle>-0       [000] dnh1.     3.914457: reschedule_entry: vector=253";

const REAL_WHAT: &[What<'_>] = &[
    What::Switch { next_pid: 21583, dead: true },
    What::Switch { next_pid: 108, dead: false },
    What::Migrate { pid: 21611, cpu: 1 },
    What::Fork { child: 21606 },
    What::Exec { pid: 21605, old_pid: 21605 },
    What::ProcessExit,
    What::ProcessExit,
    What::SysEnter(b"NR 101 (4204, 69, 202, 7ffeac20aed0, 4203, 0)"),
    What::SysExit(b"NR 202 = -110"),
    What::PageFaultUser,
    What::SignalDeliver,
    What::Activated,
    What::Deactivated,
    What::Dropped,
    What::CopySrc,
    What::CopyDst,
    What::SwitchFpuReturn,
    What::KernelFpuBegin,
    What::KernelFpuEnd,
    What::FlushThread,
    What::Clone,
    What::Drop,
    What::ClearUserStates,
    What::RestoreSig,
    What::MarkActivate(b"fpu__clear_user_states"),
    What::CopyToSigframe,
    What::RegsetGet,
    What::RegsetSet,
    What::Timer,
    What::Reschedule,
];

/// Names that look like other parts of a line, separated by `|`; the kernel's limit is 15 bytes.
const HOSTILE_NAMES: &str = "|a|a b|a-1|]-[|(-----)|\u{e9}\u{4e2d}-7|<...>|CPU:1 [LOST 1]|-1 [0] 1: x|\
    -1 [000] 1.0: x| ==> | ==> next_comm=|a: b <-c|sys_exit: NR 1| prev_state=Z|Z ==> next_comm|\
    next_pid=9|next_prio=9 x=1|x child_pid=9|x pid=9 prio=9|x old_pid=9|group_dead=true|x dest_cpu=9";

#[track_caller]
fn event_of(line: &[u8]) -> Line<'_> {
    match parse(line) {
        Ok(Parsed::Event(event)) => event,
        other => panic!("{other:?}: {}", line.escape_ascii()),
    }
}

fn what_of(body: &str) -> Result<What<'_>, Expected> {
    what(body.as_bytes())
}

#[test]
fn each_line_of_the_recordings_gives_its_event() {
    assert_eq!(REAL.lines().count(), REAL_WHAT.len());
    for (line, what) in REAL.lines().zip(REAL_WHAT) {
        assert_eq!(event_of(line.as_bytes()).what, *what, "{line}");
    }
}

#[test]
fn events_that_the_recordings_lack_are_known_too() {
    for (body, expected) in [
        ("x86_fpu_before_save: x86/fpu: 0000000043df3eca load: 0 xfeatures: 217", What::BeforeSave),
        ("x86_fpu_after_save: x86/fpu: 0000000043df3eca load: 0 xfeatures: 217", What::AfterSave),
        ("kernel_fpu_begin <-crc_t10dif_pcl", What::KernelFpuBegin),
        ("fpu_sync_fpstate <-xfpregs_get", What::SyncFpstate),
        ("fpregs_mark_activate", What::MarkActivate(b"")),
        ("sha256_finup.part.0 <-x", What::Other(b"sha256_finup.part.0")),
        ("sys_openat -> 0x3", What::Other(b"sys_openat")),
        ("sys_enter_execve: filename: 1", What::Other(b"sys_enter_execve")),
        ("tracing_mark_write: kernel_fpu_end", What::Other(b"tracing_mark_write")),
        ("sched_waking: comm=a pid=x", What::Other(b"sched_waking")),
    ] {
        assert_eq!(what_of(body), Ok(expected), "{body}");
    }
}

#[test]
fn header_columns_may_be_missing_wide_or_unpadded() {
    for (head, comm, pid, cpu, time_us) in [
        ("            init-1       [001] d.h2.     3.664130: ", "init", 1, 1, 3_664_130),
        ("          <idle>-0       [000] d.h1.  1315.520036: ", "<idle>", 0, 0, 1_315_520_036),
        (" daemon-2524    [001] .....  1315.524894: ", "daemon", 2524, 1, 1_315_524_894),
        ("a-1 [0] d.h2 1.5: ", "a", 1, 0, 1_500_000),
        ("a-1 [8191] d.h2.... 0.0000019: ", "a", 1, 8191, 1),
        ("            init-4294967295 [001] .... 1.000001: ", "init", u32::MAX, 1, 1_000_001),
        ("            init-1       (  21600) [001] d.h2.     3.664130: ", "init", 1, 1, 3_664_130),
        ("            init-1       (-------) [001] d.h2.     3.664130: ", "init", 1, 1, 3_664_130),
        ("            init-1       [001]     3.664130: ", "init", 1, 1, 3_664_130),
        ("            init-1       (    1) [001]     3.664130: ", "init", 1, 1, 3_664_130),
        ("            init-1       [001] d.h2.          123456: ", "init", 1, 1, 123_456),
        ("            init-1       [001] d.h2. 18446744073710.0: ", "init", 1, 1, u64::MAX),
        (
            "a name of a tool that knows longer ones-7 [1] .... 1.0: ",
            "a name of a tool that knows longer ones",
            7,
            1,
            1_000_000,
        ),
    ] {
        let line = format!("{head}fpu__drop <-do_exit");
        let comm = comm.as_bytes();
        assert_eq!(event_of(line.as_bytes()), Line { comm, pid, cpu, time_us, what: What::Drop }, "{line}");
    }
}

#[test]
fn hostile_names_change_nothing() {
    for name in HOSTILE_NAMES.split('|') {
        let switch = |state| {
            format!(
                "sched_switch: prev_comm={name} prev_pid=1 prev_prio=120 prev_state={state} ==> \
                 next_comm={name} next_pid=2 next_prio=-1"
            )
        };
        let exit = format!("sched_process_exit: comm={name} pid=3 prio=120");
        let migrate = format!("sched_migrate_task: comm={name} pid=3 prio=120 orig_cpu=0 dest_cpu=1");
        let fork = format!("sched_process_fork: comm={name} pid=3 child_comm={name} child_pid=4");
        let exec = format!("sched_process_exec: filename={name} pid=3 old_pid=4");
        for (body, what) in [
            (switch("R+"), What::Switch { next_pid: 2, dead: false }),
            (switch("Z"), What::Switch { next_pid: 2, dead: true }),
            (switch("X|D"), What::Switch { next_pid: 2, dead: true }),
            (migrate, What::Migrate { pid: 3, cpu: 1 }),
            (fork, What::Fork { child: 4 }),
            (exec, What::Exec { pid: 3, old_pid: 4 }),
            (format!("{exit} group_dead=true"), What::ProcessExit),
            (exit, What::ProcessExit),
        ] {
            let padding = " ".repeat(PID_COLUMN - name.len());
            for padding in [&padding, " "] {
                let line = format!("{padding}{name}-104     [001] d..2.     3.676443: {body}");
                let comm = name.trim_start().as_bytes();
                let expected = Line { comm, pid: 104, cpu: 1, time_us: 3_676_443, what };
                assert_eq!(event_of(line.as_bytes()), expected, "{line}");
            }
        }
    }
}

#[test]
fn lines_without_an_event_are_told_apart() {
    for (line, parsed) in [
        ("", Parsed::Blank),
        ("   \t", Parsed::Blank),
        ("# tracer: nop", Parsed::Comment),
        ("##### CPU 2 buffer started ####", Parsed::Lost { cpu: 2, events: None }),
        ("##### CPU 8192 buffer started ####", Parsed::Comment),
        ("CPU:1 [LOST 1234 EVENTS]", Parsed::Lost { cpu: 1, events: Some(1234) }),
        ("CPU:8191 [LOST EVENTS]", Parsed::Lost { cpu: 8191, events: None }),
        ("CPU:1 [1234 EVENTS DROPPED]", Parsed::Lost { cpu: 1, events: Some(1234) }),
        ("CPU:1 [EVENTS DROPPED]", Parsed::Lost { cpu: 1, events: None }),
        ("cpus=2", Parsed::Comment),
        ("CPU 1 is empty", Parsed::Comment),
    ] {
        assert_eq!(parse(line.as_bytes()), Ok(parsed), "{line}");
    }
}

#[test]
fn malformed_headers_say_what_was_expected() {
    for (line, expected) in [
        ("hello", TASK),
        ("            init", TASK),
        ("            init-", TASK),
        ("            init-x       [001] d.h2.     3.664130: fpu_clone <-x", TASK),
        ("            init-4294967296 [001] d.h2.     3.664130: fpu_clone <-x", TASK),
        ("            init-1", CPU),
        ("            init-1[001] d.h2.     3.664130: fpu_clone <-x", CPU),
        ("            init-1       001  d.h2.     3.664130: fpu_clone <-x", CPU),
        ("            init-1       [8192] d.h2.     3.664130: fpu_clone <-x", CPU),
        ("            init-1       [-01] d.h2.     3.664130: fpu_clone <-x", CPU),
        ("            init-1       [001", CPU),
        ("            init-1       (12x) [001] d.h2.     3.664130: fpu_clone <-x", CPU),
        ("            init-1       (12", CPU),
        ("            init-1       [001] d.h2.", TIME),
        ("            init-1       [001] d.h     3.664130: fpu_clone <-x", TIME),
        ("            init-1       [001] d.h2.d.h2     3.664130: fpu_clone <-x", TIME),
        ("            init-1       [001] d.h2.     3.: fpu_clone <-x", TIME),
        ("            init-1       [001] d.h2.     3.664130 fpu_clone <-x", TIME),
        ("            init-1       [001] d.h2.     3.664130:", NAME),
        ("            init-1       [001] d.h2.     3.664130: <-x", NAME),
        ("CPU:1 [LOST", LOST),
        ("CPU:1 [LOST x EVENTS]", LOST),
        ("CPU:1 [LOST1 EVENTS]", LOST),
        ("CPU:8192 [LOST EVENTS]", LOST),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(expected), "{line}");
    }
}

#[test]
fn malformed_fields_say_what_was_expected() {
    for (body, expected) in [
        ("sched_switch: prev_comm=a prev_pid=1", "next_prio=NUMBER"),
        ("sched_switch: prev_state=S ==> next_comm=b next_pid=2 next_prio=", "next_prio=NUMBER"),
        ("sched_switch: prev_state=S ==> next_comm=b next_pid=-2 next_prio=120", "next_pid=NUMBER"),
        ("sched_switch: prev_state=S ==> next_comm=b next_pid=4294967296 next_prio=1", "next_pid=NUMBER"),
        ("sched_switch: prev_state=S ==> next_comm= next_prio=120", "next_pid=NUMBER"),
        (
            "sched_switch: prev_pid=1 prev_state= ==> next_comm=b next_pid=2 next_prio=120",
            "prev_state=STATE ==> next_comm=NAME",
        ),
        ("sched_switch: x next_pid=2 next_prio=120", "prev_state=STATE ==> next_comm=NAME"),
        ("sched_migrate_task: comm=a pid=3 prio=120 orig_cpu=0", "dest_cpu=NUMBER"),
        ("sched_migrate_task: comm=a pid=3 prio=120 orig_cpu=0 dest_cpu=8192", "dest_cpu=NUMBER"),
        ("sched_migrate_task: comm=a pid=3 prio=120 dest_cpu=1", "orig_cpu=NUMBER"),
        ("sched_migrate_task: comm=a pid=3 orig_cpu=0 dest_cpu=1", "prio=NUMBER"),
        ("sched_migrate_task: comm=a prio=120 orig_cpu=0 dest_cpu=1", "pid=NUMBER"),
        ("sched_process_fork: comm=a pid=3 child_comm=a child_pid=", "child_pid=NUMBER"),
        ("sched_process_fork:", "child_pid=NUMBER"),
        ("sched_process_exec: filename=/bin/a pid=3", "old_pid=NUMBER"),
        ("sched_process_exec: filename=/bin/a old_pid=3", "pid=NUMBER"),
        ("sched_process_exit: comm=a pid=3", "prio=NUMBER"),
        ("sched_process_exit: comm=a pid=3x prio=120 group_dead=true", "pid=NUMBER"),
    ] {
        assert_eq!(what_of(body), Err(Expected(expected)), "{body}");
    }
}

#[test]
fn system_call_details_are_read() {
    assert_eq!(ptrace_args(b"NR 101 (4205, 69, 202, 7ffe, 0, 0)"), Some((0x4205, 0x69, 0x202)));
    assert_eq!(ptrace_args(b"NR 101 (7, 69, ffffffffffffffff)"), Some((7, 0x69, u64::MAX)));
    for other in [
        "NR 1 (4205, 69, 202, 0, 0, 0)",
        "NR 101 (4205, 69)",
        "NR 101 (4205, ffffffffffffffff, 202, 0, 0, 0)",
        "NR 101 (4205, +69, 202, 0, 0, 0)",
        "NR 101 (4205, , 202, 0, 0, 0)",
        "NR 101 (4205, 69, 202, 0, 0, 0",
        "NR 101 ()",
    ] {
        assert_eq!(ptrace_args(other.as_bytes()), None, "{other}");
    }
    assert_eq!(syscall_result(b"NR 202 = -110"), Some((202, -110)));
    assert_eq!(syscall_result(b"NR -1 = -9223372036854775808"), Some((-1, i64::MIN)));
    for other in ["", "NR 1", "NR 1 =", "NR = 1", "NR 1 = --1", "NR 1 = 9223372036854775808"] {
        assert_eq!(syscall_result(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn no_prefix_and_no_damage_panics() {
    let lines: Vec<_> = REAL.lines().map(str::as_bytes).collect();
    for line in &lines {
        for end in 0..line.len() {
            let _ = parse(&line[..end]);
        }
    }
    // Xorshift: Marsaglia, "Xorshift RNGs", 2003.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % limit
    };
    let symbols = b"-0189 []():.#=>ZX\xff";
    for _ in 0..100_000 {
        let mut line = lines[below(lines.len())].to_vec();
        for _ in 0..=below(4) {
            let at = below(line.len());
            match below(3) {
                0 => line[at] = symbols[below(symbols.len())],
                1 => line.truncate(at + 1),
                _ => line.insert(at, symbols[below(symbols.len())]),
            }
        }
        if let Ok(Parsed::Event(Line { what: What::SysEnter(rest) | What::SysExit(rest), .. })) = parse(&line)
        {
            let _ = (ptrace_args(rest), syscall_result(rest));
        }
        let noise: Vec<u8> = (0..below(80)).map(|_| symbols[below(symbols.len())]).collect();
        let _ = (parse(&noise), what(&noise), ptrace_args(&noise), syscall_result(&noise));
    }
}

/// What trace-cmd prints, and the kernel's text of it.
#[test]
fn trace_cmd_lines_give_what_the_kernel_s_do() {
    let header = [
        "         work.sh-10244 [000]  4151.150412: ",
        "         work.sh-10244   [000] d..2.  4151.150412: ",
    ];
    for (tool, kernel) in [
        ("sys_enter:            NR 59 (7f, 0, 0, 0, 0, 0)", "sys_enter: NR 59 (7f, 0, 0, 0, 0, 0)"),
        ("sys_exit:             NR 59 = 0", "sys_exit: NR 59 = 0"),
        ("function:             kernel_fpu_end <-- blake2s_compress", "kernel_fpu_end <-blake2s_compress"),
        (
            "function:             fpregs_mark_activate <-- fpu__restore_sig",
            "fpregs_mark_activate <-fpu__restore_sig",
        ),
        ("sched_switch:         a:1 [120] Z ==> b:2 [-1]", REAL_SWITCH_DEAD),
        ("sched_switch:         a:1 [120] R+ ==> swapper/0:2 [120]", REAL_SWITCH),
        // Names that look like the rest of the line.
        ("sched_switch:         a b:1 [120] Z ==> b ==> c:2 [120]", REAL_SWITCH_DEAD),
        ("sched_switch:         x:9 [1] S ==> :1 [120] Z ==> b:2 [120]", REAL_SWITCH_DEAD),
    ] {
        let [tool, kernel] =
            [(header[0], tool), (header[1], kernel)].map(|(header, body)| format!("{header}{body}"));
        assert_eq!(event_of(tool.as_bytes()), event_of(kernel.as_bytes()), "{tool}");
    }
    for body in [
        "a:1 [120] Z ==> b:2",
        "a:1 [120] ==> b:2 [120]",
        "a [120] S ==> b:2 [120]",
        "a:1 [120] S ==> b:x [1]",
    ] {
        assert_eq!(
            what_of(&format!("sched_switch:         {body}")),
            Err(Expected("next_prio=NUMBER")),
            "{body}"
        );
    }
}

const REAL_SWITCH: &str = "sched_switch: prev_comm=a prev_pid=1 prev_prio=120 prev_state=R+ ==> next_comm=b next_pid=2 next_prio=120";
const REAL_SWITCH_DEAD: &str = "sched_switch: prev_comm=a prev_pid=1 prev_prio=120 prev_state=Z ==> next_comm=b next_pid=2 next_prio=120";

//! One line of ftrace text as a typed record.
//!
//! ```text
//!         workload-104     [001] .....     3.676443: sched_process_exec: filename=/bin/a pid=104 old_pid=104
//!             init-1       [000] b....     4.191857: fpregs_mark_activate <-fpu__clear_user_states
//!  comm, 16 wide  PID       CPU  flags  seconds       event: details, or function <-caller
//! ```
//!
//! Names of tasks and files may hold anything but a zero byte: spaces, brackets, ` ==> `, a whole header. So
//! the header is found by its column, and fields are read from the end of the line, behind all names.
//!
//! # Reference
//! Linux `kernel/trace/trace_output.c` (`trace_print_context`, `trace_print_lat_fmt`),
//! `include/trace/events/sched.h`.

use memchr::{memchr_iter, memrchr, memrchr_iter};
use std::fmt;

/// The highest CPU number: the kernel's `NR_CPUS` is at most 8192.
const LAST_CPU: u32 = 8191;
/// The column of the `-` between name and pid: `%16s-%-7d`. A name has at most 15 bytes (`TASK_COMM_LEN`).
const PID_COLUMN: usize = 16;
/// Where the search for that `-` stops: left of any name in the details.
const LAST_PID_COLUMN: usize = 64;

/// What a malformed line should have held, as a noun phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected(pub(crate) &'static str);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const TASK: Expected = Expected("a task name and -PID");
const CPU: Expected = Expected("a CPU number in brackets");
const TIME: Expected = Expected("a timestamp");
const NAME: Expected = Expected("an event or function name");
const LOST: Expected = Expected("CPU:NUMBER [LOST NUMBER EVENTS]");

/// A line of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Parsed<'a> {
    /// Something that happened.
    Event(Line<'a>),
    /// A line that begins with `#`: the header, or `##### CPU 2 buffer started ####`.
    Comment,
    /// The kernel's ring buffer of `cpu` overflowed here; it does not always know by how many `events`.
    Lost { cpu: u32, events: Option<u64> },
    /// Nothing but white space.
    Blank,
}

/// An event and the task that was on the CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line<'a> {
    /// The task's name without the padding on its left.
    pub(crate) comm: &'a [u8],
    pub(crate) pid: u32,
    pub(crate) cpu: u32,
    /// Microseconds, or what else the trace clock counts if the text has no decimal point.
    pub(crate) time_us: u64,
    pub(crate) what: What<'a>,
}

/// What happened. [`tracepoint`] and [`function`] say which names in the text each variant stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What<'a> {
    /// `dead`: the task that left the CPU has exited (`prev_state` begins with Z or X).
    Switch {
        next_pid: u32,
        dead: bool,
    },
    /// The task moves to `cpu`.
    Migrate {
        pid: u32,
        cpu: u32,
    },
    Fork {
        child: u32,
    },
    /// The ids differ when a thread that is not the leader calls exec.
    Exec {
        pid: u32,
        old_pid: u32,
    },
    ProcessExit,
    /// With what follows the name: see [`ptrace_args`].
    SysEnter(&'a [u8]),
    /// With what follows the name: see [`syscall_result`].
    SysExit(&'a [u8]),
    PageFaultUser,
    SignalDeliver,
    Activated,
    Deactivated,
    Dropped,
    CopySrc,
    CopyDst,
    BeforeSave,
    AfterSave,
    SwitchFpuReturn,
    KernelFpuBegin,
    KernelFpuEnd,
    FlushThread,
    Clone,
    Drop,
    ClearUserStates,
    RestoreSig,
    /// With the caller, empty where the recording names none.
    MarkActivate(&'a [u8]),
    CopyToSigframe,
    RegsetGet,
    RegsetSet,
    SyncFpstate,
    Timer,
    Reschedule,
    /// Any other event or function, by name.
    Other(&'a [u8]),
}

/// Parses one line, given without its line end.
///
/// # Errors
/// What was expected where the line is malformed: in its header, or in a field of an event known here.
pub(crate) fn parse(line: &[u8]) -> Result<Parsed<'_>, Expected> {
    match line.first() {
        Some(b'#') => return Ok(Parsed::Comment),
        // No task name can look like this: it would have a space before it.
        Some(b'C') if line.starts_with(b"CPU:") => return lost(line).ok_or(LOST),
        _ => {}
    }
    match event(line) {
        Ok(event) => Ok(Parsed::Event(event)),
        Err(_) if line.trim_ascii().is_empty() => Ok(Parsed::Blank),
        Err(expected) => Err(expected),
    }
}

/// Reads `CPU:1 [LOST 1234 EVENTS]` or `CPU:1 [LOST EVENTS]`.
fn lost(line: &[u8]) -> Option<Parsed<'_>> {
    let (cpu, rest) = digits(line.strip_prefix(b"CPU:")?)?;
    let count = rest.strip_prefix(b" [LOST ")?.strip_suffix(b"EVENTS]")?;
    let events = match count.strip_suffix(b" ") {
        Some(count) => Some(whole(count)?),
        None if count.is_empty() => None,
        None => return None,
    };
    Some(Parsed::Lost { cpu: cpu_number(cpu)?, events })
}

/// Finds the header and reads the event behind it.
///
/// A task's name may look like a header. Of the headers up to the column that the kernel puts the pid at, the
/// rightmost is the real one, because the name stands left of it. Further right is for tools that lengthened
/// the names.
fn event(line: &[u8]) -> Result<Line<'_>, Expected> {
    let (near, far) = line[..line.len().min(LAST_PID_COLUMN)].split_at(line.len().min(PID_COLUMN + 1));
    let far = memchr_iter(b'-', far).map(|at| near.len() + at);
    let mut closest = TASK;
    for dash in memrchr_iter(b'-', near).chain(far) {
        match header(line, dash) {
            Ok((header, body)) => return Ok(Line { what: what(body)?, ..header }),
            Err(expected) if closest == TASK => closest = expected,
            Err(_) => {}
        }
    }
    Err(closest)
}

/// Reads the header whose pid follows the `-` at `dash`, and returns it with what follows the timestamp.
#[inline]
fn header(line: &[u8], dash: usize) -> Result<(Line<'_>, &[u8]), Expected> {
    let (comm, rest) = (spaces(&line[..dash]), &line[dash + 1..]);
    let (pid, rest) = digits(rest).ok_or(TASK)?;
    let pid = u32::try_from(pid).map_err(|_| TASK)?;
    let rest = rest.strip_prefix(b" ").map(spaces).ok_or(CPU)?;
    let rest = if rest.first() == Some(&b'(') { thread_group(rest).ok_or(CPU)? } else { rest };
    let (cpu, rest) = rest.strip_prefix(b"[").and_then(digits).ok_or(CPU)?;
    let cpu = cpu_number(cpu).ok_or(CPU)?;
    let rest = rest.strip_prefix(b"] ").map(spaces).ok_or(CPU)?;
    // Trace option noirq-info leaves the flags out.
    let (time_us, body) = time(rest).or_else(|| time(flags(rest)?)).ok_or(TIME)?;
    Ok((Line { comm, pid, cpu, time_us, what: What::Other(b"") }, body))
}

/// Skips the column of trace option record-tgid: `(  21600) ` or `(-------) `.
fn thread_group(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|&byte| byte == b')')?;
    let known = digits(spaces(&text[1..end])).is_some_and(|(_, rest)| rest.is_empty());
    let unknown = text[1..end].iter().all(|&byte| byte == b'-');
    (known || unknown).then(|| spaces(&text[end + 1..]))
}

/// Skips the flags and the spaces behind them: 4 columns in old kernels, 5 since 5.17.
fn flags(text: &[u8]) -> Option<&[u8]> {
    let width = text.iter().take(9).position(|&byte| byte == b' ')?;
    (width >= 4).then(|| spaces(&text[width..]))
}

/// Reads `seconds.fraction: ` as microseconds, or `ticks: ` as they are.
#[inline]
fn time(text: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = digits(text)?;
    let (time_us, rest) = match rest.strip_prefix(b".") {
        None => (number, rest),
        Some(text) => {
            let (_, rest) = digits(text)?;
            let places = &text[..text.len() - rest.len()];
            let micro = |place| places.get(place).map_or(0, |digit| u64::from(digit - b'0'));
            let fraction = (0..6).fold(0, |fraction, place| fraction * 10 + micro(place));
            (number.saturating_mul(1_000_000).saturating_add(fraction), rest)
        }
    };
    Some((time_us, rest.strip_prefix(b":")?))
}

/// Reads `event: details` or `function <-caller`.
#[inline]
fn what(body: &[u8]) -> Result<What<'_>, Expected> {
    let body = spaces(body);
    // Three of four lines are one of these.
    if let Some(rest) = body.strip_prefix(b"sys_e") {
        if let Some(rest) = rest.strip_prefix(b"nter: ") {
            return Ok(What::SysEnter(rest));
        } else if let Some(rest) = rest.strip_prefix(b"xit: ") {
            return Ok(What::SysExit(rest));
        }
    }
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let end = body.iter().position(|byte| !is_in_name(byte)).unwrap_or(body.len());
    let (name, rest) = body.split_at(end);
    match rest.strip_prefix(b":") {
        _ if name.is_empty() => Err(NAME),
        Some(details) => tracepoint(name, spaces(details)),
        None => Ok(function(name, rest)),
    }
}

fn tracepoint<'a>(name: &'a [u8], details: &'a [u8]) -> Result<What<'a>, Expected> {
    Ok(match name {
        b"page_fault_user" => What::PageFaultUser,
        b"x86_fpu_regs_activated" => What::Activated,
        b"x86_fpu_regs_deactivated" => What::Deactivated,
        b"sched_switch" => return switch(details),
        b"local_timer_entry" => What::Timer,
        b"reschedule_entry" => What::Reschedule,
        b"signal_deliver" => What::SignalDeliver,
        b"sched_migrate_task" => return migrate(details),
        b"sched_process_fork" => return fork(details),
        b"sched_process_exec" => return exec(details),
        b"sched_process_exit" => return process_exit(details),
        b"x86_fpu_dropped" => What::Dropped,
        b"x86_fpu_copy_src" => What::CopySrc,
        b"x86_fpu_copy_dst" => What::CopyDst,
        b"x86_fpu_before_save" => What::BeforeSave,
        b"x86_fpu_after_save" => What::AfterSave,
        b"sys_enter" => What::SysEnter(details),
        b"sys_exit" => What::SysExit(details),
        _ => What::Other(name),
    })
}

fn function<'a>(name: &'a [u8], rest: &'a [u8]) -> What<'a> {
    match name {
        b"switch_fpu_return" => What::SwitchFpuReturn,
        b"kernel_fpu_begin_mask" | b"kernel_fpu_begin" => What::KernelFpuBegin,
        b"kernel_fpu_end" => What::KernelFpuEnd,
        b"fpregs_mark_activate" => What::MarkActivate(rest.strip_prefix(b" <-").unwrap_or_default()),
        b"fpu__clear_user_states" => What::ClearUserStates,
        b"fpu__restore_sig" => What::RestoreSig,
        b"copy_fpstate_to_sigframe" => What::CopyToSigframe,
        b"fpu_clone" => What::Clone,
        b"fpu__drop" => What::Drop,
        b"fpu_flush_thread" => What::FlushThread,
        b"xstateregs_get" => What::RegsetGet,
        b"xstateregs_set" => What::RegsetSet,
        b"fpu_sync_fpstate" => What::SyncFpstate,
        _ => What::Other(name),
    }
}

/// Reads `prev_comm=A prev_pid=1 prev_prio=120 prev_state=S ==> next_comm=B next_pid=2 next_prio=120`.
fn switch(details: &[u8]) -> Result<What<'_>, Expected> {
    const ARROW: &[u8] = b" ==> next_comm=";
    let (before, _) = last_number::<i32>(details, "next_prio=NUMBER")?;
    let (before, next_pid) = last_number(before, "next_pid=NUMBER")?;
    // The next name may be the arrow itself, but has no room for a state before it.
    let state = (0..PID_COLUMN).find_map(|name_bytes| {
        let name_at = before.len().checked_sub(name_bytes)?;
        last_field(before[..name_at].strip_suffix(ARROW)?, "prev_state=")
    });
    match state {
        Some((_, [state, ..])) => Ok(What::Switch { next_pid, dead: matches!(state, b'Z' | b'X') }),
        _ => Err(Expected("prev_state=STATE ==> next_comm=NAME")),
    }
}

/// Reads `comm=A pid=1 prio=120 orig_cpu=0 dest_cpu=1`.
fn migrate(details: &[u8]) -> Result<What<'_>, Expected> {
    let (before, cpu) = last_number(details, "dest_cpu=NUMBER")?;
    let cpu = cpu_number(cpu).ok_or(Expected("dest_cpu=NUMBER"))?;
    let (before, _) = last_number::<u32>(before, "orig_cpu=NUMBER")?;
    let (before, _) = last_number::<i32>(before, "prio=NUMBER")?;
    let (_, pid) = last_number(before, "pid=NUMBER")?;
    Ok(What::Migrate { pid, cpu })
}

/// Reads `comm=A pid=1 child_comm=B child_pid=2`.
fn fork(details: &[u8]) -> Result<What<'_>, Expected> {
    let (_, child) = last_number(details, "child_pid=NUMBER")?;
    Ok(What::Fork { child })
}

/// Reads `filename=/bin/a pid=1 old_pid=1`.
fn exec(details: &[u8]) -> Result<What<'_>, Expected> {
    let (before, old_pid) = last_number(details, "old_pid=NUMBER")?;
    let (_, pid) = last_number(before, "pid=NUMBER")?;
    Ok(What::Exec { pid, old_pid })
}

/// Checks `comm=A pid=1 prio=120`, with ` group_dead=true` behind it in newer kernels.
fn process_exit(details: &[u8]) -> Result<What<'_>, Expected> {
    let before = last_field(details, "group_dead=").map_or(details, |(before, _)| before);
    let (before, _) = last_number::<i32>(before, "prio=NUMBER")?;
    last_number::<u32>(before, "pid=NUMBER").map(|_| What::ProcessExit)
}

/// Reads request, target and address of a ptrace call from what follows `sys_enter: `, such as
/// `NR 101 (4205, 69, 202, 7ffdb7832000, 0, 0)`; `None` where it is another call.
pub(crate) fn ptrace_args(sys_enter_rest: &[u8]) -> Option<(u64, u32, u64)> {
    let rest = sys_enter_rest.strip_prefix(b"NR 101 (")?.strip_suffix(b")")?;
    let mut args = rest.split(|&byte| byte == b',').map(|arg| {
        // `from_str_radix` would also take a sign.
        let arg = arg.strip_prefix(b" ").unwrap_or(arg);
        let text = core::str::from_utf8(arg).ok().filter(|text| !text.starts_with('+'))?;
        u64::from_str_radix(text, 16).ok()
    });
    Some((args.next()??, u32::try_from(args.next()??).ok()?, args.next()??))
}

/// Reads number and result of a system call from what follows `sys_exit: `, such as `NR 89 = -22`.
pub(crate) fn syscall_result(sys_exit_rest: &[u8]) -> Option<(i64, i64)> {
    let rest = sys_exit_rest.strip_prefix(b"NR ")?;
    let (number, result) = rest.split_at(memrchr(b'=', rest)?);
    Some((signed(number.strip_suffix(b" ")?)?, signed(result.strip_prefix(b"= ")?)?))
}

/// Splits the last word, a key and a number, off `details`; priorities may be negative. `field` is the key
/// and the word `NUMBER`, as the error shows it.
fn last_number<'a, T: TryFrom<i64>>(
    details: &'a [u8],
    field: &'static str,
) -> Result<(&'a [u8], T), Expected> {
    let number = last_field(details, field.trim_end_matches("NUMBER"))
        .and_then(|(before, value)| Some((before, T::try_from(signed(value)?).ok()?)));
    number.ok_or(Expected(field))
}

/// Splits the last word, `key` and a value, off `details`: what is before the word, and the value.
fn last_field<'a>(details: &'a [u8], key: &str) -> Option<(&'a [u8], &'a [u8])> {
    let (before, field) = details.split_at(memrchr(b' ', details)?);
    Some((before, field[1..].strip_prefix(key.as_bytes())?))
}

fn cpu_number(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|&cpu| cpu <= LAST_CPU)
}

fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(magnitude) => 0_i64.checked_sub_unsigned(whole(magnitude)?),
        None => i64::try_from(whole(text)?).ok(),
    }
}

fn whole(text: &[u8]) -> Option<u64> {
    digits(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

/// Splits a decimal number off the front; one that does not fit saturates.
#[inline]
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    let mut rest = text;
    while let [byte @ b'0'..=b'9', tail @ ..] = rest {
        number = number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
        rest = tail;
    }
    (rest.len() < text.len()).then_some((number, rest))
}

#[inline]
fn spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
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
            assert_eq!(
                event_of(line.as_bytes()),
                Line { comm, pid, cpu, time_us, what: What::Drop },
                "{line}"
            );
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
            ("##### CPU 2 buffer started ####", Parsed::Comment),
            ("CPU:1 [LOST 1234 EVENTS]", Parsed::Lost { cpu: 1, events: Some(1234) }),
            ("CPU:8191 [LOST EVENTS]", Parsed::Lost { cpu: 8191, events: None }),
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
            if let Ok(Parsed::Event(Line { what: What::SysEnter(rest) | What::SysExit(rest), .. })) =
                parse(&line)
            {
                let _ = (ptrace_args(rest), syscall_result(rest));
            }
            let noise: Vec<u8> = (0..below(80)).map(|_| symbols[below(symbols.len())]).collect();
            let _ = (parse(&noise), what(&noise), ptrace_args(&noise), syscall_result(&noise));
        }
    }
}

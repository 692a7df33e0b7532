//! One line of ftrace text, or of what `trace-cmd report` makes of it, as a typed record.
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
//! trace-cmd leaves the flags out, pads the details, and writes switches and functions in a way of its own; no
//! line of one reads as another event in the other.
//!
//! # Reference
//! Linux `kernel/trace/trace_output.c` (`trace_print_context`, `trace_print_lat_fmt`),
//! `include/trace/events/sched.h`; trace-cmd and libtraceevent, `tracecmd_show_data` and `plugin_sched_switch.c`.

mod details;
pub(super) mod perf;

pub(crate) use details::{name_of_task, names_of_switch, ptrace_args, syscall_result};

use memchr::{memchr_iter, memrchr_iter};
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
    /// A line that begins with `#`, or says how many CPUs there are.
    Comment,
    /// The kernel's ring buffer of `cpu` overflowed here; it does not always know by how many `events`. Also
    /// `##### CPU 2 buffer started ####`: what that CPU did before was overwritten.
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
        Some(b'#') => return Ok(buffer_started(line).unwrap_or(Parsed::Comment)),
        // No task name can look like this: it would have a space before it.
        Some(b'C') if line.starts_with(b"CPU:") => return lost(line).ok_or(LOST),
        Some(b'c' | b'C') if is_about_cpus(line) => return Ok(Parsed::Comment),
        _ => {}
    }
    match event(line) {
        Ok(event) => Ok(Parsed::Event(event)),
        Err(_) if line.trim_ascii().is_empty() => Ok(Parsed::Blank),
        Err(expected) => Err(expected),
    }
}

/// Returns when the event of a line of ftrace text happened: microseconds, or what else the trace clock counts.
///
/// `None` for a comment, for lost events, and for what is no such line. The line is given without its line end.
pub fn time_us(line: &[u8]) -> Option<u64> {
    match parse(line) {
        Ok(Parsed::Event(event)) => Some(event.time_us),
        _ => None,
    }
}

/// Reads `CPU:1 [LOST 1234 EVENTS]` or `CPU:1 [LOST EVENTS]`; from trace-cmd `CPU:1 [1234 EVENTS DROPPED]` or
/// `CPU:1 [EVENTS DROPPED]`.
fn lost(line: &[u8]) -> Option<Parsed<'_>> {
    let (cpu, rest) = digits(line.strip_prefix(b"CPU:")?)?;
    let rest = rest.strip_prefix(b" [")?;
    let count = match rest.strip_suffix(b"EVENTS DROPPED]") {
        Some(count) => count,
        None => rest.strip_prefix(b"LOST ")?.strip_suffix(b"EVENTS]")?,
    };
    let events = match count.strip_suffix(b" ") {
        Some(count) => Some(whole(count)?),
        None if count.is_empty() => None,
        None => return None,
    };
    Some(Parsed::Lost { cpu: cpu_number(cpu)?, events })
}

/// The first lines of `trace-cmd report`: `cpus=2`, `CPU 1 is empty`.
fn is_about_cpus(line: &[u8]) -> bool {
    let empty = || line.strip_prefix(b"CPU ")?.strip_suffix(b" is empty");
    line.strip_prefix(b"cpus=").or_else(empty).is_some_and(|number| whole(number).is_some())
}

/// Reads `##### CPU 2 buffer started ####`, which the kernel writes only if events were lost.
fn buffer_started(line: &[u8]) -> Option<Parsed<'_>> {
    let cpu = whole(line.strip_prefix(b"##### CPU ")?.strip_suffix(b" buffer started ####")?)?;
    Some(Parsed::Lost { cpu: cpu_number(cpu)?, events: None })
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
            return Ok(What::SysEnter(spaces(rest)));
        } else if let Some(rest) = rest.strip_prefix(b"xit: ") {
            return Ok(What::SysExit(spaces(rest)));
        }
    }
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let end = body.iter().position(|byte| !is_in_name(byte)).unwrap_or(body.len());
    let (name, rest) = body.split_at(end);
    match rest.strip_prefix(b":") {
        _ if name.is_empty() => Err(NAME),
        Some(text) => tracepoint(name, spaces(text)),
        None => Ok(function(name, rest)),
    }
}

fn tracepoint<'a>(name: &'a [u8], text: &'a [u8]) -> Result<What<'a>, Expected> {
    Ok(match name {
        b"page_fault_user" => What::PageFaultUser,
        b"x86_fpu_regs_activated" => What::Activated,
        b"x86_fpu_regs_deactivated" => What::Deactivated,
        b"sched_switch" => return details::switch(text),
        b"local_timer_entry" => What::Timer,
        b"reschedule_entry" => What::Reschedule,
        b"signal_deliver" => What::SignalDeliver,
        b"sched_migrate_task" => return details::migrate(text),
        b"sched_process_fork" => return details::fork(text),
        b"sched_process_exec" => return details::exec(text),
        b"sched_process_exit" => return details::process_exit(text),
        b"x86_fpu_dropped" => What::Dropped,
        b"x86_fpu_copy_src" => What::CopySrc,
        b"x86_fpu_copy_dst" => What::CopyDst,
        b"x86_fpu_before_save" => What::BeforeSave,
        b"x86_fpu_after_save" => What::AfterSave,
        b"sys_enter" => What::SysEnter(text),
        b"sys_exit" => What::SysExit(text),
        // As trace-cmd and perf print function lines: `function: NAME <-- CALLER`.
        b"function" => {
            let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
            function(&text[..end], text[end..].trim_ascii_end())
        }
        _ => What::Other(name),
    })
}

fn function<'a>(name: &'a [u8], rest: &'a [u8]) -> What<'a> {
    match name {
        b"switch_fpu_return" => What::SwitchFpuReturn,
        b"kernel_fpu_begin_mask" | b"kernel_fpu_begin" => What::KernelFpuBegin,
        b"kernel_fpu_end" => What::KernelFpuEnd,
        b"fpregs_mark_activate" => {
            let caller = rest.strip_prefix(b" <-- ").or_else(|| rest.strip_prefix(b" <-"));
            What::MarkActivate(caller.unwrap_or_default())
        }
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

fn cpu_number(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|&cpu| cpu <= LAST_CPU)
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
mod tests;

//! One line of `perf script` as a typed record.
//!
//! ```text
//!             perf  9560 [000]  4131.103956:              raw_syscalls:sys_enter: NR 16 (13, 2400, 0, 7f160682b5e0, 1, 0)
//!            sleep  9561 [001]  4131.104156: PERF_RECORD_LOST lost 640
//!  comm, 16 wide   PID  CPU   seconds        system:event: details
//! ```
//!
//! # Reference
//! Linux `tools/perf/builtin-script.c`, `perf_sample__fprintf_start`; `kernel/events/core.c`, `perf_event_pid_type`.

use super::{
    CPU, Expected, Line, PID_COLUMN, Parsed, TASK, TIME, What, cpu_number, details, digits, spaces, time,
    what, whole,
};
use std::vec::Vec;

/// Who the last line of each CPU names. A task that was reaped before its last switch has the pid -1 in its own
/// lines by then; the switch names it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pids(Vec<u32>);

/// Whether a line begins as those of perf do.
pub(crate) fn begins_line(line: &[u8]) -> bool {
    header(line).is_ok()
}

/// Parses one line, given without its line end.
///
/// # Errors
/// What was expected where the line is malformed.
pub(crate) fn parse<'a>(line: &'a [u8], pids: &mut Pids) -> Result<Parsed<'a>, Expected> {
    if line.first() == Some(&b'#') {
        return Ok(Parsed::Comment);
    } else if line.trim_ascii().is_empty() {
        return Ok(Parsed::Blank);
    }
    let Header { comm, pid, cpu, time_us, body } = header(line)?;
    if let Some(count) = body.strip_prefix(b"PERF_RECORD_LOST lost ") {
        return Ok(Parsed::Lost { cpu, events: whole(count) });
    }
    let body = without_system(body);
    let what = what(body)?;
    let named = match what {
        What::Switch { .. } => details::prev_pid(body),
        _ => None,
    };
    let at = cpu as usize;
    if pids.0.len() <= at {
        pids.0.resize(at + 1, 0);
    }
    let pid = named.or(pid).unwrap_or(pids.0[at]);
    pids.0[at] = pid;
    Ok(Parsed::Event(Line { comm, pid, cpu, time_us, what }))
}

struct Header<'a> {
    comm: &'a [u8],
    /// `None` for -1.
    pid: Option<u32>,
    cpu: u32,
    time_us: u64,
    body: &'a [u8],
}

/// The name is left of a fixed column, so that it may hold anything.
fn header(line: &[u8]) -> Result<Header<'_>, Expected> {
    let (comm, rest) = line.split_at_checked(PID_COLUMN).ok_or(TASK)?;
    let rest = rest.strip_prefix(b" ").map(spaces).ok_or(TASK)?;
    let (pid, rest) = match rest.strip_prefix(b"-1") {
        Some(rest) => (None, rest),
        None => digits(rest).map(|(pid, rest)| (Some(pid), rest)).ok_or(TASK)?,
    };
    let pid = pid.map(u32::try_from).transpose().map_err(|_| TASK)?;
    let (cpu, rest) = spaces(rest).strip_prefix(b"[").and_then(digits).ok_or(CPU)?;
    let cpu = cpu_number(cpu).ok_or(CPU)?;
    let rest = rest.strip_prefix(b"] ").map(spaces).ok_or(CPU)?;
    let (time_us, body) = time(rest).ok_or(TIME)?;
    Ok(Header { comm: spaces(comm), pid, cpu, time_us, body: spaces(body) })
}

/// Drops `raw_syscalls:` from `raw_syscalls:sys_enter: NR 1`.
fn without_system(body: &[u8]) -> &[u8] {
    let end = body.iter().position(|byte| matches!(byte, b':' | b' '));
    match end.map(|end| body[end..].split_at(1)) {
        Some((b":", event)) if event.first().is_some_and(|byte| *byte != b' ') => event,
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[track_caller]
    fn event_of<'a>(line: &'a str, pids: &mut Pids) -> Line<'a> {
        match parse(line.as_bytes(), pids) {
            Ok(Parsed::Event(event)) => event,
            other => panic!("{other:?}: {line}"),
        }
    }

    #[test]
    fn a_line_gives_what_the_kernel_s_does() {
        let line =
            "            perf  9560 [001]  4131.103956:              raw_syscalls:sys_enter: NR 16 (13, 0)";
        let kernel = "            perf-9560    [001] .....  4131.103956: sys_enter: NR 16 (13, 0)";
        let event = event_of(line, &mut Pids::default());
        assert_eq!(super::super::parse(kernel.as_bytes()), Ok(Parsed::Event(event)));
        let line = "            task     7 [000]     1.000001: ftrace:function:  kernel_fpu_end <-- x";
        assert_eq!(event_of(line, &mut Pids::default()).what, What::KernelFpuEnd);
        let line = "            task     7 [000]     1.000001:    kvm:kvm_exit: reason x86_fpu:y";
        assert_eq!(event_of(line, &mut Pids::default()).what, What::Other(b"kvm_exit"));
    }

    #[test]
    fn a_task_that_is_reaped_already_is_known_from_its_switch() {
        let mut pids = Pids::default();
        let switch =
            "prev_comm=a prev_pid=7 prev_prio=120 prev_state=X ==> next_comm=b next_pid=8 next_prio=120";
        for (body, pid) in [
            ("x86_fpu:x86_fpu_dropped: x86/fpu: 0", 0),
            (&format!("sched:sched_switch: {switch}"), 7),
            ("x86_fpu:x86_fpu_regs_deactivated: x86/fpu: 0", 7),
        ] {
            let line = format!("             :-1    -1 [001]     1.000001: {body}");
            assert_eq!(event_of(&line, &mut pids).pid, pid, "{body}");
        }
    }

    #[test]
    fn lost_events_comments_and_odd_lines_are_told_apart() {
        let parsed =
            |line: &str| parse(line.as_bytes(), &mut Pids::default()).map(|parsed| format!("{parsed:?}"));
        let lost = "            perf 11790 [001]  4204.665298: PERF_RECORD_LOST lost 694";
        assert_eq!(parsed(lost), Ok(format!("{:?}", Parsed::Lost { cpu: 1, events: Some(694) })));
        assert_eq!(parsed("# ========"), Ok("Comment".into()));
        assert_eq!(parsed("  "), Ok("Blank".into()));
        for (line, expected) in [
            ("            perf x [001] 1.0: sched:x: y", TASK),
            ("            perf 99999999999 [001] 1.0: sched:x: y", TASK),
            ("            perf 1 001 1.0: sched:x: y", CPU),
            ("            perf 1 [8192] 1.0: sched:x: y", CPU),
            ("            perf 1 [000] now: sched:x: y", TIME),
            ("\tffffffff8130bc80 kernel_fpu_end", TASK),
        ] {
            assert_eq!(parsed(line), Err(expected), "{line}");
        }
    }
}

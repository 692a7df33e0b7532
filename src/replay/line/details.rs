//! What follows an event's name: the fields that are read, from the end of the line.

use super::{Expected, PID_COLUMN, What, cpu_number, whole};
use memchr::{memmem, memrchr};

/// Reads `prev_comm=A prev_pid=1 prev_prio=120 prev_state=S ==> next_comm=B next_pid=2 next_prio=120`.
pub(super) fn switch(details: &[u8]) -> Result<What<'_>, Expected> {
    fields_of_switch(details).or_else(|expected| short_switch(details).ok_or(expected))
}

fn fields_of_switch(details: &[u8]) -> Result<What<'_>, Expected> {
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

/// Reads `A:1 [120] S ==> B:2 [120]`, as trace-cmd shortens it.
fn short_switch(details: &[u8]) -> Option<What<'_>> {
    let (before, next_pid) = short_task(details.trim_ascii_end())?;
    // Either name may hold an arrow, but not so that a state and a task stand before it.
    let state = memmem::rfind_iter(before, b" ==> ").find_map(|arrow| {
        let (task, state) = before[..arrow].split_at(memrchr(b' ', &before[..arrow])?);
        short_task(task).and(state.get(1).copied())
    })?;
    Some(What::Switch { next_pid, dead: matches!(state, b'Z' | b'X') })
}

/// Splits the pid and priority of `A:1 [120]` off the end.
fn short_task(text: &[u8]) -> Option<(&[u8], u32)> {
    let open = memrchr(b'[', text)?;
    signed(text[open + 1..].strip_suffix(b"]")?)?;
    let name_and_pid = text[..open].strip_suffix(b" ")?;
    let colon = memrchr(b':', name_and_pid)?;
    Some((&name_and_pid[..colon], u32::try_from(whole(&name_and_pid[colon + 1..])?).ok()?))
}

/// Reads who leaves the CPU from the details of a switch, as far as they are in full.
pub(super) fn prev_pid(details: &[u8]) -> Option<u32> {
    const STATE: &[u8] = b" prev_state=";
    memmem::rfind_iter(details, STATE).find_map(|at| {
        let (before, _) = last_number::<i32>(&details[..at], "prev_prio=NUMBER").ok()?;
        last_number(before, "prev_pid=NUMBER").ok().map(|(_, pid)| pid)
    })
}

/// The names of who leaves and who comes in the whole line of a switch. Unlike the name at its front, which the kernel
/// looks up when the text is read, they were taken down with the event.
pub(crate) fn names_of_switch(line: &[u8]) -> Option<[&[u8]; 2]> {
    let prev = name_behind(line, b" sched_switch: prev_comm=", b" prev_pid=")
        .or_else(|| name_behind(line, b" sched:sched_switch: prev_comm=", b" prev_pid="))?;
    let next = name_behind(line, b" ==> next_comm=", b" next_pid=")?;
    Some([prev, next])
}

/// The name of the task of the line, in the whole line of a fork or an exit.
pub(crate) fn name_of_task(line: &[u8]) -> Option<&[u8]> {
    name_behind(line, b": comm=", b" pid=")
}

/// A name, which may hold anything and has fewer than 16 bytes, between two keys.
fn name_behind<'a>(line: &'a [u8], key: &[u8], end: &[u8]) -> Option<&'a [u8]> {
    let name = &line[memmem::find(line, key)? + key.len()..];
    let name = &name[..name.len().min(PID_COLUMN - 1 + end.len())];
    Some(&name[..memmem::rfind(name, end)?])
}

/// Reads `comm=A pid=1 prio=120 orig_cpu=0 dest_cpu=1`.
pub(super) fn migrate(details: &[u8]) -> Result<What<'_>, Expected> {
    let (before, cpu) = last_number(details, "dest_cpu=NUMBER")?;
    let cpu = cpu_number(cpu).ok_or(Expected("dest_cpu=NUMBER"))?;
    let (before, _) = last_number::<u32>(before, "orig_cpu=NUMBER")?;
    let (before, _) = last_number::<i32>(before, "prio=NUMBER")?;
    let (_, pid) = last_number(before, "pid=NUMBER")?;
    Ok(What::Migrate { pid, cpu })
}

/// Reads `comm=A pid=1 child_comm=B child_pid=2`.
pub(super) fn fork(details: &[u8]) -> Result<What<'_>, Expected> {
    let (_, child) = last_number(details, "child_pid=NUMBER")?;
    Ok(What::Fork { child })
}

/// Reads `filename=/bin/a pid=1 old_pid=1`.
pub(super) fn exec(details: &[u8]) -> Result<What<'_>, Expected> {
    let (before, old_pid) = last_number(details, "old_pid=NUMBER")?;
    let (_, pid) = last_number(before, "pid=NUMBER")?;
    Ok(What::Exec { pid, old_pid })
}

/// Checks `comm=A pid=1 prio=120`, with ` group_dead=true` behind it in newer kernels.
pub(super) fn process_exit(details: &[u8]) -> Result<What<'_>, Expected> {
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

fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(magnitude) => 0_i64.checked_sub_unsigned(whole(magnitude)?),
        None => i64::try_from(whole(text)?).ok(),
    }
}

//! Recordings written by hand: one row a line of ftrace text.
//!
//! ```text
//! 0 7 enters        CPU, pid, and a word for the event (see `body`), or `|` and the event's own text
//! ! 0 7 to 8        the row that a disagreement is expected at
//! ? 0 7 saved       only there if the kernel answers yes
//! CPU:0 [LOST …     a line as it is, likewise those with #
//! ```

use fpuswitch::replay::{Decision, Disagreement, Options, ReplayError, Report, replay};

/// A recording, and where it is expected to disagree.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) text: String,
    marked: Option<(u64, u32, u32)>,
}

/// A recording with function lines.
pub(crate) fn functions(rows: &str) -> Script {
    Script::new("# tracer: function\n", rows, true)
}

/// A recording without.
pub(crate) fn tracepoints(rows: &str) -> Script {
    Script::new("# tracer: nop\n", rows, true)
}

impl Script {
    /// `answer`: whether the rows with a `?` are there.
    pub(crate) fn new(header: &str, rows: &str, answer: bool) -> Self {
        let (mut text, mut marked, mut lines) = (header.to_owned(), None, 1);
        for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let row = match row.split_at(1) {
                ("?", _) if !answer => continue,
                ("?", row) => row,
                ("!", row) => {
                    let (cpu, pid, _) = split(row);
                    marked = Some((lines + 1, cpu, pid));
                    row
                }
                ("#" | "C", _) => {
                    text += &format!("{row}\n");
                    lines += 1;
                    continue;
                }
                _ => row,
            };
            let (cpu, pid, event) = split(row);
            let us = lines * 10;
            let body = body(pid, event);
            text += &format!("            task-{pid:<7} [{cpu:03}] d....     1.{us:06}: {body}\n");
            lines += 1;
        }
        Self { text, marked }
    }

    /// Replays, with all invariants checked.
    pub(crate) fn replay(&self) -> Result<Report, ReplayError> {
        replay(self.text.as_bytes(), &Options { check: true, ..Options::default() })
    }

    #[track_caller]
    pub(crate) fn report(&self) -> Report {
        self.replay().unwrap_or_else(|error| panic!("{error}\n{}", self.text))
    }

    /// Replays, and expects that the kernel and the machine agree on so many decisions.
    #[track_caller]
    pub(crate) fn agrees(&self, decisions: u64) -> Report {
        let report = self.report();
        assert_eq!(report.agreement.first, [], "{}", self.text);
        assert_eq!(report.agreement.decisions, decisions, "{:?}\n{}", report.agreement, self.text);
        report
    }

    /// Replays, and expects that they differ at the marked row and nowhere else.
    #[track_caller]
    pub(crate) fn disagrees(&self, decision: Decision, expected: bool) {
        let (line, cpu, pid) = self.marked.expect("a row with a !");
        let found = !expected;
        let report = self.report();
        let disagreement = Disagreement { line, cpu, pid, decision, expected, found };
        assert_eq!(report.agreement.first, [disagreement], "{}", self.text);
        assert_eq!(report.agreement.disagreements, 1);
    }
}

/// CPU, pid and the rest of a row.
fn split(row: &str) -> (u32, u32, &str) {
    let (cpu, rest) = row.trim().split_once(' ').unwrap();
    let (pid, event) = rest.split_once(' ').unwrap();
    (cpu.parse().unwrap(), pid.parse().unwrap(), event)
}

/// The text of an event, as in the bundled recordings.
fn body(pid: u32, event: &str) -> String {
    const FPU: &str = "x86/fpu: 000000005b8273c5 load: 0 xfeatures: 217 xcomp_bv: 0";
    let words: Vec<&str> = event.split_whitespace().collect();
    match words[..] {
        ["|", ..] => event.trim_start_matches("| ").to_owned(),
        ["to", next] => body(pid, &format!("to {next} S")),
        ["to", next, state] => format!(
            "sched_switch: prev_comm=task prev_pid={pid} prev_prio=120 prev_state={state} ==> \
             next_comm=task next_pid={next} next_prio=120"
        ),
        ["migrates", who, cpu] => {
            format!("sched_migrate_task: comm=task pid={who} prio=120 orig_cpu=0 dest_cpu={cpu}")
        }
        ["saved"] => format!("x86_fpu_regs_deactivated: {FPU}"),
        ["loaded"] => format!("x86_fpu_regs_activated: {FPU}"),
        ["timer"] => "local_timer_entry: vector=236".to_owned(),
        ["enters"] => "sys_enter: NR 1 (1, 2, 3, 4, 5, 6)".to_owned(),
        ["calls", number] => format!("sys_enter: NR {number} (1, 2, 3, 4, 5, 6)"),
        ["ptraces", request, target, address] => {
            format!("sys_enter: NR 101 ({request}, {target}, {address}, 7ffdb7832000, 0, 0)")
        }
        ["leaves", number, result] => format!("sys_exit: NR {number} = {result}"),
        ["faults"] => "page_fault_user: address=0x4b5324 ip=0x40175a error_code=0x7".to_owned(),
        ["returns"] => "switch_fpu_return <-exit_to_user_mode_prepare".to_owned(),
        ["kernel-fpu"] => "kernel_fpu_begin_mask <-blake2s_compress".to_owned(),
        ["kernel-fpu-end"] => "kernel_fpu_end <-blake2s_compress".to_owned(),
        ["clones"] => "fpu_clone <-copy_thread".to_owned(),
        ["copies"] => format!("x86_fpu_copy_src: {FPU}"),
        ["copied"] => format!("x86_fpu_copy_dst: {FPU}"),
        ["forks", child] => {
            format!("sched_process_fork: comm=task pid={pid} child_comm=task child_pid={child}")
        }
        ["flushes"] => "fpu_flush_thread <-flush_thread".to_owned(),
        ["execs", old] => format!("sched_process_exec: filename=/bin/task pid={pid} old_pid={old}"),
        ["exits"] => format!("sched_process_exit: comm=task pid={pid} prio=120"),
        ["drops"] => "fpu__drop <-do_exit".to_owned(),
        ["dropped"] => format!("x86_fpu_dropped: {FPU}"),
        ["delivers", handler] => {
            format!("signal_deliver: sig=14 errno=0 code=128 sa_handler={handler} sa_flags=14000000")
        }
        ["frame"] => "copy_fpstate_to_sigframe <-arch_do_signal_or_restart".to_owned(),
        ["handler"] => "fpu__clear_user_states <-arch_do_signal_or_restart".to_owned(),
        ["marks"] => "fpregs_mark_activate <-fpu__clear_user_states".to_owned(),
        ["sigreturn"] => "fpu__restore_sig <-restore_sigcontext".to_owned(),
        ["reads"] => "xstateregs_get <-copy_regset_to_user".to_owned(),
        ["writes"] => "xstateregs_set <-ptrace_request".to_owned(),
        ["core-dumps"] => "fpu_sync_fpstate <-xstateregs_get".to_owned(),
        _ => panic!("no such event: {event}"),
    }
}

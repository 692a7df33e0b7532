//! What the kernel did, as the lines of a recording with function lines say. Without machines, policies or an
//! owner slot: all that is kept of a task is need_fpu_load, which 6.1 sets at switch-in, in a kernel FPU section
//! and at exec.

use super::{Row, rows};
use std::collections::{HashMap, HashSet};

/// Counts of lines, and of decisions about tasks that were seen in user mode before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) switches: u64,
    pub(crate) returns: u64,
    /// `x86_fpu_regs_deactivated` directly behind the task's switch.
    pub(crate) saves: u64,
    /// `x86_fpu_regs_activated` that no `fpregs_mark_activate` announced.
    pub(crate) restores: u64,
    pub(crate) switch_outs: Answers,
    pub(crate) returns_to_user: Answers,
    pub(crate) forks: Answers,
    pub(crate) frames: Answers,
    /// Decisions about other tasks.
    pub(crate) undecidable: u64,
    /// Last switches of tasks that had dropped their state, which are among the switch-outs too.
    pub(crate) dead: Answers,
}

/// How often the kernel did what it had to decide on, and how often not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) yes: u64,
    pub(crate) no: u64,
}

impl Answers {
    fn count(&mut self, answer: bool) {
        *(if answer { &mut self.yes } else { &mut self.no }) += 1;
    }
}

impl Found {
    pub(crate) fn decisions(&self) -> u64 {
        let all = [self.switch_outs, self.returns_to_user, self.forks, self.frames];
        all.iter().map(|answers| answers.yes + answers.no).sum()
    }

    pub(crate) fn in_text(text: &str) -> Self {
        let rows: Vec<Row<'_>> = rows(text).collect();
        let mut found = Self::default();
        let (mut known, mut need_load, mut dropped) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut marked, mut answers) = (HashSet::new(), HashSet::new());
        // Loads since a fork or a signal frame began.
        let mut loads = HashMap::new();
        for (at, next) in next_on_cpu(&rows).into_iter().enumerate() {
            let (row, pid) = (rows[at], rows[at].pid);
            let answer = |name| next.filter(|next| rows[*next].name == name && rows[*next].pid == pid);
            match row.name {
                "sched_switch" => {
                    let saved = answer("x86_fpu_regs_deactivated").is_some();
                    found.switches += 1;
                    found.saves += u64::from(saved);
                    if dropped.remove(&pid) {
                        found.dead.count(saved);
                    }
                    if known.contains(&pid) {
                        found.switch_outs.count(saved);
                    }
                    if row.is_dead() {
                        known.remove(&pid);
                    }
                    need_load.insert(row.number("next_pid="));
                }
                "switch_fpu_return" => {
                    let loaded = answer("x86_fpu_regs_activated");
                    found.returns += 1;
                    answers.extend(loaded);
                    if known.insert(pid) {
                        found.undecidable += 1;
                    } else {
                        found.returns_to_user.count(loaded.is_some());
                    }
                    need_load.remove(&pid);
                }
                "sys_enter" | "page_fault_user" => {
                    known.insert(pid);
                    need_load.remove(&pid);
                }
                "fpu_flush_thread" => {
                    known.insert(pid);
                    need_load.insert(pid);
                }
                "kernel_fpu_begin_mask" => drop(need_load.insert(pid)),
                "fpregs_mark_activate" => {
                    marked.insert(pid);
                    need_load.remove(&pid);
                }
                "x86_fpu_regs_activated" if marked.remove(&pid) => {}
                "x86_fpu_regs_activated" => {
                    found.restores += 1;
                    *loads.entry(pid).or_insert(0) += u32::from(!answers.contains(&at));
                }
                "fpu_clone" | "copy_fpstate_to_sigframe" => drop(loads.remove(&pid)),
                "x86_fpu_copy_dst" if known.contains(&pid) && need_load.remove(&pid) => {
                    found.forks.count(loads.remove(&pid).is_some_and(|loads| loads > 0));
                }
                "fpu__clear_user_states" if known.contains(&pid) && need_load.remove(&pid) => {
                    found.frames.count(loads.remove(&pid).is_some_and(|loads| loads > 0));
                }
                "sched_process_fork" if known.contains(&pid) => {
                    known.insert(row.number("child_pid="));
                }
                "x86_fpu_dropped" => drop(dropped.insert(pid)),
                _ => {}
            }
        }
        found
    }
}

/// For each row, the next one of its CPU.
fn next_on_cpu(rows: &[Row<'_>]) -> Vec<Option<usize>> {
    let mut next = vec![None; rows.len()];
    let mut last = HashMap::new();
    for (at, row) in rows.iter().enumerate() {
        if let Some(last) = last.insert(row.cpu, at) {
            next[last] = Some(at);
        }
    }
    next
}

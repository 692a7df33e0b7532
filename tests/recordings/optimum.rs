//! The offline optimum of a recording with function lines, counted in the versions of each task's state that its
//! lines begin. Without machines, policies or an owner slot.

use super::{Row, rows};
use std::collections::{HashMap, HashSet};

/// The fewest saves and restores, counted in the versions of each task's state.
#[derive(Debug, Default)]
pub(crate) struct Optimum {
    pub(crate) saves: u64,
    pub(crate) restores: u64,
    /// By task: the number of the newest version, and whether only registers have it.
    versions: HashMap<u32, (u64, bool)>,
    /// By CPU: the task and the version that the registers hold.
    holds: HashMap<u32, (u32, u64)>,
    in_user_mode: HashSet<u32>,
}

impl Optimum {
    pub(crate) fn in_text(text: &str) -> Self {
        let mut optimum = Self::default();
        let (mut targets, mut in_signal_return) = (HashMap::new(), HashSet::new());
        for row in rows(text) {
            let pid = row.pid;
            if !matches!(row.name, "switch_fpu_return" | "sys_enter" | "page_fault_user") {
                optimum.in_user_mode.remove(&pid);
            }
            match row.name {
                "switch_fpu_return" => optimum.returns(&row),
                "sys_enter" | "page_fault_user" => {
                    if !optimum.in_user_mode.contains(&pid) {
                        optimum.returns(&row);
                    }
                    optimum.in_user_mode.remove(&pid);
                    targets.insert(pid, row.ptrace_target());
                }
                "sched_switch" if row.is_dead() => {
                    optimum.versions.remove(&pid);
                    optimum.holds.retain(|_, held| held.0 != pid);
                }
                "kernel_fpu_begin_mask" => drop(optimum.holds.remove(&row.cpu)),
                "sched_process_fork" if optimum.versions.contains_key(&pid) => {
                    optimum.needed_in_memory(pid);
                    optimum.versions.insert(row.number("child_pid="), (0, false));
                }
                "fpu_flush_thread" | "x86_fpu_dropped" => drop(optimum.new_version(pid, false)),
                "xstateregs_set" => drop(optimum.new_version(targets[&pid].unwrap(), false)),
                "xstateregs_get" => optimum.needed_in_memory(targets[&pid].unwrap()),
                "fpu_sync_fpstate" => optimum.needed_in_memory(pid),
                "fpu__restore_sig" => drop(in_signal_return.insert(pid)),
                "fpu__clear_user_states" => {
                    optimum.needed_in_memory(pid);
                    let version = optimum.new_version(pid, false);
                    optimum.holds.insert(row.cpu, version);
                }
                "fpregs_mark_activate" if in_signal_return.remove(&pid) => {
                    let version = optimum.new_version(pid, true);
                    optimum.holds.insert(row.cpu, version);
                }
                _ => {}
            }
        }
        optimum
    }

    /// A return to user: the registers have to hold the newest version, and user code makes a new one.
    fn returns(&mut self, row: &Row<'_>) {
        let newest = (row.pid, self.versions.entry(row.pid).or_default().0);
        if self.holds.get(&row.cpu) != Some(&newest) {
            self.restores += 1;
            self.needed_in_memory(row.pid);
        }
        let version = self.new_version(row.pid, true);
        self.holds.insert(row.cpu, version);
        self.in_user_mode.insert(row.pid);
    }

    fn needed_in_memory(&mut self, pid: u32) {
        if let Some((_, only_in_registers)) = self.versions.get_mut(&pid) {
            self.saves += u64::from(*only_in_registers);
            *only_in_registers = false;
        }
    }

    fn new_version(&mut self, pid: u32, only_in_registers: bool) -> (u32, u64) {
        let version = self.versions.entry(pid).or_default();
        *version = (version.0 + 1, only_in_registers);
        (pid, version.0)
    }
}

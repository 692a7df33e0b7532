//! A recording of any length in which any number of tasks are alive at a time, made while it is read; and how much
//! memory reading it took.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    io::{self, Read},
};

/// Turns of a task until it forks its successor and dies.
const TURNS: u32 = 4;
/// Behind the tasks that fork the first ones, which have the numbers of their CPUs, plus one.
const FIRST_PID: u32 = 10_000;
/// The kernel's `PID_MAX_LIMIT`.
const PIDS: u32 = 4 << 20;

/// The text: function lines, 6.1's names, a kernel that decides as it must.
///
/// On each CPU one task forks until all are alive. From then on the CPUs take turns, and on each the tasks: one runs,
/// and in each of its turns does something else. Nobody has two turns in a row, so each begins with a load.
pub(crate) struct Long {
    /// Tasks so far.
    pub(crate) tasks: u64,
    /// Of these, those that still have to be forked first.
    unborn: u32,
    left: u64,
    /// By CPU: those who wait for their turn and how many they have had; the first is the one that runs.
    queues: Vec<VecDeque<(u32, u32)>>,
    turn: u64,
    lines: u64,
    block: String,
    read: usize,
}

impl Long {
    /// At most so many bytes of text, in whole lines.
    pub(crate) fn new(bytes: u64, tasks: u32, cpus: u32) -> Self {
        assert!(tasks >= 2 * cpus && cpus < FIRST_PID && tasks < PIDS / 2);
        let mut long = Self {
            tasks: u64::from(cpus),
            unborn: tasks - cpus,
            left: bytes,
            queues: (0..cpus).map(|cpu| VecDeque::from([(cpu + 1, 0)])).collect(),
            turn: 0,
            lines: 0,
            block: "# tracer: function\n".to_owned(),
            read: 0,
        };
        for cpu in 0..cpus {
            long.line(cpu as usize, cpu + 1, "page_fault_user: address=0x4b5324 ip=0x40175a error_code=0x7");
        }
        long
    }

    fn line(&mut self, cpu: usize, pid: u32, what: &str) {
        let (s, us) = (self.lines / 1_000_000, self.lines % 1_000_000);
        self.lines += 1;
        writeln!(self.block, "            task-{pid:<7} [{cpu:03}] d..2. {s:>5}.{us:06}: {what}")
            .expect("memory");
    }

    fn fpu(&mut self, cpu: usize, pid: u32, event: &str) {
        self.line(
            cpu,
            pid,
            &format!("x86_fpu_{event}: x86/fpu: 000000002b6caff0 load: 0 xfeatures: 217 xcomp_bv: 0"),
        );
    }

    fn switch(&mut self, cpu: usize, from: u32, state: char, to: u32) {
        let what = format!(
            "sched_switch: prev_comm=task prev_pid={from} prev_prio=120 prev_state={state} ==> next_comm=task \
             next_pid={to} next_prio=120"
        );
        self.line(cpu, from, &what);
    }

    fn returns(&mut self, cpu: usize, pid: u32, loaded: bool) {
        self.line(cpu, pid, "switch_fpu_return <-exit_to_user_mode_prepare");
        if loaded {
            self.fpu(cpu, pid, "regs_activated");
        }
        self.line(cpu, pid, "sys_enter: NR 1 (1, 2, 3, 4, 5, 6)");
    }

    fn forks(&mut self, cpu: usize, pid: u32) {
        let child = FIRST_PID + (self.tasks % u64::from(PIDS - FIRST_PID)) as u32;
        self.tasks += 1;
        // Not all of the first ones die at the same time.
        let turns = self.unborn / self.queues.len() as u32 % TURNS;
        self.queues[cpu].push_back((child, turns));
        self.line(cpu, pid, "fpu_clone <-copy_thread");
        self.fpu(cpu, pid, "copy_src");
        self.fpu(cpu, pid, "copy_dst");
        self.line(
            cpu,
            pid,
            &format!("sched_process_fork: comm=task pid={pid} child_comm=task child_pid={child}"),
        );
    }

    /// The task that runs on the next CPU does something, and leaves.
    fn next_block(&mut self) {
        self.block.clear();
        self.read = 0;
        let cpu = (self.turn % self.queues.len() as u64) as usize;
        self.turn += 1;
        let (pid, turns) = self.queues[cpu][0];
        if self.unborn > 0 {
            self.unborn -= 1;
            return self.forks(cpu, pid);
        }
        self.queues[cpu].pop_front();
        match turns % TURNS {
            // Of the 1000 names that are counted apart, and the others that are not.
            0 => self.line(cpu, pid, &format!("event_{}: a line that means nothing", self.turn)),
            1 => {
                self.switch(cpu, pid, 'S', 0);
                self.fpu(cpu, pid, "regs_deactivated");
                self.switch(cpu, 0, 'R', pid);
                self.returns(cpu, pid, false);
            }
            2 => {
                self.line(cpu, pid, "kernel_fpu_begin_mask <-blake2s_compress");
                self.line(cpu, pid, "kernel_fpu_end <-blake2s_compress");
                self.returns(cpu, pid, true);
            }
            _ => self.forks(cpu, pid),
        }
        let (next, _) = self.queues[cpu][0];
        if turns + 1 < TURNS {
            self.queues[cpu].push_back((pid, turns + 1));
            self.switch(cpu, pid, 'R', next);
        } else {
            self.line(cpu, pid, &format!("sched_process_exit: comm=task pid={pid} prio=120"));
            self.fpu(cpu, pid, "regs_deactivated");
            self.fpu(cpu, pid, "dropped");
            self.switch(cpu, pid, 'Z', next);
        }
        // Of a dead task too: `Quirk::ExitSavesDeadTask`.
        self.fpu(cpu, pid, "regs_deactivated");
        self.returns(cpu, next, true);
    }
}

impl Read for Long {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.block.len() {
            self.next_block();
        }
        if self.read == 0 {
            // Blocks are read whole or not at all.
            match self.left.checked_sub(self.block.len() as u64) {
                Some(left) => self.left = left,
                None => {
                    self.block.clear();
                    return Ok(0);
                }
            }
        }
        let rest = &self.block.as_bytes()[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

/// The most memory that this process ever had resident. `None` without Linux's `/proc`.
pub(crate) fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

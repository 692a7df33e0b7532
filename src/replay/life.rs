//! Fork, exec, exit, migration, and access from outside.

use super::{
    Decision, Quirk,
    drive::{Done, Driver, IDLE},
    line::syscall_result,
    tasks::{Ptrace, TaskTrack},
};
use crate::{Component, CpuId, EntryKind, Event, TaskId, Value, Verb, fpu::Policy};

impl<P: Policy> Driver<P> {
    /// Fork copies the parent's state, and loads it before if need be.
    pub(super) fn fork_copies(&mut self, cpu: CpuId, pid: u32) -> Done {
        let task = self.adopt(cpu, pid)?;
        let Some(track) = self.tasks.get(&pid).copied() else { return Ok(()) };
        if track.copied {
            return Ok(());
        }
        let loaded = track.loads > 0;
        self.kernel.restores += u64::from(loaded);
        let mut done = true;
        if self.is_known(pid) {
            let need_load = self.fleet.task(task).is_some_and(|task| task.fpstate().need_fpu_load());
            let expected = self.fleet.expects_load(task, cpu, false);
            if loaded && !expected && !self.functions {
                self.infer_kernel_fpu(cpu)?;
            } else if expected && !loaded && track.maybe_done {
                // Copied before the switch, which has saved since.
                self.agreement.undecidable += 1;
                done = false;
            } else if need_load || loaded {
                self.compare(cpu, pid, Decision::Fork, expected, loaded);
            }
        }
        if done {
            self.loaded_by_fork(cpu)?;
            self.knows(pid)?;
        }
        self.update(pid, |task| {
            task.copied = true;
            (task.loads, task.window) = (0, None);
        })
    }

    /// The kernel's fork loads the parent; only the machine that is held against it follows.
    pub(super) fn loaded_by_fork(&mut self, cpu: CpuId) -> Done {
        if self.emit_quirk(cpu, Event::Access(cpu, Verb::MoveToCpu))? > 0 {
            self.agreement.quirk(Quirk::ForkLoadsParent);
            self.track(cpu).cleared = None;
        }
        Ok(())
    }

    /// The child of a fork has a name now. Without a copy it is a kernel thread, or works for one.
    pub(super) fn fork(&mut self, cpu: CpuId, pid: u32, child: u32) -> Done {
        let copied = self.tasks.get(&pid).is_some_and(|parent| parent.copied);
        self.update(pid, |parent| (parent.copied, parent.window) = (false, None))?;
        if !copied || child == pid || child == IDLE {
            return Ok(());
        }
        self.adopt(cpu, pid)?;
        self.finish_delivery(cpu, pid)?;
        self.vacate(child, None)?;
        let task = self.fleet.new_task();
        self.emit(Event::Fork(cpu, task))?;
        let known = if self.is_known(pid) { self.epoch } else { super::drive::UNKNOWN };
        self.tasks.insert(child, TaskTrack::new(task, known));
        Ok(())
    }

    /// `fpu_flush_thread`: the task starts a new program. A kernel thread becomes a user task here.
    pub(super) fn exec(&mut self, cpu: CpuId, pid: u32) -> Done {
        self.adopt(cpu, pid)?;
        self.finish_delivery(cpu, pid)?;
        self.emit(Event::Exec(cpu))?;
        self.knows(pid)
    }

    /// Lets two tasks exchange their pids, if one of them is dead, and returns whether that is so: one of them has a
    /// line where the other is. The dead one cannot have come or gone without a switch. It is the leader of the other,
    /// whose exec (`de_thread`, `exchange_tids`) did not wait for the leader's last switch.
    pub(super) fn exchange_pids(&mut self, one: u32, other: u32) -> bool {
        let [Some(a), Some(b)] = [one, other].map(|pid| self.tasks.get(&pid).copied()) else { return false };
        if self.fleet.is_alive(a.task) == self.fleet.is_alive(b.task) {
            return false;
        }
        self.tasks.extend([(one, b), (other, a)]);
        let name = |pid| match pid {
            _ if pid == one => other,
            _ if pid == other => one,
            _ => pid,
        };
        for cpu in &mut self.cpus {
            (cpu.current, cpu.pending) = (cpu.current.map(name), cpu.pending.renamed(name));
        }
        true
    }

    /// `sched_process_exec`: behind the flush. A thread that execs has its leader's pid from before the flush on,
    /// without a switch; as it starts from nothing there, it is a new task, and the old one is gone. Where the two
    /// were seen to exchange their pids, the old one is the leader's by now, and goes with its last switch.
    pub(super) fn exec_event(&mut self, cpu: CpuId, pid: u32, old_pid: u32) -> Done {
        let leader_is_dying = self.tasks.get(&old_pid).is_some_and(|old| !self.fleet.is_alive(old.task));
        if pid != old_pid && !leader_is_dying {
            self.vacate(old_pid, None)?;
        }
        if !self.tasks.get(&pid).is_some_and(|task| task.flushed) {
            self.exec(cpu, pid)?;
        }
        self.update(pid, |task| (task.flushed, task.executing) = (false, false))
    }

    /// `x86_fpu_dropped`: the kernel gives a dying task's state up. A fork that fails drops the child's, and the
    /// parent does not exit.
    pub(super) fn dropped(&mut self, cpu: CpuId, pid: u32) -> Done {
        // A kernel thread, or a task of which this is the first that is seen.
        let Some(track) = self.tasks.get(&pid).copied() else { return self.slot_cleared(cpu) };
        let Some(task) = self.fleet.task(track.task).filter(|task| !task.has_exited()) else { return Ok(()) };
        if !track.exiting && self.is_known(pid) {
            return Ok(());
        }
        let unsaved = !task.fpstate().need_fpu_load();
        self.enter(cpu, track.task, EntryKind::Interrupt)?;
        self.emit(Event::Exit(cpu))?;
        self.slot_cleared(cpu)?;
        self.update(pid, |task| {
            (task.exiting, task.saved_when_dead, task.window) = (true, unsaved, None);
            task.dumped = false;
        })
    }

    /// An exit, a kernel thread's too, clears the owner slot, whoever it names.
    fn slot_cleared(&mut self, cpu: CpuId) -> Done {
        if let Some(owner) = self.fleet.cpu(cpu).slot().owner() {
            self.emit_quirk(cpu, Event::InvalidateRegisters(cpu))?;
            self.track(cpu).cleared = Some(owner);
        }
        Ok(())
    }

    pub(super) fn migrate(&mut self, pid: u32, cpu: u32) -> Done {
        let Some(task) = self.tasks.get(&pid).map(|track| track.task) else { return Ok(()) };
        let to = CpuId(cpu);
        self.grow_cpus(cpu);
        if self.fleet.task(task).is_some_and(|task| task.on().is_none()) {
            self.emit(Event::Migrate(task, to))?;
        }
        Ok(())
    }

    /// The task that a ptrace call of `tracer` is about, stopped by now, if it is the machines' business.
    fn traced(&mut self, tracer: u32) -> Result<Option<TaskId>, super::ReplayError> {
        let call = self.tasks.get(&tracer).and_then(|track| track.ptrace);
        let Some(target) = call.map(|call| call.target) else { return Ok(None) };
        let Some(track) = self.tasks.get(&target).copied() else { return Ok(None) };
        let alive = self.fleet.task(track.task).is_some_and(|task| !task.has_exited());
        if !alive {
            return Ok(None);
        }
        self.takes_off(target, track.task)?;
        Ok(self.tasks.get(&target).map(|track| track.task))
    }

    pub(super) fn foreign_write(&mut self, tracer: u32) -> Done {
        match self.traced(tracer)? {
            Some(task) => self.emit(Event::Write(task, Component::SSE, Value::INITIAL)),
            None => Ok(()),
        }
    }

    pub(super) fn foreign_read(&mut self, tracer: u32) -> Done {
        match self.traced(tracer)? {
            Some(task) => self.emit(Event::Read(task, Component::SSE)),
            None => Ok(()),
        }
    }

    /// `fpu_sync_fpstate`: a dying task saves its state for its own core dump, and keeps need_fpu_load clear.
    pub(super) fn core_dump(&mut self, cpu: CpuId, pid: u32) -> Done {
        let task = self.adopt(cpu, pid)?;
        let need_load = self.fleet.task(task).is_some_and(|task| task.fpstate().need_fpu_load());
        self.emit(Event::Access(cpu, Verb::CopyToMemory))?;
        if need_load {
            return Ok(());
        }
        self.saved_again(pid);
        // It stands for need_fpu_load that stays clear: the kernel neither looks nor loads here.
        let counts = self.fleet.reference.clone();
        self.emit_quirk(cpu, Event::Access(cpu, Verb::MoveToCpu))?;
        self.fleet.reference = counts;
        self.update(pid, |task| task.dumped = true)
    }

    /// The kernel saves a task. If its core dump saved it before, the save is the quirk.
    pub(super) fn saved_again(&mut self, pid: u32) {
        if let Some(task) = self.tasks.get_mut(&pid).filter(|task| task.dumped) {
            task.dumped = false;
            self.agreement.quirk(Quirk::CoreDumpSavesTwice);
        }
    }

    pub(super) fn system_call_begins(&mut self, pid: u32, call: &[u8]) {
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.ptrace = if call.starts_with(b"NR 101 ") { Ptrace::parse(call) } else { None };
            task.restoring = !self.functions && call.starts_with(b"NR 15 ");
            task.executing = !self.functions && (call.starts_with(b"NR 59 ") || call.starts_with(b"NR 322 "));
        }
    }

    /// A ptrace call that wrote registers is known from its arguments and its result, where no function line told
    /// before: the recorder traces those of `NT_X86_XSTATE` only. Twice is as good as once.
    pub(super) fn system_call_ends(&mut self, pid: u32, result: &[u8]) -> Done {
        let Some(task) = self.tasks.get_mut(&pid) else { return Ok(()) };
        task.executing = false;
        let Some(call) = task.ptrace else { return Ok(()) };
        if syscall_result(result) == Some((101, 0)) && call.writes_fpu() {
            self.foreign_write(pid)?;
        }
        self.update(pid, |task| task.ptrace = None)
    }
}

//! Switches and returns: what the next line of a CPU decides.

use super::{
    Decision, Quirk, ReplayError,
    drive::{Done, Driver, IDLE, UNKNOWN},
    line::{Line, What},
    tasks::{CpuTrack, Pending, TaskTrack, Window},
};
use crate::{CpuId, Current, EntryKind, Event, KernelContext, TaskId, fpu::Policy};

impl<P: Policy> Driver<P> {
    /// The present line asks a question that the next line of the CPU answers.
    pub(super) fn open(&mut self, cpu: CpuId, pending: Pending) {
        let line = self.fleet.line;
        let track = self.track(cpu);
        (track.pending, track.opened) = (pending, line);
    }

    /// Whether a line says that the kernel did what is pending on its CPU. What a switch saves has its line directly
    /// behind it, so that line is about the task that leaves, even if that one has another pid by then.
    pub(super) fn is_answered_by(&mut self, cpu: CpuId, line: &Line<'_>) -> bool {
        let pending = self.track(cpu).pending;
        match pending {
            Pending::Switch { prev, .. } if line.what == What::Deactivated && prev != line.pid => {
                self.exchange_pids(prev, line.pid)
            }
            _ => pending.is_answered_by(line.pid, line.what),
        }
    }

    /// Closes what was pending on a CPU. `found`: whether the kernel did it; `None` if that cannot be told.
    pub(super) fn settle(&mut self, cpu: CpuId, found: Option<bool>) -> Done {
        let pending = core::mem::take(&mut self.track(cpu).pending);
        self.opened = Some(self.track(cpu).opened);
        let settled = self.close(cpu, pending, found);
        self.opened = None;
        settled
    }

    fn close(&mut self, cpu: CpuId, pending: Pending, found: Option<bool>) -> Done {
        match pending {
            Pending::Nothing => Ok(()),
            Pending::Switch { prev, next, dead } => {
                self.kernel.saves += u64::from(found == Some(true));
                self.switch(cpu, prev, next, dead, found)
            }
            Pending::Return { pid, expected } => {
                self.kernel.restores += u64::from(found == Some(true));
                match (expected, found) {
                    (Some(expected), Some(found)) => {
                        self.compare(cpu, pid, Decision::Return, expected, found);
                    }
                    _ => self.agreement.undecidable += 1,
                }
                Ok(())
            }
        }
    }

    /// A line says that `pid` runs on `cpu`. If another did, a switch has no line.
    pub(super) fn runs(&mut self, cpu: CpuId, pid: u32, now_us: u64) -> Done {
        match self.track(cpu).current {
            Some(current) if current == pid => return Ok(()),
            Some(current) => {
                if self.exchange_pids(current, pid) {
                    return Ok(());
                }
                self.switch(cpu, current, pid, false, None)?;
            }
            None => self.comes(cpu, pid)?,
        }
        self.track(cpu).since_us = now_us;
        Ok(())
    }

    /// `prev` leaves the CPU to `next`.
    fn switch(&mut self, cpu: CpuId, prev: u32, next: u32, dead: bool, found: Option<bool>) -> Done {
        if !self.functions && found == Some(true) && prev != IDLE && !self.tasks.contains_key(&prev) {
            // Only a user task is saved, and only behind a return to user.
            self.agreement.inferred_returns += 1;
            let task = self.adopt(cpu, prev)?;
            self.emit(Event::Return(cpu, task))?;
            let track = TaskTrack::new(task, UNKNOWN);
            self.leaves(cpu, prev, track, dead, None)?;
            self.knows(prev)?;
        } else if let Some(track) = self.tasks.get(&prev).copied() {
            self.leaves(cpu, prev, track, dead, found)?;
        } else if self.fleet.cpu(cpu).current() == Current::Idle {
            self.kernel_fpu_end(cpu)?;
            self.emit(Event::ScheduleOut(cpu))?;
        }
        let last_us = self.track(cpu).last_us;
        self.track(cpu).since_us = last_us;
        self.comes(cpu, next)
    }

    /// An adopted task leaves its CPU, and its pid if it is dead.
    fn leaves(&mut self, cpu: CpuId, pid: u32, track: TaskTrack, dead: bool, found: Option<bool>) -> Done {
        self.identify(cpu);
        if !self.functions && track.loads > 0 && !track.exiting && self.fleet.is_alive(track.task) {
            // Without function lines, a load is what a return to user leaves behind.
            self.returned(cpu, pid, EntryKind::Interrupt)?;
        }
        self.enter(cpu, track.task, EntryKind::Interrupt)?;
        // The flush of an exec has no line of its own without function lines.
        let open = self.window_interrupted(cpu, pid)? || track.executing;
        // A dead task is saved if the kernel dropped a state that was only in its registers.
        let expected = track.saved_when_dead || self.fleet.expects_save(track.task, cpu);
        match found {
            None => self.agreement.undecidable += u64::from(self.is_known(pid)),
            Some(_) if open || !self.is_known(pid) => self.agreement.undecidable += 1,
            Some(true) if !expected && !self.functions && !track.exiting => {
                // Its registers cannot have changed unless it ran user code: a return nobody saw.
                if self.fleet.expects_load(track.task, cpu, true) {
                    self.compare(cpu, pid, Decision::Return, true, false);
                } else {
                    self.agreement.inferred_returns += 1;
                }
                self.emit(Event::Return(cpu, track.task))?;
                self.enter(cpu, track.task, EntryKind::Interrupt)?;
            }
            Some(false) if expected && dead && !self.functions => self.agreement.inferred_kernel_fpu += 1,
            Some(found) => {
                self.compare(cpu, pid, Decision::SwitchOut, expected, found);
                if expected && track.saved_when_dead {
                    self.agreement.quirk(Quirk::ExitSavesDeadTask);
                } else if expected {
                    self.saved_again(pid);
                }
            }
        }
        let exited = !self.fleet.is_alive(track.task);
        if dead && !exited {
            self.emit(Event::Exit(cpu))?;
        }
        self.emit(Event::ScheduleOut(cpu))?;
        // A task that has exited may be preempted before its last switch: it has no state any more by then.
        if dead || exited {
            self.tasks.remove(&pid);
            self.fleet.forget(track.task);
        }
        Ok(())
    }

    /// `pid` comes to a CPU that nobody runs on.
    fn comes(&mut self, cpu: CpuId, pid: u32) -> Done {
        self.track(cpu).current = Some(pid);
        if let Some(task) = self.tasks.get(&pid).map(|track| track.task)
            && self.takes_off(pid, task)?
        {
            if !self.is_known(pid) {
                // What it was at may be over by now.
                self.update(pid, TaskTrack::forget)?;
            }
            return self.emit(Event::ScheduleIn(cpu, task));
        }
        match self.fleet.cpu(cpu).current() {
            Current::Switching => self.emit(Event::Idle(cpu)),
            _ => Ok(()),
        }
    }

    /// Lets a task leave the CPU that it is on as far as the machines know. Returns whether it is still alive.
    ///
    /// Who comes next there is left to the next line of that CPU.
    pub(super) fn takes_off(&mut self, pid: u32, task: TaskId) -> Result<bool, ReplayError> {
        let Some(on) = self.fleet.task(task).and_then(|task| task.on()) else { return Ok(true) };
        let Some(track) = self.tasks.get(&pid).copied() else { return Ok(false) };
        self.identify(on);
        let cpu = self.track(on);
        cpu.current = None;
        let (dead, found, opened) = match cpu.pending {
            // It is elsewhere by now, so the save that would have followed did not come.
            Pending::Switch { prev, dead, .. } if prev == pid => {
                cpu.pending = Pending::Nothing;
                (dead, Some(false), Some(cpu.opened))
            }
            // A switch there has no line.
            _ => (false, None, None),
        };
        let outer = core::mem::replace(&mut self.opened, opened);
        self.leaves(on, pid, track, dead, found)?;
        self.opened = outer;
        Ok(self.tasks.contains_key(&pid))
    }

    /// `switch_fpu_return`: the task is about to run user code with need_fpu_load set.
    pub(super) fn return_to_user(&mut self, cpu: CpuId, pid: u32) -> Done {
        let task = self.adopt(cpu, pid)?;
        self.finish_delivery(cpu, pid)?;
        let known = self.is_known(pid);
        let expected = known.then(|| self.fleet.expects_load(task, cpu, true));
        self.cleared_owner_returns(cpu, task, expected);
        self.kernel.returns += 1;
        self.open(cpu, Pending::Return { pid, expected });
        self.emit(Event::Return(cpu, task))?;
        self.knows(pid)
    }

    /// The restore of a task whose claim was taken away by the exit of another is the price of that quirk.
    fn cleared_owner_returns(&mut self, cpu: CpuId, task: TaskId, expected: Option<bool>) {
        let last_cpu = self.fleet.task(task).and_then(|task| task.fpstate().last_cpu());
        let cleared = self.track(cpu).cleared.take();
        if expected == Some(true) && cleared == Some(task) && last_cpu == Some(cpu) {
            self.agreement.quirk(Quirk::ExitClearsOwner);
        }
    }

    /// From here on the task's state is known.
    pub(super) fn knows(&mut self, pid: u32) -> Done {
        let epoch = self.epoch;
        self.update(pid, |task| (task.epoch, task.loads, task.dumped) = (epoch, 0, false))
    }

    /// A line that only user code can cause.
    pub(super) fn seen_in_user_mode(&mut self, cpu: CpuId, pid: u32, kind: EntryKind) -> Done {
        match self.tasks.get(&pid).copied() {
            Some(track) if self.fleet.in_user_mode(track.task) => self.emit(Event::Entry(cpu, kind)),
            _ => self.returned(cpu, pid, kind),
        }
    }

    /// The task has been in user mode since its last line, and enters the kernel now.
    fn returned(&mut self, cpu: CpuId, pid: u32, kind: EntryKind) -> Done {
        let task = self.adopt(cpu, pid)?;
        if !self.functions {
            self.signal_without_functions(cpu, pid)?;
        }
        self.finish_delivery(cpu, pid)?;
        let loads = self.tasks.get(&pid).map_or(0, |track| track.loads);
        let need_load = self.fleet.task(task).is_some_and(|task| task.fpstate().need_fpu_load());
        if self.is_known(pid) && (need_load || loads > 0) {
            self.return_without_line(cpu, pid, task, loads > 0)?;
        } else if !self.functions {
            self.kernel.restores += u64::from(loads > 0);
        }
        self.track(cpu).cleared = None;
        self.emit(Event::Return(cpu, task))?;
        self.emit(Event::Entry(cpu, kind))?;
        self.knows(pid)
    }

    /// A return that follows from a later line.
    fn return_without_line(&mut self, cpu: CpuId, pid: u32, task: TaskId, loaded: bool) -> Done {
        let expected = self.fleet.expects_load(task, cpu, true);
        if self.functions {
            // `switch_fpu_return` is called whenever need_fpu_load is set: the kernel had it clear.
            self.compare(cpu, pid, Decision::Return, expected, loaded);
            return Ok(());
        }
        self.cleared_owner_returns(cpu, task, Some(expected));
        self.kernel.returns += 1;
        self.kernel.restores += u64::from(loaded);
        if loaded && !expected {
            self.infer_kernel_fpu(cpu)
        } else {
            self.compare(cpu, pid, Decision::Return, expected, loaded);
            Ok(())
        }
    }

    /// A load that nothing else explains: kernel code used the registers since.
    pub(super) fn infer_kernel_fpu(&mut self, cpu: CpuId) -> Done {
        self.agreement.inferred_kernel_fpu += 1;
        self.kernel_fpu_begin(cpu)?;
        self.kernel_fpu_end(cpu)
    }

    pub(super) fn kernel_fpu_begin(&mut self, cpu: CpuId) -> Done {
        let context = match self.fleet.cpu(cpu).current() {
            Current::Task(task) => {
                self.enter(cpu, task, EntryKind::Interrupt)?;
                KernelContext::Task
            }
            // Idle, or a kernel thread, which the machines see as idle.
            Current::Idle | Current::Switching => KernelContext::SoftIrq,
        };
        self.track(cpu).cleared = None;
        self.saves_dead_task(cpu)?;
        self.emit(Event::KernelFpuBegin(cpu, context))
    }

    /// A kernel FPU section saves the current task although it is dead, and its last switch does not.
    fn saves_dead_task(&mut self, cpu: CpuId) -> Done {
        let Some(pid) = self.track(cpu).current else { return Ok(()) };
        if self.tasks.get(&pid).is_some_and(|track| track.saved_when_dead) {
            self.agreement.quirk(Quirk::KernelFpuSavesDeadTask);
        }
        self.saved_again(pid);
        self.update(pid, |track| track.saved_when_dead = false)
    }

    /// Ends the kernel FPU section that is open on the CPU, if one is.
    pub(super) fn kernel_fpu_end(&mut self, cpu: CpuId) -> Done {
        match self.fleet.cpu(cpu).slot().kernel_fpu() {
            Some(_) => self.fleet.all(Event::KernelFpuEnd(cpu)),
            None => Ok(()),
        }
    }

    /// At a switch out of an operation that may load: what is known of it. Returns whether the operation may
    /// have loaded without a line, so that nobody can tell what the switch has to save.
    fn window_interrupted(&mut self, cpu: CpuId, pid: u32) -> Result<bool, ReplayError> {
        let Some(track) = self.tasks.get(&pid).copied() else { return Ok(false) };
        let Some(window) = track.window else { return Ok(false) };
        let Some(task) = self.fleet.task(track.task).filter(|task| !task.has_exited()) else {
            return Ok(false);
        };
        let need_load = task.fpstate().need_fpu_load();
        let live = !self.fleet.expects_load(track.task, cpu, false);
        if track.loads > 0 {
            self.kernel.restores += 1;
            if self.is_known(pid) {
                let decision = match window {
                    Window::Fork => Decision::Fork,
                    Window::SignalFrame => Decision::SignalFrame,
                };
                self.compare(cpu, pid, decision, need_load && !live, true);
            }
            match window {
                Window::Fork => self.loaded_by_fork(cpu)?,
                Window::SignalFrame => self.frame_faults(cpu, track.task)?,
            }
        }
        self.update(pid, |task| {
            task.loads = 0;
            task.maybe_done |= track.loads > 0 || live;
        })?;
        Ok(track.loads == 0 && need_load && live)
    }

    /// Events of a CPU were lost: whoever may have run there in the meantime is not known any more.
    pub(super) fn events_lost(&mut self, cpu: u32) -> Done {
        self.lost += 1;
        let id = CpuId(cpu);
        self.grow_cpus(cpu);
        self.settle(id, None)?;
        let CpuTrack { last_us: before_us, decided, seen, .. } = *self.track(id);
        // The gap began there, and what the CPU did in it may bear on what was decided since.
        self.agreement.retract(decided);
        self.epoch += 1;
        let epoch = self.epoch;
        // Those who were running elsewhere before the gap began, and still are, cannot have been here.
        for (other, track) in self.cpus.iter_mut().enumerate() {
            track.decided = track.decided.earlier(decided);
            let Some(task) = track.current.and_then(|pid| self.tasks.get_mut(&pid)) else { continue };
            let stayed = other != cpu as usize
                && track.since_us < before_us
                && !matches!(track.pending, Pending::Switch { .. });
            if stayed && task.epoch == epoch - 1 {
                task.epoch = epoch;
            } else {
                task.forget();
            }
        }
        if let Some(current) = self.track(id).current {
            self.switch(id, current, IDLE, false, None)?;
        }
        *self.track(id) = CpuTrack { last_us: before_us, decided, seen, ..CpuTrack::default() };
        Ok(())
    }
}

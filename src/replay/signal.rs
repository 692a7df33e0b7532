//! Signal delivery and return.

use super::{
    Decision,
    drive::{Done, Driver},
    tasks::Window,
};
use crate::{
    CpuId, EntryKind, Event, FrameChange, TaskId,
    fpu::{Policy, SignalStep},
};

impl<P: Policy> Driver<P> {
    /// `copy_fpstate_to_sigframe`: begins; the load and the save may come much later.
    pub(super) fn frame_opens(&mut self, cpu: CpuId, pid: u32) -> Done {
        self.adopt(cpu, pid)?;
        self.update(pid, |task| {
            (task.window, task.maybe_done, task.loads) = (Some(Window::SignalFrame), false, 0);
        })
    }

    /// The task is switched out inside, behind a load: the frame's page was absent, and the save begins anew.
    pub(super) fn frame_faults(&mut self, cpu: CpuId, task: TaskId) -> Done {
        self.begin_delivery(cpu, task)?;
        self.emit(Event::Frame(task, FrameChange::Absent))?;
        self.emit(Event::SignalSave(cpu))?;
        self.emit(Event::SignalFaultIn(cpu))
    }

    /// `fpu__clear_user_states`: the frame is written, or a signal return has failed; either way the registers
    /// take the initial configuration.
    pub(super) fn handler_registers(&mut self, cpu: CpuId, pid: u32) -> Done {
        let task = self.adopt(cpu, pid)?;
        let Some(track) = self.tasks.get(&pid).copied() else { return Ok(()) };
        if track.restoring {
            self.finish_delivery(cpu, pid)?;
            self.emit(Event::SigReturn(cpu))?;
            self.emit(Event::Frame(task, FrameChange::BadHeader))?;
            self.emit(Event::SigReturnLoad(cpu))?;
            return self.update(pid, |task| task.restoring = false);
        }
        self.frame_written(cpu, pid, track.loads > 0, track.maybe_done)
    }

    /// The kernel has saved the state to the frame and given the handler its registers.
    fn frame_written(&mut self, cpu: CpuId, pid: u32, loaded: bool, maybe_done: bool) -> Done {
        let task = self.adopt(cpu, pid)?;
        self.kernel.restores += u64::from(loaded);
        if self.is_known(pid) {
            let need_load = self.fleet.task(task).is_some_and(|task| task.fpstate().need_fpu_load());
            let expected = self.fleet.expects_load(task, cpu, false);
            if loaded && !expected && !self.functions {
                self.infer_kernel_fpu(cpu)?;
            } else if expected && !loaded && maybe_done {
                // Written before the switch, which has saved since.
                self.agreement.undecidable += 1;
            } else if need_load || loaded {
                self.compare(cpu, pid, Decision::SignalFrame, expected, loaded);
            }
        }
        self.track(cpu).cleared = None;
        self.begin_delivery(cpu, task)?;
        self.emit(Event::SignalSave(cpu))?;
        self.emit(Event::SignalEnter(cpu))?;
        self.update(pid, |task| (task.window, task.maybe_done) = (None, false))?;
        self.knows(pid)
    }

    /// `fpregs_mark_activate` inside a signal return: the registers hold the frame's state.
    pub(super) fn signal_returned(&mut self, cpu: CpuId, pid: u32) -> Done {
        if !self.tasks.get(&pid).is_some_and(|task| task.restoring) {
            return Ok(());
        }
        self.adopt(cpu, pid)?;
        self.update(pid, |task| task.restoring = false)?;
        self.finish_delivery(cpu, pid)?;
        self.track(cpu).cleared = None;
        self.emit(Event::SigReturn(cpu))?;
        self.emit(Event::SigReturnLoad(cpu))?;
        self.knows(pid)
    }

    /// Without function lines: what the loads since the last line of the task were. The kernel marks the
    /// registers as the task's once in a delivery and once in a signal return.
    pub(super) fn signal_without_functions(&mut self, cpu: CpuId, pid: u32) -> Done {
        let Some(track) = self.tasks.get(&pid).copied() else { return Ok(()) };
        if track.restoring && track.loads > 0 {
            self.signal_returned(cpu, pid)?;
            self.update(pid, |task| task.loads = track.loads - 1)?;
        }
        let Some(track) = self.tasks.get(&pid).copied() else { return Ok(()) };
        if track.delivering && track.loads > 0 {
            self.frame_written(cpu, pid, track.loads > 1, false)?;
        }
        self.update(pid, |task| task.delivering = false)
    }

    fn begin_delivery(&mut self, cpu: CpuId, task: TaskId) -> Done {
        self.enter(cpu, task, EntryKind::Interrupt)?;
        match self.fleet.task(task).map(|task| task.fpstate().signal()) {
            Some(SignalStep::Idle) => self.emit(Event::SignalDeliver(cpu)),
            _ => Ok(()),
        }
    }

    /// A delivery that was begun and never finished: the frame could not be written, and the task goes on
    /// without the signal's handler.
    pub(super) fn finish_delivery(&mut self, cpu: CpuId, pid: u32) -> Done {
        let Some(task) = self.tasks.get(&pid).map(|track| track.task) else { return Ok(()) };
        if self.fleet.task(task).is_some_and(|task| task.fpstate().signal() == SignalStep::Save) {
            self.emit(Event::SignalSave(cpu))?;
            self.emit(Event::SignalEnter(cpu))?;
        }
        self.update(pid, |task| task.window = None)
    }
}

//! One event: what it requires, and which protocol function it runs.

use super::{Current, Machine, Outcome, Task};
use crate::{
    Component, CpuId, EntryKind, Event, EventError, Pkru, TaskId,
    fpu::{self, Before, Defect, Policy, SignalStep, TaskKind},
    registers::{Program, UserFrames},
};

impl<R: UserFrames, P: Policy> Machine<R, P> {
    /// Lets one event happen.
    ///
    /// # Errors
    /// [`EventError`] when the event cannot happen now; the machine is unchanged.
    pub fn apply(&mut self, event: Event) -> Result<Outcome, EventError> {
        let mut out = Outcome::default();
        match event {
            Event::Spawn(task) => self.add_task(task, TaskKind::User)?,
            Event::KernelThread(task) => self.add_task(task, TaskKind::KernelThread)?,
            Event::FpuFree(task) => {
                let fpstate = &self.user_task(task)?.fpstate;
                if let Some(cpu) = fpstate.user_on() {
                    return Err(EventError::InUserMode { cpu, task });
                }
                self.task_mut(task).fpstate.set_fpu_free();
            }
            Event::Entry(cpu, kind) => {
                let task = self.program_side(cpu)?;
                self.entry(cpu, task, kind, &mut out);
            }
            Event::ScheduleOut(cpu) => self.schedule_out(cpu, &mut out)?,
            Event::ScheduleIn(cpu, task) => self.schedule_in(cpu, task, &mut out)?,
            Event::Idle(cpu) => {
                let current = self.free_cpu(cpu)?.current;
                if current != Current::Switching {
                    return Err(EventError::Busy { cpu, current, expected: "its schedule-out first" });
                }
                self.cpus[cpu.0 as usize].current = Current::Idle;
            }
            Event::Return(cpu, task) => self.return_to_user(cpu, task, &mut out)?,
            Event::FirstUse(cpu) => {
                let task = self.user_side(cpu)?;
                self.may_use_fpu(task)?;
                if !self.existing_cpu(cpu)?.slot.trap_armed() {
                    return Err(EventError::NoTrap(cpu));
                }
                out.load = Some(self.run(cpu, task, &mut out, |p, c, t| fpu::first_use(c, p, t)));
            }
            Event::FpuFault(cpu) => {
                let task = self.program_side(cpu)?;
                if self.may_use_fpu(task).is_ok() {
                    return Err(EventError::NotFpuFree(task));
                }
                self.entry(cpu, task, EntryKind::Exception, &mut out);
            }
            Event::KernelFpuBegin(cpu, context) => self.kernel_fpu_begin(cpu, context, &mut out)?,
            Event::KernelFpuEnd(cpu) => self.kernel_fpu_end(cpu, &mut out)?,
            Event::SoftIrqBegin(cpu) => {
                self.free_cpu(cpu)?;
                self.not_in_user_mode(cpu)?;
                self.not_switching(cpu)?;
                fpu::softirq_begin(&mut self.cpus[cpu.0 as usize].slot);
            }
            Event::SoftIrqEnd(cpu) => {
                let slot = &self.online_cpu(cpu)?.slot;
                if !slot.in_softirq() {
                    return Err(EventError::NoSoftIrq(cpu));
                }
                if let Some(open) = slot.kernel_fpu() {
                    return Err(EventError::InKernelFpu { cpu, open });
                }
                fpu::softirq_end(&mut self.cpus[cpu.0 as usize].slot);
            }
            Event::Migrate(task, cpu) => {
                if self.known_task(task)?.is_gone() {
                    return Err(EventError::Exited(task));
                }
                self.not_running(task)?;
                self.online_cpu(cpu)?;
                out.save = Some(self.run(cpu, task, &mut out, |_, _, t| fpu::migrate(t, cpu)));
            }
            Event::Fork(cpu, child) => self.fork(cpu, child, TaskKind::User, &mut out)?,
            Event::UserWorker(cpu, child) => self.fork(cpu, child, TaskKind::UserWorker, &mut out)?,
            Event::Exec(cpu) => {
                let task = self.at_step(cpu, &[SignalStep::Idle], "none")?;
                out.load = Some(self.run(cpu, task, &mut out, |p, c, t| fpu::exec(c, p, t)));
                self.task_mut(task).drop_frames();
            }
            Event::Exit(cpu) => {
                let task = self.kernel_side(cpu)?;
                if self.known_task(task)?.has_exited() {
                    return Err(EventError::Exited(task));
                }
                self.guest_not_loaded(task)?;
                self.run(cpu, task, &mut out, |p, c, t| fpu::exit(c, p, t));
                self.task_mut(task).drop_frames();
            }
            Event::Read(task, component) => self.read(task, component, &mut out)?,
            Event::Write(task, component, value) => self.write(task, component, value, &mut out)?,
            Event::UserWrite(cpu, component, value) => {
                let task = self.user_side(cpu)?;
                self.may_use_fpu(task)?;
                self.image_component(component)?;
                let cpu_state = &mut self.cpus[cpu.0 as usize];
                if cpu_state.slot.trap_armed() {
                    return Err(EventError::TrapArmed(cpu));
                }
                if cpu_state.slot.xfd().contains(component) {
                    return Err(EventError::Disabled { cpu, component });
                }
                cpu_state.regs.run(Program::Fill(component, value));
            }
            Event::UserPkru(cpu, pkru) => {
                self.user_side(cpu)?;
                self.has_pkru()?;
                self.cpus[cpu.0 as usize].regs.set_pkru(pkru);
            }
            Event::KernelPkru(cpu, pkru) => {
                let task = self.user_kernel_side(cpu)?;
                self.write_pkru(task, pkru, &mut out)?;
            }
            Event::ReadPkru(task) => self.read_pkru(task, &mut out)?,
            Event::WritePkru(task, pkru) => self.write_pkru(task, pkru.unwrap_or(Pkru(0)), &mut out)?,
            Event::UserMemory(cpu, task, access) => self.user_memory(cpu, task, access, &mut out)?,
            Event::Access(cpu, verb) => self.access(cpu, verb, &mut out)?,
            Event::InvalidateRegisters(cpu) => {
                self.free_cpu(cpu)?;
                self.not_in_user_mode(cpu)?;
                self.settle(cpu, &mut out, |m| {
                    fpu::invalidate_registers(&mut m.cpus[cpu.0 as usize].section())
                });
                if let Current::Task(task) = self.existing_cpu(cpu)?.current
                    && self.user_task(task).is_ok()
                {
                    self.resume(task, &mut out);
                }
            }
            Event::SignalDeliver(cpu) => {
                let task = self.at_step(cpu, &[SignalStep::Idle], "none")?;
                let task = &mut self.tasks[task.slot() as usize];
                task.push_frame(&self.blank);
                fpu::signal_deliver(&mut task.fpstate);
            }
            Event::SignalSave(cpu) => self.signal_save(cpu, &mut out)?,
            Event::SignalFaultIn(cpu) => self.signal_fault_in(cpu, &mut out)?,
            Event::SignalEnter(cpu) => {
                let task = self.at_step(cpu, &[SignalStep::Saved], "a frame that was written")?;
                self.run(cpu, task, &mut out, |_, c, t| fpu::signal_enter(c, t));
            }
            Event::SigReturn(cpu) => {
                let task = self.at_step(cpu, &[SignalStep::Idle], "none")?;
                let (fpstate, _) = self.tasks[task.slot() as usize].newest_frame(&self.blank);
                fpu::sigreturn(fpstate);
            }
            Event::SigReturnLoad(cpu) => {
                self.sigreturn_by(cpu, &mut out, |c, t, frame| fpu::sigreturn_load(c, t, frame))?;
            }
            Event::SigReturnCopy(cpu) => {
                self.sigreturn_by(cpu, &mut out, |c, t, frame| fpu::sigreturn_copy(c, t, frame))?;
            }
            Event::Frame(task, change) => self.change_frame(task, change)?,
            Event::GuestLoad(cpu) => {
                let task = self.at_step(cpu, &[SignalStep::Idle], "none")?;
                out.save = Some(self.run(cpu, task, &mut out, |_, c, t| fpu::guest_load(c, t)));
                self.resume(task, &mut out);
            }
            Event::GuestPut(cpu) => {
                let task = if self.existing_cpu(cpu)?.slot.has(Defect::PutWithoutLoad) {
                    self.user_kernel_side(cpu)?
                } else {
                    self.with_guest(cpu)?
                };
                out.save = Some(self.run(cpu, task, &mut out, |_, c, t| fpu::guest_put(c, t)));
                self.resume(task, &mut out);
            }
            Event::GuestEnter(cpu) => {
                let task = self.with_guest(cpu)?;
                out.load = Some(self.run(cpu, task, &mut out, |p, c, t| fpu::guest_enter(c, p, t)));
            }
            Event::GuestExit(cpu) => {
                let task = self.user_side(cpu)?;
                if !self.known_task(task)?.fpstate.is_in_guest() {
                    return Err(EventError::NotInGuest { cpu, task });
                }
                self.leave(cpu, task, &mut out, |p, c, t| fpu::guest_exit(c, p, t));
            }
            Event::Permit(cpu, component) => {
                let task = self.user_kernel_side(cpu)?;
                self.dynamic_component(component)?;
                fpu::permit(&mut self.task_mut(task).fpstate, component);
            }
            Event::DynamicUse(cpu, component) => self.dynamic_use(cpu, component, &mut out)?,
            Event::DynamicGrow(cpu) => {
                let task = self.user_kernel_side(cpu)?;
                if self.known_task(task)?.fpstate.wants().is_none() {
                    return Err(EventError::WantsNothing(task));
                }
                out.dynamic = Some(self.run(cpu, task, &mut out, |_, c, t| fpu::dynamic_grow(c, t)));
            }
            Event::Offline(cpu) => {
                let current = self.free_cpu(cpu)?.current;
                if current != Current::Idle {
                    return Err(EventError::Busy { cpu, current, expected: "idle" });
                }
                self.settle(cpu, &mut out, |m| fpu::offline(&mut m.cpus[cpu.0 as usize].section()));
                self.cpus[cpu.0 as usize].online = false;
            }
            Event::Online(cpu) => {
                if self.existing_cpu(cpu)?.online {
                    return Err(EventError::Online(cpu));
                }
                let cpu = &mut self.cpus[cpu.0 as usize];
                fpu::online(&mut cpu.section());
                cpu.online = true;
            }
            Event::PowerLoss(cpu) => {
                self.without_user_task(cpu)?;
                self.settle(cpu, &mut out, |m| fpu::power_loss(&mut m.cpus[cpu.0 as usize].section()));
            }
        }
        Ok(out)
    }

    pub(super) fn task_mut(&mut self, task: TaskId) -> &mut Task<R> {
        &mut self.tasks[task.slot() as usize]
    }

    /// Runs a protocol function on `cpu` about `task`, and what it asks for before.
    pub(super) fn run<T>(
        &mut self,
        cpu: CpuId,
        task: TaskId,
        out: &mut Outcome,
        mut section: impl FnMut(&P, &mut fpu::PreemptOff<'_, R>, &mut fpu::Fpstate<R::Image>) -> Result<T, Before>,
    ) -> T {
        self.settle(cpu, out, |m| m.section(cpu, task, &mut section))
    }

    fn entry(&mut self, cpu: CpuId, task: TaskId, kind: EntryKind, out: &mut Outcome) {
        self.leave(cpu, task, out, |p, c, t| fpu::entry(c, p, t, kind));
    }

    /// The task leaves user mode, or its guest. What no policy wants saved there is not worth a word.
    fn leave(
        &mut self,
        cpu: CpuId,
        task: TaskId,
        out: &mut Outcome,
        leave: impl FnMut(
            &P,
            &mut fpu::PreemptOff<'_, R>,
            &mut fpu::Fpstate<R::Image>,
        ) -> Result<fpu::Save, Before>,
    ) {
        let save = self.run(cpu, task, out, leave);
        out.save = Some(save).filter(|save| *save != fpu::Save::Kept);
    }

    fn dynamic_use(&mut self, cpu: CpuId, component: Component, out: &mut Outcome) -> Result<(), EventError> {
        let task = self.user_side(cpu)?;
        self.may_use_fpu(task)?;
        self.dynamic_component(component)?;
        let slot = &self.existing_cpu(cpu)?.slot;
        if slot.trap_armed() {
            return Err(EventError::TrapArmed(cpu));
        }
        if !slot.xfd().contains(component) {
            return Err(EventError::NotDisabled { cpu, component });
        }
        let mut dynamic = None;
        self.leave(cpu, task, out, |p, c, t| {
            let (save, asked) = fpu::dynamic_use(c, p, t, component)?;
            dynamic = Some(asked);
            Ok(save)
        });
        out.dynamic = dynamic;
        Ok(())
    }

    fn add_task(&mut self, id: TaskId, kind: TaskKind) -> Result<(), EventError> {
        let slot = self.new_slot(id)?;
        let task = self.new_task(id, kind);
        match self.tasks.get_mut(slot) {
            Some(gone) => *gone = task,
            None => self.tasks.push(task),
        }
        Ok(())
    }

    fn new_task(&self, id: TaskId, kind: TaskKind) -> Task<R> {
        Task::new(id, kind, &self.blank, self.pkru_mode)
    }

    fn fork(
        &mut self,
        cpu: CpuId,
        child: TaskId,
        kind: TaskKind,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let parent = self.kernel_side(cpu)?;
        if self.known_task(parent)?.fpstate.is_user() {
            // Inside a signal return the parent has no state that a child could take a copy of.
            let with_state = [SignalStep::Idle, SignalStep::Save, SignalStep::SaveFaulted, SignalStep::Saved];
            self.at_step(cpu, &with_state, "the end of the signal return")?;
        } else if self.known_task(parent)?.has_exited() {
            return Err(EventError::Exited(parent));
        }
        if kind == TaskKind::UserWorker {
            self.user_task(parent)?;
        }
        self.new_slot(child)?;
        let mut new = self.new_task(child, kind);
        if kind == TaskKind::UserWorker {
            new.memory = parent;
        }
        out.save = Some(self.run(cpu, parent, out, |p, c, parent| fpu::fork(c, p, parent, &mut new.fpstate)));
        match self.tasks.get_mut(child.slot() as usize) {
            Some(gone) => {
                #[cfg(feature = "explore")]
                if self.policy.defect() == Some(fpu::Defect::ChildInheritsLastCpu) {
                    new.fpstate.set_last_cpu(gone.fpstate.last_cpu());
                }
                *gone = new;
            }
            None => self.tasks.push(new),
        }
        Ok(())
    }
}

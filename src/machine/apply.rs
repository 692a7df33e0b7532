//! One event: what it requires, and which protocol function it runs.

use super::{Current, Machine, Outcome, Task};
use crate::{
    Component, CpuId, EntryKind, Event, EventError, FrameChange, KernelContext, TaskId, Value, Verb,
    fpu::{self, Before, Policy, SignalStep, TaskKind},
    registers::{Frame, Image, Program, RegisterFile},
};

impl<R: RegisterFile, P: Policy> Machine<R, P> {
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
                let task = self.user_side(cpu)?;
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
                let task = self.user_side(cpu)?;
                if self.may_use_fpu(task).is_ok() {
                    return Err(EventError::NotFpuFree(task));
                }
                self.entry(cpu, task, EntryKind::Exception, &mut out);
            }
            Event::KernelFpuBegin(cpu, context) => self.kernel_fpu_begin(cpu, context, &mut out)?,
            Event::KernelFpuEnd(cpu) => self.kernel_fpu_end(cpu, &mut out)?,
            Event::Migrate(task, cpu) => {
                if self.known_task(task)?.is_gone() {
                    return Err(EventError::Exited(task));
                }
                self.not_running(task)?;
                self.online_cpu(cpu)?;
                out.save = Some(self.run(cpu, task, &mut out, |_, _, t| fpu::migrate(t, cpu)));
            }
            Event::Fork(cpu, child) => self.fork(cpu, child, &mut out)?,
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
                cpu_state.regs.run(Program::Fill(component, value));
            }
            Event::UserPkru(cpu, pkru) => {
                self.user_side(cpu)?;
                let regs = &mut self.cpus[cpu.0 as usize].regs;
                if regs.pkru().is_none() {
                    return Err(EventError::NoComponent(Component::PKRU));
                }
                regs.set_pkru(pkru);
            }
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
            Event::SignalFaultIn(cpu) => {
                let faulted = [SignalStep::SaveFaulted, SignalStep::LoadFaulted];
                let task = self.at_step(cpu, &faulted, "a frame access that faulted")?;
                let (fpstate, frame) = self.tasks[task.slot() as usize].newest_frame(&self.blank);
                fpu::signal_fault_in(fpstate, frame);
            }
            Event::SignalEnter(cpu) => {
                let task = self.at_step(cpu, &[SignalStep::Saved], "a frame that was written")?;
                self.run(cpu, task, &mut out, |_, c, t| fpu::signal_enter(c, t));
            }
            Event::SigReturn(cpu) => {
                let task = self.at_step(cpu, &[SignalStep::Idle], "none")?;
                let (fpstate, _) = self.tasks[task.slot() as usize].newest_frame(&self.blank);
                fpu::sigreturn(fpstate);
            }
            Event::SigReturnLoad(cpu) => self.sigreturn_load(cpu, &mut out)?,
            Event::Frame(task, change) => self.change_frame(task, change)?,
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

    fn task_mut(&mut self, task: TaskId) -> &mut Task<R> {
        &mut self.tasks[task.slot() as usize]
    }

    /// Runs a protocol function on `cpu` about `task`, and what it asks for before.
    fn run<T>(
        &mut self,
        cpu: CpuId,
        task: TaskId,
        out: &mut Outcome,
        mut section: impl FnMut(&P, &mut fpu::PreemptOff<'_, R>, &mut fpu::Fpstate<R::Image>) -> Result<T, Before>,
    ) -> T {
        self.settle(cpu, out, |m| m.section(cpu, task, &mut section))
    }

    fn entry(&mut self, cpu: CpuId, task: TaskId, kind: EntryKind, out: &mut Outcome) {
        let save = self.run(cpu, task, out, |p, c, t| fpu::entry(c, p, t, kind));
        out.save = Some(save).filter(|save| *save != fpu::Save::Kept);
    }

    fn add_task(&mut self, id: TaskId, kind: TaskKind) -> Result<(), EventError> {
        let slot = self.new_slot(id)?;
        let task = Task::new(id, kind, &self.blank);
        match self.tasks.get_mut(slot) {
            Some(gone) => *gone = task,
            None => self.tasks.push(task),
        }
        Ok(())
    }

    fn schedule_out(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        let current = self.free_cpu(cpu)?.current;
        match current {
            Current::Switching => {
                return Err(EventError::Busy { cpu, current, expected: "somebody to switch out" });
            }
            Current::Idle => {}
            Current::Task(task) => {
                self.not_in_user_mode(cpu)?;
                out.save = Some(self.run(cpu, task, out, |p, c, t| fpu::switch_out(c, p, t)));
                self.task_mut(task).on = None;
            }
        }
        self.cpus[cpu.0 as usize].current = Current::Switching;
        Ok(())
    }

    fn schedule_in(&mut self, cpu: CpuId, task: TaskId, out: &mut Outcome) -> Result<(), EventError> {
        let current = self.free_cpu(cpu)?.current;
        if let Current::Task(_) = current {
            return Err(EventError::Busy { cpu, current, expected: "its schedule-out first" });
        }
        let known = self.known_task(task)?;
        if known.is_gone() {
            return Err(EventError::Exited(task));
        }
        self.not_running(task)?;
        out.load = Some(self.run(cpu, task, out, |p, c, t| fpu::switch_in(c, p, t)));
        self.task_mut(task).on = Some(cpu);
        self.cpus[cpu.0 as usize].current = Current::Task(task);
        Ok(())
    }

    fn return_to_user(&mut self, cpu: CpuId, named: TaskId, out: &mut Outcome) -> Result<(), EventError> {
        let current = self.free_cpu(cpu)?.current;
        self.known_task(named)?;
        if current != Current::Task(named) {
            return Err(EventError::NotCurrent { cpu, named, current });
        }
        let task = self.at_step(cpu, &[SignalStep::Idle], "the end of the signal delivery or return")?;
        out.load = Some(self.run(cpu, task, out, |p, c, t| fpu::return_to_user(c, p, t)));
        Ok(())
    }

    fn kernel_fpu_begin(
        &mut self,
        cpu: CpuId,
        context: KernelContext,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let found = self.online_cpu(cpu)?;
        let current = found.current;
        if let Some(open) = found.slot.kernel_fpu() {
            return Err(EventError::NestedKernelFpu { cpu, open, new: context });
        }
        self.not_in_user_mode(cpu)?;
        match current {
            Current::Switching => {
                return Err(EventError::Busy { cpu, current, expected: "the end of the switch first" });
            }
            Current::Idle if context == KernelContext::Task => {
                return Err(EventError::NoTask { cpu, current });
            }
            Current::Idle | Current::Task(_) => {}
        }
        out.save = Some(self.settle(cpu, out, |m| {
            let (policy, mut section, task) = m.with_current(cpu);
            fpu::kernel_fpu_begin(&mut section, policy, task, context)
        }));
        self.cpus[cpu.0 as usize].regs.run(Program::FillAll(Value::KERNEL));
        Ok(())
    }

    fn kernel_fpu_end(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        if self.online_cpu(cpu)?.slot.kernel_fpu().is_none() {
            return Err(EventError::NoKernelFpu(cpu));
        }
        out.load = Some(self.settle(cpu, out, |m| {
            let (policy, mut section, task) = m.with_current(cpu);
            fpu::kernel_fpu_end(&mut section, policy, task)
        }));
        Ok(())
    }

    /// The parties of a section on `cpu`, with the current task if there is one.
    fn with_current(
        &mut self,
        cpu: CpuId,
    ) -> (&P, fpu::PreemptOff<'_, R>, Option<&mut fpu::Fpstate<R::Image>>) {
        let cpu = &mut self.cpus[cpu.0 as usize];
        let task = match cpu.current {
            Current::Task(task) => Some(&mut self.tasks[task.slot() as usize]),
            Current::Idle | Current::Switching => None,
        };
        (&self.policy, cpu.section(), task.map(|task| &mut task.fpstate))
    }

    fn fork(&mut self, cpu: CpuId, child: TaskId, out: &mut Outcome) -> Result<(), EventError> {
        let parent = self.kernel_side(cpu)?;
        if self.known_task(parent)?.fpstate.is_user() {
            // Inside a signal return the parent has no state that a child could take a copy of.
            let with_state = [SignalStep::Idle, SignalStep::Save, SignalStep::SaveFaulted, SignalStep::Saved];
            self.at_step(cpu, &with_state, "the end of the signal return")?;
        } else if self.known_task(parent)?.has_exited() {
            return Err(EventError::Exited(parent));
        }
        self.new_slot(child)?;
        let mut new = Task::new(child, TaskKind::User, &self.blank);
        out.save = Some(self.run(cpu, parent, out, |p, c, parent| fpu::fork(c, p, parent, &mut new.fpstate)));
        match self.tasks.get_mut(child.slot() as usize) {
            Some(gone) => *gone = new,
            None => self.tasks.push(new),
        }
        Ok(())
    }

    fn access(&mut self, cpu: CpuId, verb: Verb, out: &mut Outcome) -> Result<(), EventError> {
        let task = self.user_kernel_side(cpu)?;
        match verb {
            Verb::CopyToCpu => out.load = Some(self.run(cpu, task, out, |_, c, t| fpu::copy_to_cpu(c, t))),
            Verb::MoveToCpu => out.load = Some(self.run(cpu, task, out, |_, c, t| fpu::move_to_cpu(c, t))),
            Verb::CopyToMemory => {
                out.save = Some(self.run(cpu, task, out, |_, c, t| fpu::copy_to_memory(c, t)));
                self.resume(task, out);
            }
            Verb::MoveToMemory => {
                out.save = Some(self.run(cpu, task, out, |_, c, t| fpu::move_to_memory(c, t)));
                self.resume(task, out);
            }
        }
        Ok(())
    }

    fn read(&mut self, task: TaskId, component: Component, out: &mut Outcome) -> Result<(), EventError> {
        self.user_task(task)?;
        self.image_component(component)?;
        let at = self.cpu_near(task);
        let (save, value) = self.run(at, task, out, |_, c, t| fpu::read(c, t, component));
        (out.save, out.value) = (Some(save), Some(value));
        self.resume(task, out);
        Ok(())
    }

    fn write(
        &mut self,
        task: TaskId,
        component: Component,
        value: Value,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let has_room = self.user_task(task)?.fpstate.image().has_room_for(component);
        self.image_component(component)?;
        if !has_room {
            return Err(EventError::NoComponent(component));
        }
        let at = self.cpu_near(task);
        let (save, written) = self.run(at, task, out, |p, c, t| fpu::write(c, p, t, component, value));
        debug_assert_eq!(written, Ok(()), "there is room, as was checked");
        out.save = Some(save);
        self.resume(task, out);
        Ok(())
    }

    /// The CPU whose slot an access to another task's image goes through: the one that may hold its state.
    fn cpu_near(&self, task: TaskId) -> CpuId {
        let task = &self.tasks[task.slot() as usize];
        task.on.or(task.fpstate.last_cpu()).unwrap_or(CpuId(0))
    }

    /// A task's state was moved to memory from outside. If it is current somewhere, its policy may want it
    /// back in the registers there; inside a kernel FPU section, the end of the section will ask.
    fn resume(&mut self, task: TaskId, out: &mut Outcome) {
        let Some(cpu) = self.tasks[task.slot() as usize].on else { return };
        let open = self.cpus[cpu.0 as usize].slot.kernel_fpu();
        if open.is_none() && self.not_in_user_mode(cpu).is_ok() {
            out.load = Some(self.run(cpu, task, out, |p, c, t| fpu::resume(c, p, t)));
        }
    }

    fn signal_save(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        let task = self.at_step(cpu, &[SignalStep::Save], "a signal delivery")?;
        let (load, save) = self.settle(cpu, out, |m| {
            let (fpstate, frame) = m.tasks[task.slot() as usize].newest_frame(&m.blank);
            fpu::signal_save(&mut m.cpus[cpu.0 as usize].section(), fpstate, frame)
        });
        (out.load, out.frame_save) = (Some(load), Some(save));
        Ok(())
    }

    fn sigreturn_load(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        let task = self.at_step(cpu, &[SignalStep::Load], "a signal return")?;
        let load = self.settle(cpu, out, |m| {
            let (fpstate, frame) = m.tasks[task.slot() as usize].newest_frame(&m.blank);
            fpu::sigreturn_load(&mut m.cpus[cpu.0 as usize].section(), fpstate, frame)
        });
        out.frame_load = Some(load);
        if load != fpu::FrameLoad::Faulted {
            self.task_mut(task).pop_frame();
        }
        Ok(())
    }

    fn change_frame(&mut self, task: TaskId, change: FrameChange) -> Result<(), EventError> {
        if self.user_task(task)?.frames().is_empty() {
            return Err(EventError::NoFrame(task));
        }
        let (_, frame) = self.tasks[task.slot() as usize].newest_frame(&self.blank);
        frame.change(change);
        Ok(())
    }
}

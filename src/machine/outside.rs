//! Kernel code that accesses the state or the memory of a task, its own or another.

use super::{Machine, Outcome, Task};
use crate::{
    Component, CpuId, EventError, PageAccess, Pkru, TaskId, Value, Verb,
    error::RegsetError,
    fpu::{self, PkruMode, Policy, TaskKind},
    registers::{Image, UserFrames},
};
use alloc::vec::Vec;

impl<R: UserFrames, P: Policy> Machine<R, P> {
    pub(super) fn access(&mut self, cpu: CpuId, verb: Verb, out: &mut Outcome) -> Result<(), EventError> {
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

    pub(super) fn read(
        &mut self,
        task: TaskId,
        component: Component,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        self.user_task(task)?;
        self.guest_not_loaded(task)?;
        self.image_component(component)?;
        let at = self.cpu_near(task);
        let (save, value) = self.run(at, task, out, |_, c, t| fpu::read(c, t, component));
        (out.save, out.value) = (Some(save), Some(value));
        self.resume(task, out);
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        task: TaskId,
        component: Component,
        value: Value,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let has_room = self.user_task(task)?.fpstate.image().has_room_for(component);
        self.guest_not_loaded(task)?;
        self.image_component(component)?;
        if !has_room {
            return Err(EventError::NoComponent(component));
        }
        let at = self.cpu_near(task);
        let (save, written) = self.run(at, task, out, |_, c, t| fpu::write(c, t, component, value));
        debug_assert_eq!(written, Ok(()), "there is room, as was checked");
        out.save = Some(save);
        self.resume(task, out);
        Ok(())
    }

    pub(super) fn read_pkru(&mut self, task: TaskId, out: &mut Outcome) -> Result<(), EventError> {
        let (at, is_current) = self.pkru_of(task)?;
        let (save, pkru) = self.run(at, task, out, |_, c, t| fpu::read_pkru(c, t, is_current));
        (out.save, out.pkru) = (Some(save), Some(pkru));
        self.resume_with_pkru(task, out);
        Ok(())
    }

    pub(super) fn write_pkru(
        &mut self,
        task: TaskId,
        pkru: Pkru,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let (at, is_current) = self.pkru_of(task)?;
        out.save = Some(self.run(at, task, out, |_, c, t| fpu::write_pkru(c, t, is_current, pkru)));
        self.resume_with_pkru(task, out);
        Ok(())
    }

    /// An access to PKRU moves the state only where PKRU is a part of it.
    fn resume_with_pkru(&mut self, task: TaskId, out: &mut Outcome) {
        if self.pkru_mode == PkruMode::InXsave {
            self.resume(task, out);
        }
    }

    /// The CPU through which a task's PKRU is accessed, and whether it runs there.
    fn pkru_of(&self, task: TaskId) -> Result<(CpuId, bool), EventError> {
        let is_current = self.user_task(task)?.on.is_some();
        self.guest_not_loaded(task)?;
        self.has_pkru()?;
        Ok((self.cpu_near(task), is_current))
    }

    pub(super) fn user_memory(
        &mut self,
        cpu: CpuId,
        task: TaskId,
        access: PageAccess,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let current = self.kernel_side(cpu)?;
        let has_memory =
            |task: &Task<R>| !matches!(task.fpstate.kind(), TaskKind::KernelThread | TaskKind::Exited);
        if !has_memory(self.known_task(task)?) {
            return Err(EventError::NotUser(task));
        }
        self.has_pkru()?;
        let by = self.known_task(current)?;
        let is_local = has_memory(by) && by.memory == self.known_task(task)?.memory;
        let section = self.cpus[cpu.0 as usize].section();
        out.user_memory = Some(fpu::user_memory(&section, is_local, access));
        Ok(())
    }

    /// What a debugger reads with NT_X86_XSTATE: the whole image of a task, and its PKRU, brought up to date first.
    ///
    /// # Errors
    /// [`RegsetError`]: an event that cannot be, or an image that has no such form (that of abstract registers, or of a
    /// CPU without XSAVE). The machine is unchanged.
    pub fn regset(&mut self, task: TaskId) -> Result<(Vec<u8>, Outcome), RegsetError> {
        let image = self.user_task(task)?.fpstate.image();
        self.guest_not_loaded(task)?;
        // Whether there is such a form depends on the image's, not on what it holds.
        image.regset(Pkru(0))?;
        let mut out = Outcome::default();
        let (at, is_current) = (self.cpu_near(task), self.known_task(task)?.on.is_some());
        let (save, pkru, regset) = self.run(at, task, &mut out, |_, c, t| {
            let save = fpu::copy_to_memory(c, t)?;
            let (_, pkru) = fpu::read_pkru(c, t, is_current)?;
            Ok((save, pkru, t.image().regset(pkru)))
        });
        (out.save, out.pkru) = (Some(save), Some(pkru));
        self.resume(task, &mut out);
        Ok((regset?, out))
    }

    /// What a debugger does who writes a task's registers with NT_X86_XSTATE: the whole image, which is checked before
    /// anything of it counts, and PKRU, which goes to its own home and is 0 where the bit in the header is clear.
    ///
    /// # Errors
    /// [`RegsetError`]: an event that cannot be, or what of the bytes is refused. The machine is unchanged.
    ///
    /// # Reference
    /// Linux: xstateregs_set, arch/x86/kernel/fpu/regset.c.
    pub fn set_regset(&mut self, task: TaskId, regset: &[u8]) -> Result<Outcome, RegsetError> {
        let mut image = self.user_task(task)?.fpstate.image().clone();
        self.guest_not_loaded(task)?;
        let kept = image.pkru();
        let pkru = image.set_regset(regset)?;
        // Where PKRU is kept in images, `write_pkru` puts the new one there.
        image.set_pkru(kept);
        let mut out = Outcome::default();
        let at = self.cpu_near(task);
        let save = self.run(at, task, &mut out, |_, c, t| fpu::write_image(c, t, &image));
        if self.has_pkru().is_ok() {
            self.write_pkru(task, pkru, &mut out)?;
        }
        self.resume(task, &mut out);
        out.save = Some(save);
        Ok(out)
    }

    /// The CPU whose slot an access to another task's image goes through: the one that may hold its state.
    fn cpu_near(&self, task: TaskId) -> CpuId {
        let task = &self.tasks[task.slot() as usize];
        task.on.or(task.fpstate.last_cpu()).unwrap_or(CpuId(0))
    }

    /// A task's state was moved to memory from outside. If it is current somewhere, its policy may want it
    /// back in the registers there; inside a kernel FPU section, the end of the section will ask.
    pub(super) fn resume(&mut self, task: TaskId, out: &mut Outcome) {
        let Some(cpu) = self.tasks[task.slot() as usize].on else { return };
        let open = self.cpus[cpu.0 as usize].slot.kernel_fpu();
        if open.is_none() && self.not_in_user_mode(cpu).is_ok() {
            out.load = Some(self.run(cpu, task, out, |p, c, t| fpu::resume(c, p, t)));
        }
    }
}

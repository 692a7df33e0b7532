//! The protocol functions on parties of our own, and what a machine of [`AbstractRegs`] cannot be made to show.

mod support;

use fpuswitch::{
    Component, ComponentSet, CpuId, KernelContext, Pkru, Rfbm, TaskId, Value,
    fpu::{
        self, Before, DynamicUse, Fpstate, FrameLoad, FrameSave, Load, NotUsable, OwnerSlot, PkruMode,
        Policy, PreemptOff, Save, SignalStep, TaskKind, policy::Builtin,
    },
    machine::Machine,
    registers::{AbstractImage, AbstractRegs, Fault, Image, Program, RegisterFile, UserFrames},
};
use support::{events, watched::Watched};

const T0: TaskId = TaskId::first(0);
const T1: TaskId = TaskId::first(1);

/// A CPU: its slot and its registers.
struct Cpu {
    slot: OwnerSlot,
    regs: AbstractRegs,
}

impl Cpu {
    fn new(number: u32) -> Self {
        Self { slot: OwnerSlot::new(CpuId(number)), regs: AbstractRegs::default() }
    }

    fn section(&mut self) -> PreemptOff<'_, AbstractRegs> {
        PreemptOff::begin(&mut self.slot, &mut self.regs)
    }
}

fn user_task(id: TaskId) -> Fpstate<AbstractImage> {
    Fpstate::new(id, TaskKind::User, AbstractRegs::default().new_image())
}

fn value(number: u8) -> Value {
    Value::new(number).expect("a pattern")
}

#[test]
fn a_validity_is_good_for_the_section_in_which_it_was_read() {
    let (mut cpu, mut task) = (Cpu::new(0), user_task(T0));
    let mut section = cpu.section();
    assert_eq!(fpu::copy_to_cpu(&mut section, &mut task), Ok(Load::Restored));
    let validity = section.validity(&task);
    assert!(section.trust(validity));
    assert!(section.trust(validity), "twice in one section is as good as once");
    assert!(!cpu.slot.saw_stale_use());
}

/// CVE-2019-19602: the compiler kept the owner in a stack slot over a stretch with preemption on. The stale
/// answer is not corrected, as nothing would have there, but it is remembered.
#[test]
fn a_validity_kept_over_preemption_is_remembered() {
    let (mut cpu, mut task) = (Cpu::new(0), user_task(T0));
    let mut section = cpu.section();
    assert_eq!(fpu::copy_to_cpu(&mut section, &mut task), Ok(Load::Restored));
    let kept = section.validity(&task);
    assert_eq!(fpu::invalidate_registers(&mut cpu.section()), Ok(()));
    let mut section = cpu.section();
    assert!(section.trust(kept), "the stale answer");
    let fresh = section.validity(&task);
    assert!(!section.trust(fresh), "the right answer");
    assert!(cpu.slot.saw_stale_use());
}

#[test]
fn a_validity_of_another_cpu_is_stale_in_whatever_section() {
    let (mut c0, mut c1, task) = (Cpu::new(0), Cpu::new(1), user_task(T0));
    // As many sections on both: only the CPU tells them apart.
    let kept = c0.section().validity(&task);
    assert!(!c1.section().trust(kept));
    assert!(c1.slot.saw_stale_use());
    assert!(!c0.slot.saw_stale_use());
}

#[test]
fn a_function_that_asks_for_something_first_has_changed_nothing() {
    let (mut c0, mut c1) = (Cpu::new(0), Cpu::new(1));
    let (mut owner, mut other) = (user_task(T0), user_task(T1));
    assert_eq!(fpu::move_to_cpu(&mut c0.section(), &mut owner), Ok(Load::Restored));
    c0.regs.run(Program::Fill(Component::AVX, value(7)));

    let before = (c0.slot.clone(), c0.regs, owner.clone(), other.clone());
    assert_eq!(fpu::copy_to_cpu(&mut c0.section(), &mut other), Err(Before::Evict(T0)));
    assert_eq!(fpu::signal_enter(&mut c0.section(), &mut other), Err(Before::Evict(T0)));
    assert_eq!(fpu::invalidate_registers(&mut c0.section()), Err(Before::Evict(T0)));
    assert_eq!(fpu::power_loss(&mut c0.section()), Err(Before::Evict(T0)));
    let flush = Before::Flush { cpu: CpuId(0), task: T0 };
    assert_eq!(fpu::copy_to_cpu(&mut c1.section(), &mut owner), Err(flush));
    assert_eq!(fpu::copy_to_memory(&mut c1.section(), &mut owner), Err(flush));
    assert_eq!(fpu::migrate(&owner, CpuId(1)), Err(flush));
    assert_eq!((c0.slot.clone(), c0.regs, owner.clone(), other.clone()), before);
    assert_eq!((c1.slot.clone(), c1.regs), (OwnerSlot::new(CpuId(1)), AbstractRegs::default()));

    // What it asked for helps.
    assert_eq!(fpu::copy_to_memory(&mut c0.section(), &mut owner), Ok(Save::Saved));
    assert_eq!(fpu::copy_to_cpu(&mut c0.section(), &mut other), Ok(Load::Restored));
    assert_eq!(fpu::copy_to_cpu(&mut c1.section(), &mut owner), Ok(Load::Restored));
    assert_eq!(c1.regs.get(Component::AVX), value(7));
}

#[test]
fn a_task_that_runs_user_code_is_interrupted_before_its_image_is_touched() {
    for policy in Builtin::ALL {
        let (mut cpu, mut other, mut task) = (Cpu::new(0), Cpu::new(1), user_task(T0));
        assert!(fpu::switch_in(&mut cpu.section(), &policy, &mut task).is_ok());
        assert!(fpu::return_to_user(&mut cpu.section(), &policy, &mut task).is_ok());
        let before = (cpu.slot.clone(), cpu.regs, task.clone());
        let interrupt = Before::Interrupt { cpu: CpuId(0) };
        assert_eq!(fpu::copy_to_memory(&mut cpu.section(), &mut task), Err(interrupt), "{}", policy.name());
        assert_eq!(fpu::move_to_memory(&mut cpu.section(), &mut task), Err(interrupt), "{}", policy.name());
        // A flush would find it running.
        assert_eq!(fpu::copy_to_memory(&mut other.section(), &mut task), Err(interrupt), "{}", policy.name());
        assert_eq!((cpu.slot, cpu.regs, task), before, "{}", policy.name());
    }
}

#[test]
fn a_kernel_thread_is_never_saved_and_never_loaded() {
    let (mut cpu, mut task) = (Cpu::new(0), user_task(T0));
    let mut thread = Fpstate::new(T1, TaskKind::KernelThread, cpu.regs.new_image());
    assert_eq!(fpu::move_to_cpu(&mut cpu.section(), &mut task), Ok(Load::Restored));
    let before = (cpu.slot.clone(), cpu.regs, thread.clone());
    assert_eq!(fpu::copy_to_cpu(&mut cpu.section(), &mut thread), Ok(Load::NotUser));
    assert_eq!(fpu::move_to_cpu(&mut cpu.section(), &mut thread), Ok(Load::NotUser));
    assert_eq!(fpu::copy_to_memory(&mut cpu.section(), &mut thread), Ok(Save::NotUser));
    assert_eq!(fpu::migrate(&thread, CpuId(1)), Ok(Save::NotUser));
    for policy in Builtin::ALL {
        let resumed = fpu::resume(&mut cpu.section(), &policy, &mut thread);
        assert_eq!(resumed, Ok(Load::NotUser), "{}", policy.name());
    }
    assert_eq!((cpu.slot, cpu.regs, thread), before);
}

/// What a caller that is not the machine may not have done before.
#[test]
fn functions_leave_what_they_promise_behind_whatever_was_before() {
    let (mut cpu, mut task) = (Cpu::new(0), user_task(T0));
    assert_eq!(fpu::copy_to_cpu(&mut cpu.section(), &mut task), Ok(Load::Restored));
    fpu::online(&mut cpu.section());
    assert_eq!(cpu.slot.owner(), None, "registers as after reset are nobody's");

    fpu::signal_deliver(&mut task);
    assert_eq!(fpu::exec(&mut cpu.section(), &Builtin::OwnerSlot, &mut task), Ok(Load::Deferred));
    assert_eq!(task.signal(), SignalStep::Idle, "a new program has no signals");
}

/// A program can write a frame with tiles that it may not use: what XFD disables is not restored (#NM), and no image has room
/// for it.
#[test]
fn a_frame_gives_a_task_no_component_that_it_has_no_room_for() {
    let (mut cpu, mut task) = (Cpu::new(0), user_task(T0));
    let tiles = ComponentSet::EMPTY.with(Component::TILEDATA);
    let policy = Builtin::OwnerSlot;
    fpu::permit(&mut task, Component::TILEDATA);
    assert_eq!(fpu::return_to_user(&mut cpu.section(), &policy, &mut task), Ok(Load::Restored));
    let asked = fpu::dynamic_use(&mut cpu.section(), &policy, &mut task, Component::TILEDATA);
    assert_eq!(asked, Ok((Save::Kept, DynamicUse::Asked)));
    assert_eq!(fpu::dynamic_grow(&mut cpu.section(), &mut task), Ok(DynamicUse::Grown));
    cpu.regs.run(Program::Fill(Component::TILEDATA, value(5)));
    cpu.regs.run(Program::Fill(Component::AVX, value(7)));
    let mut frame = cpu.regs.frame_with_room(cpu.regs.enabled());
    let saved = fpu::signal_save(&mut cpu.section(), &mut task, &mut frame);
    assert_eq!(saved, Ok((Load::AlreadyLive, FrameSave::Saved)));

    let (mut cpu, mut other) = (Cpu::new(1), user_task(T1));
    assert_eq!(fpu::sigreturn_load(&mut cpu.section(), &mut other, &frame), Ok(FrameLoad::Loaded));
    let held = |get: &dyn Fn(Component) -> Value| [Component::AVX, Component::TILEDATA].map(get);
    assert_eq!(held(&|component| cpu.regs.get(component)), [value(7), Value::INITIAL]);
    assert_eq!(cpu.slot.xfd(), tiles);
    assert_eq!(fpu::sigreturn_copy(&mut cpu.section(), &mut other, &frame), Ok(FrameLoad::Copied));
    assert_eq!(held(&|component| other.image().get(component)), [value(7), Value::INITIAL]);
    assert!(!other.image().has_room_for(Component::TILEDATA));
}

/// T1 waits with 9 in AVX; T0 waits with an image that a restore refuses. No public function makes such an
/// image of a good one, and none sets it, so the register file has to.
fn with_a_bad_image(policy: Builtin) -> Machine<Watched, Builtin> {
    let mut machine = Machine::new(policy, 1);
    let text = format!(
        "spawn T0; spawn T1; in c0 T0; return c0 T0; user-write c0 SSE {}; entry c0 interrupt; copy-to-memory c0
         out c0; in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt; copy-to-memory c0; out c0",
        Watched::POISON
    );
    last_load(&mut machine, &text);
    machine
}

/// Applies the events, and says what became of the load of the last one.
#[track_caller]
fn last_load(machine: &mut Machine<Watched, Builtin>, text: &str) -> Option<Load> {
    let mut load = None;
    for event in events(text) {
        load = machine.apply(event).unwrap_or_else(|error| panic!("{event}: {error}")).load;
    }
    load
}

#[test]
fn a_refused_image_costs_the_task_its_state_and_nobody_else_anything() {
    let mut regs = AbstractRegs::default();
    assert_eq!(regs.restore(Rfbm::ALL, &AbstractImage::BAD_HEADER), Err(Fault::GeneralProtection));
    assert_eq!(regs.get(Component::AVX), Value::UNSPECIFIED);

    for policy in [Builtin::Deferred, Builtin::OwnerSlot, Builtin::LazySave] {
        let mut machine = with_a_bad_image(policy);
        assert_eq!(last_load(&mut machine, "in c0 T0; copy-to-cpu c0"), Some(Load::Initialised));
        let initial = |machine: &Machine<Watched, Builtin>| {
            let (cpu, task) = (&machine.cpus()[0], machine.task(T0).expect("T0").fpstate());
            assert!(task.is_valid_on(cpu.slot()), "{}", policy.name());
            [Component::SSE, Component::AVX].map(|component| cpu.regs().get(component)) == [Value::INITIAL; 2]
        };
        assert!(initial(&machine), "{}", policy.name());
        // The image is good again, in case it is loaded once more before the next save.
        let again = last_load(&mut machine, "invalidate-registers c0; move-to-cpu c0");
        assert_eq!(again, Some(Load::Restored), "{}", policy.name());
        assert!(initial(&machine), "{}", policy.name());

        let cpu = &machine.cpus()[0];
        let other = machine.task(T1).expect("T1").fpstate();
        assert!(other.need_fpu_load() && !other.is_valid_on(cpu.slot()), "{}", policy.name());
        assert_eq!(other.image().get(Component::AVX), value(9), "{}", policy.name());
    }
}

/// The PKRU of a task is no part of what was refused, unless it is kept in images.
#[test]
fn a_refused_image_costs_pkru_only_where_that_is_in_images() {
    let list = format!(
        "spawn T0; in c0 T0; return c0 T0; user-pkru c0 0x55555550; user-write c0 SSE {}; entry c0 interrupt
         copy-to-memory c0; invalidate-registers c0; copy-to-cpu c0",
        Watched::POISON
    );
    for (mode, ought) in [(PkruMode::Eager, Pkru(0x5555_5550)), (PkruMode::InXsave, Pkru::DEFAULT)] {
        let machine = Machine::<Watched, _>::new(Builtin::OwnerSlot, 1).with_pkru(mode);
        let mut machine = machine.expect("no trap");
        assert_eq!(last_load(&mut machine, &list), Some(Load::Initialised), "{mode:?}");
        assert_eq!(machine.cpus()[0].regs().pkru(), Some(ought), "{mode:?}");
        // In case it is loaded once more before the next save.
        let last = last_load(&mut machine, "invalidate-registers c0; copy-to-cpu c0");
        assert_eq!((last, machine.cpus()[0].regs().pkru()), (Some(Load::Restored), Some(ought)), "{mode:?}");
    }
}

/// Who may use the FPU, with nothing else going on, while a softirq is served, and inside a section: irq_fpu_usable.
#[test]
fn the_kernel_may_use_the_fpu_by_the_kernels_rule() {
    use KernelContext::{HardIrq, SoftIrq, Task};
    let mut cpu = Cpu::new(0);
    let may = |cpu: &Cpu| [Task, SoftIrq, HardIrq].map(|context| fpu::kernel_fpu_usable(&cpu.slot, context));
    assert_eq!(may(&cpu), [Ok(()); 3]);

    fpu::softirq_begin(&mut cpu.slot);
    let not_there = Err(NotUsable::SoftIrq);
    assert_eq!(may(&cpu), [not_there, Ok(()), not_there]);

    let section = fpu::kernel_fpu_begin(&mut cpu.section(), &Builtin::OwnerSlot, None, SoftIrq);
    assert_eq!(section, Ok(Save::AlreadyInMemory));
    assert_eq!(may(&cpu), [Err(NotUsable::Section(SoftIrq)); 3]);

    assert_eq!(fpu::kernel_fpu_end(&mut cpu.section(), &Builtin::OwnerSlot, None), Ok(Load::NotUser));
    fpu::softirq_end(&mut cpu.slot);
    assert_eq!(may(&cpu), [Ok(()); 3]);
}

/// The same where the load is not asked for by name: at once for eager policies, whose image went bad under
/// the task's hands.
#[test]
fn a_refused_image_is_reported_by_the_hook_that_loads_it() {
    for policy in [Builtin::Eager, Builtin::EagerOwner] {
        let mut machine = Machine::<Watched, _>::new(policy, 1);
        let list = format!(
            "spawn T0; in c0 T0; return c0 T0; user-write c0 SSE {}; entry c0 interrupt",
            Watched::POISON
        );
        for event in events(&list) {
            assert!(machine.apply(event).is_ok(), "{event} under {}", policy.name());
        }
        let outcome = machine.apply(events("move-to-memory c0")[0]).map(|outcome| outcome.to_string());
        assert_eq!(outcome.as_deref(), Ok("saved, image refused, initialised"), "{}", policy.name());
    }
}

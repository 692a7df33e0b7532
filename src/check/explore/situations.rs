//! Situations that ought to come up: an invariant that speaks of one that never does says nothing.

use super::{Scope, bench::Bench};
use crate::{
    Component,
    check::Group,
    fpu::{
        Fpstate, Policy, SignalStep,
        policy::{InKernel, NotRunning},
    },
    machine::{Current, Task},
    registers::{AbstractImage, AbstractRegs, RegisterFile},
};

/// A situation: its name, whether it ought to come up, and whether it is there.
pub(super) struct Situation<P: Policy> {
    pub(super) name: &'static str,
    pub(super) expected: fn(&Scope, &P) -> bool,
    pub(super) is_there: fn(&Bench<P>) -> bool,
}

fn users<P: Policy>(bench: &Bench<P>) -> impl Iterator<Item = &Task<AbstractRegs>> {
    bench.machine.tasks().iter().filter(|task| task.fpstate().is_user())
}

fn some<P: Policy>(bench: &Bench<P>, is: impl Fn(&Fpstate<AbstractImage>) -> bool) -> bool {
    users(bench).any(|task| is(task.fpstate()))
}

fn is_valid<P: Policy>(bench: &Bench<P>, fpstate: &Fpstate<AbstractImage>) -> bool {
    bench.machine.cpus().iter().any(|cpu| fpstate.is_valid_on(cpu.slot()))
}

/// Whether registers are somebody's in the kernel: from the entry on, or from a step of a signal on.
fn keeps_in_kernel(scope: &Scope, policy: &impl Policy) -> bool {
    policy.form().in_kernel != InKernel::InMemory || scope.groups.contains(&Group::Signals)
}

/// All of them.
pub(super) fn situations<P: Policy>() -> [Situation<P>; 19] {
    let situation = |name, expected, is_there| Situation { name, expected, is_there };
    [
        situation(
            "two programs run at once",
            |scope, _| scope.cpus > 1 && scope.tasks > 1,
            |bench| users(bench).filter(|task| task.fpstate().user_on().is_some()).count() > 1,
        ),
        situation(
            "registers and memory hold the same",
            |scope, policy| keeps_in_kernel(scope, policy),
            |bench| some(bench, |fpstate| fpstate.need_fpu_load() && is_valid(bench, fpstate)),
        ),
        situation(
            "memory alone holds a state",
            |_, _| true,
            |bench| some(bench, |fpstate| fpstate.need_fpu_load() && !is_valid(bench, fpstate)),
        ),
        situation(
            "a slot names a live task whose last CPU is another",
            |scope, policy| scope.cpus > 1 && keeps_in_kernel(scope, policy),
            |bench| {
                bench.machine.cpus().iter().any(|cpu| {
                    let owner = cpu.slot().owner().and_then(|owner| bench.machine.task(owner));
                    owner.is_some_and(|task| !task.fpstate().is_valid_on(cpu.slot()))
                })
            },
        ),
        situation(
            "a slot names a dead task whose place another has",
            |scope, policy| scope.cpus > 1 && keeps_in_kernel(scope, policy),
            |bench| {
                let mut owners = bench.machine.cpus().iter().filter_map(|cpu| cpu.slot().owner());
                owners.any(|owner| {
                    let place = bench.machine.tasks().get(owner.slot() as usize);
                    place.is_some_and(|task| task.fpstate().id() != owner && !task.is_gone())
                })
            },
        ),
        situation(
            "a kernel FPU section is open over a task in the kernel",
            |_, _| true,
            |bench| {
                let open = bench.machine.cpus().iter().filter(|cpu| cpu.slot().kernel_fpu().is_some());
                open.filter_map(|cpu| match cpu.current() {
                    Current::Task(task) => bench.machine.task(task),
                    _ => None,
                })
                .any(|task| task.fpstate().is_user())
            },
        ),
        situation(
            "registers hold the only copy of a task that is out",
            |_, policy| policy.form().not_running == NotRunning::Anywhere,
            |bench| users(bench).any(|task| task.on().is_none() && !task.fpstate().need_fpu_load()),
        ),
        situation(
            "user code runs behind an armed trap",
            |_, policy| policy.form().lets_foreign_registers_into_user_mode(),
            |bench| {
                bench
                    .machine
                    .cpus()
                    .iter()
                    .any(|cpu| cpu.slot().trap_armed() && bench.spec.in_user_mode(cpu.slot().cpu()))
            },
        ),
        situation(
            "a frame access has faulted",
            |scope, _| scope.groups.contains(&Group::Signals),
            |bench| {
                let faulted = [SignalStep::SaveFaulted, SignalStep::LoadFaulted];
                some(bench, |fpstate| faulted.contains(&fpstate.signal()))
            },
        ),
        situation(
            "a handler runs",
            |scope, _| scope.groups.contains(&Group::Signals),
            |bench| users(bench).any(|task| task.fpstate().user_on().is_some() && !task.frames().is_empty()),
        ),
        situation(
            "a task is out in the middle of a signal return",
            |scope, _| scope.groups.contains(&Group::Signals),
            |bench| users(bench).any(|task| task.on().is_none() && task.fpstate().signal().is_returning()),
        ),
        situation(
            "a guest runs",
            |scope, _| scope.groups.contains(&Group::Guest),
            |bench| some(bench, Fpstate::is_in_guest),
        ),
        situation(
            "a guest is loaded, and its registers are elsewhere",
            |scope, _| scope.groups.contains(&Group::Guest),
            |bench| some(bench, |fpstate| fpstate.has_guest_loaded() && !is_valid(bench, fpstate)),
        ),
        situation(
            "tiles are in use",
            |scope, _| scope.groups.contains(&Group::Dynamic),
            |bench| {
                bench.machine.cpus().iter().any(|cpu| {
                    cpu.slot().xfd().is_empty()
                        && cpu.regs().in_use().is_ok_and(|set| set.contains(Component::TILEDATA))
                })
            },
        ),
        situation(
            "a task that waits for room is out",
            |scope, _| scope.groups.contains(&Group::Dynamic),
            |bench| users(bench).any(|task| task.on().is_none() && task.fpstate().wants().is_some()),
        ),
        situation(
            "a CPU is offline that a task ran on last",
            |scope, policy| {
                scope.groups.contains(&Group::Power) && scope.cpus > 1 && keeps_in_kernel(scope, policy)
            },
            |bench| {
                let offline = bench.machine.cpus().iter().find(|cpu| !cpu.is_online());
                offline.is_some_and(|cpu| some(bench, |fpstate| fpstate.last_cpu() == Some(cpu.slot().cpu())))
            },
        ),
        situation(
            "two CPUs have different PKRUs in user mode",
            |scope, _| scope.groups.contains(&Group::Pkru) && scope.cpus > 1 && scope.tasks > 1,
            |bench| {
                let in_user =
                    bench.machine.cpus().iter().filter(|cpu| bench.spec.in_user_mode(cpu.slot().cpu()));
                let mut pkrus = in_user.map(|cpu| cpu.regs().pkru());
                let first = pkrus.next();
                pkrus.any(|pkru| Some(pkru) != first)
            },
        ),
        situation(
            "a user worker runs",
            |scope, _| scope.groups.contains(&Group::Pkru) && scope.tasks > 1,
            |bench| {
                let workers = bench.machine.tasks().iter();
                workers
                    .filter(|task| task.fpstate().kind() == crate::fpu::TaskKind::UserWorker)
                    .any(|task| task.on().is_some())
            },
        ),
        situation("no user task is left", |_, _| true, |bench| users(bench).count() == 0),
    ]
}

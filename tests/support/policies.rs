//! Policies for tests only, and policies to pick at random.

use fpuswitch::{
    EntryKind,
    fpu::{
        Facts, Form, LoadRule, Policy, SaveRule,
        policy::{Builtin, Calls, InKernel, InUser, NotRunning, Release},
    },
};
use proptest::{array::uniform4, prelude::*};

/// Answers what it was told to, sensible or not, by the two [`Facts`] about where the state is. Only the save at
/// kernel FPU begin is given: a policy that keeps the registers there loses them, and the trait says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Answers {
    pub(crate) entry: [SaveRule; 4],
    pub(crate) switch_out: [SaveRule; 4],
    pub(crate) switch_in: [LoadRule; 4],
    pub(crate) first_use: [LoadRule; 4],
    pub(crate) return_to_user: [LoadRule; 4],
    pub(crate) kernel_fpu_end: LoadRule,
    pub(crate) release: LoadRule,
}

/// Save at entry, load at the return, and nothing else.
pub(crate) const ENTRY_EXIT: Answers = Answers {
    entry: [SaveRule::Save; 4],
    switch_out: [SaveRule::Save; 4],
    switch_in: [LoadRule::Defer; 4],
    first_use: [LoadRule::Defer; 4],
    return_to_user: [LoadRule::Always; 4],
    kernel_fpu_end: LoadRule::Defer,
    release: LoadRule::Defer,
};

fn index(facts: Facts) -> usize {
    usize::from(facts.valid) * 2 + usize::from(facts.need_fpu_load)
}

impl Policy for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::Anywhere, InKernel::Anywhere).with_in_user(InUser::LoadedOrTrap)
    }

    fn entry(&self, _: EntryKind, task: Facts) -> SaveRule {
        self.entry[index(task)]
    }

    fn switch_out(&self, task: Facts) -> SaveRule {
        self.switch_out[index(task)]
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        self.switch_in[index(task)]
    }

    fn first_use(&self, task: Facts) -> LoadRule {
        self.first_use[index(task)]
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        self.return_to_user[index(task)]
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        self.kernel_fpu_end
    }

    fn release(&self, _: Release, _: Facts) -> LoadRule {
        self.release
    }
}

/// A policy with another kernel FPU begin and another form than its own, of which the first loses states and
/// the second may promise too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spoiled<P> {
    policy: P,
    kernel_fpu_begin: SaveRule,
    form: Form,
}

/// Form has no hash, and says nothing about the state of a machine.
impl<P: std::hash::Hash> std::hash::Hash for Spoiled<P> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.policy.hash(state);
    }
}

impl<P: Policy> Spoiled<P> {
    /// Lets kernel code use registers without a save.
    pub(crate) fn losing(policy: P) -> Self {
        let form = policy.form();
        Self { policy, kernel_fpu_begin: SaveRule::Keep, form }
    }

    /// Promises another form of the invariants.
    pub(crate) fn promising(policy: P, form: Form) -> Self {
        let kernel_fpu_begin = policy.kernel_fpu_begin();
        Self { policy, kernel_fpu_begin, form }
    }
}

impl<P: Policy> Policy for Spoiled<P> {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn form(&self) -> Form {
        self.form
    }

    fn entry(&self, kind: EntryKind, task: Facts) -> SaveRule {
        self.policy.entry(kind, task)
    }

    fn switch_out(&self, task: Facts) -> SaveRule {
        self.policy.switch_out(task)
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        self.policy.switch_in(task)
    }

    fn first_use(&self, task: Facts) -> LoadRule {
        self.policy.first_use(task)
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        self.policy.return_to_user(task)
    }

    fn kernel_fpu_begin(&self) -> SaveRule {
        self.kernel_fpu_begin
    }

    fn kernel_fpu_end(&self, current: Facts) -> LoadRule {
        self.policy.kernel_fpu_end(current)
    }

    fn release(&self, why: Release, task: Facts) -> LoadRule {
        self.policy.release(why, task)
    }

    fn counts_uses(&self) -> bool {
        self.policy.counts_uses()
    }
}

pub(crate) fn builtins() -> impl Strategy<Value = Builtin> {
    prop::sample::select(&Builtin::ALL[..])
}

pub(crate) fn answers() -> impl Strategy<Value = Answers> {
    let save = || prop_oneof![Just(SaveRule::Keep), Just(SaveRule::Save)];
    let rules = &[LoadRule::Defer, LoadRule::UnlessValid, LoadRule::Always, LoadRule::Trap];
    let load = || prop::sample::select(&rules[..]);
    let by_facts = (uniform4(save()), uniform4(save()), uniform4(load()), uniform4(load()), uniform4(load()));
    (by_facts, load(), load()).prop_map(|(by_facts, kernel_fpu_end, release)| {
        let (entry, switch_out, switch_in, first_use, return_to_user) = by_facts;
        Answers { entry, switch_out, switch_in, first_use, return_to_user, kernel_fpu_end, release }
    })
}

/// Gives up at system calls what they do not keep, and loads at the first use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GiveUpAndTrap;

impl Policy for GiveUpAndTrap {
    fn name(&self) -> &'static str {
        "give-up-and-trap"
    }

    fn form(&self) -> Form {
        let form = Form::new(NotRunning::InMemory, InKernel::Anywhere);
        form.with_in_user(InUser::LoadedOrTrap).with_calls(Calls::KeepControl)
    }

    fn entry(&self, kind: EntryKind, _: Facts) -> SaveRule {
        if kind == EntryKind::SystemCall { SaveRule::GiveUp } else { SaveRule::Keep }
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, _: Facts) -> LoadRule {
        LoadRule::Trap
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        LoadRule::Trap
    }
}

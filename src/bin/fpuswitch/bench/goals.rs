//! What is divided by what, and what the quotient ought to be.

use super::arms::What;

/// A quotient of two arms, in the same class where both have one.
pub(super) struct Goal {
    pub(super) of: What,
    pub(super) to: What,
    pub(super) goal: f64,
    pub(super) is_at_most: bool,
    /// The class that the goal is stated for; the others are printed beside it. `None` for each.
    pub(super) class: Option<&'static str>,
    /// What the difference consists of.
    pub(super) reason: &'static str,
}

const AVX512: &str = "full AVX-512";

/// All of them, in the order in which they are printed.
pub(super) const GOALS: [Goal; 9] = [
    at_most(
        What::NullCall,
        What::Coroutine,
        2.2,
        None,
        "STMXCSR, by which the gate looks at MXCSR, waits on some CPUs for all before it (the promised call has none); the rest is as there",
    ),
    at_most(
        What::NullCallPromised,
        What::Coroutine,
        1.6,
        None,
        "the protocol's entry and return, counters, and who is calling are some hundred instructions; a coroutine has a dozen",
    ),
    at_most(
        What::Yield,
        What::Coroutine,
        3.0,
        None,
        "switch-out and switch-in, the run queue, and control words to memory and back are some three hundred instructions, evenly spread",
    ),
    at_most(
        What::Swap,
        What::SaveRestore,
        1.10,
        Some(AVX512),
        "the gate and the scheduler take the same time in every class: the cheaper the instructions, the larger their share",
    ),
    at_most(
        What::KernelThread,
        What::Save,
        1.25,
        None,
        "two switches and a call of the step, beside the one save",
    ),
    at_most(
        What::KernelThreadLazySave,
        What::NullCall,
        4.0,
        None,
        "two switches and a call of the step, of which a null call has none",
    ),
    at_most(
        What::Preemption,
        What::EmptyHandler,
        1.25,
        None,
        "a swap of the registers and a switch, beside the signal",
    ),
    at_least(What::Futex, What::Yield, 150.0, "the kernel's switch is cheap here, or the yield is not"),
    at_least(What::Futex, What::Swap, 10.0, "the kernel's switch is cheap here, or the instructions are not"),
];

const fn at_most(of: What, to: What, goal: f64, class: Option<&'static str>, reason: &'static str) -> Goal {
    Goal { of, to, goal, is_at_most: true, class, reason }
}

const fn at_least(of: What, to: What, goal: f64, reason: &'static str) -> Goal {
    Goal { of, to, goal, is_at_most: false, class: None, reason }
}

impl Goal {
    pub(super) fn is_reached(&self, ratio: f64) -> bool {
        if self.is_at_most { ratio <= self.goal } else { ratio >= self.goal }
    }
}

//! Going over all that a machine's state consists of, piece by piece.
//!
//! The exploration packs states, unpacks them, and tells those apart that differ in more than names. Each of these is a
//! [`Walk`]; each part of a state has one function that shows it to any of them. Those functions take their fields
//! apart without `..`, so that a new field does not compile until it is shown too, or said to be no part of the state.

use crate::{Component, ComponentSet, CpuId, Pkru, TaskId, Value};

/// Is shown every piece of a state in a fixed order, and may change it.
pub(crate) trait Walk {
    /// A number.
    fn byte(&mut self, byte: &mut u8);

    /// The name of a CPU.
    fn cpu(&mut self, cpu: &mut Option<CpuId>);

    /// The name of a task.
    fn task(&mut self, task: &mut Option<TaskId>);

    /// What a component holds, where kernel and hardware keep it.
    fn value(&mut self, value: &mut Value);

    /// What a component ought to hold.
    fn ought(&mut self, component: Component, value: &mut Value);

    /// PKRU, where kernel and hardware keep it.
    fn pkru(&mut self, pkru: &mut Pkru);

    /// What PKRU ought to be.
    fn ought_pkru(&mut self, pkru: &mut Pkru);

    /// A set of components.
    fn set(&mut self, set: &mut ComponentSet);

    /// What IA32_XFD of a CPU holds, or is remembered to hold.
    fn xfd(&mut self, xfd: &mut ComponentSet);

    /// Whether the first-use trap of a CPU is armed.
    fn trap(&mut self, armed: &mut bool) {
        self.flags([armed]);
    }

    /// In how many slices a task has used the FPU.
    fn uses(&mut self, uses: &mut u8);

    /// Up to eight flags.
    fn flags<const N: usize>(&mut self, flags: [&mut bool; N]) {
        const { assert!(N <= 8) };
        let mut byte = (0..).zip(&flags).fold(0, |byte, (n, flag)| byte | u8::from(**flag) << n);
        self.byte(&mut byte);
        (0..).zip(flags).for_each(|(n, flag)| *flag = byte >> n & 1 == 1);
    }

    /// One of a few.
    fn choice<T: Copy + PartialEq>(&mut self, choice: &mut T, all: &[T]) {
        let mut at = all.iter().position(|one| one == choice).unwrap_or_default() as u8;
        self.byte(&mut at);
        if let Some(one) = all.get(usize::from(at)) {
            *choice = *one;
        }
    }

    /// A component, if any.
    fn component(&mut self, component: &mut Option<Component>) {
        let mut number = component.map_or(u8::MAX, |component| component.number());
        self.byte(&mut number);
        *component = Component::new(number);
    }

    /// Whether something is there.
    fn is_there(&mut self, mut is_there: bool) -> bool {
        self.flags([&mut is_there]);
        is_there
    }

    /// How many of something there are.
    fn count(&mut self, count: usize) -> usize {
        let mut count = count as u8;
        self.byte(&mut count);
        usize::from(count)
    }
}

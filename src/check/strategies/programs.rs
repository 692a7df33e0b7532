//! Values, and programs that put them into registers.

use crate::{Component, ComponentSet, Value, registers::Program, xstate::Rounding};
use alloc::vec::Vec;
use proptest::{prelude::*, sample::select};

/// Values that a program can write: each pattern, and the initial one as often as all of them.
///
/// ```
/// use fpuswitch::{Value, check::values};
/// use proptest::prelude::*;
///
/// proptest! {
///     fn every_value_has_a_text(value in values()) {
///         prop_assert_eq!(value.to_string().parse(), Ok(value));
///     }
/// }
/// every_value_has_a_text();
/// ```
pub fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::INITIAL),
        (1..Value::KERNEL.number()).prop_map(|number| Value::new(number).unwrap_or(Value::INITIAL)),
    ]
}

/// Register programs for a CPU that has `enabled` these components: they fill and clear each of them but PKRU, change
/// lanes of registers, some of which are in components that the CPU may lack, and round.
///
/// ```
/// use fpuswitch::{Rfbm, check::programs, registers::{RegisterFile, SoftRegs}};
/// use proptest::{collection::vec, prelude::*};
///
/// let regs = SoftRegs::default();
/// proptest! {
///     |(list in vec(programs(regs.enabled()), 0..5))| {
///         let mut ran = regs.clone();
///         list.into_iter().for_each(|program| ran.run(program));
///         let (mut image, mut other) = (regs.new_image(), regs.clone());
///         ran.save(Rfbm::ALL, &mut image);
///         prop_assert_eq!(other.restore(Rfbm::ALL, &image), Ok(()));
///         prop_assert_eq!(other, ran);
///     }
/// }
/// ```
///
/// # Panics
/// When there is no component but PKRU.
pub fn programs(enabled: ComponentSet) -> impl Strategy<Value = Program> {
    let components: Vec<_> = enabled.without(Component::PKRU).iter().collect();
    assert!(!components.is_empty(), "programs need a component that they can fill");
    let component = select(components);
    let roundings = [Rounding::Nearest, Rounding::Down, Rounding::Up, Rounding::Zero];
    prop_oneof![
        4 => (component.clone(), values()).prop_map(|(component, value)| Program::Fill(component, value)),
        1 => component.prop_map(Program::Clear),
        1 => values().prop_map(Program::FillAll),
        3 => (0..32_u8, 0..16_u8, any::<u32>())
            .prop_map(|(register, lane, value)| Program::ChangeLane { register, lane, value }),
        2 => select(roundings.to_vec()).prop_map(Program::Round),
    ]
}

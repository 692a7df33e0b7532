//! One value for each component that there is.

use crate::{Component, ComponentSet, Value};

/// A value for each component of the register file. Which components there are never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Values {
    components: ComponentSet,
    /// By number; initial where there is no component.
    of: [Value; 63],
}

impl Values {
    pub(super) fn initial(components: ComponentSet) -> Self {
        Self { components, of: [Value::INITIAL; 63] }
    }

    pub(super) fn get(&self, component: Component) -> Option<Value> {
        let number = usize::from(component.number());
        self.components.contains(component).then(|| self.of.get(number).copied()).flatten()
    }

    /// Changes a component, if there is such a one.
    pub(super) fn set(&mut self, component: Component, value: Value) {
        if self.components.contains(component)
            && let Some(old) = self.of.get_mut(usize::from(component.number()))
        {
            *old = value;
        }
    }

    /// Changes all that are among `components`.
    pub(super) fn set_all(&mut self, components: ComponentSet, value: Value) {
        (components & self.components).iter().for_each(|component| self.set(component, value));
    }

    pub(super) fn components(&self) -> ComponentSet {
        self.components
    }

    #[cfg(feature = "explore")]
    pub(super) fn walk(&mut self, walk: &mut impl crate::walk::Walk) {
        let Self { components, of } = self;
        for component in components.iter() {
            walk.ought(component, &mut of[usize::from(component.number())]);
        }
    }
}

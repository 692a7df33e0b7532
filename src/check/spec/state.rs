//! What one program must see, with its signal frames and its guest.

use crate::{Component, ComponentSet, FrameChange, Pkru, Value};
use alloc::{collections::BTreeMap, vec::Vec};

/// Frames kept for a task; the oldest goes first.
const MAX_FRAMES: usize = 4;

/// One value for each component of the register file. Which components there are never changes.
pub(super) type Values = BTreeMap<Component, Value>;

/// What the program of one user task must see in its registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) values: Values,
    pub(super) pkru: Pkru,
    /// Signal frames in the task's memory, the newest last.
    pub(super) frames: Vec<Frame>,
    /// In a signal return, from its beginning to its end.
    pub(super) returning: bool,
    pub(super) guest: Option<Guest>,
}

/// What of a task and its guest is not in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Guest {
    values: Values,
    pkru: Pkru,
    loaded: bool,
    inside: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    values: Values,
    pkru: Pkru,
    /// The page with legacy region and header.
    first_present: bool,
    rest_present: bool,
    mapped: bool,
    damage: Damage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Damage {
    short: bool,
    legacy_only: bool,
    bad_header: bool,
    bad_mxcsr: bool,
}

impl State {
    /// The value of `component`, [`Value::UNSPECIFIED`] for one that may be anything; `None` if the register file
    /// lacks it, and for PKRU.
    pub fn value(&self, component: Component) -> Option<Value> {
        self.values.get(&component).copied()
    }

    /// Whether the program can rely on what `component` holds.
    pub fn is_specified(&self, component: Component) -> bool {
        self.value(component) != Some(Value::UNSPECIFIED)
    }

    /// The value of PKRU.
    pub fn pkru(&self) -> Pkru {
        self.pkru
    }

    pub(super) fn new(values: Values) -> Self {
        Self { values, pkru: Pkru::DEFAULT, frames: Vec::new(), returning: false, guest: None }
    }

    pub(super) fn set(&mut self, component: Component, value: Value) {
        if let Some(old) = self.values.get_mut(&component) {
            *old = value;
        }
    }

    pub(super) fn give_up_all_but(&mut self, kept: ComponentSet) {
        for (component, value) in &mut self.values {
            if !kept.contains(*component) {
                *value = Value::UNSPECIFIED;
            }
        }
    }

    /// The same with those components in their initial configuration, unless they may be anything.
    pub(super) fn without(mut self, dynamic: ComponentSet) -> Self {
        for component in dynamic.iter().filter(|component| self.is_specified(*component)).collect::<Vec<_>>()
        {
            self.set(component, Value::INITIAL);
        }
        self
    }

    pub(super) fn push_frame(&mut self, frame: Frame) {
        self.frames.push(frame);
        if self.frames.len() > MAX_FRAMES {
            self.frames.remove(0);
        }
    }

    pub(super) fn save_to_frame(&mut self) {
        if let Some(frame) = self.frames.last_mut()
            && frame.is_present()
        {
            frame.values = self.values.clone();
            frame.pkru = self.pkru;
            frame.damage = Damage::default();
        }
    }

    pub(super) fn fault_in(&mut self, initial: impl FnOnce() -> Values) {
        let Some(frame) = self.frames.last_mut() else { return };
        if frame.mapped {
            (frame.first_present, frame.rest_present) = (true, true);
            return;
        }
        self.frames.pop();
        if core::mem::take(&mut self.returning) {
            self.start_afresh(initial());
        }
    }

    pub(super) fn load_from_frame(&mut self, initial: impl FnOnce() -> Values) {
        let Some(frame) = self.frames.pop_if(|frame| frame.can_be_tried()) else { return };
        self.returning = false;
        let Damage { short, legacy_only, bad_header, bad_mxcsr } = frame.damage;
        if !frame.mapped || bad_mxcsr || bad_header && !legacy_only {
            return self.start_afresh(initial());
        }
        (self.values, self.pkru) = (frame.values, frame.pkru);
        if short || legacy_only {
            for (component, value) in &mut self.values {
                if *component != Component::X87 && *component != Component::SSE {
                    *value = Value::INITIAL;
                }
            }
        }
        if legacy_only {
            self.pkru = Pkru(0);
        }
    }

    pub(super) fn start_afresh(&mut self, initial: Values) {
        (self.values, self.pkru) = (initial, Pkru::DEFAULT);
    }

    pub(super) fn swap_guest(&mut self, loaded: bool, initial: impl FnOnce() -> Values) {
        let new = || Guest { values: initial(), pkru: Pkru(0), loaded: false, inside: false };
        let guest = self.guest.get_or_insert_with(new);
        if guest.loaded != loaded {
            guest.loaded = loaded;
            core::mem::swap(&mut self.values, &mut guest.values);
        }
    }

    pub(super) fn cross_guest(&mut self, inside: bool) {
        if let Some(guest) = self.guest.as_mut().filter(|guest| guest.inside != inside) {
            guest.inside = inside;
            core::mem::swap(&mut self.pkru, &mut guest.pkru);
        }
    }
}

impl Frame {
    pub(super) fn new(values: Values) -> Self {
        Self {
            values,
            pkru: Pkru(0),
            first_present: true,
            rest_present: true,
            mapped: true,
            damage: Damage::default(),
        }
    }

    fn is_present(&self) -> bool {
        self.first_present && self.rest_present && self.mapped
    }

    /// Whether a load finds all that it reads, or finds that it never will. Only the legacy region is read of a frame
    /// that does not say that it has more.
    fn can_be_tried(&self) -> bool {
        !self.mapped || self.first_present && (self.rest_present || self.damage.legacy_only)
    }

    pub(super) fn change(&mut self, change: FrameChange) {
        match change {
            FrameChange::Absent => (self.first_present, self.rest_present) = (false, false),
            FrameChange::RestAbsent => self.rest_present = false,
            FrameChange::Unmapped => self.mapped = false,
            FrameChange::BadHeader => self.damage.bad_header = true,
            FrameChange::BadMxcsr => self.damage.bad_mxcsr = true,
            FrameChange::BadMagic | FrameChange::BadSize => self.damage.legacy_only = true,
            FrameChange::Short => (self.damage.short, self.pkru) = (true, Pkru(0)),
            FrameChange::Pkru(pkru) => self.pkru = pkru.unwrap_or(Pkru(0)),
        }
    }
}

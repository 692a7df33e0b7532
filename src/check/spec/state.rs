//! What one program must see, with its signal frames and its guest.

use super::values::Values;
use crate::{Component, ComponentSet, FrameChange, Pkru, Value};
use alloc::vec::Vec;

/// Frames kept for a task; the oldest goes first.
const MAX_FRAMES: usize = 4;

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
        self.values.get(component)
    }

    /// Whether the program can rely on what `component` holds.
    pub fn is_specified(&self, component: Component) -> bool {
        self.value(component) != Some(Value::UNSPECIFIED)
    }

    /// The value of PKRU.
    pub fn pkru(&self) -> Pkru {
        self.pkru
    }

    /// What the signal frames ought to hold, the newest last.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (impl Fn(Component) -> Option<Value>, Pkru)> {
        self.frames.iter().map(|frame| (|component| frame.values.get(component), frame.pkru))
    }

    pub(super) fn new(values: Values) -> Self {
        Self { values, pkru: Pkru::DEFAULT, frames: Vec::new(), returning: false, guest: None }
    }

    pub(super) fn set(&mut self, component: Component, value: Value) {
        self.values.set(component, value);
    }

    pub(super) fn give_up_all_but(&mut self, kept: ComponentSet) {
        self.values.set_all(self.values.components() - kept, Value::UNSPECIFIED);
    }

    /// The same with those components in their initial configuration, unless they may be anything.
    pub(super) fn without(mut self, dynamic: ComponentSet) -> Self {
        for component in dynamic.iter() {
            if self.is_specified(component) {
                self.set(component, Value::INITIAL);
            }
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
            frame.values = self.values;
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
            let legacy = ComponentSet::EMPTY.with(Component::X87).with(Component::SSE);
            self.values.set_all(self.values.components() - legacy, Value::INITIAL);
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

#[cfg(feature = "explore")]
impl State {
    /// What of the task and its guest is not in use ought to hold.
    pub(crate) fn not_in_use(&self) -> Option<(impl Fn(Component) -> Option<Value>, Pkru)> {
        let guest = self.guest.as_ref();
        guest.map(|guest| (|component| guest.values.get(component), guest.pkru))
    }

    /// Whether the old values are given up and the new ones not there yet.
    pub(crate) fn is_returning(&self) -> bool {
        self.returning
    }

    /// Inside a signal return nobody will see the old values: they are no part of the state then.
    pub(super) fn walk(&mut self, walk: &mut impl crate::walk::Walk) {
        let Self { values, pkru, frames, returning, guest } = self;
        walk.flags([returning]);
        if !*returning {
            values.walk(walk);
        }
        walk.ought_pkru(pkru);
        let count = walk.count(frames.len());
        frames.resize_with(count, || Frame::new(*values));
        frames.iter_mut().for_each(|frame| frame.walk(walk));
        if walk.is_there(guest.is_some()) {
            let new = Guest { values: *values, pkru: Pkru(0), loaded: false, inside: false };
            let Guest { values, pkru, loaded, inside } = guest.get_or_insert(new);
            values.walk(walk);
            walk.ought_pkru(pkru);
            walk.flags([loaded, inside]);
        }
    }
}

#[cfg(feature = "explore")]
impl Frame {
    fn walk(&mut self, walk: &mut impl crate::walk::Walk) {
        let Self { values, pkru, first_present, rest_present, mapped, damage } = self;
        let Damage { short, legacy_only, bad_header, bad_mxcsr } = damage;
        values.walk(walk);
        walk.ought_pkru(pkru);
        walk.flags([first_present, rest_present, mapped, short, legacy_only, bad_header, bad_mxcsr]);
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

//! What the instructions of the XSAVE feature set cost on this host.
//!
//! Every row is measured in the same run, in turns with all the others, so that their ratios mean something
//! where the machine is noisy; the times themselves move from run to run.

use crate::{
    Component, ComponentSet, Rfbm, Value,
    arch::{Features, Measurement, NotAvailable, ParkedRegs, RestoreOp, TimedOp},
    registers::pattern,
    xstate::{Area, Format},
};
use std::{time::Instant, vec::Vec};

/// Blocks of each row; the row is their median.
pub(crate) const BLOCKS: usize = 31;
/// Instructions in a block.
pub(crate) const TIMES: u32 = 1000;
/// Areas in turn: they stay in the first-level cache, or do not.
const AREAS: [usize; 2] = [2, 64];

/// The components that registers of an in-use class have in use, of those that are enabled.
///
/// After any string function of glibc on a CPU with AVX-512, the class is the fourth: opmask and Hi16_ZMM count as
/// in use from then on.
const CLASSES: [(&str, &[Component]); 5] = [
    ("all initial", &[]),
    ("SSE", &[Component::SSE]),
    ("AVX", &[Component::SSE, Component::AVX]),
    ORDINARY,
    (
        "full AVX-512",
        &[Component::SSE, Component::AVX, Component::OPMASK, Component::ZMM_HI256, Component::HI16_ZMM],
    ),
];
const ORDINARY: (&str, &[Component]) =
    ("ordinary process", &[Component::SSE, Component::OPMASK, Component::HI16_ZMM]);

/// Measured for each class.
const OPS: [(TimedOp, &str); 6] = [
    (TimedOp::Fxsave, "FXSAVE"),
    (TimedOp::Xsave, "XSAVE"),
    (TimedOp::Xsavec, "XSAVEC"),
    (TimedOp::Xsaveopt, "XSAVEOPT"),
    (TimedOp::Xrstor, "XRSTOR"),
    (TimedOp::XsavecXrstor, "XSAVEC + XRSTOR"),
];
const OTHERS: [(TimedOp, &str); 2] = [(TimedOp::Xgetbv1, "XGETBV(1)"), (TimedOp::Rdtsc, "RDTSC")];

/// What one instruction costs, with registers of one in-use class.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
pub struct InstructionCost {
    /// The instruction, or pair of instructions.
    pub instruction: &'static str,
    /// The in-use class of the registers, in words; empty where it does not matter.
    pub class: &'static str,
    /// XINUSE of these registers, where the CPU tells.
    pub in_use: Option<u64>,
    /// How many areas were used in turn: 2 stay in the first-level cache, 64 do not.
    pub areas: usize,
    /// Nanoseconds each: the median, less that of the loop around it.
    pub ns: f64,
    /// `ns` in units of the cheapest save or restore in the table.
    pub ratio: f64,
}

/// A row under way.
struct Arm {
    cost: InstructionCost,
    measurement: Measurement,
    blocks: Vec<f64>,
}

/// Measures each instruction of this CPU by in-use class, in about a second.
///
/// # Errors
/// [`NotAvailable`](crate::registers::HostError) off x86-64 Linux.
pub fn measure() -> Result<Vec<InstructionCost>, NotAvailable> {
    let features = Features::detect()?;
    let mut arms = Vec::new();
    for (class, components) in CLASSES {
        let known = components.iter().fold(ComponentSet::EMPTY, |set, c| set.with(*c));
        if known & features.enabled() != known && class != ORDINARY.0 {
            continue;
        }
        let registers = of_class(features, components)?;
        for areas in AREAS {
            arms.extend(OPS.iter().filter_map(|(op, name)| Arm::new(&registers, *op, name, class, areas)));
        }
    }
    let registers = of_class(features, &[])?;
    arms.extend(OTHERS.iter().filter_map(|(op, name)| Arm::new(&registers, *op, name, "", 1)));
    let nothing = Arm::new(&registers, TimedOp::Nothing, "", "", 1);
    Ok(finish(arms, nothing))
}

/// XSAVEC and XRSTOR in an ordinary process, with two areas: a part of the table, in some 10 ms. `None` without
/// XSAVEC.
#[cfg(feature = "replay")]
pub(crate) fn measure_save_and_restore() -> Option<Vec<InstructionCost>> {
    let features = Features::detect().ok()?;
    let (class, components) = ORDINARY;
    let registers = of_class(features, components).ok()?;
    let arm = |(op, name)| Arm::new(&registers, op, name, class, AREAS[0]);
    let arms = OPS.into_iter().filter(|(_, name)| SAVE_AND_RESTORE.contains(name)).map(arm);
    Some(finish(arms.collect::<Option<_>>()?, Arm::new(&registers, TimedOp::Nothing, "", "", AREAS[0])))
}

/// What a save and a restore cost by the table: XSAVEC and XRSTOR in an ordinary process, with two areas.
#[cfg(feature = "replay")]
pub(crate) fn save_and_restore_ns(table: &[InstructionCost]) -> Option<[f64; 2]> {
    let ns = |name| {
        let row = |cost: &&InstructionCost| {
            (cost.instruction, cost.class, cost.areas) == (name, ORDINARY.0, AREAS[0])
        };
        table.iter().find(row).map(|cost| cost.ns)
    };
    let [save, restore] = SAVE_AND_RESTORE.map(ns);
    Some([save?, restore?])
}

/// The instructions that replay reckons with.
#[cfg(feature = "replay")]
const SAVE_AND_RESTORE: [&str; 2] = ["XSAVEC", "XRSTOR"];

/// An in-use class of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name, as in [`InstructionCost::class`].
    pub name: &'static str,
    /// What its registers have in use, of the components that are enabled here.
    pub components: ComponentSet,
    /// Registers can be of this class here: all that it needs is enabled.
    pub is_here: bool,
}

/// The classes that [`measure`] tells apart.
///
/// # Errors
/// As [`measure`].
pub fn classes() -> Result<[Class; 5], NotAvailable> {
    let enabled = Features::detect()?.enabled();
    Ok(CLASSES.map(|(name, components)| {
        let components: ComponentSet = components.iter().copied().collect();
        let is_here = components.is_subset_of(enabled) || name == ORDINARY.0;
        Class { name, components: components & enabled, is_here }
    }))
}

/// An instruction or pair of [`measure`], for who puts it in turns with something else: registers of a class, two areas.
#[derive(Debug)]
pub struct Repeated(Measurement);

impl Repeated {
    /// By its name in [`InstructionCost::instruction`]; `None` if the CPU lacks it.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn new(instruction: &str, class: Class) -> Result<Option<Self>, NotAvailable> {
        let components: Vec<_> = class.components.iter().collect();
        let registers = of_class(Features::detect()?, &components)?;
        let op = OPS.iter().find(|(_, name)| *name == instruction).map(|(op, _)| *op);
        Ok(op.and_then(|op| Measurement::new(&registers, op, AREAS[0]).ok()).map(Self))
    }

    /// Runs it so many times, between a save and a restore of the calling thread's registers.
    pub fn run(&mut self, times: u32) {
        self.0.run(times);
    }
}

/// Registers with something in those of `components` that are enabled, and in no others: a restore leaves XINUSE as
/// XSTATE_BV says, where moves would mark more.
fn of_class(features: Features, components: &[Component]) -> Result<ParkedRegs, NotAvailable> {
    let mut registers = ParkedRegs::new(features)?;
    let layout = features.layout();
    let mut area = Area::initial(layout, Format::Standard);
    let value = Value::new(77).unwrap_or(Value::KERNEL);
    for component in components {
        if let Ok(size) = area.size_of(*component) {
            let written = area.set_component(*component, &pattern::bytes(*component, size, value));
            debug_assert_eq!(written, Ok(()), "the size is right");
        }
    }
    let restore = if layout.has_xsave() { RestoreOp::Xrstor } else { RestoreOp::Fxrstor };
    let restored = registers.restore(restore, Rfbm::ALL, area.bytes());
    debug_assert_eq!(restored, Ok(()), "patterns are values that the CPU takes");
    Ok(registers)
}

impl Arm {
    /// `None` if the CPU lacks the instruction.
    fn new(
        registers: &ParkedRegs,
        op: TimedOp,
        instruction: &'static str,
        class: &'static str,
        areas: usize,
    ) -> Option<Self> {
        let in_use = registers.in_use().ok().map(ComponentSet::bits).filter(|_| !class.is_empty());
        let cost = InstructionCost { instruction, class, in_use, areas, ns: 0.0, ratio: 0.0 };
        let measurement = Measurement::new(registers, op, areas).ok()?;
        Some(Self { cost, measurement, blocks: Vec::new() })
    }

    fn block(&mut self) {
        let start = Instant::now();
        self.measurement.run(TIMES);
        self.blocks.push(start.elapsed().as_nanos() as f64 / f64::from(TIMES));
    }
}

/// Runs them all in turns.
fn finish(mut arms: Vec<Arm>, mut nothing: Option<Arm>) -> Vec<InstructionCost> {
    for turn in 0..=BLOCKS {
        for arm in arms.iter_mut().chain(&mut nothing) {
            arm.block();
            // The first block finds cold caches.
            if turn == 0 {
                arm.blocks.clear();
            }
        }
    }
    let around = nothing.map_or(0.0, |mut arm| median(&mut arm.blocks));
    table(arms.into_iter().map(|arm| (arm.cost, arm.blocks)).collect(), around)
}

/// The table of what was measured: `around` is what a round takes without an instruction in it.
fn table(measured: Vec<(InstructionCost, Vec<f64>)>, around: f64) -> Vec<InstructionCost> {
    let net = |blocks: &mut [f64]| (median(blocks) - around).max(0.0);
    let mut costs: Vec<_> = measured
        .into_iter()
        .map(|(cost, mut blocks)| InstructionCost { ns: net(&mut blocks), ..cost })
        .collect();
    let saves_and_restores = costs.iter().filter(|cost| !cost.class.is_empty());
    let cheapest = saves_and_restores.map(|cost| cost.ns).fold(f64::INFINITY, f64::min);
    for cost in &mut costs {
        cost.ratio = if cheapest > 0.0 && cheapest.is_finite() { cost.ns / cheapest } else { 1.0 };
    }
    costs
}

/// The one in the middle; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(class: &'static str) -> InstructionCost {
        InstructionCost { instruction: "XSAVE", class, in_use: None, areas: 2, ns: 0.0, ratio: 0.0 }
    }

    #[test]
    fn a_row_is_its_median_less_the_loop_and_in_units_of_the_cheapest() {
        let measured = std::vec![
            (cost("SSE"), std::vec![900.0, 41.0, 2.0, 40.0, 42.0]),
            (cost("AVX"), std::vec![21.0; 5]),
            // Neither a save nor a restore: not what the others are held against.
            (cost(""), std::vec![4.0; 5]),
        ];
        let costs = table(measured, 1.0);
        assert_eq!(costs.iter().map(|cost| cost.ns).collect::<Vec<_>>(), [40.0, 20.0, 3.0]);
        assert_eq!(costs.iter().map(|cost| cost.ratio).collect::<Vec<_>>(), [2.0, 1.0, 0.15]);
        // A loop that took longer than the instruction in it, on a noisy machine.
        assert_eq!(table(std::vec![(cost("SSE"), std::vec![3.0])], 5.0)[0].ns, 0.0);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn hardware_every_class_is_measured_with_few_and_with_many_areas() {
        let costs = match measure() {
            Ok(costs) => costs,
            Err(error) => {
                std::println!("HARDWARE costs: SKIPPED: {error}");
                return;
            }
        };
        for (class, components) in CLASSES {
            let rows: Vec<_> = costs.iter().filter(|cost| cost.class == class).collect();
            for areas in AREAS {
                assert_eq!(rows.iter().filter(|cost| cost.areas == areas).count(), rows.len() / 2, "{class}");
            }
            // The classes are what they are called.
            for in_use in rows.iter().filter_map(|cost| cost.in_use) {
                let enabled = Features::detect().expect("measured").enabled();
                let expected: ComponentSet = components.iter().copied().collect();
                assert!((expected & enabled).is_subset_of(ComponentSet::from_bits(in_use)), "{class}");
            }
        }
        let saves_and_restores = costs.iter().filter(|cost| !cost.class.is_empty());
        assert_eq!(saves_and_restores.map(|cost| cost.ratio).fold(f64::INFINITY, f64::min), 1.0);
        std::println!("HARDWARE costs: ran");
    }
}

//! What policies cost as a picture: bars for a recording, and the curves that say where one overtakes another.

use super::{
    BreakEven,
    canvas::{At, Canvas, FAINT, FONT_UNITS, INK, PictureError, draw},
};
use crate::{
    fpu::{Policy, policy::Builtin},
    replay::{Basis, Costs, PolicyCounts, Report},
};
use plotters::{prelude::*, style::RGBColor};
use std::{format, string::String, vec::Vec};

const WIDTH: i32 = 1280;
const BAR_TOP: i32 = 62;
const BAR_ROW: i32 = 24;
const BAR_LEFT: i32 = 130;
const BAR_WIDE: i32 = 760;
const CURVES: i32 = 400;
const LEGEND_ROW: i32 = 20;
const STEPS: u32 = 100;

/// Each policy's colour, in the order of [`BreakEven::POLICIES`].
const COLOURS: [RGBColor; 9] = [
    RGBColor(30, 30, 30),
    RGBColor(202, 88, 0),
    RGBColor(0, 92, 175),
    RGBColor(0, 128, 72),
    RGBColor(190, 30, 45),
    RGBColor(128, 60, 160),
    RGBColor(150, 110, 60),
    RGBColor(0, 150, 160),
    RGBColor(200, 80, 150),
];

/// Those whose cost depends on q alone, and those that depend on p, with two to compare.
const BY_Q: [Builtin; 6] = [
    Builtin::Eager,
    Builtin::Deferred,
    Builtin::OwnerSlot,
    Builtin::LazySave,
    Builtin::EntryExit,
    Builtin::CallBoundary,
];
const BY_P: [Builtin; 5] =
    [Builtin::Eager, Builtin::OwnerSlot, Builtin::TrapRestore, Builtin::FullLazy, Builtin::UseClass];

/// Draws what each policy of a report costs, as SVG: bars, with the kernel and the optimum; and what a switch costs by
/// the formulas of [`BreakEven`], as curves over q and over p, with the points of this recording.
///
/// # Errors
/// [`PictureError`], if it cannot be drawn.
pub fn cost_plot(name: &str, report: &Report, costs: &Costs) -> Result<String, PictureError> {
    let rows = report.policies.len() as i32 + 2;
    let curves_top = BAR_TOP + BAR_ROW * rows + 40;
    let legend_top = curves_top + CURVES + 10;
    let height = legend_top + LEGEND_ROW * (BY_Q.len() as i32 + 3);
    draw((WIDTH as u32, height as u32), |canvas| {
        bars(canvas, name, report, costs)?;
        let q = report.schedule.valid_share();
        let p = report.fpu_use;
        let model = BreakEven::new(report, *costs);
        for (x, plot) in [
            (0, Plot { model, report, policies: &BY_Q, over: Over::Q, q, p }),
            (WIDTH / 2, Plot { model, report, policies: &BY_P, over: Over::P, q, p }),
        ] {
            plot.draw(canvas, (x, curves_top))?;
            plot.legend(canvas, (x + 60, legend_top))?;
        }
        Ok(())
    })
}

fn bars(canvas: &Canvas<'_>, name: &str, report: &Report, costs: &Costs) -> Result<(), PictureError> {
    let title =
        format!("{name}: what saving and restoring costs in {:.3} s of CPU time", report.cpu_ns() / 1e9);
    canvas.text((20, 18), &title, 16, At::Left)?;
    let Costs { save_ns, restore_ns, check_ns, .. } = costs;
    let each = format!("with {save_ns:.1} ns a save, {restore_ns:.1} ns a restore, {check_ns:.1} ns a check");
    canvas.text((20, 40), &each, 12, At::Left)?;
    let of = |policy: &PolicyCounts, name| {
        let least = if policy.basis == Basis::SeenEntries { "≥ " } else { "" };
        (name, policy.cost_ns(costs), policy.saves, policy.restores, least)
    };
    let kernel = report.as_the_kernel();
    let optimum = report.optimum;
    let mut rows: Vec<_> = report.policies.iter().map(|policy| of(policy, policy.name)).collect();
    rows.push(of(&kernel, "the kernel"));
    rows.push(("optimum", optimum.cost_ns(costs), optimum.saves, optimum.restores, ""));
    rows.sort_by(|(_, one, ..), (_, other, ..)| other.total_cmp(one));
    let most = rows.first().map_or(1.0, |(_, ns, ..)| ns.max(1.0));
    for (row, (name, ns, saves, restores, least)) in rows.into_iter().enumerate() {
        let y = BAR_TOP + BAR_ROW * row as i32;
        let middle = y + BAR_ROW / 2;
        canvas.text((BAR_LEFT - 8, middle), name, 13, At::Right)?;
        let wide = (ns / most * f64::from(BAR_WIDE)) as i32;
        let known = BreakEven::POLICIES.iter().position(|policy| policy.name() == name);
        let colour = match (known, name) {
            (Some(index), _) => COLOURS[index],
            (None, "optimum") => FAINT,
            (None, _) => RGBColor(120, 120, 120),
        };
        canvas.rect(BAR_LEFT..BAR_LEFT + wide.max(1), y + 3..y + BAR_ROW - 3, colour)?;
        let share = if report.cpu_ns() > 0.0 { 100.0 * ns / report.cpu_ns() } else { 0.0 };
        let text = format!("{least}{ns:.0} ns, {share:.4} % ({saves} saves, {restores} restores)");
        canvas.text((BAR_LEFT + wide + 8, middle), &text, 12, At::Left)?;
    }
    Ok(())
}

/// What a panel's axis is.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    Q,
    P,
}

/// A panel of curves.
struct Plot<'a> {
    model: BreakEven,
    report: &'a Report,
    policies: &'a [Builtin],
    over: Over,
    q: f64,
    p: f64,
}

impl Plot<'_> {
    fn ns(&self, policy: Builtin, at: f64) -> f64 {
        let (q, p) = match self.over {
            Over::Q => (at, self.p),
            Over::P => (self.q, at),
        };
        self.model.ns(policy, q, p).unwrap_or(0.0)
    }

    /// Where the recording is on the axis.
    fn here(&self) -> f64 {
        match self.over {
            Over::Q => self.q,
            Over::P => self.p,
        }
    }

    /// What the policy cost in the replay for each switch, in ns, if it was among those compared.
    fn measured(&self, policy: Builtin) -> Option<f64> {
        let counts = self.report.policies.iter().find(|counts| counts.name == policy.name())?;
        Some(counts.cost_ns(&self.model.costs) / self.report.schedule.switch_ins.max(1) as f64)
    }

    /// The top of the scale: what the dearest costs, if it is not several times as dear as the second.
    fn top(&self) -> f64 {
        let top = |policy: &Builtin| {
            let measured = self.measured(*policy).unwrap_or(0.0);
            self.ns(*policy, 0.0).max(self.ns(*policy, 1.0)).max(measured)
        };
        let mut tops: Vec<_> = self.policies.iter().map(top).collect();
        tops.sort_by(|one, other| other.total_cmp(one));
        let top = match tops[..] {
            [first, second, ..] if first > 3.0 * second => second,
            [first, ..] => first,
            [] => 1.0,
        };
        1.1 * top.max(1.0)
    }

    fn draw(&self, canvas: &Canvas<'_>, (x, y): (i32, i32)) -> Result<(), PictureError> {
        let area = canvas.area.clone().shrink((x, y), (WIDTH / 2 - 10, CURVES));
        let title = match self.over {
            Over::Q => "by q, the share of returns with the registers still valid".into(),
            Over::P => format!("by p, the share of slices that use the FPU (q = {:.1} %)", 100.0 * self.q),
        };
        let top = self.top();
        let font = |height: u32| ("sans-serif", f64::from(height) * FONT_UNITS);
        let mut chart = ChartBuilder::on(&area)
            .caption(title, font(14))
            .margin(8)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..1.0, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(if self.over == Over::Q { "q" } else { "p" })
            .y_desc("ns a switch")
            .x_label_formatter(&|share| format!("{share:.1}"))
            .y_label_formatter(&|ns| format!("{ns:.0}"))
            .label_style(font(12))
            .axis_desc_style(font(13))
            .light_line_style(WHITE)
            .bold_line_style(FAINT)
            .draw()?;
        let here = self.here();
        chart.draw_series(LineSeries::new(
            [(here, 0.0), (here, top)],
            RGBColor(120, 120, 120).stroke_width(1),
        ))?;
        for policy in self.policies {
            let colour = colour(*policy);
            let points = (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS));
            let points = points.map(|at| (at, self.ns(*policy, at))).filter(|(_, ns)| *ns <= top);
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            if let Some(ns) = self.measured(*policy).filter(|ns| *ns <= top) {
                let point = Circle::new((here, ns), 5, colour.filled());
                chart.draw_series([point])?;
            }
        }
        Ok(())
    }

    fn legend(&self, canvas: &Canvas<'_>, (x, y): (i32, i32)) -> Result<(), PictureError> {
        let here = self.here();
        let mut policies = self.policies.to_vec();
        policies.sort_by(|one, other| self.ns(*other, here).total_cmp(&self.ns(*one, here)));
        for (row, policy) in policies.into_iter().enumerate() {
            let y = y + LEGEND_ROW * row as i32;
            canvas.rect(x..x + 24, y - 2..y + 2, colour(policy))?;
            let ns = self.ns(policy, here);
            let off = if ns > self.top() { ", off the scale" } else { "" };
            let measured = match self.measured(policy) {
                Some(ns) if ns <= self.top() => format!(", replayed {ns:.1} ns (dot)"),
                Some(ns) => format!(", replayed {ns:.1} ns"),
                None => String::new(),
            };
            canvas.text(
                (x + 32, y),
                &format!("{}: {ns:.1} ns here{off}{measured}", policy.name()),
                12,
                At::Left,
            )?;
        }
        let wins = match self.over {
            Over::Q => {
                let wins = self.model.owner_slot_wins_above();
                let wins = wins.map(|q| format!("owner-slot beats deferred above q = {:.1} %", 100.0 * q));
                (wins, format!("grey line: this recording, q = {:.1} %", 100.0 * self.q))
            }
            Over::P => {
                let wins = self.model.trap_restore_wins_below();
                let wins = wins.map(|p| format!("trap-restore beats eager below p = {:.1} %", 100.0 * p));
                (wins, format!("grey line: p = {} (--use), which no recording says", self.p))
            }
        };
        let y = y + LEGEND_ROW * self.policies.len() as i32;
        canvas.text((x, y), &wins.1, 12, At::Left)?;
        canvas.text(
            (x, y + LEGEND_ROW),
            wins.0.as_deref().unwrap_or("there is no break-even point"),
            12,
            At::Left,
        )
    }
}

fn colour(policy: Builtin) -> RGBColor {
    BreakEven::POLICIES.iter().position(|other| *other == policy).map_or(INK, |index| COLOURS[index])
}

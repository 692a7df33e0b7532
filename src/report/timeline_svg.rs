//! A timeline as a picture: one lane a CPU.

use super::{
    canvas::{At, Canvas, FAINT, INK, PictureError, draw},
    columns::{Columns, bars, times},
    holders::{Holders, KERNEL, NOBODY, colour, label},
};
use crate::replay::{Holder, Lane, Mark, Timeline};
use plotters::style::RGBColor;
use std::{format, string::String, vec::Vec};

const WIDTH: i32 = 1280;
const LEFT: i32 = 70;
const RIGHT: i32 = 150;
/// The time axis.
const AXIS: i32 = WIDTH - LEFT - RIGHT;
const TOP: i32 = 64;
const BAR: i32 = 44;
const STRIP: i32 = 13;
const LANE: i32 = BAR + 4 * STRIP + 18;
const LEGEND_ROW: i32 = 20;
const LEGEND_COLUMNS: i32 = 4;
/// Tasks in the legend.
const MOST_NAMED: usize = 12;
/// Rectangles in the picture, at most, about: a column of a lane has up to six parts and four marks.
const MOST_ELEMENTS: usize = 40_000;
const PER_COLUMN: usize = 10;
/// Where texts begin below the upper edge.
const TEXT: u32 = 12;

/// The strips below each bar: what, and in which colour.
const STRIPS: [(&str, Mark, RGBColor); 4] = [
    ("saves", Mark::Saved, RGBColor(202, 88, 0)),
    ("restores", Mark::Restored, RGBColor(0, 92, 175)),
    ("skipped", Mark::Skipped, RGBColor(0, 128, 72)),
    ("kernel FPU", Mark::KernelFpu, KERNEL),
];

/// Draws a timeline as SVG: whose state each CPU's registers hold, and what was saved, restored and skipped.
///
/// A column of pixels that several states share is split by their shares of its time, so that a second with thousands of
/// switches can be looked at; so are the strips below a bar: the more marks in a column, the higher. There are some
/// tens of thousands of elements at most.
///
/// # Errors
/// [`PictureError`], if it cannot be drawn.
pub fn timeline_svg(name: &str, timeline: &Timeline) -> Result<String, PictureError> {
    let lanes: Vec<_> = timeline.lanes.iter().enumerate().filter(|(_, lane)| lane.seen).collect();
    let holders = Holders::new(timeline);
    let named = holders.longest.len().min(MOST_NAMED);
    let legend_rows = (3 + named as i32 + 1 + LEGEND_COLUMNS - 1) / LEGEND_COLUMNS;
    let bottom = TOP + LANE * lanes.len() as i32;
    let height = bottom + 62 + LEGEND_ROW * legend_rows + 10;
    let most = MOST_ELEMENTS / (PER_COLUMN * lanes.len().max(1));
    let columns = Columns::new(timeline, most.clamp(50, AXIS as usize));
    draw((WIDTH as u32, height as u32), |canvas| {
        let what = format!("{name}: whose state the FPU registers hold, under {}", timeline.policy);
        canvas.text((LEFT, 18), &what, 16, At::Left)?;
        let seconds = |us: u64| us as f64 / 1e6;
        let part = format!(
            "from {:.6} s to {:.6} s in the recording's time; a column is {}, split by who holds for how long",
            seconds(timeline.from_us),
            seconds(timeline.to_us),
            duration(columns.us())
        );
        canvas.text((LEFT, 40), &part, TEXT, At::Left)?;
        let strips: Vec<_> = lanes.iter().map(|(_, lane)| strips(columns, lane)).collect();
        let most = strips.iter().flatten().flatten().copied().max().unwrap_or(0);
        for (row, ((cpu, lane), strips)) in lanes.iter().zip(&strips).enumerate() {
            let y = TOP + LANE * row as i32;
            canvas.text((LEFT - 8, y + BAR / 2), &format!("CPU {cpu}"), 14, At::Right)?;
            bar(canvas, y, timeline, lane, columns, &holders)?;
            for (index, ((what, _, colour), counts)) in STRIPS.iter().zip(strips).enumerate() {
                let y = y + BAR + 2 + STRIP * index as i32;
                for block in bars(counts, most, STRIP - 2) {
                    canvas.rect(x(columns, block.columns), y + block.rows.0..y + block.rows.1, *colour)?;
                }
                canvas.line((LEFT, y + STRIP - 2), (LEFT + AXIS, y + STRIP - 2), FAINT)?;
                let count: u32 = counts.iter().sum();
                let text = format!("{count} {what}");
                canvas.rect(LEFT + AXIS + 6..LEFT + AXIS + 14, y + 1..y + STRIP - 3, *colour)?;
                canvas.text((LEFT + AXIS + 20, y + STRIP / 2 - 1), &text, 11, At::Left)?;
            }
        }
        axis(canvas, bottom, timeline)?;
        legend(canvas, bottom + 62, timeline, &holders, named)
    })
}

/// The pixels of columns.
fn x(columns: Columns, (from, to): (usize, usize)) -> core::ops::Range<i32> {
    let at = |column: usize| LEFT + (column * AXIS as usize / columns.count) as i32;
    at(from)..at(to)
}

fn strips(columns: Columns, lane: &Lane) -> [Vec<u32>; 4] {
    STRIPS.map(|(_, mark, _)| columns.counts(times(lane, mark)))
}

fn bar(
    canvas: &Canvas<'_>,
    y: i32,
    timeline: &Timeline,
    lane: &Lane,
    columns: Columns,
    holders: &Holders,
) -> Result<(), PictureError> {
    canvas.rect(LEFT..LEFT + AXIS, y..y + BAR, NOBODY)?;
    for block in columns.holders(timeline, lane, holders, BAR) {
        if block.what != Holder::Nobody {
            let rows = y + block.rows.0..y + block.rows.1;
            canvas.rect(x(columns, block.columns), rows, colour(&timeline.tasks, block.what))?;
        }
    }
    canvas.frame(LEFT..LEFT + AXIS, y..y + BAR, FAINT)
}

fn axis(canvas: &Canvas<'_>, y: i32, timeline: &Timeline) -> Result<(), PictureError> {
    let (from, to) = (timeline.from_us - timeline.start_us, timeline.to_us - timeline.start_us);
    let span = (to - from).max(1);
    let (unit_us, unit) = match span {
        2_000_000.. => (1e6, "s"),
        2_000.. => (1e3, "ms"),
        _ => (1.0, "µs"),
    };
    let step = step_us(span as f64 / 10.0);
    let digits = (unit_us / step).log10().ceil().max(0.0) as usize;
    canvas.line((LEFT, y), (LEFT + AXIS, y), INK)?;
    let mut at = (from as f64 / step).ceil() * step;
    while at <= to as f64 {
        let x = LEFT + ((at - from as f64) / span as f64 * f64::from(AXIS)) as i32;
        canvas.line((x, y), (x, y + 5), INK)?;
        canvas.text((x, y + 16), &format!("{:.digits$}", at / unit_us), TEXT, At::Centre)?;
        at += step;
    }
    let start = timeline.start_us as f64 / 1e6;
    let what = format!("{unit} since the recording's first event (at {start:.6} s in its time)");
    canvas.text((LEFT + AXIS / 2, y + 36), &what, TEXT, At::Centre)
}

/// 1, 2 or 5 times a power of ten, at least this, and at least 1 µs.
fn step_us(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1.0).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|times| times * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// A time in µs with a unit.
fn duration(us: f64) -> String {
    match us {
        1000.0.. => format!("{:.2} ms", us / 1e3),
        _ => format!("{us:.2} µs"),
    }
}

fn legend(
    canvas: &Canvas<'_>,
    y: i32,
    timeline: &Timeline,
    holders: &Holders,
    named: usize,
) -> Result<(), PictureError> {
    let share = |us: u64| 100.0 * us as f64 / holders.all_us.max(1) as f64;
    let pale = RGBColor(205, 190, 225);
    let mut entries: Vec<_> = [
        (Some(NOBODY), "nobody", holders.nobody_us),
        (Some(KERNEL), "kernel FPU section", holders.kernel_us),
        (Some(pale), "pale: outdated, changed elsewhere", holders.outdated_us),
    ]
    .map(|(colour, what, us)| (colour, format!("{what}, {:.2} %", share(us))))
    .into();
    for (task, us) in &holders.longest[..named] {
        let name = label(&timeline.tasks[*task as usize]);
        let colour = colour(&timeline.tasks, Holder::Task(*task));
        entries.push((Some(colour), format!("{name}, {:.1} %", share(*us))));
    }
    let others = &holders.longest[named..];
    if !others.is_empty() {
        let us = others.iter().map(|(_, us)| us).sum();
        entries.push((None, format!("{} more tasks, {:.1} %", others.len(), share(us))));
    }
    let wide = (WIDTH - LEFT) / LEGEND_COLUMNS;
    for (index, (colour, text)) in entries.iter().enumerate() {
        let x = LEFT + wide * (index as i32 % LEGEND_COLUMNS);
        let y = y + LEGEND_ROW * (index as i32 / LEGEND_COLUMNS);
        if let Some(colour) = colour {
            canvas.rect(x..x + 14, y - 7..y + 7, *colour)?;
            canvas.frame(x..x + 14, y - 7..y + 7, FAINT)?;
        }
        canvas.text((x + 20, y), text, TEXT, At::Left)?;
    }
    Ok(())
}

//! A lane of a timeline in columns of pixels: thousands of spans become rectangles that can be told apart.

use super::holders::Holders;
use crate::replay::{Holder, Lane, Mark, Timeline};
use std::{vec, vec::Vec};

/// Most parts that a column is split into: those with most of its time, which share it all.
const MOST_PARTS: usize = 6;

/// How a window is cut into columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    from_us: u64,
    to_us: u64,
    pub(super) count: usize,
}

/// Columns side by side that look alike, from the first to behind the last, and from top to bottom in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Block<T> {
    pub(super) columns: (usize, usize),
    pub(super) rows: (i32, i32),
    pub(super) what: T,
}

impl Columns {
    pub(super) fn new(timeline: &Timeline, count: usize) -> Self {
        let Timeline { from_us, to_us, .. } = *timeline;
        Self { from_us, to_us: to_us.max(from_us + 1), count: count.max(1) }
    }

    /// How much time a column stands for.
    pub(super) fn us(self) -> f64 {
        (self.to_us - self.from_us) as f64 / self.count as f64
    }

    fn of(self, at_us: u64) -> usize {
        let column = ((at_us - self.from_us) as f64 / self.us()) as usize;
        column.min(self.count - 1)
    }

    /// Who holds the registers: each column is split by the shares of its time.
    pub(super) fn holders(
        self,
        timeline: &Timeline,
        lane: &Lane,
        holders: &Holders,
        height: i32,
    ) -> Vec<Block<Holder>> {
        let mut blocks = Blocks::default();
        let mut parts: Vec<(Holder, f64)> = Vec::new();
        let mut column = 0;
        for (from, to, holder) in timeline.spans(&lane.holders) {
            for at in self.of(from)..=self.of(to) {
                if at != column {
                    blocks.stack(column, &mut parts, holders, height);
                    column = at;
                }
                let begin = self.from_us as f64 + at as f64 * self.us();
                let us = (begin + self.us()).min(to as f64) - begin.max(from as f64);
                if us <= 0.0 {
                    continue;
                }
                match parts.iter_mut().find(|(other, _)| *other == holder) {
                    Some((_, all)) => *all += us,
                    None => parts.push((holder, us)),
                }
            }
        }
        blocks.stack(column, &mut parts, holders, height);
        blocks.finish()
    }

    /// How many of these there are in each column. At the end itself there is something only if the recording ends there.
    pub(super) fn counts(self, times_us: impl Iterator<Item = u64>) -> Vec<u32> {
        let mut counts = vec![0; self.count];
        for at in times_us.filter(|at| (self.from_us..=self.to_us).contains(at)) {
            counts[self.of(at)] += 1;
        }
        counts
    }
}

/// When a mark was made.
pub(super) fn times(lane: &Lane, mark: Mark) -> impl Iterator<Item = u64> + '_ {
    lane.marks.iter().filter(move |(_, other)| *other == mark).map(|(at, _)| *at)
}

/// Counts as bars that stand on the bottom of a strip, `most` as high as the strip; by their square roots, so that one
/// can be seen beside a thousand.
pub(super) fn bars(counts: &[u32], most: u32, height: i32) -> Vec<Block<()>> {
    let mut blocks = Blocks::default();
    for (column, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let share = f64::from(*count) / f64::from(most.max(1));
        let high = (f64::from(height) * share.sqrt()).ceil() as i32;
        blocks.add(column, (height - high.max(4), height), ());
    }
    blocks.finish()
}

/// Joins what looks alike from column to column.
#[derive(Debug)]
struct Blocks<T> {
    open: Vec<Block<T>>,
    done: Vec<Block<T>>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { open: Vec::new(), done: Vec::new() }
    }
}

impl<T: Copy + PartialEq> Blocks<T> {
    fn add(&mut self, column: usize, rows: (i32, i32), what: T) {
        let same =
            |block: &&mut Block<T>| block.columns.1 == column && (block.rows, block.what) == (rows, what);
        match self.open.iter_mut().find(same) {
            Some(block) => block.columns.1 = column + 1,
            None => self.open.push(Block { columns: (column, column + 1), rows, what }),
        }
        // Behind a gap, nothing can be joined any more.
        let done = self.open.extract_if(.., |block| block.columns.1 < column);
        self.done.extend(done);
    }

    fn finish(mut self) -> Vec<Block<T>> {
        self.done.append(&mut self.open);
        self.done
    }
}

impl Blocks<Holder> {
    /// Adds a column with its parts, which are used up.
    fn stack(&mut self, column: usize, parts: &mut Vec<(Holder, f64)>, holders: &Holders, height: i32) {
        parts.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        parts.truncate(MOST_PARTS);
        let all: f64 = parts.iter().map(|(_, us)| us).sum();
        parts.sort_by_key(|(holder, _)| holders.order(*holder));
        let (mut above, mut top) = (0.0, 0);
        for (holder, us) in parts.drain(..) {
            above += us;
            let bottom = (f64::from(height) * above / all).round() as i32;
            if bottom > top {
                self.add(column, (top, bottom), holder);
            }
            top = bottom;
        }
    }
}

//! The lines of `trace_pipe` in the order of time.
//!
//! The kernel merges its CPUs' buffers by time, but only what is in them: an event that a CPU is still writing
//! while a later one of another CPU is read comes behind it. So lines are held for a while, and a late one goes
//! where it belongs. `trace`, which is sorted for good, holds only what fits into the buffers.
//!
//! # Reference
//! Linux `kernel/trace/trace.c`, `__find_next_entry`.

use fpuswitch::replay::time_us;
use std::{
    collections::VecDeque,
    io::{self, Write},
};

/// How long a line is held, in time of the recording.
const HOLD_US: u64 = 1_000_000;

/// Takes text in pieces and gives whole lines on.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The beginning of a line.
    partial: Vec<u8>,
    /// Lines without a time, such as `CPU:1 [LOST 9 EVENTS]`: they belong to the one behind them.
    untimed: Vec<u8>,
    held: VecDeque<(u64, Vec<u8>)>,
    pub(super) lines: u64,
}

impl Order {
    /// Takes the next piece, and writes what has been held long enough.
    pub(super) fn push(&mut self, text: &[u8], out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.line();
            }
        }
        let newest = self.held.back().map_or(0, |(time, _)| *time);
        while let Some((_, line)) = self.held.pop_front_if(|(time, _)| newest - *time > HOLD_US) {
            out.write_all(&line)?;
        }
        Ok(())
    }

    fn line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        self.lines += 1;
        let time = time_us(line.trim_ascii_end());
        self.untimed.extend(line);
        if let Some(time) = time {
            let at = self.held.iter().rposition(|(before, _)| *before <= time).map_or(0, |at| at + 1);
            self.held.insert(at, (time, std::mem::take(&mut self.untimed)));
        }
    }

    /// Writes all that is left, but for a line that has no end.
    pub(super) fn finish(&mut self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        for (_, line) in self.held.drain(..) {
            out.write_all(&line)?;
        }
        out.write_all(&std::mem::take(&mut self.untimed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cpu: u32, micros: u32) -> String {
        format!("            task-7       [{cpu:03}] d....     1.{micros:06}: switch_fpu_return <-x\n")
    }

    fn ordered(text: &str, piece_bytes: usize) -> String {
        let (mut order, mut out) = (Order::default(), Vec::new());
        for piece in text.as_bytes().chunks(piece_bytes) {
            order.push(piece, &mut out).expect("memory");
        }
        order.finish(&mut out).expect("memory");
        assert_eq!(order.lines, text.lines().count() as u64);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_late_line_goes_where_it_belongs_with_what_was_lost_before_it() {
        let [a, b, c, d] = [(0, 1), (0, 5), (1, 5), (0, 9)].map(|(cpu, micros)| event(cpu, micros));
        let lost = "CPU:1 [LOST 9 EVENTS]\n";
        let given = format!("{a}{b}{d}{lost}{c}");
        let expected = format!("{a}{b}{lost}{c}{d}");
        for piece_bytes in [1, 7, 100, 4096] {
            assert_eq!(ordered(&given, piece_bytes), expected);
        }
    }

    #[test]
    fn lines_are_written_while_others_come_in() {
        let (mut order, mut out) = (Order::default(), Vec::new());
        for second in 0..10 {
            let line =
                format!("            task-7       [000] d....     {second}.5: switch_fpu_return <-x\n");
            order.push(line.as_bytes(), &mut out).expect("memory");
            assert!(order.held.len() <= 2, "{order:?}");
        }
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 8);
    }
}

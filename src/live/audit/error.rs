//! Why a path has no proof.

use core::fmt;
use std::{boxed::Box, io::ErrorKind, string::String, vec::Vec};

/// Why a path is not proven to touch no FPU state: the instruction, where it is, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct NotFpuFree {
    /// The address of the instruction, or of where there ought to be one.
    pub address: usize,
    /// The name of the function that it is in, if it is known.
    pub function: Option<Box<str>>,
    /// How many bytes behind the function's start it is; 0 if where that is is not known.
    pub offset_bytes: usize,
    /// The line of source that it comes from (`file:line`), if there is debug information.
    pub source_line: Option<Box<str>>,
    /// The instruction in Intel's syntax, if there is one.
    pub instruction: Option<Box<str>>,
    /// The functions that the walk came through, from the nearest to the way in, with the line of the call.
    pub callers: Vec<String>,
    /// What is wrong with it.
    pub reason: Reason,
}

impl fmt::Display for NotFpuFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{function}+{:#x}", self.offset_bytes)?,
            None => write!(f, "{:#x}", self.address)?,
        }
        if let Some(line) = &self.source_line {
            write!(f, " ({line})")?;
        }
        if let Some(instruction) = &self.instruction {
            write!(f, ": `{instruction}`")?;
        }
        write!(f, ": {}", self.reason)?;
        match self.callers.join(", from ") {
            callers if callers.is_empty() => Ok(()),
            callers => write!(f, "; it comes from {callers}"),
        }
    }
}

/// What is wrong with an instruction, and what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It reads or writes such a register.
    #[error("touches {0}: keep to words and pointers on the path, or go through a door")]
    Register(String),
    /// It belongs to a CPUID feature that is not of the integer kind.
    #[error("belongs to {0}: keep to words and pointers on the path, or go through a door")]
    Feature(String),
    /// A system call, another way into the system, or a privileged instruction.
    #[error("leaves for the system or is privileged: go through a door")]
    System,
    /// INT3, which a debugger or a probe may have put over anything.
    #[error(
        "is a breakpoint, which hides what was there: take it away, or name what was called before as diverging"
    )]
    Breakpoint,
    /// A call of what only shows at run time.
    #[error("calls what only shows at run time: call functions by name, or go through a door")]
    IndirectCall,
    /// A jump to where only shows at run time, and not through a jump table as LLVM makes them.
    #[error("jumps to where only shows at run time, and through no jump table: name its function as a site")]
    IndirectJump,
    /// A call or jump through a pointer that can be written.
    #[error("goes through the pointer at {slot:#x}, which can be written: link with `-z relro -z now`")]
    WritablePointer {
        /// Where the pointer is.
        slot: usize,
    },
    /// A call into the middle of the function that it is in: its `ret` may lead anywhere.
    #[error("calls a place in its own function, whose `ret` may lead anywhere: name the function as a site")]
    CallIntoItself,
    /// No address in memory that can be executed, read, and not written.
    #[error("is not in memory that is executable and closed to writes: give addresses of functions")]
    NotCode,
    /// In no function that the unwind tables have.
    #[error(
        "is in no function that has an unwind entry: give it `.cfi_startproc`, or name it as door, site or diverging"
    )]
    NoUnwindEntry,
    /// Bytes that are no instruction.
    #[error("is no instruction: name the function that comes here as a site, or what it called as diverging")]
    NoInstruction,
    /// The path goes on for too long to be one.
    #[error("is behind {limit} others: name as diverging, or as a door, what leads there")]
    TooLong {
        /// How many instructions are looked at.
        limit: usize,
    },
    /// The process cannot look at its own memory.
    #[error("cannot be read through /proc/self ({0}): mount /proc")]
    Process(ErrorKind),
    /// Another CPU or another system.
    #[error("the audit needs Linux on x86-64")]
    Target,
}

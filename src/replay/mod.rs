//! Replay of recordings of the Linux kernel: ftrace text in, agreement and costs per policy out.
//!
//! A recording holds the schedule, which drives the machines, and what the kernel decided, which they are held
//! against. The kernel's answers are compared, never read as input; the two exceptions, for recordings without
//! function lines, are counted apart as [`Agreement::inferred_returns`] and
//! [`Agreement::inferred_kernel_fpu`]. In such a recording a load line is also what shows *that* a task was on
//! its way to user mode; whether a load was due there is the machine's to say, and is compared. A return that only its
//! load shows can agree or be inferred, and not disagree.
//!
//! ```text
//! bytes → input (gzip, lines) → line (one record) → drive (records → events and decisions)
//!                                                     ├→ agreement (the kernel against owner-slot)
//!                                                     └→ fleet (one machine a policy, and the optimum)
//! ```
//!
//! A *decision* is: at each switch away from a user task whose state is known, saved or not; at each return to
//! user with need_fpu_load set, and at each load that fork or signal delivery may do, loaded or not.
//!
//! ```
//! use fpuswitch::replay::{Options, replay};
//!
//! let recording = "\
//! ## tracer: function
//!         worker-7       [000] d....     1.000000: switch_fpu_return <-exit_to_user_mode_prepare
//!         worker-7       [000] .....     1.000100: sys_enter: NR 1 (1, 2, 3, 4, 5, 6)
//!         worker-7       [000] d..2.     1.000200: sched_switch: prev_comm=worker prev_pid=7 prev_prio=120 \
//! prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
//!         worker-7       [000] d..2.     1.000201: x86_fpu_regs_deactivated: x86/fpu: 0 load: 0
//!           idle-0       [000] d..2.     1.000300: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 \
//! prev_state=R ==> next_comm=worker next_pid=7 next_prio=120
//!         worker-7       [000] d....     1.000400: switch_fpu_return <-exit_to_user_mode_prepare
//!         worker-7       [000] .....     1.000500: sys_enter: NR 1 (1, 2, 3, 4, 5, 6)
//! ";
//! let report = replay(recording.as_bytes(), &Options::default())?;
//! assert_eq!((report.agreement.decisions, report.agreement.disagreements), (2, 0));
//! # Ok::<(), fpuswitch::replay::ReplayError>(())
//! ```

mod agreement;
mod attribution;
mod causes;
mod costs;
mod drive;
mod fleet;
mod form;
mod input;
mod life;
mod line;
mod optimum;
mod pending;
mod report;
mod schedule;
mod signal;
mod slices;
mod tasks;
mod timeline;

pub use agreement::{Agreement, Decision, Disagreement, Quirk};
pub use attribution::TaskRestores;
pub use causes::{Cause, CauseCounts};
pub use costs::Costs;
pub use input::InputError;
pub use line::time_us;
pub use report::{Basis, KernelCounts, OptimumCounts, PolicyCounts, Report};
pub use schedule::ScheduleCounts;
pub use timeline::{Holder, Lane, Mark, Place, Sample, TaskLane, Timeline, Window, WindowError};

use crate::{
    Event, EventError,
    check::Breach,
    fpu::{Policy, policy::Builtin},
};
use std::{io::Read, vec::Vec};

/// What to replay under. The policies are the crate's, or any of your own type.
#[derive(Clone, Debug)]
pub struct Options<P = Builtin> {
    /// The policies to compare.
    pub policies: Vec<P>,
    /// The policy that is held against the kernel, with the kernel's quirks. Anything but
    /// [`Builtin::OwnerSlot`] is a negative control: Linux from 5.2 is `owner-slot`.
    pub reference: Builtin,
    /// Whether every event is followed by a check of all invariants on all machines.
    pub check: bool,
    /// The share of slices, from switch-in to switch-out, that use the FPU: which ones do is drawn, the same way each
    /// time. From 0 to 1; anything else counts as the nearest of the two. Only policies that let user code run
    /// without its registers do anything else for it: no recording says which slices use the FPU.
    pub fpu_use: f64,
}

impl Options {
    /// The policies whose counts follow from a recording alone: without an assumption about the use of the FPU, and
    /// without kernel entries that a recording does not show.
    pub const EXACT: [Builtin; 5] =
        [Builtin::Eager, Builtin::EagerOwner, Builtin::Deferred, Builtin::OwnerSlot, Builtin::LazySave];
}

impl<P> Options<P> {
    /// These policies; `owner-slot` against the kernel, no check, and every slice uses the FPU.
    pub fn new(policies: Vec<P>) -> Self {
        Self { policies, reference: Builtin::OwnerSlot, check: false, fpu_use: 1.0 }
    }
}

impl Default for Options {
    /// The policies of [`EXACT`](Self::EXACT), otherwise as [`new`](Self::new).
    fn default() -> Self {
        Self::new(Self::EXACT.to_vec())
    }
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The bytes cannot be read as lines.
    #[error(transparent)]
    Input(#[from] InputError),
    /// There is not one line of a recording up to here.
    #[error(
        "line {line}: not an ftrace recording: expected a header line such as '# tracer: function', or an event, \
         as the kernel, trace-cmd report or perf script print it"
    )]
    NotATrace {
        /// The first line that is neither comment nor event, or the end; from 1.
        line: u64,
    },
    /// A line is malformed.
    #[error("line {line}: expected {expected}")]
    Malformed {
        /// The line, from 1.
        line: u64,
        /// What was expected.
        expected: &'static str,
    },
    /// The lines up to this one ask for an event that cannot happen. A gap in this crate's reading of
    /// recordings.
    #[error("line {line}: the recording asks for '{event}', which cannot happen here: {source}")]
    Refused {
        /// The line, from 1.
        line: u64,
        /// The event.
        event: Event,
        /// Why not.
        source: EventError,
    },
    /// There is no timeline of the part of the recording that was asked for.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// With [`Options::check`]: an invariant does not hold.
    #[error("line {line}: under {policy} {violation}")]
    Breach {
        /// The line, from 1.
        line: u64,
        /// Whose machine.
        policy: &'static str,
        /// What is broken.
        violation: Breach,
    },
}

/// Replays one recording, plain or gzip: ftrace text, or what `trace-cmd report` or `perf script` print.
///
/// Reads to the end in constant memory but for the tasks that are alive.
///
/// # Errors
/// [`ReplayError`] for input that is no recording, cut off, damaged or malformed, with the line.
pub fn replay<P: Policy>(input: impl Read, options: &Options<P>) -> Result<Report, ReplayError> {
    let (report, _) = run(input, options, None)?;
    Ok(report)
}

/// Replays one recording, and takes down what happens in a part of it under one of the policies, by its number.
///
/// As [`replay`], but memory grows with what happens in the window, and a little with each task of the recording.
///
/// # Errors
/// As [`replay`], and [`ReplayError::Window`] for a window behind the recording's end.
///
/// # Panics
/// If there are not so many policies.
pub fn replay_with_timeline<P: Policy>(
    input: impl Read,
    options: &Options<P>,
    policy: usize,
    window: Window,
) -> Result<(Report, Timeline), ReplayError> {
    let names = options.policies.iter().map(Policy::name).collect();
    let (report, timeline) = run(input, options, Some(timeline::Recorder::new(policy, window, names)))?;
    Ok((report, timeline.unwrap_or_default()))
}

fn run<P: Policy>(
    input: impl Read,
    options: &Options<P>,
    recorder: Option<timeline::Recorder>,
) -> Result<(Report, Option<Timeline>), ReplayError> {
    let mut lines = input::Lines::new(input)?;
    let mut driver = drive::Driver::new(options);
    driver.fleet.recorder = recorder;
    while let Some((text, number)) = lines.next_line()? {
        driver.text(text, number)?;
    }
    driver.finish(lines.bytes())
}

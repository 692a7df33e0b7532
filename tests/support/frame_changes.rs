//! Every change that there is to a signal frame.

use fpuswitch::{FrameChange, Pkru};

/// Those to its pages first; with three values for PKRU, one of which is what no bit in the header means too.
pub(crate) const FRAME_CHANGES: [FrameChange; 12] = [
    FrameChange::Absent,
    FrameChange::RestAbsent,
    FrameChange::Unmapped,
    FrameChange::BadHeader,
    FrameChange::BadMxcsr,
    FrameChange::BadMagic,
    FrameChange::BadSize,
    FrameChange::Short,
    FrameChange::Pkru(None),
    FrameChange::Pkru(Some(Pkru(0))),
    FrameChange::Pkru(Some(Pkru::DEFAULT)),
    FrameChange::Pkru(Some(Pkru(u32::MAX))),
];

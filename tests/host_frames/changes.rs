//! What becomes of a frame that user code or the pager changes.

use super::{components, emulator::Deviation, filled, frame_changes::FRAME_CHANGES, seen};
use fpuswitch::{
    Component, ComponentSet, FrameChange, Pkru, Rfbm, Value,
    registers::{Fault, Frame, FrameContents, HostRegs, Image, SoftRegs, UserFrames, XsaveImage},
};

/// Makes every change there is in hardware and in software: the same comes of it.
pub(crate) fn assert_same(host: &HostRegs, soft: &SoftRegs) {
    for change in FRAME_CHANGES {
        // A header that says that there is nothing to be loaded from an absent page makes no difference.
        for used in [components(host), ComponentSet::LEGACY, ComponentSet::EMPTY] {
            for changes in [&[change][..], &[FrameChange::RestAbsent, change]] {
                let (mut expected, found) =
                    (through_changes(soft, used, changes), through_changes(host, used, changes));
                let what = format!("{} {used:?} {changes:?}", host.save_instruction());
                if let (FrameChange::BadMxcsr, Some(expected), Some(found)) = (change, &mut expected, &found)
                    && Deviation::ReservedMxcsr.is_here()
                {
                    let good = through_changes(soft, used, &changes[..changes.len() - 1]);
                    expected.take_reserved_mxcsr(&good.expect("fields that there are"), found, &what);
                }
                assert_eq!(found, expected, "{what}");
            }
        }
    }
}

/// What a changed frame says, and what comes of each way to load it and of the next save.
#[derive(Debug, PartialEq)]
struct Through {
    says: Result<FrameContents, Fault>,
    restored: Result<Vec<(Component, Value)>, Fault>,
    restored_legacy: Result<Vec<(Component, Value)>, Fault>,
    copied: Result<Vec<Value>, Fault>,
    faulted_in: Result<(), Fault>,
    saved: Result<(), Fault>,
}

impl Through {
    /// What is refused for reserved bits of MXCSR alone is loaded as if it were `good`, but for SSE, which is as `found`.
    fn take_reserved_mxcsr(&mut self, good: &Self, found: &Self, what: &str) {
        for (ours, good, theirs) in [
            (&mut self.restored, &good.restored, &found.restored),
            (&mut self.restored_legacy, &good.restored_legacy, &found.restored_legacy),
        ] {
            if *ours == Err(Fault::GeneralProtection) {
                assert_eq!(without_sse(theirs), without_sse(good), "{what}");
                ours.clone_from(theirs);
            }
        }
    }
}

type Seen = Vec<(Component, Value)>;

fn without_sse(seen: &Result<Seen, Fault>) -> Result<Seen, Fault> {
    let others =
        |seen: &Seen| seen.iter().filter(|(component, _)| *component != Component::SSE).copied().collect();
    seen.as_ref().map(others).map_err(|fault| *fault)
}

/// `None` where the CPU's frames have no such field.
fn through_changes<R>(regs: &R, used: ComponentSet, changes: &[FrameChange]) -> Option<Through>
where
    R: UserFrames<Image = XsaveImage> + Clone,
{
    let mut frame = regs.new_frame();
    let mut before = filled(regs, 10);
    before.restore_initial(Rfbm::new(components(regs) - used));
    before.save_user(Rfbm::ALL, &mut frame).expect("present");
    frame.set_pkru(Pkru(4)).expect("present");
    let good = frame.contents(regs.enabled()).expect("mapped");
    changes.iter().try_for_each(|change| frame.change(*change)).ok()?;
    let load = |load: fn(&mut R, &R::Frame) -> Result<(), Fault>| {
        let mut regs = filled(regs, 50);
        load(&mut regs, &frame).map(|()| seen(&regs))
    };
    let says = frame.contents(regs.enabled());
    let mut image = regs.new_image();
    filled(regs, 70).save(Rfbm::ALL, &mut image);
    let before = image.clone();
    let copied = frame.copy_to(says.unwrap_or(good), &mut image);
    assert!(copied.is_ok() || image.area().bytes() == before.area().bytes(), "{changes:?}");
    Some(Through {
        says,
        restored: load(|regs, frame| regs.restore_user(Rfbm::ALL, frame)),
        restored_legacy: load(|regs, frame| regs.restore_user_legacy(frame)),
        copied: copied.map(|()| components(regs).iter().map(|component| image.get(component)).collect()),
        faulted_in: frame.fault_in(),
        saved: filled(regs, 30).save_user(Rfbm::ALL, &mut frame),
    })
}

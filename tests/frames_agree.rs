//! Signal frames of every register file: whatever is changed in one, it says the same, and the same comes of it.

#[path = "support/frame_changes.rs"]
mod frame_changes;

use fpuswitch::{
    Component, ComponentSet, FrameChange, Pkru, Rfbm, Value,
    registers::{AbstractRegs, Fault, Frame, Image, Program, RegisterFile, SoftRegs, UserFrames},
    xstate::{CpuidDump, Layout},
};
use frame_changes::FRAME_CHANGES;

const A: Value = Value::new(7).unwrap();
const B: Value = Value::new(90).unwrap();
/// What the abstract registers have of all there is.
const SHARED: ComponentSet = ComponentSet::EMPTY.with(Component::SSE).with(Component::AVX);

fn filled<R: RegisterFile + Clone>(regs: &R, components: ComponentSet, value: Value) -> R {
    let mut regs = regs.clone();
    components.iter().for_each(|component| regs.run(Program::Fill(component, value)));
    regs
}

fn values(get: impl Fn(Component) -> Value) -> Vec<Value> {
    SHARED.iter().map(get).collect()
}

/// All that can be seen of a frame that held A in `used` and was changed.
#[derive(Debug, PartialEq)]
struct Seen {
    says: Result<(ComponentSet, bool, Pkru), Fault>,
    restored: Result<Vec<Value>, Fault>,
    restored_legacy: Result<Vec<Value>, Fault>,
    copied: Result<Vec<Value>, Fault>,
    pkru: Pkru,
    keys_written: Result<(), Fault>,
    saved: Result<(), Fault>,
    faulted_in: Result<(), Fault>,
    saved_again: Result<(), Fault>,
}

/// `None` where the frames of these registers have no such field. Without `keys`, PKRU is left out of it.
fn through<R>(regs: &R, keys: bool, used: ComponentSet, changes: &[FrameChange]) -> Option<Seen>
where
    R: UserFrames + Clone,
{
    let mut frame = regs.new_frame();
    filled(regs, used, A).save_user(Rfbm::ALL, &mut frame).expect("present");
    let write_keys = |frame: &mut R::Frame, pkru| if keys { frame.set_pkru(pkru) } else { Ok(()) };
    write_keys(&mut frame, Pkru(4)).expect("present");
    let good = frame.contents(regs.enabled()).expect("mapped");
    for change in changes {
        frame.change(*change).ok()?;
    }
    let says = frame.contents(regs.enabled());
    let mut whole = filled(regs, SHARED, B);
    let restored = whole.restore_user(Rfbm::ALL, &frame);
    let mut legacy = filled(regs, SHARED, B);
    let restored_legacy = legacy.restore_user_legacy(&frame);
    let mut image = regs.new_image();
    filled(regs, SHARED, B).save(Rfbm::ALL, &mut image);
    image.set_pkru(Pkru(16));
    let before = image.clone();
    let copied = frame.copy_to(says.unwrap_or(good), &mut image);
    assert_eq!(image.pkru(), before.pkru(), "{changes:?}");
    assert!(copied.is_ok() || image == before, "{changes:?}");
    let pkru = |pkru| if keys { pkru } else { Pkru(0) };
    Some(Seen {
        says: says.map(|says| (says.components & SHARED, says.legacy_only, pkru(says.pkru))),
        restored: restored.map(|()| values(|component| whole.get(component))),
        restored_legacy: restored_legacy.map(|()| values(|component| legacy.get(component))),
        copied: copied.map(|()| values(|component| image.get(component))),
        pkru: whole.pkru().map_or(Pkru(0), pkru),
        keys_written: write_keys(&mut frame.clone(), Pkru(8)),
        saved: filled(regs, used, B).save_user(Rfbm::ALL, &mut frame.clone()),
        faulted_in: frame.fault_in(),
        saved_again: filled(regs, used, B).save_user(Rfbm::ALL, &mut frame),
    })
}

/// Holds registers against the abstract ones; how often that could be done.
fn agree<R: UserFrames + Clone>(regs: &R) -> usize {
    let (plain, keys) = (AbstractRegs::default(), regs.pkru().is_some());
    let mut seen = 0;
    for used in [SHARED, ComponentSet::EMPTY.with(Component::SSE), ComponentSet::EMPTY] {
        for first in FRAME_CHANGES {
            for second in FRAME_CHANGES {
                let changes = [first, second];
                if let Some(found) = through(regs, keys, used, &changes) {
                    assert_eq!(through(&plain, keys, used, &changes), Some(found), "{used:?}, {changes:?}");
                    seen += 1;
                }
            }
        }
    }
    seen
}

#[test]
fn every_register_file_takes_changed_frames_alike() {
    let all = 3 * FRAME_CHANGES.len().pow(2);
    assert_eq!(agree(&SoftRegs::default()), all);
    assert_eq!(agree(&SoftRegs::default().with_torn_restores(true)), all);
    let dump: CpuidDump = include_str!("../cpus/qemu-haswell.txt").parse().expect("a description");
    let haswell = SoftRegs::new(&Layout::from_cpuid(&dump).expect("no contradiction"));
    // No PKRU there.
    let without_keys = FRAME_CHANGES.iter().filter(|change| !matches!(change, FrameChange::Pkru(_)));
    assert_eq!(agree(&haswell), 3 * without_keys.count().pow(2));
}

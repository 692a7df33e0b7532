//! Signal frames of real bytes, of which any part can be absent.

mod support;

use fpuswitch::{
    Component, CpuId, Rfbm, TaskId, Value,
    fpu::{
        FaultIn, Fpstate, FrameLoad, FrameSave, OwnerSlot, PreemptOff, TaskKind, move_to_cpu, signal_deliver,
        signal_enter, signal_fault_in, signal_save, sigreturn, sigreturn_copy, sigreturn_load,
    },
    registers::{Program, RegisterFile, SoftFrame, SoftRegs, UserFrames},
};
use support::register_files::software_cpus;

/// A frame of real bytes that ends being present at any point: the delivery starts again from the top, and so does the
/// return if it needs what is absent; the state is the same behind them, and a retry is enough.
#[test]
fn any_page_of_a_frame_can_be_absent() {
    for blank in software_cpus() {
        let all = blank.enabled().without(Component::PKRU) - blank.dynamic();
        let size = blank.new_frame().image().bytes().len();
        for present in (0..size).step_by(64).map(|end| 0..end) {
            let (mut slot, mut regs) = (OwnerSlot::new(CpuId(0)), blank.clone());
            let mut task = Fpstate::new(TaskId::first(0), TaskKind::User, regs.new_image());
            let mut frame = regs.new_frame();
            for (component, number) in all.iter().zip(1..) {
                regs.run(Program::Fill(component, Value::new(number).expect("a pattern")));
            }
            let image = &mut regs.new_image();
            regs.save(Rfbm::ALL, image);
            let mut section =
                |regs: &mut SoftRegs, step: &str, task: &mut Fpstate<_>, frame: &mut SoftFrame| {
                    let mut cpu = PreemptOff::begin(&mut slot, regs);
                    match step {
                        "own" => move_to_cpu(&mut cpu, task).map(|_| None),
                        "save" => {
                            signal_save(&mut cpu, task, frame).map(|(_, save)| Some(save == FrameSave::Saved))
                        }
                        "load" => {
                            sigreturn_load(&mut cpu, task, frame).map(|load| Some(load == FrameLoad::Loaded))
                        }
                        "copy" => {
                            sigreturn_copy(&mut cpu, task, frame).map(|load| Some(load == FrameLoad::Copied))
                        }
                        "enter" => signal_enter(&mut cpu, task).map(|()| None),
                        _ => signal_fault_in(&mut cpu, task, frame)
                            .map(|there| Some(there == FaultIn::Present)),
                    }
                    .expect("nobody else is there")
                };
            section(&mut regs, "own", &mut task, &mut frame);
            regs.restore(Rfbm::ALL, image).expect("a good image");

            signal_deliver(&mut task);
            frame.set_present(present.clone());
            // The second magic number is the last that is written.
            assert_eq!(section(&mut regs, "save", &mut task, &mut frame), Some(false), "{present:?}");
            assert_eq!(section(&mut regs, "fault-in", &mut task, &mut frame), Some(true));
            assert_eq!(section(&mut regs, "save", &mut task, &mut frame), Some(true), "{present:?}");
            section(&mut regs, "enter", &mut task, &mut frame);
            assert!(all.iter().all(|component| regs.get(component) == Value::INITIAL));

            for attempt in ["load", "copy"] {
                sigreturn(&mut task);
                frame.set_present(present.clone());
                if section(&mut regs, attempt, &mut task, &mut frame) == Some(false) {
                    assert_eq!(section(&mut regs, "fault-in", &mut task, &mut frame), Some(true));
                    assert_eq!(section(&mut regs, attempt, &mut task, &mut frame), Some(true), "{present:?}");
                } else {
                    // Nothing that was needed is behind it, and legacy region and header always are.
                    assert!(present.end >= 576, "{attempt} with {present:?}");
                }
                section(&mut regs, "own", &mut task, &mut frame);
                for (component, number) in all.iter().zip(1..) {
                    let is = regs.get(component).number();
                    assert_eq!(is, number, "{component} by {attempt} with {present:?}");
                }
            }
        }
    }
}

//! Areas of which a page is absent.

use super::{both, host, same_registers};
use fpuswitch::{
    Component, Rfbm, Value,
    registers::{Fault, Frame, HostFrame, Program, RegisterFile, SoftFrame, UserFrames},
    xstate::SaveInstruction,
};

/// Registers with something in every component, or in the legacy ones alone.
fn filled(regs: &mut impl RegisterFile, components: &[Component]) {
    for (n, component) in (1..).zip(components) {
        regs.run(Program::Fill(*component, Value::new(n).expect("few components")));
    }
}

/// Saves to and restores from a frame of which one page is absent, with the boundary between the pages at every
/// 64 bytes: the software registers fault only where the real ones do, and those only if something that the
/// instruction may access is absent.
#[test]
fn hardware_faults_where_software_does() {
    let Some(host) = host("faulting-areas") else { return };
    let (soft, mut host) = both(&host, SaveInstruction::best(host.layout())).expect("the best one is there");
    let mut soft = soft;
    let all: Vec<_> = host.layout().enabled().without(Component::PKRU).iter().collect();
    let size = soft.new_frame().image().bytes().len();
    let mut faults = 0;
    for components in [&all[..], &all[..2]] {
        soft.reset();
        host.reset();
        filled(&mut soft, components);
        filled(&mut host, components);
        for boundary in (0..=size).step_by(64) {
            for absent in 0..2 {
                let present = if absent == 0 { boundary..usize::MAX } else { 0..boundary };
                let absent_bytes = if absent == 0 { 0..boundary } else { boundary..size };

                let mut soft_frame = soft.new_frame();
                let mut host_frame = HostFrame::new(&host, boundary);
                // With nothing before the boundary, the area begins on the page behind it.
                let page = if boundary == 0 { absent.max(1) - 1 } else { absent };
                let nothing_absent = absent_bytes.is_empty();
                let take_away = |soft_frame: &mut SoftFrame, host_frame: &mut HostFrame| {
                    soft_frame.set_present(present.clone());
                    host_frame.set_absent(if nothing_absent { 0..0 } else { page..page + 1 });
                };

                take_away(&mut soft_frame, &mut host_frame);
                let saved =
                    (soft.save_user(Rfbm::ALL, &mut soft_frame), host.save_user(Rfbm::ALL, &mut host_frame));
                faults += agree("save", saved, nothing_absent, boundary);

                let mut soft_frame = soft.new_frame();
                let mut host_frame = HostFrame::new(&host, boundary);
                soft.save_user(Rfbm::ALL, &mut soft_frame).expect("all present");
                host.save_user(Rfbm::ALL, &mut host_frame).expect("all present");
                take_away(&mut soft_frame, &mut host_frame);
                let (mut soft_after, mut host_after) = (soft.clone(), host.clone());
                let loaded = (
                    soft_after.restore_user(Rfbm::ALL, &soft_frame),
                    host_after.restore_user(Rfbm::ALL, &host_frame),
                );
                faults += agree("restore", loaded, nothing_absent, boundary);
                let contents = soft_frame.contents(soft.enabled());
                assert_eq!(contents, host_frame.contents(host.enabled()), "absent pages make no difference");
                let contents = contents.expect("mapped");
                let (mut ours, mut theirs) = (soft.new_image(), host.new_image());
                let copied =
                    (soft_frame.copy_to(contents, &mut ours), host_frame.copy_to(contents, &mut theirs));
                assert_eq!(copied.0, copied.1, "copy, boundary at {boundary}");
                assert_eq!(ours == soft.new_image(), theirs == host.new_image());
                let legacy = (
                    soft.clone().restore_user_legacy(&soft_frame),
                    host.clone().restore_user_legacy(&host_frame),
                );
                faults += agree("legacy restore", legacy, nothing_absent, boundary);
                if loaded == (Ok(()), Ok(())) {
                    same_registers(&soft_after, &host_after).expect("the same");
                }
            }
        }
    }
    assert!(faults > size / 64, "{faults} faults");
    println!("HARDWARE faulting-areas: ran");
}

/// Checks one outcome; 1 if both faulted.
fn agree(
    what: &str,
    outcome: (Result<(), Fault>, Result<(), Fault>),
    nothing_absent: bool,
    boundary: usize,
) -> usize {
    match outcome {
        (Err(Fault::Page), Err(Fault::Page)) => 1,
        (Ok(()), Ok(())) => 0,
        // An access that the manual allows and does not ask for.
        (Ok(()), Err(Fault::Page)) if !nothing_absent => 0,
        (soft, host) => panic!("{what}, boundary at {boundary}: software {soft:?}, host {host:?}"),
    }
}

//! Saves and restores in windows, and Rust's own registers around them.

use super::*;
use crate::arch::x86_64::{
    program,
    window::{self, Area as Parked, Op},
};
use crate::{
    arch::{Measurement, OpError, RestoreOp, TimedOp, through_pkru},
    xstate::{Format, SaveInstruction, XcompBv},
};
use core::{arch::naked_asm, ptr};
use std::{hint::black_box, thread};

/// The restore that reads what this save wrote.
fn restore_of(op: SaveInstruction) -> RestoreOp {
    if op == SaveInstruction::Fxsave { RestoreOp::Fxrstor } else { RestoreOp::Xrstor }
}

/// What FXSAVE and FXRSTOR act on, and all others.
fn scope(op: SaveInstruction) -> Rfbm {
    if op == SaveInstruction::Fxsave { Rfbm::new(ComponentSet::from_bits(3)) } else { Rfbm::ALL }
}

#[test]
fn hardware_what_is_saved_comes_back_and_nothing_else_changes() {
    for features in [features(), Features::fxsave_only()] {
        for op in SaveInstruction::ALL {
            let (saved, mut other) = (filled(features, 17), filled(features, 99));
            let mut area = room(features);
            let result = saved.save(op, Rfbm::ALL, area.as_mut());
            if let Err(OpError::Missing(name)) = result {
                if features.layout().has_xsave() || !self::features().layout().has_xsave() {
                    std::println!("HARDWARE save-{op:?}: SKIPPED: this CPU has no {name}");
                }
                continue;
            }
            assert_eq!(result, Ok(()));
            assert_filled(&saved, Rfbm::ALL, 17);
            assert_eq!(other.restore(restore_of(op), Rfbm::ALL, area.as_ref()), Ok(()));
            assert_filled(&other, scope(op), 17);
            for (component, _) in patterns(features, 0) {
                if !scope(op).contains(component) {
                    assert_filled(&other, only(component), 99);
                }
            }
            assert_rust_is_itself();
            ran(&std::format!("save-{op:?}"));
        }
        assert_eq!(parked(features).in_use().is_ok(), has_xgetbv1(features));
    }
}

fn has_xgetbv1(features: Features) -> bool {
    features.layout().features().contains(crate::xstate::XsaveFeatures::XGETBV1)
}

#[test]
fn hardware_new_registers_are_initial() {
    for features in [features(), Features::fxsave_only()] {
        let mut parked = parked(features);
        for _ in 0..2 {
            features.enabled().iter().for_each(|component| assert_initial(&parked, component));
            let mut area = room(features);
            parked.save(SaveInstruction::Fxsave, Rfbm::ALL, area.as_mut()).unwrap();
            let legacy = crate::xstate::LegacyRegion::over(area.as_ref()).unwrap();
            assert_eq!((legacy.fcw(), legacy.mxcsr()), (0x037f, 0x1f80));
            // And again after a reset.
            parked = filled(features, 8);
            parked.reset();
        }
    }
    ran("initial");
}

#[test]
fn hardware_a_restore_acts_on_what_it_is_asked_for() {
    let features = features();
    if !features.layout().has_xsave() {
        std::println!("HARDWARE rfbm: SKIPPED: this CPU has no XSAVE");
        return;
    }
    let mut area = room(features);
    filled(features, 17).save(SaveInstruction::Xsave, Rfbm::ALL, area.as_mut()).unwrap();
    for component in features.enabled().iter() {
        let mut parked = filled(features, 99);
        parked.restore(RestoreOp::Xrstor, only(component), area.as_ref()).unwrap();
        assert_filled(&parked, only(component), 17);
        assert_filled(&parked, without(component), 99);
        // An initial image puts it into its initial configuration, and the rest stays.
        let mut initial = room(features);
        initial.as_mut()[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        let mut parked = filled(features, 99);
        parked.restore(RestoreOp::Xrstor, only(component), initial.as_ref()).unwrap();
        assert_initial(&parked, component);
    }
    ran("rfbm");
}

#[test]
fn hardware_a_save_in_the_compacted_format_says_so() {
    let features = features();
    let mut area = room(features);
    match filled(features, 5).save(SaveInstruction::Xsavec, Rfbm::ALL, area.as_mut()) {
        Ok(()) => {
            let area = Area::over(area.as_ref(), features.host_layout()).unwrap();
            assert_eq!(area.format(), Format::Compacted);
            assert_eq!(area.xcomp_bv(), XcompBv::compacted(features.enabled()));
            for (component, bytes) in patterns(features, 5) {
                let found = area.component(component).unwrap().into();
                assert_eq!(kept(component, found), bytes, "{component}");
            }
            ran("compacted");
        }
        Err(error) => std::println!("HARDWARE compacted: SKIPPED: {error}"),
    }
}

#[test]
fn hardware_parked_cpus_and_rusts_own_registers_do_not_mix() {
    for features in [features(), Features::fxsave_only()] {
        let mut cpus: Vec<ParkedRegs> = (1..4).map(|number| filled(features, number)).collect();
        let mut area = room(features);
        // Rounding or flushing would change the sum; registers that are not Rust's, the terms.
        let terms: [f64; 12] = black_box(core::array::from_fn(|n| 1.0 / (n as f64 + 3.0)));
        let sum =
            |terms: &[f64; 12]| terms.iter().fold(f64::MIN_POSITIVE / 8.0, |sum, term| sum * 0.3 + term);
        let before = sum(&terms);
        for round in 0..50_u8 {
            for (n, cpu) in cpus.iter_mut().enumerate() {
                let legacy = cpu.save(SaveInstruction::Fxsave, Rfbm::ALL, area.as_mut());
                assert_eq!(legacy, Ok(()));
                assert_eq!(cpu.restore(RestoreOp::Fxrstor, Rfbm::ALL, area.as_ref()), Ok(()));
                let number = (round + 1) * 4 + n as u8;
                for (component, bytes) in patterns(features, number) {
                    cpu.write(component, &bytes).unwrap();
                }
                assert_eq!(sum(&terms).to_bits(), before.to_bits());
            }
            for (n, cpu) in cpus.iter().enumerate() {
                assert_filled(cpu, Rfbm::ALL, (round + 1) * 4 + n as u8);
            }
        }
        assert_rust_is_itself();
    }
    ran("parked-cpus");
}

/// The arguments of a window, and the window.
#[repr(C)]
struct Inner {
    host: *mut Parked,
    parked: *mut Parked,
    enabled: u64,
    op: Op,
    operand: *const u8,
    rfbm: u64,
    window: unsafe extern "sysv64" fn(*mut Parked, *mut Parked, u64, Op, *mut u8, u64) -> window::Outcome,
}

/// An op that opens a window in the window: RDI = an [`Inner`]. That leaves R10 = 0, no fault.
#[unsafe(naked)]
unsafe extern "sysv64" fn open_another() {
    naked_asm!(
        "sub rsp, 8",
        "mov rsi, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "mov rcx, [rdi + 24]",
        "mov r8, [rdi + 32]",
        "mov r9, [rdi + 40]",
        "mov r11, [rdi + 48]",
        "mov rdi, [rdi]",
        "call r11",
        "add rsp, 8",
        "ret",
    )
}

/// For the inner window, the host's registers are those that the outer one has put in: all can be looked at.
#[test]
fn hardware_a_window_gives_back_every_register() {
    for features in [features(), Features::fxsave_only()] {
        let mut outer = filled(features, 1);
        let (mut host, mut parked) = (Parked::zeroed(), Parked::initial());
        let bytes = patterns(features, 2).swap_remove(1).1;
        let xsave = features.layout().has_xsave();
        let mut inner = Inner {
            host: &mut host,
            parked: &mut parked,
            enabled: features.enabled().bits(),
            op: program::write_sse,
            operand: bytes.as_ptr(),
            rfbm: 0,
            window: if xsave { window::xsave_change } else { window::fxsave_change },
        };
        let operand = ptr::from_mut(&mut inner).cast();
        // SAFETY: (a) As `features` say. (b) It reads an `Inner`, whose pointers are to areas and bytes that live.
        // (c) MXCSR has no reserved bit.
        unsafe { outer.change(open_another, operand, ComponentSet::EMPTY) }.unwrap();
        assert_filled(&outer, Rfbm::ALL, 1);
        assert_eq!(parked.legacy().mxcsr().to_le_bytes(), bytes[..4]);
        for i in 0..16 {
            assert_eq!(parked.legacy().xmm(i).to_le_bytes(), bytes[4 + i * 16..][..16]);
        }
        assert_rust_is_itself();
    }
    ran("every-register");
}

#[test]
fn hardware_four_threads_at_once() {
    let thread = |number: u8| {
        move || {
            let features = features();
            let (mut parked, mut area) = (filled(features, number), room(features));
            let mut bad = room(features);
            bad.as_mut()[520] = 1;
            for _ in 0..500 {
                parked.save(SaveInstruction::Fxsave, Rfbm::ALL, area.as_mut()).unwrap();
                parked.restore(RestoreOp::Fxrstor, Rfbm::ALL, area.as_ref()).unwrap();
                if features.layout().has_xsave() {
                    assert!(parked.clone().restore(RestoreOp::Xrstor, Rfbm::ALL, bad.as_ref()).is_err());
                }
                assert_filled(&parked, Rfbm::ALL, number);
            }
            assert_rust_is_itself();
        }
    };
    let threads: Vec<_> = [11, 22, 33, 44].map(|number| thread::spawn(thread(number))).into();
    threads.into_iter().for_each(|thread| thread.join().expect("the thread's checks hold"));
    ran("threads");
}

#[test]
fn hardware_what_is_in_use_is_told() {
    let features = features();
    if !has_xgetbv1(features) {
        std::println!("HARDWARE xgetbv1: SKIPPED: this CPU has no XGETBV with ECX = 1");
        return;
    }
    assert_eq!(filled(features, 3).in_use(), Ok(features.enabled()));
    let initial = parked(features).in_use().unwrap();
    // A CPU may say that what is initial is in use, but these do not say it of everything.
    if Deviation::InUseAlways.is_here() {
        assert_eq!(initial, features.enabled().without(Component::BNDREGS));
    } else {
        assert!(!features.enabled().without(Component::BNDREGS).is_subset_of(initial), "{initial:?}");
    }
    Deviation::InUseAlways.report("xinuse-initial");
    for (component, bytes) in patterns(features, 3) {
        if component != Component::BNDCSR {
            let mut parked = parked(features);
            parked.write(component, &bytes).unwrap();
            assert!(parked.in_use().unwrap().contains(component), "{component}");
        }
    }
    ran("xgetbv1");
}

#[test]
fn hardware_loops_change_no_register() {
    let features = features();
    let ops = [
        (TimedOp::Nothing, "loop"),
        (TimedOp::Xsave, "loop-xsave"),
        (TimedOp::Xsavec, "loop-xsavec"),
        (TimedOp::Xsaveopt, "loop-xsaveopt"),
        (TimedOp::Fxsave, "loop-fxsave"),
        (TimedOp::Xrstor, "loop-xrstor"),
        (TimedOp::XsavecXrstor, "xsavec-xrstor"),
        (TimedOp::Xgetbv1, "loop-xgetbv1"),
        (TimedOp::Rdtsc, "loop-rdtsc"),
    ];
    let registers = filled(features, 71);
    for (op, name) in ops {
        match Measurement::new(&registers, op, 3) {
            Ok(mut measurement) => {
                measurement.run(0);
                measurement.run(1000);
                assert_filled(measurement.registers_after(7), Rfbm::ALL, 71);
                assert_rust_is_itself();
                ran(name);
            }
            Err(error) => std::println!("HARDWARE {name}: SKIPPED: {error}"),
        }
    }
}

#[test]
fn hardware_pkru_is_written_read_and_put_back() {
    let features = features();
    if !features.has_pkru() {
        assert_eq!(through_pkru(features, 0), None);
        std::println!("HARDWARE pkru: SKIPPED: no RDPKRU here (CPUID.7.0:ECX.OSPKE is clear)");
        return;
    }
    let own = || {
        let own: u32;
        // SAFETY: RDPKRU with ECX = 0 needs CR4.PKE, as OSPKE tells.
        unsafe {
            asm!("rdpkru", in("ecx") 0, out("eax") own, out("edx") _, options(nomem, nostack, preserves_flags))
        };
        own
    };
    let before = own();
    // Access to key 5 denied, writes to key 7; all but key 0; all; writes to key 0 alone.
    for pkru in [0x8400, 0x5555_5550, u32::MAX, 2, 0] {
        assert_eq!(through_pkru(features, pkru), Some(pkru));
        assert_eq!(own(), before);
    }
    ran("pkru");
}

/// The modified optimisation, which a CPU may have: what the corpus of historic bugs has as `xsaveopt-of-reused-area` on
/// software registers. A window never meets it, since the last XRSTOR before a save is of the parked registers.
#[test]
fn hardware_xsaveopt_keeps_what_was_written_to_the_area_since_its_xrstor() {
    const XMM0: usize = 160;
    const SSE_ONLY: u32 = 1 << 1;
    if !SaveInstruction::Xsaveopt.is_on(features().layout()) {
        std::println!("HARDWARE xsaveopt-modified: SKIPPED: this CPU has no XSAVEOPT");
        return;
    }
    let mut kept = 0;
    for _ in 0..1000 {
        let [mut own, mut area] = [(); 2].map(|()| Parked::initial());
        area.bytes_mut()[XMM0] = 0x11;
        area.bytes_mut()[512] = SSE_ONLY as u8;
        // SAFETY: two areas of more than 576 bytes at multiples of 64, which hold the initial configuration but for XMM0; and
        // the last line puts back of SSE, all that the second changes, what the first saved. In between is no Rust code.
        // `nostack`: nothing is pushed.
        unsafe {
            asm!(
                "xsave64 [{own}]",
                "xrstor64 [{area}]",
                "mov byte ptr [{area} + {xmm0}], 0x22",
                "xsaveopt64 [{area}]",
                "xrstor64 [{own}]",
                own = in(reg) own.as_mut_ptr(),
                area = in(reg) area.as_mut_ptr(),
                xmm0 = const XMM0,
                in("eax") SSE_ONLY,
                in("edx") 0,
                options(nostack, preserves_flags),
            );
        };
        let saved = area.bytes()[XMM0];
        assert!(saved == 0x11 || saved == 0x22, "{saved:#x}");
        kept += u32::from(saved == 0x22);
    }
    if kept == 0 {
        std::println!("HARDWARE xsaveopt-modified: SKIPPED: this CPU writes it all the same");
    } else {
        std::println!("the registers were not saved {kept} times of 1000");
        ran("xsaveopt-modified");
    }
}

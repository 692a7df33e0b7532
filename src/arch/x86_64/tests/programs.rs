//! Register programs against XSAVE's view of the same registers.

use super::*;
use crate::{
    arch::x86_64::program,
    arch::{HardwareFault, OpError},
    xstate::Rounding,
};

#[test]
fn hardware_programs_and_xsave_see_the_same_bytes() {
    for features in [features(), Features::fxsave_only()] {
        for (component, bytes) in patterns(features, 9) {
            let mut parked = filled(features, 200);
            parked.write(component, &bytes).unwrap();
            assert_eq!(image(&parked, component), bytes, "{component}, as XSAVE sees it");
            assert_filled(&parked, only(component), 9);
            assert_filled(&parked, without(component), 200);
            assert_rust_is_itself();
        }
    }
    ran("programs");
}

#[test]
fn hardware_the_x87_stack_is_written_at_any_top() {
    let features = features();
    for top in 0..8_u8 {
        for tags in [0, 1, 0x80, 0xa5, 0xff] {
            let mut parked = parked(features);
            let mut bytes = patterns(features, 31).swap_remove(0).1;
            bytes[3] = top << 3;
            bytes[4] = tags;
            parked.write(Component::X87, &bytes).unwrap();
            assert_eq!(read(&parked, Component::X87), bytes);
            assert_eq!(image(&parked, Component::X87), bytes);
        }
    }
    ran("x87-top");
}

/// What the others then leave out of their comparisons.
#[test]
fn hardware_x87_pointers_are_kept() {
    for features in [features(), Features::fxsave_only()].into_iter().filter(|_| keeps_x87_pointers()) {
        let parked = filled(features, 31);
        for bytes in [read(&parked, Component::X87), image(&parked, Component::X87)] {
            assert_eq!(bytes[6..8], [31, 5]);
            assert!(bytes[8..12] != [0; 4] && bytes[16..20] != [0; 4] && bytes[8..12] != bytes[16..20]);
        }
    }
    report_x87_pointers("x87-pointers");
}

#[test]
fn hardware_cleared_components_are_initial() {
    for features in [features(), Features::fxsave_only()] {
        for component in features.enabled().iter() {
            let mut parked = filled(features, 77);
            parked.clear(component).unwrap();
            assert_initial(&parked, component);
            assert_filled(&parked, without(component), 77);
        }
    }
    ran("clear");
}

/// VINSERTF128 is for CPUs without AVX-512; here it clears ZMM_Hi256, too.
#[test]
fn hardware_avx_without_avx512() {
    let features = features();
    if !features.moves().avx {
        std::println!("HARDWARE vinsertf128: SKIPPED: this CPU has no AVX");
        return;
    }
    let mut parked = filled(features, 1);
    let (_, bytes) = patterns(features, 2).into_iter().find(|(c, _)| *c == Component::AVX).unwrap();
    // SAFETY: (a) AVX is there. (b) It reads 256 bytes. (c) They are ours.
    unsafe { parked.change(program::write_avx, bytes.as_ptr().cast_mut(), ComponentSet::EMPTY) }.unwrap();
    assert_filled(&parked, only(Component::AVX), 2);
    assert_filled(&parked, only(Component::SSE), 1);
    ran("vinsertf128");
}

#[test]
fn hardware_one_lane_changes() {
    let masked = features();
    for features in [masked, masked.without_masked_moves(), Features::fxsave_only()] {
        let mut parked = filled(features, 6);
        let mut lanes = 0;
        for (register, lane) in (0..33).flat_map(|register| (0..17).map(move |lane| (register, lane))) {
            let value = u32::from_le_bytes([0xc0, register, lane, 0x3f]);
            let before: Vec<_> = features.enabled().iter().map(|c| read(&parked, c)).collect();
            match parked.change_lane(register, lane, value) {
                Ok(()) => lanes += 1,
                Err(error) => {
                    assert!(matches!(error, OpError::Missing(_)));
                    continue;
                }
            }
            let after = features.enabled().iter().map(|c| read(&parked, c));
            let changed: Vec<_> =
                before.into_iter().zip(after).filter(|(before, after)| before != after).collect();
            let [(mut before, after)] = <[_; 1]>::try_from(changed).expect("one component changes");
            let at = before.chunks(4).zip(after.chunks(4)).position(|(a, b)| a != b).unwrap() * 4;
            assert_eq!(after[at..at + 4], value.to_le_bytes());
            before[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert_eq!(before, after);
            // The lane's place: XSAVE's bytes are the registers in order.
            let wide = usize::from(lane) * 4;
            let n = usize::from(register);
            assert_eq!(
                at,
                if n >= 16 {
                    (n - 16) * 64 + wide
                } else {
                    match lane {
                        0..4 => 4 + n * 16 + wide,
                        4..8 => n * 16 + wide - 16,
                        _ => n * 32 + wide - 32,
                    }
                }
            );
        }
        let enabled = features.enabled();
        let lanes_of = [
            (Component::SSE, 64),
            (Component::AVX, 64),
            (Component::ZMM_HI256, 128),
            (Component::HI16_ZMM, 256),
        ];
        assert_eq!(lanes, lanes_of.iter().filter(|(c, _)| enabled.contains(*c)).map(|(_, n)| n).sum::<i32>());
    }
    ran("lane");
}

#[test]
fn hardware_rounding_control_is_set_in_both_places() {
    for features in [features(), Features::fxsave_only()] {
        for (rounding, bits) in
            [(Rounding::Nearest, 0), (Rounding::Down, 1), (Rounding::Up, 2), (Rounding::Zero, 3)]
        {
            let mut parked = filled(features, 40);
            parked.set_rounding(rounding);
            let [mut x87, mut sse] =
                [Component::X87, Component::SSE].map(|component| read(&parked, component));
            assert_eq!((x87[1] >> 2 & 3, sse[1] >> 5 & 3), (bits, bits));
            // The patterns round towards zero.
            x87[1] |= 3 << 2;
            sse[1] |= 3 << 5;
            let expected = patterns(features, 40);
            assert_eq!([&x87, &sse], [&expected[0].1, &expected[1].1]);
            let rest = Rfbm::new(ComponentSet::from_bits(u64::MAX << 2));
            assert_filled(&parked, rest, 40);
            assert_rust_is_itself();
        }
    }
    ran("rounding");
}

#[test]
fn hardware_a_pending_x87_exception_stays_parked() {
    for features in [features(), Features::fxsave_only()] {
        let mut bytes = patterns(features, 12).swap_remove(0).1;
        // Everything unmasked, and an invalid operation that was not yet raised: IE, ES, B.
        bytes[..4].copy_from_slice(&[0x40, 0x03, 0x81, 0x80]);
        let mut parked = parked(features);
        parked.write(Component::X87, &bytes).unwrap();
        assert_eq!(read(&parked, Component::X87), bytes);
        let other = patterns(features, 13);
        for (component, bytes) in &other[1..] {
            parked.write(*component, bytes).unwrap();
        }
        parked.set_rounding(Rounding::Up);
        let rounded = read(&parked, Component::X87);
        assert_eq!(rounded[..4], [0x40, 0x0b, 0x81, 0x80]);
        assert_rust_is_itself();
        // And a program that begins with it pending.
        parked.write(Component::X87, &other[0].1).unwrap();
        assert_filled(&parked, only(Component::X87), 13);
        assert_rust_is_itself();
    }
    ran("pending-x87");
}

#[test]
fn hardware_reserved_bits_of_mxcsr_are_refused() {
    let features = features();
    let mut bytes = patterns(features, 1)[1].1.clone();
    bytes[2] = 1;
    if features.layout().mxcsr_mask() & 1 << 16 != 0 {
        std::println!("HARDWARE ldmxcsr: SKIPPED: this CPU knows bit 16");
        return;
    }
    let mut parked = filled(features, 9);
    let written = parked.write(Component::SSE, &bytes);
    assert_rust_is_itself();
    if Deviation::ReservedMxcsr.is_here() {
        assert_eq!(written, Ok(()));
        assert_eq!(image(&parked, Component::SSE), bytes);
    } else {
        assert_eq!(written, Err(OpError::Fault(HardwareFault::GeneralProtection)));
        assert_filled(&parked, Rfbm::ALL, 9);
    }
    Deviation::ReservedMxcsr.report("ldmxcsr");
}

//! The image in a signal frame: written as Linux does, and taken by its rules. Offsets and constants are written
//! down from the kernel's uapi/asm/sigcontext.h.

mod cpus;

use cpus::{cpu, full, long, put, thread, word};
use fpuswitch::{
    ComponentSet, Pkru,
    xstate::{
        Area, AreaError, Format, FrameKind, LegacyOnly, Refusal, SignalFrame, ViewError, XcompBv, XstateBv,
    },
};

#[test]
fn a_signal_frame_says_what_is_in_it() {
    let mut expected = thread(Format::Standard).regset(Pkru(0)).unwrap().bytes().to_vec();
    // struct _fpx_sw_bytes: magic1, extended_size, xfeatures, xstate_size, and seven words for later.
    put(&mut expected, 464, b"SXPF");
    put(&mut expected, 468, &2700_u32.to_le_bytes());
    put(&mut expected, 472, &0x2ff_u64.to_le_bytes());
    put(&mut expected, 480, &2696_u32.to_le_bytes());
    put(&mut expected, 512, &[0b1010_0011, 2]);
    expected.extend(b"EXPF");
    for format in [Format::Standard, Format::Compacted] {
        assert_eq!(thread(format).signal_frame(Pkru(0)).unwrap(), expected, "{format:?}");
    }
    // Nothing in use, and x87 and SSE are there all the same.
    let frame = Area::initial(&cpu("qemu-haswell"), Format::Standard).signal_frame(Pkru::DEFAULT).unwrap();
    assert_eq!((frame.len(), long(&frame, 512), word(&frame, 24)), (836, 3, 0x1f80));
    let old = full(&cpu("qemu-core2duo"), Format::Fxsave);
    assert_eq!(old.signal_frame(Pkru(0)).unwrap(), old.user_fpregs().unwrap());
}

#[test]
fn frames_that_are_not_whole_are_taken_for_their_legacy_region() {
    let layout = cpu("skylake-sp");
    let area = full(&layout, Format::Compacted);
    let good = area.signal_frame(Pkru(4)).unwrap();
    assert_eq!(SignalFrame::over(&good, &layout).unwrap().kind(), FrameKind::Extended(layout.enabled()));
    let mut legacy = Area::initial(&layout, Format::Standard);
    legacy.set_user_fpregs(&good[..512]).unwrap();

    let size = |xstate_size, components, least| LegacyOnly::Size {
        xstate_size,
        components: ComponentSet::from_bits(components),
        least,
        most: 2696,
    };
    let rows: [(usize, &[u8], LegacyOnly); 7] = [
        (464, &[0, 0, 0, 0], LegacyOnly::Magic1(0)),
        (2696, &[0, 0, 0, 0], LegacyOnly::Magic2(0)),
        (468, &[0x87, 0x0a], LegacyOnly::BeyondExtended { xstate_size: 2696, extended_size: 2695 }),
        (480, &[0x87, 0x0a], size(2695, 0x2ff, 2696)),
        (480, &[0x89, 0x0a], size(2697, 0x2ff, 2696)),
        (472, &[3, 0, 0, 0, 0, 0, 0, 0, 0x3f, 0x02], size(575, 3, 576)),
        (472, &[7, 0, 0, 0, 0, 0, 0, 0, 0x3f, 0x03], size(831, 7, 832)),
    ];
    for (offset, bytes, why) in rows {
        let mut bad = good.clone();
        put(&mut bad, offset, bytes);
        let frame = SignalFrame::over(&bad, &layout).unwrap();
        assert_eq!(frame.kind(), FrameKind::Legacy(why));
        let (image, pkru) = frame.image().unwrap();
        assert!(image.same_values(&legacy), "{why}");
        assert_eq!(pkru, Pkru(0), "not loaded: its initial value");
    }
    // The same with an MXCSR that FXRSTOR refuses.
    let mut bad = good.clone();
    put(&mut bad, 464, &[0]);
    put(&mut bad, 26, &[1]);
    let refusal = Refusal::Mxcsr { mxcsr: 0x1_9fbf, mask: 0xffff };
    let frame = SignalFrame::over(&bad, &layout).unwrap();
    assert_eq!(frame.image().unwrap_err(), ViewError::Refused(refusal));
    // Beyond the bytes, a kernel faults.
    let short =
        |needed_bytes, found_bytes| ViewError::Area(AreaError::TooShort { needed_bytes, found_bytes });
    for len in [0, 464, 511] {
        assert_eq!(SignalFrame::over(&good[..len], &layout).unwrap_err(), short(512, len));
    }
    for len in [512, 2000, 2699] {
        assert_eq!(SignalFrame::over(&good[..len], &layout).unwrap_err(), short(2700, len));
    }
    let old = SignalFrame::over(&good[..512], &cpu("qemu-core2duo")).unwrap();
    assert_eq!(old.kind(), FrameKind::Legacy(LegacyOnly::NoXsave));
    assert_eq!(old.image().unwrap().0.format(), Format::Fxsave);
}

#[test]
fn a_smaller_frame_loads_what_it_has_and_initialises_the_rest() {
    // From a machine with x87, SSE and AVX, for a thread that has more.
    let small = full(&cpu("qemu-haswell"), Format::Standard);
    let frame = small.signal_frame(Pkru(0)).unwrap();
    let layout = cpu("skylake-sp");
    let frame = SignalFrame::over(&frame, &layout).unwrap();
    assert_eq!(frame.kind(), FrameKind::Extended(ComponentSet::from_bits(7)));
    // XRSTOR looks only at what it is asked for, so that the bytes may end there.
    let (image, pkru) = frame.image().unwrap();
    assert!(image.same_values(&small));
    assert_eq!(pkru, Pkru(0));
    // Components that are claimed and that the thread may not use are not loaded.
    let all = full(&layout, Format::Standard).signal_frame(Pkru(4)).unwrap();
    let mut claimed = all.clone();
    put(&mut claimed, 472, &(0xff_u64 << 32 | 0b110).to_le_bytes());
    let (image, pkru) = SignalFrame::over(&claimed, &layout).unwrap().image().unwrap();
    assert_eq!((image.xstate_bv(), pkru), (XstateBv(0b110), Pkru(0)));
}

#[test]
fn a_frame_that_xrstor_refuses_is_refused() {
    let layout = cpu("zen4");
    let good = full(&layout, Format::Standard).signal_frame(Pkru(4)).unwrap();
    let enabled = layout.enabled();
    for (offset, bytes, refusal) in [
        (514, &[2][..], Refusal::NotEnabled { xstate_bv: XstateBv(1 << 17 | 0x2e7), enabled }),
        (520, &[1], Refusal::XcompBv(XcompBv(1))),
        (528, &[1], Refusal::Reserved { offset: 16, value: 1 }),
        (26, &[1], Refusal::Mxcsr { mxcsr: 0x1_9fbf, mask: 0xffff }),
    ] {
        let mut bad = good.clone();
        put(&mut bad, offset, bytes);
        let frame = SignalFrame::over(&bad, &layout).unwrap();
        assert_eq!(frame.kind(), FrameKind::Extended(enabled));
        assert_eq!(frame.image().unwrap_err(), ViewError::Refused(refusal));
    }
    // The last 40 reserved bytes are nothing to XRSTOR; and it takes a compacted image.
    let mut odd = good.clone();
    odd[575] = 1;
    assert!(SignalFrame::over(&odd, &layout).unwrap().image().is_ok());
    let compacted = full(&layout, Format::Compacted);
    let mut odd = good.clone();
    odd[..464].copy_from_slice(&compacted.bytes()[..464]);
    odd[512..2440].copy_from_slice(&compacted.bytes()[512..2440]);
    assert!(SignalFrame::over(&odd, &layout).unwrap().image().unwrap().0.same_values(&compacted));
}

//! A signal frame holds PKRU, and its return brings back what the frame says.

use crate::{
    PKRU_BIT, T0, VALUES,
    pkeys::{missing_in_images, rdpkru, wrpkru},
    pkru_of, place_of_pkru, set_pkru, set_xstate_bv, simulated_pkru,
    support::Checked,
    xstate_bv,
};
use fpuswitch::{
    ComponentSet, Event, FrameChange, Pkru,
    fpu::{Policy, policy::Builtin},
    registers::{Frame, HostRegs},
};
use std::{cell::Cell, mem, ptr, slice};

/// What a signal's handler starts with, what the frame holds, and what there is behind the return.
#[derive(Debug, PartialEq)]
struct Delivery {
    in_handler: u32,
    in_frame: u32,
    behind: u32,
}

/// What the handler writes to PKRU itself: of no consequence behind its return.
const HANDLERS: u32 = 0x5555_5550;

/// What user code does to a frame, and what the machine is told of it; `None` for nothing.
const FRAME_CHANGES: [Option<FrameChange>; 8] = [
    None,
    Some(FrameChange::Pkru(Some(Pkru(0x5555_5550)))),
    Some(FrameChange::Pkru(Some(Pkru(0xffff_fffc)))),
    Some(FrameChange::Pkru(Some(Pkru(0)))),
    Some(FrameChange::Pkru(None)),
    Some(FrameChange::Short),
    Some(FrameChange::BadMagic),
    Some(FrameChange::BadSize),
];

/// The same to the bytes of a real frame's image.
fn change_frame(image: &mut [u8], place: usize, change: FrameChange) {
    match change {
        FrameChange::Pkru(Some(pkru)) => set_pkru(image, place, pkru.0),
        // What is in its place stays.
        FrameChange::Pkru(None) => set_xstate_bv(image, xstate_bv(image) & !PKRU_BIT),
        FrameChange::Short => set_xstate_bv(image, xstate_bv(image) & 3),
        // `struct _fpx_sw_bytes`: magic1 and xstate_size.
        FrameChange::BadMagic => image[464..468].fill(0),
        FrameChange::BadSize => image[480..484].fill(0),
        other => panic!("{other:?} ends the process"),
    }
}

thread_local! {
    /// What the next handler does, and where PKRU is in its frame.
    static CHANGE: Cell<Option<(Option<FrameChange>, usize)>> = const { Cell::new(None) };
    /// What it has found: in the register, and in the frame.
    static FOUND: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let in_handler = rdpkru();
    let (change, place) = CHANGE.take().expect("one for each signal");
    // SAFETY: the kernel passes the frame's context, whose `fpregs` points to an image of `extended_size` bytes, which are
    // nobody else's: PKRU is in XCR0, so that the frame has magic1.
    let image = unsafe {
        let start = (*context.cast::<libc::ucontext_t>()).uc_mcontext.fpregs.cast::<u8>();
        slice::from_raw_parts_mut(start, start.add(468).cast::<u32>().read() as usize)
    };
    FOUND.set((in_handler, pkru_of(image, place)));
    if let Some(change) = change {
        change_frame(image, place, change);
    }
    // SAFETY: key 0 is allowed.
    unsafe { wrpkru(HANDLERS) };
}

fn install_handler() {
    // SAFETY: a complete action; the handler has the form that SA_SIGINFO asks for, and is called where `real_delivery`
    // raises the signal alone.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()), 0);
    }
}

fn real_delivery(pkru: u32, change: Option<FrameChange>, place: usize) -> Delivery {
    let own = rdpkru();
    CHANGE.set(Some((change, place)));
    // SAFETY: key 0 is allowed in all these values. The signal is this thread's own, and arrives before `raise` returns.
    let behind = unsafe {
        wrpkru(pkru);
        libc::raise(libc::SIGUSR1);
        let behind = rdpkru();
        wrpkru(own);
        behind
    };
    let (in_handler, in_frame) = FOUND.get();
    Delivery { in_handler, in_frame, behind }
}

/// By XRSTOR from the frame, and by way of a kernel buffer.
const WAYS: [&str; 2] = ["sigreturn-load", "sigreturn-copy"];

fn simulated_delivery(
    regs: &HostRegs,
    policy: Builtin,
    pkru: u32,
    change: Option<FrameChange>,
    way: &str,
) -> Delivery {
    let mut checked = Checked::on(regs, policy, 1);
    checked.run(&format!("spawn T0; in c0 T0; return c0 T0; user-pkru c0 {pkru:#x}; entry c0 system-call"));
    checked.run("signal-deliver c0; signal-save c0; signal-enter c0; return c0 T0");
    let in_handler = simulated_pkru(&checked.machine);
    let frame = checked.machine.task(T0).and_then(|task| task.frames().last()).expect("a frame");
    let in_frame = frame.contents(ComponentSet::LEGACY).expect("mapped").pkru.0;
    checked.run(&format!("user-pkru c0 {HANDLERS:#x}; entry c0 system-call"));
    if let Some(change) = change {
        let _ = checked.apply(Event::Frame(T0, change)).expect("a field that the frame has");
    }
    checked.run(&format!("sigreturn c0; {way} c0; return c0 T0"));
    let behind = simulated_pkru(&checked.machine);
    Delivery { in_handler, in_frame, behind }
}

#[test]
fn hardware_a_signal_does_to_pkru_what_the_machine_does() {
    if let Some(why) = missing_in_images() {
        return println!("HARDWARE sigframe-pkru: SKIPPED: {why}");
    }
    let (place, regs) = (place_of_pkru(), HostRegs::new().expect("the host's registers"));
    install_handler();
    for pkru in VALUES {
        for change in FRAME_CHANGES {
            let real = real_delivery(pkru, change, place);
            for (policy, way) in Builtin::ALL.into_iter().flat_map(|policy| WAYS.map(|way| (policy, way))) {
                let simulated = simulated_delivery(&regs, policy, pkru, change, way);
                assert_eq!(real, simulated, "{pkru:#x}, {change:?}, {way} under {}", policy.name());
            }
        }
    }
    println!("HARDWARE sigframe-pkru: ran");
}

//! The views of an image held against those of the kernel that this runs on: a child's registers under ptrace, and the
//! frame of a signal.

#![allow(unsafe_code, reason = "a child under ptrace, a signal handler, and registers that are set in asm")]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[test]
fn hardware_views() {
    for name in ["ptrace-views", "sigframe-view"] {
        println!("HARDWARE {name}: SKIPPED: ptrace and signal frames are x86-64 Linux's");
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "support/tracee.rs"]
mod tracee;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host {
    use super::tracee::{NT_PRFPREG, NT_X86_XSTATE, Tracee};
    use fpuswitch::{
        Component, ComponentSet, Pkru, Rfbm,
        registers::HostCpu,
        xstate::{
            AlignedBytes, Area, Format, FrameKind, Layout, LegacyOnly, OwnedArea, SignalFrame, XstateBv,
        },
    };
    use std::{
        arch::{asm, x86_64::_fxsave64},
        cell::UnsafeCell,
        ptr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    const YMM7: [u8; 32] = *b"what the program has put in ymm7";
    const NEW_YMM7: [u8; 32] = *b"and what was written over it.   ";
    const NEW_FCW: u16 = 0x0f7f;
    const NEW_MXCSR: u32 = 0x9fc0;

    /// What the CPU's images look like, and what this process may use of them.
    fn layout() -> Result<(Layout, ComponentSet), String> {
        let cpu = HostCpu::new().map_err(|error| error.to_string())?;
        let mut area = AlignedBytes::zeroed(512);
        // SAFETY: FXSAVE64 writes 512 bytes at a multiple of 16.
        unsafe { _fxsave64(area.as_mut().as_mut_ptr()) };
        let mask = Area::over(area, &Layout::fxsave_only()).unwrap().legacy().mxcsr_mask();
        let layout = Layout::from_cpuid(&cpu).unwrap().with_mxcsr_mask(mask);
        if !layout.enabled().contains(Component::AVX) {
            return Err("this CPU has no AVX".into());
        }
        const ARCH_GET_XCOMP_PERM: libc::c_int = 0x1022;
        let mut permitted = 0_u64;
        // SAFETY: the kernel writes one word, to `permitted`.
        let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut permitted) };
        let permitted = if result == 0 { permitted } else { u64::MAX };
        let permitted = ComponentSet::from_bits(permitted) & layout.enabled();
        Ok((layout, permitted))
    }

    fn register(area: &Area<impl AsRef<[u8]>>, name: &str) -> Vec<u8> {
        area.register(name.parse().unwrap()).unwrap().bytes().to_vec()
    }

    /// PKRU of a register set.
    fn pkru(regset: &Area<impl AsRef<[u8]>>) -> Pkru {
        let value = regset.register("pkru".parse().unwrap()).ok().and_then(|value| value.as_u128());
        Pkru(value.unwrap_or(0) as u32)
    }

    static DEFAULT_MXCSR: u32 = 0x1f80;

    /// What the child runs: whether it finds other values behind the breakpoint.
    fn program() -> libc::c_int {
        let (mut ymm7, mut fcw, mut mxcsr) = (YMM7, 0_u16, 0_u32);
        // SAFETY: `layout` has seen AVX. The block declares what it changes, and gives control words their defaults back.
        // INT3 stops the child for its parent.
        unsafe {
            asm!(
                "vmovdqu ymm7, [r12]",
                "fldpi",
                "int3",
                "vmovdqu [r12], ymm7",
                "fnstcw [r13]",
                "stmxcsr [r14]",
                "fninit",
                "ldmxcsr [r15]",
                in("r12") &raw mut ymm7,
                in("r13") &raw mut fcw,
                in("r14") &raw mut mxcsr,
                in("r15") &raw const DEFAULT_MXCSR,
                clobber_abi("sysv64"),
            );
        }
        let is_new = (ymm7, fcw, mxcsr) == (NEW_YMM7, NEW_FCW, NEW_MXCSR);
        if is_new { 0 } else { 1 }
    }

    type Change = (&'static str, fn(&mut OwnedArea));

    /// Register sets that are right and wrong: what is done to a right one.
    const CHANGES: [Change; 15] = [
        ("nothing", |_| {}),
        ("no component in use", |area| area.set_xstate_bv(XstateBv(0))),
        ("the same with an MXCSR that is none", |area| {
            area.set_xstate_bv(XstateBv(0));
            area.legacy_mut().set_mxcsr(u32::MAX);
        }),
        ("x87 alone", |area| area.set_xstate_bv(XstateBv(1))),
        ("x87 alone, with an MXCSR that is none", |area| {
            area.set_xstate_bv(XstateBv(1));
            area.legacy_mut().set_mxcsr(u32::MAX);
        }),
        ("x87 alone, with an MXCSR", |area| {
            area.set_xstate_bv(XstateBv(1));
            area.legacy_mut().set_mxcsr(NEW_MXCSR);
        }),
        ("SSE alone", |area| area.set_xstate_bv(XstateBv(2))),
        ("AVX alone", |area| area.set_xstate_bv(XstateBv(4))),
        ("PKRU, where there is one", |area| {
            let _ = area.set_register("pkru".parse().unwrap(), &0x5555_5558_u32.to_le_bytes());
        }),
        ("an MXCSR that is none", |area| area.legacy_mut().set_mxcsr(u32::MAX)),
        ("bit 62", |area| area.set_xstate_bv(XstateBv(1 << 62 | 3))),
        ("tiles", |area| area.set_xstate_bv(XstateBv(1 << 18 | 3))),
        ("XCOMP_BV", |area| area.bytes_mut()[527] = 0x80),
        ("the first reserved byte", |area| area.bytes_mut()[528] = 1),
        ("the last reserved byte", |area| area.bytes_mut()[575] = 1),
    ];

    #[test]
    fn hardware_the_views_of_a_stopped_child_are_the_kernels() {
        let (layout, permitted) = match layout() {
            Ok(found) => found,
            Err(why) => return println!("HARDWARE ptrace-views: SKIPPED: {why}"),
        };
        // SAFETY: it calls nothing.
        let child = match unsafe { Tracee::stopped(program) } {
            Ok(child) => child,
            Err(why) => return println!("HARDWARE ptrace-views: SKIPPED: {why}"),
        };
        let get = || Area::over(child.get(NT_X86_XSTATE).unwrap(), &layout).unwrap();
        let theirs = get();
        assert_eq!(theirs.bytes().len(), layout.size_bytes(Format::Standard));
        assert_eq!(register(&theirs, "ymm7"), YMM7);
        let top = theirs.legacy().tag_word().tag(7);
        assert_eq!(top, fpuswitch::xstate::Tag::Valid, "FLDPI fills the physical register 7");

        // As a kernel has it: packed, PKRU elsewhere, and what is not in use left over from before.
        let mut inside = Area::initial(&layout, Format::Compacted);
        if inside.check(Format::Compacted, Rfbm::ALL).is_err() {
            inside = Area::initial(&layout, Format::Standard);
        }
        if let Some(bytes) = inside.bytes_mut().get_mut(576..) {
            bytes.fill(0xa5);
        }
        let mut thread_pkru = inside.set_regset(theirs.bytes(), permitted).unwrap();
        assert_eq!(thread_pkru, pkru(&theirs));
        let ours = inside.regset(thread_pkru).unwrap();
        assert_eq!(ours.bytes(), theirs.bytes(), "NT_X86_XSTATE");
        assert_eq!(inside.user_fpregs().unwrap()[..], child.get(NT_PRFPREG).unwrap(), "NT_PRFPREG");

        // The kernel refuses what we refuse, and shows what we show of what both take.
        let size = ours.bytes().len();
        assert!(child.set(NT_X86_XSTATE, &ours.bytes()[..size - 8]).is_err());
        assert!(inside.set_regset(&ours.bytes()[..size - 8], permitted).is_err());
        for (what, change) in CHANGES {
            let mut regset = ours.clone();
            change(&mut regset);
            let taken = child.set(NT_X86_XSTATE, regset.bytes());
            let result = inside.set_regset(regset.bytes(), permitted);
            assert_eq!(taken.is_ok(), result.is_ok(), "{what}: {taken:?} {result:?}");
            if let Ok(pkru) = result {
                thread_pkru = pkru;
                let ours = inside.regset(pkru).unwrap();
                assert_eq!(ours.bytes(), get().bytes(), "{what}");
            }
        }
        let mut fpregs = inside.user_fpregs().unwrap();
        fpregs[27] = 0xff;
        assert!(child.set(NT_PRFPREG, &fpregs).is_err() && inside.set_user_fpregs(&fpregs).is_err());

        // A changed image, in two steps, one for each view.
        inside.set_regset(ours.bytes(), permitted).unwrap();
        inside.set_register("ymm7".parse().unwrap(), &NEW_YMM7).unwrap();
        inside.set_register("mxcsr".parse().unwrap(), &NEW_MXCSR.to_le_bytes()).unwrap();
        let changed = inside.regset(thread_pkru).unwrap();
        child.set(NT_X86_XSTATE, changed.bytes()).unwrap();
        assert_eq!(get().bytes(), changed.bytes());
        inside.set_register("fcw".parse().unwrap(), &NEW_FCW.to_le_bytes()).unwrap();
        let fpregs = inside.user_fpregs().unwrap();
        child.set(NT_PRFPREG, &fpregs).unwrap();
        assert_eq!(child.get(NT_PRFPREG).unwrap(), fpregs);
        assert_eq!(get().bytes(), inside.regset(thread_pkru).unwrap().bytes());
        assert_eq!(child.finish().unwrap(), 0, "the child finds what was written");
        println!("HARDWARE ptrace-views: ran");
    }

    const MOST_BYTES: usize = 32 << 10;

    /// What the handler has seen, and what it is to write.
    struct Frame(UnsafeCell<[u8; MOST_BYTES]>);

    // SAFETY: one test uses them, on one thread, which is not in the handler while it does.
    unsafe impl Sync for Frame {}

    static SEEN: Frame = Frame(UnsafeCell::new([0; MOST_BYTES]));
    static SEEN_BYTES: AtomicUsize = AtomicUsize::new(0);
    static NEW: Frame = Frame(UnsafeCell::new([0; MOST_BYTES]));
    static NEW_BYTES: AtomicUsize = AtomicUsize::new(0);

    /// Keeps the frame's image as far as it says to go, and writes another over it.
    extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes the frame's context, whose `fpregs` points to 512 bytes, and to `extended_size`
        // bytes where magic1 is there; no more is read or written than that, and than the buffers have. Nobody else
        // is at the buffers: see `Frame`.
        unsafe {
            let image = (*context.cast::<libc::ucontext_t>()).uc_mcontext.fpregs.cast::<u8>();
            let is_extended = image.add(464).cast::<u32>().read() == 0x4650_5853;
            let size = if is_extended { image.add(468).cast::<u32>().read() as usize } else { 512 };
            let size = size.min(MOST_BYTES);
            ptr::copy_nonoverlapping(image, SEEN.0.get().cast(), size);
            SEEN_BYTES.store(size, Ordering::Relaxed);
            let new = NEW_BYTES.load(Ordering::Relaxed).min(size);
            ptr::copy_nonoverlapping(NEW.0.get().cast(), image, new);
        }
    }

    /// Has a signal delivered with `YMM7` in ymm7, and `new` in place of the frame's image. Returns the frame that there
    /// was, and ymm7 behind it.
    fn signal(new: &[u8]) -> (Vec<u8>, [u8; 32]) {
        let mut ymm7 = YMM7;
        NEW_BYTES.store(new.len(), Ordering::Relaxed);
        // SAFETY: the handler does not run. The system call is made with numbers; its signal arrives before it returns,
        // and what the frame's image changes are registers that the block declares: `layout` has seen AVX, and control
        // words are as they were.
        unsafe {
            (&mut *NEW.0.get())[..new.len()].copy_from_slice(new);
            let (process, thread) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
            asm!(
                "vmovdqu ymm7, [r12]",
                "syscall",
                "vmovdqu [r12], ymm7",
                in("r12") &raw mut ymm7,
                in("rax") libc::SYS_tgkill,
                in("rdi") i64::from(process),
                in("rsi") thread,
                in("rdx") i64::from(libc::SIGUSR1),
                clobber_abi("sysv64"),
            );
            let seen = &*SEEN.0.get();
            (seen[..SEEN_BYTES.load(Ordering::Relaxed)].to_vec(), ymm7)
        }
    }

    #[test]
    fn hardware_a_signal_frame_is_read_and_written_as_the_kernel_does() {
        let (layout, permitted) = match layout() {
            Ok(found) => found,
            Err(why) => return println!("HARDWARE sigframe-view: SKIPPED: {why}"),
        };
        let layout = layout.restricted_to(permitted);
        // SAFETY: a zeroed `sigaction` is one; the handler has the form that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()), 0);
        }
        let (theirs, ymm7) = signal(&[]);
        assert_eq!(ymm7, YMM7);
        assert_eq!(theirs.len(), layout.size_bytes(Format::Standard) + 4);
        let frame = SignalFrame::over(&theirs, &layout).unwrap();
        assert_eq!(frame.kind(), FrameKind::Extended(permitted));
        let (mut image, thread_pkru) = frame.image().unwrap();
        assert_eq!(register(&image, "ymm7"), YMM7);
        let ours = image.signal_frame(thread_pkru).unwrap();
        assert_eq!(frame_differences(&ours, &theirs, &layout), [], "where our frame differs");

        // The kernel takes the frame that we write.
        image.set_register("ymm7".parse().unwrap(), &NEW_YMM7).unwrap();
        let ours = image.signal_frame(thread_pkru).unwrap();
        assert_eq!(ours.len(), theirs.len());
        assert_eq!(signal(&ours).1, NEW_YMM7);

        // Without a magic number it takes the legacy region and makes the rest initial, and so do we.
        for (offset, legacy) in [(464, LegacyOnly::Magic1(0)), (ours.len() - 4, LegacyOnly::Magic2(0))] {
            let mut bad = ours.clone();
            bad[offset..offset + 4].fill(0);
            let frame = SignalFrame::over(&bad, &layout).unwrap();
            assert_eq!(frame.kind(), FrameKind::Legacy(legacy));
            let (image, _) = frame.image().unwrap();
            assert_eq!(register(&image, "ymm7")[..16], NEW_YMM7[..16]);
            assert_eq!(signal(&bad).1[..], register(&image, "ymm7"), "{legacy}");
        }
        println!("HARDWARE sigframe-view: ran");
    }

    /// Where two frames differ (offset, ours, theirs), but for bytes of no component, which XSAVE does not write.
    fn frame_differences(ours: &[u8], theirs: &[u8], layout: &Layout) -> Vec<(usize, u8, u8)> {
        let xstate_bv = XstateBv(u64::from_le_bytes(theirs[512..520].try_into().unwrap()));
        let is_written = |offset: usize| {
            let in_component = layout.places().iter().any(|place| {
                let start = place.offset_bytes as usize;
                (start..start + place.size_bytes as usize).contains(&offset)
                    && xstate_bv.contains(place.component)
            });
            // The emulated CPU leaves the last six bytes of an x87 register's sixteen as they were.
            let is_reserved =
                (32..160).contains(&offset) && offset % 16 >= 10 || (416..464).contains(&offset);
            !is_reserved && offset < 576 || offset >= ours.len() - 4 || in_component
        };
        let both = ours.iter().zip(theirs).enumerate();
        both.filter(|(n, (a, b))| is_written(*n) && a != b).map(|(n, (a, b))| (n, *a, *b)).collect()
    }
}

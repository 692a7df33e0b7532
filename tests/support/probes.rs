//! What `emulator.rs` asks the CPU: each probe executes the instructions and looks, past everything of the crate.

#![allow(unsafe_code, reason = "instructions, and a child that may die of one")]

use std::{
    arch::{asm, x86_64::__cpuid_count},
    io,
};

/// Room for x87 to Hi16_ZMM in the standard format.
#[repr(C, align(64))]
#[derive(Clone)]
struct Area([u8; 4096]);

impl Area {
    /// XSTATE_BV = 0, and control words for what looks at the legacy region all the same.
    fn initial() -> Self {
        let mut area = Self([0; 4096]);
        area.put(FCW, &0x037f_u16.to_le_bytes());
        area.put(MXCSR, &0x1f80_u32.to_le_bytes());
        area
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|n| self.0[MXCSR + n]))
    }
}

const FCW: usize = 0;
const FSW: usize = 2;
const MXCSR: usize = 24;
const XSTATE_BV: usize = 512;
/// FOP, FIP and FDP.
const POINTERS: core::ops::Range<usize> = 6..24;

const AVX: u64 = 1 << 2;
const BNDREGS: u64 = 1 << 3;

/// Whether the hypervisor is QEMU's software CPU.
pub(super) fn is_qemu_tcg() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    let name = __cpuid_count(0x4000_0000, 0);
    __cpuid_count(1, 0).ecx & HYPERVISOR != 0 && twelve([name.ebx, name.ecx, name.edx]) == *b"TCGTCGTCGTCG"
}

pub(super) fn is_amd() -> bool {
    let vendor = __cpuid_count(0, 0);
    [*b"AuthenticAMD", *b"HygonGenuine"].contains(&twelve([vendor.ebx, vendor.edx, vendor.ecx]))
}

fn twelve(registers: [u32; 3]) -> [u8; 12] {
    core::array::from_fn(|n| registers[n / 4].to_le_bytes()[n % 4])
}

/// XCR0; 0 where there is none.
fn xcr0() -> u64 {
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid_count(1, 0).ecx & OSXSAVE == 0 {
        return 0;
    }
    let (low, high): (u32, u32);
    // SAFETY: XGETBV with ECX = 0 needs CR4.OSXSAVE, which was just seen.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// The components whose areas have room here: what a probe loads, it saves first.
fn probed() -> u32 {
    (xcr0() & 0xff) as u32
}

/// Whether FXRSTOR and FXSAVE keep FOP, FIP and FDP, while an exception is pending or while none is.
pub(super) fn keeps_x87_pointers(pending: bool) -> bool {
    let mut image = Area::initial();
    if pending {
        // An invalid operation, unmasked: IE, ES, B.
        image.put(FCW, &0x0340_u16.to_le_bytes());
        image.put(FSW, &0x8081_u16.to_le_bytes());
    }
    image.put(POINTERS.start, b"\x5a\x05FIP!\0\0\0\0FDP!\0\0\0\0");
    through_registers(&image).0[POINTERS] == image.0[POINTERS]
}

/// Whether reserved bits of FCW, and ES and B of FSW, are what they were set to.
pub(super) fn keeps_x87_reserved() -> bool {
    let through = |fcw: u16, fsw: u16| {
        let mut image = Area::initial();
        image.put(FCW, &fcw.to_le_bytes());
        image.put(FSW, &fsw.to_le_bytes());
        let found = through_registers(&image);
        (found.half(FCW), found.half(FSW))
    };
    // ES and B are for exceptions that are not masked (Intel SDM volume 1, section 8.1.3).
    (through(0xffff, 0), through(0, 0x8080), through(0x0340, 1)) != ((0x1f7f, 0), (0x40, 0), (0x0340, 0x8081))
}

/// What FXSAVE stores of what FXRSTOR has loaded.
fn through_registers(image: &Area) -> Area {
    let [mut own, mut found] = [(); 2].map(|()| Area::initial());
    // SAFETY: three areas of more than 512 bytes at multiples of 64, and no reserved bit of MXCSR. The last line puts
    // back what the first one saved, and in between is no Rust code. `nostack`: nothing is pushed.
    unsafe {
        asm!(
            "fxsave64 [{own}]",
            "fxrstor64 [{image}]",
            "fxsave64 [{found}]",
            "fxrstor64 [{own}]",
            own = in(reg) &raw mut own,
            image = in(reg) image,
            found = in(reg) &raw mut found,
            options(nostack),
        );
    };
    found
}

/// Whether LDMXCSR, FXRSTOR and XRSTOR take reserved bits of MXCSR: all, or none.
pub(super) fn takes_reserved_mxcsr() -> bool {
    let mut bad = Area::initial();
    bad.put(MXCSR, &0x8000_1f80_u32.to_le_bytes());
    let mut taken = std::vec![survives(ldmxcsr, &bad), survives(fxrstor, &bad)];
    if xcr0() != 0 {
        taken.push(survives(xrstor, &bad));
    }
    assert!(taken.iter().all(|one| *one == taken[0]), "only some of the instructions: {taken:?}");
    taken[0]
}

fn ldmxcsr(area: &Area) {
    // SAFETY: reads a word of the area, in a process that ends with it. `nostack`: nothing is pushed.
    unsafe { asm!("ldmxcsr [{} + {at}]", in(reg) area, at = const MXCSR, options(nostack)) };
}

fn fxrstor(area: &Area) {
    // SAFETY: 512 bytes at a multiple of 16, in a process that ends with it. `nostack`: nothing is pushed.
    unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack)) };
}

fn xrstor(area: &Area) {
    const SSE: u32 = 1 << 1;
    // SAFETY: the legacy region and the header, at a multiple of 64, in a process that ends with it; OSXSAVE was seen.
    // `nostack`: nothing is pushed.
    unsafe { asm!("xrstor64 [{}]", in(reg) area, in("eax") SSE, in("edx") 0, options(nostack)) };
}

/// Whether a child process that loads the area does not die of it.
fn survives(load: fn(&Area), area: &Area) -> bool {
    // SAFETY: the child calls nothing but the functions below, which neither allocate nor take locks.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the default action, and a limit that is read.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        };
        load(area);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    assert!(child > 0, "{}", io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: a status is written.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child, "{}", io::Error::last_os_error());
    let is_killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV;
    assert!(status == 0 || is_killed, "{status:#x}");
    status == 0
}

/// Whether RFBM = AVX alone loads MXCSR and stores it, as the standard format has it; `None` without AVX.
pub(super) fn avx_moves_mxcsr() -> Option<bool> {
    const ROUNDED: u32 = 0x3f80;
    if xcr0() & AVX == 0 {
        return None;
    }
    let [mut own, mut image, mut stored] = [(); 3].map(|()| Area::initial());
    image.put(MXCSR, &ROUNDED.to_le_bytes());
    stored.put(MXCSR, &[0; 4]);
    let mut loaded = 0_u32;
    // SAFETY: AVX is there, so XSAVE is; three areas with room for all that is saved at multiples of 64, with headers that
    // say nothing, and no reserved bit of MXCSR. The last line puts back what the first one saved, and in between is no
    // Rust code. `nostack`: nothing is pushed.
    unsafe {
        asm!(
            "xsave64 [{own}]",
            "mov eax, {avx}",
            "xrstor64 [{image}]",
            "stmxcsr [{loaded}]",
            "xsave64 [{stored}]",
            "mov eax, {probed:e}",
            "xrstor64 [{own}]",
            own = in(reg) &raw mut own,
            image = in(reg) &raw const image,
            stored = in(reg) &raw mut stored,
            loaded = in(reg) &raw mut loaded,
            probed = in(reg) probed(),
            avx = const AVX,
            inout("eax") probed() => _,
            in("edx") 0,
            options(nostack),
        );
    };
    Some([loaded, stored.mxcsr()] == [ROUNDED; 2])
}

/// Whether XSAVE tells of everything but BNDREGS that it is in use when XRSTOR has put it into its initial configuration;
/// `None` without XSAVE.
pub(super) fn all_is_in_use() -> Option<bool> {
    if xcr0() == 0 {
        return None;
    }
    let [mut own, initial, mut saved] = [(); 3].map(|()| Area::initial());
    // SAFETY: XSAVE is there; three areas with room for all that is saved at multiples of 64. The last line puts back what
    // the first one saved, and in between is no Rust code. `nostack`: nothing is pushed.
    unsafe {
        asm!(
            "xsave64 [{own}]",
            "xrstor64 [{initial}]",
            "xsave64 [{saved}]",
            "xrstor64 [{own}]",
            own = in(reg) &raw mut own,
            initial = in(reg) &raw const initial,
            saved = in(reg) &raw mut saved,
            in("eax") probed(),
            in("edx") 0,
            options(nostack),
        );
    };
    let in_use = u64::from_le_bytes(core::array::from_fn(|n| saved.0[XSTATE_BV + n]));
    let tracked = u64::from(probed()) & !BNDREGS;
    Some(in_use & tracked == tracked)
}

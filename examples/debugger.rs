//! A small debugger: stops a child with ptrace, prints its vector and x87 registers by name, changes two of them,
//! and lets the child see for itself.
//!
//! `cargo run --example debugger`. The parent gets the child's image from ptrace as plain bytes (NT_X86_XSTATE); all
//! it knows of them comes from `fpuswitch::xstate`, which has no unsafe code and asks no operating system.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("child") => child::main(),
        _ => debugger::main(),
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    println!("SKIPPED: ptrace and NT_X86_XSTATE are x86-64 Linux");
}

/// What the debugger writes, and the child expects to find.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const NEW_YMM7: [u8; 32] = *b"written by the debugger to ymm7.";
/// Round towards zero, all exceptions masked.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
const NEW_FCW: u16 = 0x0f7f;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod debugger {
    use fpuswitch::xstate::{Area, Layout, Register};
    use std::{error::Error, process::Command};

    pub(crate) fn main() -> Result<(), Box<dyn Error>> {
        if !std::is_x86_feature_detected!("avx") {
            println!("SKIPPED: this CPU has no AVX");
            return Ok(());
        }
        let mut child = Command::new(std::env::current_exe()?).arg("child").spawn()?;
        let pid = child.id().cast_signed();

        crate::ptrace::wait_until_stopped(pid)?;
        let mut bytes = crate::ptrace::registers(pid)?;
        let layout = Layout::from_regset(&bytes)?;
        let mut area = Area::over(bytes.as_mut_slice(), &layout)?;
        println!(
            "The child has stopped. {} bytes, {:?}, {:?}:",
            area.bytes().len(),
            area.format(),
            area.xstate_bv()
        );
        for name in ["fcw", "fsw", "ftw", "mxcsr", "st0", "xmm7", "ymm7", "zmm7", "zmm17", "k1", "pkru"] {
            let register: Register = name.parse()?;
            match area.register(register) {
                Ok(value) => println!("  {name:6} {value}"),
                Err(error) => println!("  {name:6} {error}"),
            }
        }

        println!("Changing ymm7 and the x87 control word.");
        area.set_register("ymm7".parse()?, &crate::NEW_YMM7)?;
        area.set_register("fcw".parse()?, &crate::NEW_FCW.to_le_bytes())?;
        crate::ptrace::set_registers(pid, &mut bytes)?;
        crate::ptrace::resume(pid)?;

        let status = child.wait()?;
        println!("The child: {status}.");
        assert!(status.success(), "the child did not find what the debugger wrote");
        Ok(())
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod child {
    #![allow(unsafe_code, reason = "asm: only there are the registers this program's own")]
    use std::{arch::asm, error::Error, process::exit};

    /// Fills registers, stops for the debugger, and looks at them when it goes on.
    pub(crate) fn main() -> Result<(), Box<dyn Error>> {
        crate::ptrace::stop_at_breakpoints()?;
        let mut ymm7 = *b"what the child itself put there.";
        let mut fcw = 0_u16;
        // SAFETY: AVX was detected by the parent. The block writes ymm7 and the top of the x87 stack, which it declares, and
        // `ymm7` and `fcw`; FNINIT gives the control word back its default. INT3 stops the child for its parent.
        unsafe {
            asm!(
                "vmovdqu ymm7, [{ymm7}]",
                "fldpi",
                "int3",
                "vmovdqu [{ymm7}], ymm7",
                "fnstcw [{fcw}]",
                "fninit",
                ymm7 = in(reg) ymm7.as_mut_ptr(),
                fcw = in(reg) &raw mut fcw,
                out("ymm7") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        println!("  the child finds ymm7 = {:?}, fcw = {fcw:#06x}", String::from_utf8_lossy(&ymm7));
        exit(i32::from((ymm7, fcw) != (crate::NEW_YMM7, crate::NEW_FCW)))
    }
}

/// The system calls, without which there is nothing to look at.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod ptrace {
    #![allow(unsafe_code, reason = "ptrace and waitpid are C functions")]
    use std::{io, ptr};

    const NT_X86_XSTATE: usize = 0x202;
    /// More than any image of today.
    const MOST_BYTES: usize = 32 << 10;

    fn checked(result: libc::c_long) -> io::Result<()> {
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(crate) fn stop_at_breakpoints() -> io::Result<()> {
        // SAFETY: PTRACE_TRACEME takes no further arguments.
        checked(unsafe { libc::ptrace(libc::PTRACE_TRACEME) })
    }

    pub(crate) fn wait_until_stopped(pid: i32) -> io::Result<()> {
        let mut status = 0;
        // SAFETY: waitpid writes one int, to `status`.
        checked(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into())?;
        if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP {
            return Ok(());
        }
        Err(io::Error::other(format!("the child did not stop at its breakpoint (status {status:#x})")))
    }

    fn regset(request: libc::c_uint, pid: i32, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the kernel reads or writes `iov_len` bytes at `iov_base` at most, which are those of `bytes`.
        checked(unsafe { libc::ptrace(request, pid, NT_X86_XSTATE, &raw mut buffer) })?;
        Ok(buffer.iov_len)
    }

    pub(crate) fn registers(pid: i32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; MOST_BYTES];
        let len = regset(libc::PTRACE_GETREGSET, pid, &mut bytes)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    pub(crate) fn set_registers(pid: i32, bytes: &mut [u8]) -> io::Result<()> {
        regset(libc::PTRACE_SETREGSET, pid, bytes).map(drop)
    }

    pub(crate) fn resume(pid: i32) -> io::Result<()> {
        // SAFETY: no address and no signal.
        checked(unsafe { libc::ptrace(libc::PTRACE_CONT, pid, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) })
    }
}

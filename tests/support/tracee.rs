//! A child under ptrace, stopped where its code has a breakpoint.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unsafe_code, reason = "fork and ptrace are C functions")]

use std::{io, mem, ptr};

pub(crate) const NT_PRFPREG: usize = 2;
pub(crate) const NT_X86_XSTATE: usize = 0x202;

fn checked(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// It is killed when it is dropped.
pub(crate) struct Tracee(libc::pid_t);

impl Tracee {
    /// A child that runs `program`, stopped at the first INT3 of it. What `program` returns is the child's exit status.
    ///
    /// # Errors
    /// The system's, also where it lets nobody be traced.
    ///
    /// # Safety
    /// `program` calls nothing that is not async-signal-safe.
    pub(crate) unsafe fn stopped(program: impl FnOnce() -> libc::c_int) -> io::Result<Self> {
        // SAFETY: `ptrace`, `_exit` and, by the caller, the program are async-signal-safe.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the same.
            0 => unsafe {
                if libc::ptrace(libc::PTRACE_TRACEME) == -1 {
                    libc::_exit(2);
                }
                libc::_exit(program())
            },
            pid => Self(pid).at_breakpoint(),
        }
    }

    fn wait(&self) -> io::Result<libc::c_int> {
        let mut status = 0;
        // SAFETY: waitpid writes one int, to `status`.
        checked(unsafe { libc::waitpid(self.0, &raw mut status, 0) }.into())?;
        Ok(status)
    }

    fn at_breakpoint(self) -> io::Result<Self> {
        let status = self.wait()?;
        if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP {
            return Ok(self);
        }
        if !libc::WIFSTOPPED(status) {
            mem::forget(self);
        }
        Err(io::Error::other(format!("the child's status is {status:#x}")))
    }

    fn regset(&self, request: libc::c_uint, kind: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: the kernel reads or writes `iov_len` bytes at `iov_base` at most, those of `bytes`.
        checked(unsafe { libc::ptrace(request, self.0, kind, &raw mut buffer) })?;
        Ok(buffer.iov_len)
    }

    pub(crate) fn get(&self, kind: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0xee; 32 << 10];
        let len = self.regset(libc::PTRACE_GETREGSET, kind, &mut bytes)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    pub(crate) fn set(&self, kind: usize, bytes: &[u8]) -> io::Result<()> {
        self.regset(libc::PTRACE_SETREGSET, kind, &mut bytes.to_vec()).map(drop)
    }

    /// What it has in RAX.
    pub(crate) fn rax(&self) -> io::Result<u64> {
        // SAFETY: zeros are a `user_regs_struct`.
        let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
        // SAFETY: the kernel writes one `user_regs_struct`.
        checked(unsafe {
            libc::ptrace(libc::PTRACE_GETREGS, self.0, ptr::null_mut::<u8>(), &raw mut registers)
        })?;
        Ok(registers.rax)
    }

    fn resume(&self) -> io::Result<()> {
        let none = ptr::null_mut::<u8>();
        // SAFETY: no address and no signal.
        checked(unsafe { libc::ptrace(libc::PTRACE_CONT, self.0, none, none) })
    }

    /// Lets it go on to the next INT3.
    pub(crate) fn go_on(self) -> io::Result<Self> {
        self.resume()?;
        self.at_breakpoint()
    }

    /// Lets it go on to its end, and returns its exit status.
    pub(crate) fn finish(self) -> io::Result<libc::c_int> {
        self.resume()?;
        let status = self.wait()?;
        if !libc::WIFEXITED(status) {
            return Err(io::Error::other(format!("the child's status is {status:#x}")));
        }
        mem::forget(self);
        Ok(libc::WEXITSTATUS(status))
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // SAFETY: the child is ours, and nobody has waited for its end.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        let _ = self.wait();
    }
}

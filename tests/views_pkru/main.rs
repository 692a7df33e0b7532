//! PKRU in signal frames and in a debugger's images: what the kernel that this runs on does, step by step, against the
//! machine.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code, reason = "signal handlers, WRPKRU, and a child under ptrace")]

mod debugger;
mod denied_stack;
mod frames;
#[path = "../support/pkeys.rs"]
mod pkeys;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tracee.rs"]
mod tracee;

use fpuswitch::{
    Component, TaskId,
    fpu::Policy,
    machine::Machine,
    registers::{HostCpu, HostRegs, RegisterFile},
    xstate::Layout,
};
use std::ops::Range;

const T0: TaskId = TaskId::first(0);
const PKRU_BIT: u64 = 1 << 9;
/// The header's first word in an image.
const XSTATE_BV: Range<usize> = 512..520;

/// Nothing denied, what a new program has, writes denied, everything denied but key 0, which the test's own memory has.
const VALUES: [u32; 4] = [0, 0x5555_5554, 0xaaaa_aaa8, 0xffff_fffc];

/// Where an image in the standard format has PKRU.
fn place_of_pkru() -> usize {
    let layout = Layout::from_cpuid(&HostCpu::new().expect("x86-64 Linux")).expect("no contradiction");
    layout.place(Component::PKRU).expect("XCR0 has PKRU").offset_bytes as usize
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn xstate_bv(image: &[u8]) -> u64 {
    u64::from_le_bytes(image[XSTATE_BV].try_into().expect("eight bytes"))
}

fn set_xstate_bv(image: &mut [u8], bits: u64) {
    image[XSTATE_BV].copy_from_slice(&bits.to_le_bytes());
}

/// PKRU of an image: 0 where its bit is clear.
fn pkru_of(image: &[u8], place: usize) -> u32 {
    if xstate_bv(image) & PKRU_BIT == 0 { 0 } else { u32_at(image, place) }
}

fn set_pkru(image: &mut [u8], place: usize, pkru: u32) {
    image[place..place + 4].copy_from_slice(&pkru.to_le_bytes());
    set_xstate_bv(image, xstate_bv(image) | PKRU_BIT);
}

/// What the simulated CPU has in PKRU.
fn simulated_pkru(machine: &Machine<HostRegs, impl Policy>) -> u32 {
    machine.cpus()[0].regs().pkru().expect("it has PKRU").0
}

//! Functions in Rust, as they are compiled here.

use super::touches_fpu;
use fpuswitch::live::audit::{KernelPath, Reason, assert_fpu_free};

/// Tasks that wait, in rings; and what a scheduler counts.
#[derive(Debug)]
struct Queue<'a> {
    first: Option<&'a Task<'a>>,
    switches: u64,
    seen: u64,
}

/// A task in a list.
#[derive(Debug)]
struct Task<'a> {
    next: Option<&'a Task<'a>>,
    number: u64,
}

/// Takes tasks from a list until one has the number.
extern "C" fn find(queue: &mut Queue<'_>, number: u64) -> bool {
    while let Some(task) = queue.first {
        queue.first = task.next;
        queue.seen |= task.number;
        queue.switches = queue.switches.wrapping_add(1);
        if task.number == number {
            return true;
        }
    }
    false
}

/// Several things to do, so many that they are a jump table in an optimised build.
extern "C" fn choose(what: u32, a: u64, b: u64) -> u64 {
    match what {
        0 => a.wrapping_add(b),
        1 => a.wrapping_mul(b),
        2 => a ^ b,
        3 => a.rotate_left(7) & b,
        4 => a.swap_bytes(),
        5 => !a | b,
        6 => a.wrapping_sub(b) >> 3,
        7 => u64::from(a.leading_zeros()),
        _ => 0,
    }
}

/// Copies what does not fit into a register.
extern "C" fn copy(from: &[u128; 4], to: &mut [u128; 4]) {
    *to = *from;
}

extern "C" fn add_floats(a: f64, b: f64) -> f64 {
    a + b
}

extern "C" fn call_given(function: extern "C" fn()) {
    function();
}

trait Step {
    fn step(&self) -> u64;
}

fn call_dynamic(step: &dyn Step) -> u64 {
    step.step()
}

extern "C" fn allocate(bytes: usize) -> *mut u8 {
    Box::leak(vec![0u8; bytes].into_boxed_slice()).as_mut_ptr()
}

#[test]
fn words_and_pointers_pass() {
    let proof = assert_fpu_free(&KernelPath::new(find as *const ()).entry(choose as *const ())).unwrap();
    assert!(proof.functions() >= 2 && proof.instructions() >= 40, "{proof:?}");
}

#[test]
fn copies_of_sixteen_bytes_and_floats_fail() {
    assert!(touches_fpu(assert_fpu_free(&KernelPath::new(copy as *const ()))));
    assert!(touches_fpu(assert_fpu_free(&KernelPath::new(add_floats as *const ()))));
}

#[test]
fn functions_that_are_given_fail() {
    let given = assert_fpu_free(&KernelPath::new(call_given as *const ())).unwrap_err();
    assert!(matches!(given.reason, Reason::IndirectCall | Reason::IndirectJump), "{given}");
    let dynamic = assert_fpu_free(&KernelPath::new(call_dynamic as *const ())).unwrap_err();
    assert!(matches!(dynamic.reason, Reason::IndirectCall | Reason::IndirectJump), "{dynamic}");
}

#[test]
fn the_allocator_fails() {
    let error = assert_fpu_free(&KernelPath::new(allocate as *const ())).unwrap_err();
    assert!(error.function.is_some() && error.instruction.is_some(), "{error}");
}

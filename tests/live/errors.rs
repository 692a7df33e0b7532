//! What is refused, and how.

use crate::support::{machine, start};
use fpuswitch::{
    CpuId,
    live::{
        Call, Config, LiveError, current, park,
        preempt::{NotPreemptible, Signal},
        preempt_off, preempt_self, preemptible, syscall, yield_now,
    },
};
use std::{panic::catch_unwind, time::Duration};

fn refused(config: Config) -> String {
    start("eager", config).expect_err("it has to be refused").to_string()
}

#[test]
fn machines_that_cannot_be() {
    for cpus in [0, 65, u32::MAX] {
        let said = refused(Config { cpus, ..Config::default() });
        assert_eq!(said, format!("a machine needs 1 to 64 CPUs, not {cpus}"));
    }
    for policy in ["trap-restore", "full-lazy", "use-class"] {
        let error = start(policy, Config::default()).expect_err("no trap in user space");
        assert_eq!(error, LiveError::Policy { name: policy });
        assert!(error.to_string().contains(policy), "{error}");
    }
    for signal in
        [0, -1, i32::MIN, libc::SIGKILL, libc::SIGSTOP, libc::SIGTSTP, libc::SIGSEGV, libc::SIGILL, 65, 1000]
    {
        let said = refused(Config { signal, ..Config::default() });
        assert!(said.starts_with(&format!("signal {signal} cannot be taken")), "{said}");
        assert!(matches!(Signal::install(signal), Err(LiveError::Signal { .. })));
    }
    let said = refused(Config { tick: Some(Duration::ZERO), ..Config::default() });
    assert!(said.contains("tick"), "{said}");
}

#[test]
fn a_machine_may_have_64_cpus() {
    let machine = machine(64);
    let spawn = machine.build().cpu(CpuId(63)).expect("the last one");
    assert_eq!(spawn.spawn(|| 5).expect("a thread").join().expect("no panic"), 5);
    machine.shutdown();
}

#[test]
fn cpus_that_are_not_there() {
    let machine = machine(2);
    let error = LiveError::NoSuchCpu { cpu: CpuId(2), cpus: 2 };
    assert_eq!(machine.build().cpu(CpuId(2)).expect_err("two CPUs"), error);
    assert_eq!(machine.preempt(CpuId(2)), Err(error.clone()));
    assert!(error.to_string().contains("the machine has 2"), "{error}");
    let thread = machine.spawn(park).expect("a thread");
    assert_eq!(thread.thread().migrate_to(CpuId(2)), Err(error));
    assert_eq!(thread.thread().migrate_to(CpuId(1)), Err(LiveError::Pinned));
    thread.thread().unpark();
    thread.join().expect("no panic");
}

#[test]
fn stacks_of_every_size() {
    let machine = machine(1);
    let spawn = |bytes| machine.build().stack_bytes(bytes).spawn(|| 3);
    for bytes in [0, 1, 4095, 4097] {
        // In whole pages, and one at least: for this, enough.
        assert_eq!(spawn(bytes).expect("a thread").join().expect("no panic"), 3);
    }
    for bytes in [usize::MAX, isize::MAX as usize, (1 << 47) + 1] {
        let error = spawn(bytes).expect_err("too large");
        assert!(error.to_string().contains("is too large"), "{error}");
    }
    let error = spawn(1 << 47).expect_err("too large for any process");
    assert!(matches!(error, LiveError::Mappings { .. }), "{error}");
}

#[test]
fn calls_outside_of_a_green_thread() {
    fn said(call: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let panic = catch_unwind(call).expect_err("no green thread");
        panic.downcast_ref::<&str>().map(|said| (*said).to_owned()).unwrap_or_default()
    }
    let calls: [fn(); 4] = [
        yield_now,
        park,
        || syscall(Call::Null),
        || {
            #[expect(unsafe_code, reason = "it does not come to the region")]
            // SAFETY: an empty region depends on nothing.
            unsafe {
                preemptible(|| ());
            }
        },
    ];
    for call in calls {
        assert_eq!(said(call), "only a green thread can call its kernel, and this is none");
    }
    assert_eq!(preempt_self(), Err(NotPreemptible::NoFiber));
    assert!(current().is_none());
    assert_eq!(preempt_off(|| 4), 4);
}

#[test]
fn preemption_where_it_is_off() {
    let machine = machine(1);
    let body = || {
        #[expect(unsafe_code, reason = "regions that may be preempted")]
        // SAFETY: what is in the regions depends on no other thread.
        unsafe {
            let region = |inside: fn() -> Result<(), NotPreemptible>| preemptible(inside);
            [
                preempt_self(),
                region(|| preempt_off(preempt_self)),
                preempt_off(|| preemptible(preempt_self)),
                region(preempt_self),
                region(|| preemptible(preempt_self)),
                region(|| {
                    preemptible(|| ());
                    preempt_self()
                }),
                region(|| {
                    preempt_off(|| preempt_off(|| ()));
                    preempt_self()
                }),
            ]
        }
    };
    let off = Err(NotPreemptible::Off);
    let found = machine.spawn(body).expect("a thread").join().expect("no panic");
    assert_eq!(found, [off, off, off, Ok(()), Ok(()), Ok(()), Ok(())]);
}

#[test]
fn a_machine_is_not_shut_down_by_its_own_thread() {
    let (own, other) = (machine(1), machine(1));
    let spawn = own.build();
    let thread = spawn.clone().spawn(move || {
        other.shutdown();
        own.shutdown();
    });
    let panic = thread.expect("a thread").join().expect_err("it would wait for itself");
    assert!(panic.downcast_ref::<&str>().is_some_and(|said| said.contains("its own thread")));
    // It was dropped instead, and ends when it has no thread: it has to come to that between two of these.
    while spawn.clone().spawn(|| ()).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

//! PKRU beside images and inside them, side by side, on real pages with real keys: where the kernel accesses the memory of a
//! task that was just switched in, the real one does so with what the simulated CPU has in PKRU then.
//!
//! The failing case of the mailing list (2016); `pkru.rs` has it for every register file.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code, reason = "WRPKRU")]

#[path = "support/accesses.rs"]
mod accesses;
#[path = "support/pkeys.rs"]
mod pkeys;
mod support;

use fpuswitch::{
    CpuId, Event, PageAccess, Pkru, TaskId,
    check::{Invariant, check_outcome},
    fpu::{PkruMode, Policy, UserAccess, policy::Builtin},
    registers::{HostRegs, RegisterFile},
};
use pkeys::{ALL_DENIED, Page, SEGV_PKUERR, denied, missing_in_images, rdpkru, write_denied, wrpkru};
use support::Checked;

const CPU: CpuId = CpuId(0);
const T1: TaskId = TaskId::first(1);

/// What a task may do with the page.
#[derive(Clone, Copy, Debug)]
enum Rights {
    All,
    Read,
    None,
}

impl Rights {
    const ALL: [Self; 3] = [Self::All, Self::Read, Self::None];

    /// A PKRU that denies every other key but 0.
    fn pkru(self, key: u8) -> u32 {
        ALL_DENIED & !denied(key)
            | match self {
                Self::All => 0,
                Self::Read => write_denied(key),
                Self::None => denied(key),
            }
    }

    fn allow(self, write: bool) -> bool {
        match self {
            Self::All => true,
            Self::Read => !write,
            Self::None => false,
        }
    }
}

/// Runs `access` with that in PKRU.
fn with_pkru<T>(pkru: Pkru, access: impl FnOnce() -> T) -> T {
    let own = rdpkru();
    // SAFETY: key 0 is allowed, and the page with another is accessed where a fault is a result.
    unsafe { wrpkru(pkru.0 & !denied(0)) };
    let result = access();
    // SAFETY: as it was.
    unsafe { wrpkru(own) };
    result
}

/// Whether user code can access the page.
fn is_allowed_in_user_mode(page: &Page, write: bool) -> bool {
    let done = if write { accesses::store(page, 7) } else { accesses::load(page).map(|_| ()) };
    let (address, key) = (page.words() as usize, u32::from(page.key()));
    assert!(done.is_ok() || done == Err(accesses::Fault { address, code: SEGV_PKUERR, key }), "{done:?}");
    done.is_ok()
}

/// T1 was switched in where T0 was before, both with PKRUs of their own.
fn switched(regs: &HostRegs, policy: Builtin, mode: PkruMode, pkrus: [u32; 2]) -> Checked<Builtin, HostRegs> {
    let mut checked = Checked::on(regs, policy, 1);
    checked.machine = checked.machine.with_pkru(mode).expect("a policy that allows it");
    checked.run("spawn T0; spawn T1");
    for (task, pkru) in pkrus.iter().enumerate() {
        checked.run(&format!(
            "in c0 T{task}; return c0 T{task}; user-pkru c0 {pkru:#x}; entry c0 interrupt; out c0"
        ));
    }
    checked.run("in c0 T0; return c0 T0; entry c0 interrupt; out c0; in c0 T1");
    checked
}

#[test]
fn hardware_in_images_the_kernel_uses_the_wrong_keys_on_real_pages() {
    if let Some(why) = missing_in_images() {
        return println!("HARDWARE pkru-pages: SKIPPED: {why}");
    }
    accesses::install();
    let page = Page::new().expect("a page with a key");
    let regs = HostRegs::new().expect("the host's registers");
    let mut wrong = [[0; 2]; 2];
    for (t0, t1) in Rights::ALL.into_iter().flat_map(|t0| Rights::ALL.map(|t1| (t0, t1))) {
        for policy in Builtin::ALL {
            for mode in [PkruMode::Eager, PkruMode::InXsave] {
                if mode.check(&policy).is_ok() {
                    let checked = switched(&regs, policy, mode, [t0, t1].map(|t| t.pkru(page.key())));
                    let found = before_and_behind_the_return(checked, &page, t0, t1);
                    let counts = &mut wrong[usize::from(mode == PkruMode::InXsave)];
                    counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
                }
            }
        }
    }
    let [eager, in_xsave] = wrong;
    assert_eq!(eager, [0, 0], "leaks, and what was denied without a reason");
    assert!(in_xsave.iter().all(|count| *count > 0), "{in_xsave:?}: the case of the mailing list");
    println!("HARDWARE pkru-pages: ran");
}

/// Accesses T1's page before its return to user mode, and behind. Returns how often the kernel could do what T1 may not, and
/// could not do what T1 may.
fn before_and_behind_the_return(
    mut checked: Checked<Builtin, HostRegs>,
    page: &Page,
    t0: Rights,
    t1: Rights,
) -> [u32; 2] {
    let mut wrong = [0; 2];
    let (policy, mode) = (*checked.machine.policy(), checked.machine.pkru_mode());
    // Loaded at the switch, PKRU is T1's in either mode. Otherwise an image has it, which is loaded at the return.
    let at_switch = mode == PkruMode::Eager || matches!(policy, Builtin::Eager | Builtin::EagerOwner);
    let in_register = if at_switch { t1 } else { t0 };
    for write in [false, true] {
        let what = format!("{}, {mode:?}, T0 may {t0:?}, T1 may {t1:?}, write: {write}", policy.name());
        let pkru = checked.machine.cpus()[0].regs().pkru().expect("it has PKRU");
        let real = with_pkru(pkru, || page.is_allowed_in_kernel(write));
        assert_eq!(real, in_register.allow(write), "{what}");
        assert_eq!(with_pkru(pkru, || is_allowed_in_user_mode(page, write)), real, "{what}");
        let event = Event::UserMemory(CPU, T1, PageAccess::new(page.key(), write).expect("a key below 16"));
        let outcome = checked.follow(event).expect("T1 is in the kernel");
        let model = outcome.user_memory.map(|access| access == UserAccess::Allowed);
        assert_eq!(model, Some(real), "{what}");
        // What the kernel may do and T1 may not is a leak, and the other way round a failure that T1 has not deserved.
        wrong[0] += u32::from(real && !t1.allow(write));
        wrong[1] += u32::from(!real && t1.allow(write));
        let breach = check_outcome(&checked.machine, &checked.spec, event, &outcome);
        let broken = breach.err().map(|breach| breach.invariant);
        assert_eq!(broken, (real != t1.allow(write)).then_some(Invariant::I7), "{what}");
    }
    checked.run("return c0 T1");
    let pkru = checked.machine.cpus()[0].regs().pkru().expect("it has PKRU");
    for write in [false, true] {
        let real = with_pkru(pkru, || is_allowed_in_user_mode(page, write));
        assert_eq!(real, t1.allow(write), "{}, {mode:?}, behind the return", policy.name());
    }
    wrong
}

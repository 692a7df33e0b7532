//! Accesses with a key that PKRU denies: a fault of the thread that makes them, and of no other.
#![allow(unsafe_code, reason = "WRPKRU, and regions that may be preempted")]

use crate::{
    accesses::{self, Fault, load, store},
    emulator::cases_here,
    pkeys::{ALL_DENIED, Page, SEGV_PKUERR, denied, missing_in_images, write_denied, wrpkru},
    support::{POLICIES, said, start, tell},
};
use fpuswitch::{
    CpuId,
    live::{Config, Gate, Step, preemptible, yield_now},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

/// Of each machine, and as many pages.
const THREADS: usize = 4;
/// How often each does all that it does.
fn rounds() -> u32 {
    cases_here(30, 6)
}

/// In each round's region, and every how many of them one is denied.
const ACCESSES: u32 = 9_000;
const DENIED_EVERY: u32 = 3_000;
/// Those outside of the region, in each round.
const DENIED_OUTSIDE: u32 = 3;

/// What the library reports, and what the threads know of it: how often a thread of that name was denied an address.
type Denied = BTreeMap<(String, usize), u32>;

#[test]
fn hardware_an_access_with_a_wrong_key_is_a_fault_of_its_thread_alone() {
    if let Some(why) = missing_in_images() {
        return println!("HARDWARE live-wrong-key: SKIPPED: {why}");
    }
    let output = tell("wrong-keys", &[]);
    let said = said(&output);
    assert!(output.status.success(), "{}", last_lines(&said));
    let reports = said.lines().filter_map(|line| {
        let line = line.strip_prefix("fpuswitch: green thread ")?;
        let (name, what) = line.split_once('(')?.1.split_once(") ")?;
        let at = what.strip_prefix("accessed memory with a protection key that its PKRU denies, at 0x")?;
        Some((name.to_owned(), usize::from_str_radix(at, 16).ok()?))
    });
    let mut reported = Denied::new();
    reports.for_each(|report| *reported.entry(report).or_default() += 1);
    let told = String::from_utf8_lossy(&output.stdout);
    told.lines().filter(|line| line.ends_with(" preemptions")).for_each(|line| println!("{line}"));
    let told: Denied = told.lines().filter_map(told_of).collect();
    assert_eq!(reported, told);
    // Each thread is denied two pages as a whole, and one for writes.
    assert_eq!(told.len(), POLICIES.len() * 2 * THREADS * (THREADS - 1));
    let faults = THREADS as u32 * rounds() * (ACCESSES / DENIED_EVERY + DENIED_OUTSIDE);
    assert_eq!(told.values().sum::<u32>(), POLICIES.len() as u32 * 2 * faults);
    println!("HARDWARE live-wrong-key: ran");
}

/// A line of the story: a name, an address and how often.
fn told_of(line: &str) -> Option<((String, usize), u32)> {
    let mut words = line.strip_prefix("denied ")?.split(' ');
    let (name, at, count) = (words.next()?, words.next()?, words.next()?);
    Some(((name.to_owned(), at.parse().ok()?), count.parse().ok()?))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// The story, in a process of its own: the handler that the faults are passed on to is there before the library's.
pub(crate) fn threads_that_fault() {
    accesses::install();
    let pages: Arc<[Page; THREADS]> =
        Arc::new(std::array::from_fn(|_| Page::new().expect("a page with a key")));
    let mut preemptions = 0;
    for policy in POLICIES {
        for gate in [Gate::Auto, Gate::Parked] {
            let tick = Some(Duration::from_micros(200));
            let config = Config { cpus: 2, gate, tick, ..Config::default() };
            let machine = start(policy, config).expect("a machine");
            let is_done = Arc::new(AtomicBool::new(false));
            let until = Arc::clone(&is_done);
            let step = move || if until.load(SeqCst) { Step::Done } else { Step::Again };
            let kernel_thread = machine.build().spawn_kernel(step).expect("a kernel thread");
            let names: [String; THREADS] =
                std::array::from_fn(|number| format!("{policy}-{gate:?}-{number}"));
            let threads: Vec<_> = (0..THREADS)
                .map(|number| {
                    let pages = Arc::clone(&pages);
                    let spawn = machine.build().name(&names[number]);
                    spawn.spawn(move || Thread::new(&pages, number).run()).expect("a thread")
                })
                .collect();
            // By the tick, and from here.
            while !threads.iter().all(|thread| thread.is_finished()) {
                for cpu in 0..2 {
                    machine.preempt(CpuId(cpu)).expect("a CPU");
                }
                std::thread::sleep(Duration::from_micros(300));
            }
            for (name, thread) in names.iter().zip(threads) {
                let denied = thread.join().expect("what it may, and nothing else");
                for (page, count) in pages.iter().zip(denied).filter(|(_, count)| *count > 0) {
                    println!("denied {name} {} {count}", page.words() as usize);
                }
            }
            is_done.store(true, SeqCst);
            kernel_thread.join().expect("no panic");
            preemptions += machine.shutdown().preemptions;
        }
    }
    println!("{preemptions} preemptions");
    // A fast CPU is through with a machine within a few ticks.
    assert!(preemptions > POLICIES.len() as u64, "{preemptions} preemptions");
}

/// A thread with a page of its own. It may read the next one too; the others are denied.
struct Thread<'a> {
    pages: &'a [Page; THREADS],
    number: usize,
    /// How often each page was denied.
    denied: [u32; THREADS],
    turns: u32,
}

impl<'a> Thread<'a> {
    fn new(pages: &'a [Page; THREADS], number: usize) -> Self {
        Self { pages, number, denied: [0; THREADS], turns: 0 }
    }

    fn run(mut self) -> [u32; THREADS] {
        let (own, next) = (self.page(0).key(), self.page(1).key());
        let pkru = ALL_DENIED & !denied(own) & !denied(next) | write_denied(next);
        // SAFETY: key 0 is allowed.
        unsafe { wrpkru(pkru) };
        for _ in 0..rounds() {
            self.access_own(yield_now);
            for _ in 0..DENIED_OUTSIDE {
                self.access_others();
                yield_now();
            }
            // SAFETY: nothing in the region depends on other threads: they write the pages, too, and what is read of those is
            // not looked at. It locks and allocates nothing but where it fails, and with it the test.
            unsafe {
                preemptible(|| {
                    for turn in 1..=ACCESSES {
                        self.access_own(|| ());
                        if turn.is_multiple_of(DENIED_EVERY) {
                            self.access_others();
                        }
                    }
                });
            }
        }
        self.denied
    }

    /// Its own page, or one of those behind it.
    fn page(&self, behind: usize) -> &'a Page {
        &self.pages[(self.number + behind) % THREADS]
    }

    fn access_own(&mut self, between: impl Fn()) {
        self.turns += 1;
        let (own, next) = (self.page(0), self.page(1));
        assert_eq!(store(own, self.turns), Ok(()));
        between();
        assert_eq!(load(own), Ok(self.turns));
        assert!(load(next).is_ok());
    }

    /// One of the others, each in its turn, and the next by writing.
    fn access_others(&mut self) {
        let count = self.denied.iter().sum::<u32>() as usize;
        let behind = 1 + count % (THREADS - 1);
        let page = self.page(behind);
        let fault =
            if behind == 1 || count.is_multiple_of(2) { store(page, 0) } else { load(page).map(|_| ()) };
        let key = u32::from(page.key());
        assert_eq!(fault, Err(Fault { address: page.words() as usize, code: SEGV_PKUERR, key }));
        self.denied[(self.number + behind) % THREADS] += 1;
    }
}

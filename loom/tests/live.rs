//! What CPUs of `live` share, in every interleaving that loom distinguishes.
//!
//! The files under test are those of the crate, compiled once more on loom's atomics. A wake-up that is lost shows as a
//! deadlock, an order that is missing as a race on a cell or a value that is not there.
#![allow(unsafe_code, reason = "items are pushed by pointer, and loom's cells give pointers")]

#[path = "../../src/live/sync/idle.rs"]
mod idle;
#[path = "../../src/live/sync/inbox.rs"]
mod inbox;
#[path = "../../src/live/sync/local.rs"]
mod local;
#[path = "../../src/live/sync/request.rs"]
mod request;
#[path = "../../src/live/sync/token.rs"]
mod token;

use std::{ptr::NonNull, sync::Arc};

use loom::{cell::UnsafeCell, sync::atomic::AtomicBool, thread};

use self::{
    atomics::{AtomicPtr, Ordering},
    idle::{Idle, Wake},
    inbox::Inbox,
    local::{Linked, Local},
    request::{Request, RequestWord},
    token::{Park, Token, Unpark},
};

/// As the crate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuId(u32);

mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
}

/// Linux's promise: whoever sleeps saw the word as expected, and is woken by a wake that comes after that look.
mod futex {
    use loom::sync::{Condvar, Mutex, atomic::AtomicU32};

    use super::Ordering;

    #[derive(Debug)]
    pub(super) struct Futex {
        word: AtomicU32,
        queue: Mutex<()>,
        sleeper: Condvar,
    }

    impl Futex {
        pub(super) fn new(value: u32) -> Self {
            Self { word: AtomicU32::new(value), queue: Mutex::new(()), sleeper: Condvar::new() }
        }

        pub(super) fn swap(&self, value: u32, order: Ordering) -> u32 {
            self.word.swap(value, order)
        }

        pub(super) fn wait(&self, expected: u32) {
            let queue = self.queue.lock().expect("no panic");
            if self.word.load(Ordering::Relaxed) == expected {
                drop(self.sleeper.wait(queue));
            }
        }

        pub(super) fn wake(&self) {
            let _queue = self.queue.lock().expect("no panic");
            self.sleeper.notify_one();
        }
    }
}

/// A green thread, as far as it matters here.
struct Green {
    link: AtomicPtr<Green>,
    request: RequestWord,
    token: Token,
    /// Its context and its image: for one CPU at a time.
    image: UnsafeCell<u32>,
}

// SAFETY: L: a field, and the tests leave it alone.
unsafe impl Linked for Green {
    fn link(&self) -> &AtomicPtr<Self> {
        &self.link
    }
}

impl Green {
    fn new() -> Self {
        Self {
            link: AtomicPtr::new(std::ptr::null_mut()),
            request: RequestWord::new(),
            token: Token::new(),
            image: UnsafeCell::new(0),
        }
    }

    /// Writes the image, for loom to notice who else touches it at that time.
    fn save(&self, value: u32) {
        // SAFETY: loom fails the test if there is another reference.
        self.image.with_mut(|image| unsafe { *image = value });
    }

    fn load(&self) -> u32 {
        // SAFETY: loom fails the test if somebody writes.
        self.image.with(|image| unsafe { *image })
    }
}

/// Takes in what others handed over.
fn receive(ready: &mut Local<Green>, inbox: &Inbox<Green>) {
    let mut taken = inbox.take_all();
    while let Some(green) = taken.pop_front() {
        // SAFETY: A: whoever pushed it answers for that. B: it was just taken out.
        unsafe { ready.push_back(green) };
    }
}

/// A CPU, as far as it matters here.
struct Cpu {
    inbox: Inbox<Green>,
    idle: Idle,
    /// The thread whose state is in this CPU's registers, and that state.
    owner: UnsafeCell<Option<(NonNull<Green>, u32)>>,
}

impl Cpu {
    fn new() -> Self {
        Self { inbox: Inbox::new(), idle: Idle::new(), owner: UnsafeCell::new(None) }
    }

    /// Pushes without a wake-up.
    fn push(&self, green: &Green) {
        // SAFETY: A: every test keeps its world until all threads are done. B: every test pushes what it has made or
        // taken out, once. C: cells are loom's.
        unsafe { self.inbox.push(NonNull::from(green)) };
    }

    fn hand(&self, green: &Green) -> Wake {
        self.push(green);
        self.idle.wake()
    }

    /// Saves the registers, if they still have a thread's state.
    fn evict(&self) {
        // SAFETY: loom fails the test if another thread touches the slot.
        if let Some((green, registers)) = self.owner.with_mut(|owner| unsafe { (*owner).take() }) {
            at(green).save(registers);
        }
    }
}

/// The thread behind a pointer out of a list.
fn at<'a>(green: NonNull<Green>) -> &'a Green {
    // SAFETY: every test keeps its world until all threads are done.
    unsafe { green.as_ref() }
}

/// What all threads of a test have.
struct World<const CPUS: usize, const GREENS: usize> {
    cpus: [Cpu; CPUS],
    greens: [Green; GREENS],
    flags: [AtomicBool; 2],
}

// SAFETY: loom fails the test if two threads touch a cell at a time. A pointer in a cell is to this world.
unsafe impl<const CPUS: usize, const GREENS: usize> Sync for World<CPUS, GREENS> {}
// SAFETY: as above.
unsafe impl<const CPUS: usize, const GREENS: usize> Send for World<CPUS, GREENS> {}

fn world<const CPUS: usize, const GREENS: usize>() -> Arc<World<CPUS, GREENS>> {
    Arc::new(World {
        cpus: std::array::from_fn(|_| Cpu::new()),
        greens: std::array::from_fn(|_| Green::new()),
        flags: [AtomicBool::new(false), AtomicBool::new(false)],
    })
}

fn join<T, const N: usize>(threads: [thread::JoinHandle<T>; N]) -> [T; N] {
    threads.map(|thread| thread.join().expect("no panic"))
}

/// Explores with at most `preemptions` of them in an execution.
fn explore(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

#[test]
fn every_item_arrives_once_complete_and_in_the_order_of_its_sender() {
    explore(2, || {
        let world = world::<1, 3>();
        let senders = [&[0, 1][..], &[2]].map(|items| {
            let world = world.clone();
            thread::spawn(move || {
                for &item in items {
                    world.greens[item].save(7);
                    world.cpus[0].push(&world.greens[item]);
                }
            })
        });
        let (mut ready, mut arrived) = (Local::new(), Vec::new());
        while arrived.len() < 3 {
            receive(&mut ready, &world.cpus[0].inbox);
            if ready.is_empty() {
                thread::yield_now();
            }
            while let Some(item) = ready.pop_front() {
                assert_eq!(at(item).load(), 7);
                at(item).save(8);
                arrived.push(world.greens.iter().position(|green| std::ptr::eq(green, at(item))));
            }
        }
        arrived.retain(|item| *item != Some(2));
        assert_eq!(arrived, [Some(0), Some(1)]);
        join(senders);
    });
}

#[test]
fn items_that_come_back_while_another_is_pushed_are_not_lost() {
    explore(6, || {
        let world = world::<1, 2>();
        let [first, second] = &world.greens;
        world.cpus[0].push(first);
        let sender = {
            let world = world.clone();
            thread::spawn(move || world.cpus[0].push(&world.greens[1]))
        };
        let mut kept = Local::new();
        for _ in 0..2 {
            let mut taken = world.cpus[0].inbox.take_all();
            while let Some(item) = taken.pop_front() {
                if std::ptr::eq(at(item), first) {
                    world.cpus[0].push(first);
                } else {
                    // SAFETY: A: the world is kept. B: just taken out.
                    unsafe { kept.push_back(item) };
                }
            }
        }
        join([sender]);
        receive(&mut kept, &world.cpus[0].inbox);
        let kept: Vec<_> = std::iter::from_fn(|| kept.pop_front()).collect();
        assert_eq!(kept.len(), 2);
        for green in [first, second] {
            assert!(kept.contains(&NonNull::from(green)));
        }
    });
}

#[test]
fn one_unparker_has_a_parked_thread_with_its_context() {
    explore(5, || {
        let world = world::<0, 1>();
        let unparkers = [0, 1].map(|number| {
            let world = world.clone();
            thread::spawn(move || {
                world.flags[number].store(true, Ordering::Relaxed);
                let unpark = world.greens[0].token.unpark();
                if unpark == Unpark::MustWake {
                    assert_eq!(world.greens[0].load(), 1, "the context is not there");
                    world.greens[0].save(2);
                }
                usize::from(unpark == Unpark::MustWake)
            })
        });
        let green = &world.greens[0];
        green.save(1);
        let park = green.token.park();
        if park == Park::Notified {
            assert!(world.flags.iter().any(|flag| flag.load(Ordering::Relaxed)), "the notification is early");
            green.save(3);
        }
        let must_wake = join(unparkers);
        assert_eq!(must_wake.iter().sum::<usize>(), usize::from(park == Park::Parked));
        assert_eq!(green.load(), if park == Park::Parked { 2 } else { 3 });
        // Of two notifications for a thread that waits, one wakes it, and one is left. One is kept at most.
        assert!(green.token.take() || park == Park::Notified);
        assert!(!green.token.take());
    });
}

#[test]
fn a_notification_stands_for_all_that_came_before_it() {
    explore(5, || {
        let world = world::<0, 1>();
        let unparkers = [0, 1].map(|number| {
            let world = world.clone();
            thread::spawn(move || {
                world.flags[number].store(true, Ordering::Relaxed);
                assert_eq!(world.greens[0].token.unpark(), Unpark::Running);
            })
        });
        let seen = || world.flags.iter().all(|flag| flag.load(Ordering::Relaxed));
        let token = &world.greens[0].token;
        let all_seen = token.take() && seen();
        join(unparkers);
        // A thread that used a notification and did not see everything is told again.
        assert!(all_seen || token.take());
    });
}

#[test]
fn no_work_is_lost_on_a_cpu_that_falls_asleep() {
    explore(2, || {
        let world = world::<1, 2>();
        let senders = [0, 1].map(|number| {
            let world = world.clone();
            thread::spawn(move || usize::from(world.cpus[0].hand(&world.greens[number]) == Wake::Sent))
        });
        let cpu = &world.cpus[0];
        let (mut arrived, mut sleeps) = (0, 0);
        while arrived < 2 {
            let mut taken = cpu.inbox.take_all();
            if taken.is_empty() {
                sleeps += 1;
                cpu.idle.sleep(|| !cpu.inbox.is_empty());
            }
            while taken.pop_front().is_some() {
                arrived += 1;
            }
        }
        let sent = join(senders);
        assert!(sent.iter().sum::<usize>() <= sleeps, "more than one wake-up a sleep");
    });
}

/// A thread waits for two others, on a CPU that has nothing else to do.
#[test]
fn no_wakeup_of_a_thread_is_lost() {
    explore(2, || {
        let world = world::<1, 1>();
        let unparkers = [0, 1].map(|number| {
            let world = world.clone();
            thread::spawn(move || {
                world.flags[number].store(true, Ordering::Relaxed);
                if world.greens[0].token.unpark() == Unpark::MustWake {
                    let _ = world.cpus[0].hand(&world.greens[0]);
                }
            })
        });
        let (cpu, green) = (&world.cpus[0], &world.greens[0]);
        while !world.flags.iter().all(|flag| flag.load(Ordering::Relaxed)) {
            if green.token.take() || green.token.park() == Park::Notified {
                continue;
            }
            while cpu.inbox.take_all().pop_front().is_none() {
                cpu.idle.sleep(|| !cpu.inbox.is_empty());
            }
        }
        join(unparkers);
    });
}

/// CPU `me` of two: it wants the thread `me`, whose state is in the other's registers.
fn get_own_thread(world: &World<2, 2>, me: usize, evicts: bool) {
    let (cpu, other) = (&world.cpus[me], &world.cpus[1 - me]);
    world.greens[me].request.set(Request::HandOver(CpuId(me as u32)));
    let _ = other.hand(&world.greens[me]);
    if evicts {
        cpu.evict();
    }
    let (mut ran, mut handed) = (false, false);
    while !(ran && handed) {
        let mut taken = cpu.inbox.take_all();
        if taken.is_empty() {
            cpu.idle.sleep(|| !cpu.inbox.is_empty());
        }
        while let Some(green) = taken.pop_front() {
            match at(green).request.get() {
                Request::Run => {
                    assert!(std::ptr::eq(at(green), &world.greens[me]));
                    assert_eq!(at(green).load(), 100 + me as u32, "what the other saved is not there");
                    ran = true;
                }
                Request::HandOver(CpuId(to)) => {
                    assert_eq!(to as usize, 1 - me);
                    cpu.evict();
                    at(green).request.set(Request::Run);
                    let _ = other.hand(at(green));
                    handed = true;
                }
            }
        }
    }
}

#[test]
fn two_cpus_get_threads_out_of_each_others_registers() {
    for evicts in [false, true] {
        explore(3, move || {
            let world = world::<2, 2>();
            for me in [0, 1] {
                let state = (NonNull::from(&world.greens[1 - me]), 101 - me as u32);
                // SAFETY: nobody else has the world yet.
                world.cpus[me].owner.with_mut(|owner| unsafe { *owner = Some(state) });
            }
            let other = {
                let world = world.clone();
                thread::spawn(move || get_own_thread(&world, 1, evicts))
            };
            get_own_thread(&world, 0, false);
            join([other]);
        });
    }
}

use super::*;
use crate::Value;

const C0: CpuId = CpuId(0);
const T0: TaskId = TaskId::first(0);
const T1: TaskId = TaskId::first(1);

/// x87, SSE and AVX; T0 in user mode on c0 with x87 = 1, SSE = 2, AVX = 3 and PKRU = 0.
const WRITTEN: &str = "spawn T0; in c0 T0; return c0 T0; user-pkru c0 0x0;
    user-write c0 x87 1; user-write c0 SSE 2; user-write c0 AVX 3";

fn follow(spec: &mut Spec, events: &str) {
    for event in events.split(';') {
        spec.apply(event.parse().unwrap());
    }
}

fn after(events: &str) -> Spec {
    let mut spec = Spec::new(ComponentSet::from_bits(0b111));
    follow(&mut spec, events);
    spec
}

fn seen(spec: &Spec, task: TaskId) -> Option<([u8; 3], Pkru)> {
    let state = spec.state(task)?;
    let number = |component| state.value(component).unwrap().number();
    Some(([Component::X87, Component::SSE, Component::AVX].map(number), state.pkru()))
}

/// What T0 sees after `WRITTEN` and these events. All numbers are chosen so that no two sources agree.
#[track_caller]
fn check(events: &str, numbers: [u8; 3]) {
    check_with_pkru(events, numbers, Pkru(0));
}

#[track_caller]
fn check_with_pkru(events: &str, numbers: [u8; 3], pkru: Pkru) {
    let mut spec = after(WRITTEN);
    follow(&mut spec, events);
    assert_eq!(seen(&spec, T0), Some((numbers, pkru)), "{events}");
}

#[test]
fn new_programs_start_in_the_initial_configuration() {
    let initial = Some(([0, 0, 0], Pkru::DEFAULT));
    let mut spec = after(WRITTEN);
    follow(&mut spec, "spawn T1; entry c0 system-call; signal-deliver c0; exec c0");
    assert_eq!((seen(&spec, T0), seen(&spec, T1)), (initial, initial));
    let frames = &spec.states.get(&T0).expect("a live task").frames;
    assert!(frames.is_empty(), "the new program has the old one's frames: {frames:?}");
}

#[test]
fn only_its_own_program_and_named_writers_change_a_state() {
    check("write T0 AVX 9", [1, 2, 9]);
    check("spawn T1; write T1 AVX 9; user-write c1 AVX 9; write T0.2 AVX 9", [1, 2, 3]);
    check(
        "entry c0 interrupt; offline c0; online c0; power-loss c0; kernel-fpu-begin c0 softirq;
         kernel-fpu-end c0; move-to-memory c0; invalidate-registers c0; out c0; idle c0; migrate T0 c1;
         read T0 SSE; in c1 T0; first-use c1; return c1 T0",
        [1, 2, 3],
    );
}

#[test]
fn a_component_that_the_register_file_lacks_has_no_value() {
    let mut spec = Spec::new(ComponentSet::from_bits(0b1).with(Component::PKRU));
    follow(&mut spec, WRITTEN);
    let state = spec.state(T0).unwrap();
    let values = [Component::X87, Component::SSE, Component::PKRU].map(|c| state.value(c));
    assert_eq!(values, [Value::new(1), None, None]);
}

#[test]
fn a_child_starts_with_a_copy_and_goes_its_own_way() {
    let mut spec = after(WRITTEN);
    follow(&mut spec, "entry c0 system-call; signal-deliver c0; fork c0 T1; write T0 x87 8; write T1 AVX 9");
    assert_eq!(seen(&spec, T0), Some(([8, 2, 3], Pkru(0))));
    assert_eq!(seen(&spec, T1), Some(([1, 2, 9], Pkru(0))));
    assert_eq!(spec.states.get(&T1).expect("a live task").frames, []);
    follow(&mut spec, "kernel-thread T2; in c1 T2; fork c1 T3");
    assert_eq!(seen(&spec, TaskId::first(3)), Some(([0, 0, 0], Pkru::DEFAULT)));
    assert_eq!(seen(&spec, TaskId::first(2)), None);
}

#[test]
fn a_dead_task_has_no_state_and_its_slot_is_another_task() {
    let mut spec = after(WRITTEN);
    follow(&mut spec, "entry c0 system-call; exit c0");
    assert_eq!((seen(&spec, T0), spec.current(C0)), (None, Some(T0)));
    follow(&mut spec, "out c0; spawn T0.2; write T0 x87 9");
    let second = T0.next_generation();
    assert!(spec.tasks().map(|(task, _)| task).eq([second]));
    assert_eq!(seen(&spec, second), Some(([0, 0, 0], Pkru::DEFAULT)));
    follow(&mut spec, "kernel-thread T0.3");
    assert_eq!(spec.tasks().count(), 0);
}

#[test]
fn a_cpu_has_at_most_one_current_task_which_starts_in_the_kernel() {
    let mut spec = after("spawn T0; in c0 T0");
    let seen = |spec: &Spec| (spec.current(C0), spec.in_user_mode(C0));
    assert_eq!(seen(&spec), (Some(T0), false));
    follow(&mut spec, "return c0 T0");
    assert_eq!(seen(&spec), (Some(T0), true));
    follow(&mut spec, "entry c0 exception");
    assert_eq!(seen(&spec), (Some(T0), false));
    follow(&mut spec, "return c0 T1");
    assert_eq!(seen(&spec), (Some(T0), false));
    follow(&mut spec, "out c0");
    assert_eq!(seen(&spec), (None, false));
    follow(&mut spec, "in c0 T1; idle c0");
    assert_eq!(seen(&spec), (None, false));
}

#[test]
fn a_signal_handler_starts_afresh_and_its_return_brings_the_state_back() {
    let deliver = "entry c0 interrupt; signal-deliver c0; signal-save c0; signal-enter c0";
    check_with_pkru(deliver, [0, 0, 0], Pkru::DEFAULT);
    let nested = alloc::format!(
        "{deliver}; return c0 T0; user-write c0 AVX 7; {deliver}; user-write c0 AVX 8; sigreturn c0;
         sigreturn-load c0"
    );
    check_with_pkru(&nested, [0, 0, 7], Pkru::DEFAULT);
    check(&alloc::format!("{nested}; user-pkru c0 0x5; sigreturn c0; sigreturn-copy c0"), [1, 2, 3]);
}

#[test]
fn a_frame_on_an_absent_page_is_neither_saved_to_nor_loaded_from() {
    let absent = "signal-deliver c0; frame T0 absent; signal-save c0";
    check(&alloc::format!("{absent}; signal-fault-in c0; sigreturn-load c0"), [0, 0, 0]);
    check(&alloc::format!("{absent}; sigreturn-load c0"), [1, 2, 3]);
    check(
        &alloc::format!("{absent}; signal-fault-in c0; signal-save c0; write T0 AVX 9; sigreturn-load c0"),
        [1, 2, 3],
    );
}

#[test]
fn a_damaged_frame_restores_what_it_still_holds() {
    let saved = "signal-deliver c0; signal-save c0; write T0 SSE 9";
    let refused = ([0, 0, 0], Pkru::DEFAULT);
    for (damage, (numbers, pkru)) in [
        ("frame T0 short", ([1, 2, 0], Pkru(0))),
        ("frame T0 bad-header", refused),
        ("frame T0 bad-header; frame T0 short", refused),
        ("frame T0 short; frame T0 bad-header", refused),
        ("frame T0 bad-mxcsr", refused),
        ("frame T0 bad-magic", ([1, 2, 0], Pkru(0))),
        ("frame T0 bad-size; frame T0 bad-header", ([1, 2, 0], Pkru(0))),
        ("frame T0 bad-size; frame T0 bad-mxcsr", refused),
        ("frame T0 unmapped", refused),
        ("frame T0 pkru 0x5", ([1, 2, 3], Pkru(5))),
        ("frame T0 pkru 0x5; frame T0 no-pkru", ([1, 2, 3], Pkru(0))),
        ("frame T0 pkru 0x5; frame T0 bad-magic", ([1, 2, 0], Pkru(0))),
        ("frame T0 short; frame T0 absent; signal-fault-in c0", ([1, 2, 0], Pkru(0))),
        ("frame T0 short; frame T0 rest-absent; signal-fault-in c0", ([1, 2, 0], Pkru(0))),
        ("frame T0 bad-header; signal-save c0", ([1, 9, 3], Pkru(0))),
        ("frame T0 pkru 0x5; signal-save c0", ([1, 9, 3], Pkru(0))),
    ] {
        for way in ["load", "copy"] {
            let load = alloc::format!("{saved}; {damage}; sigreturn c0; sigreturn-{way} c0");
            check_with_pkru(&load, numbers, pkru);
            // Damaged or not, the frame is gone.
            let again = alloc::format!("{load}; write T0 SSE 9; sigreturn-load c0");
            check_with_pkru(&again, [numbers[0], 9, numbers[2]], pkru);
        }
    }
}

#[test]
fn an_unmapped_frame_ends_a_delivery_with_the_state_and_a_return_without() {
    let delivery = "signal-deliver c0; frame T0 unmapped; signal-save c0; signal-fault-in c0";
    check(delivery, [1, 2, 3]);
    check(&alloc::format!("{delivery}; sigreturn-load c0"), [1, 2, 3]);
    let in_return = "signal-deliver c0; signal-save c0; sigreturn c0; frame T0 unmapped; signal-fault-in c0";
    check_with_pkru(in_return, [0, 0, 0], Pkru::DEFAULT);
}

#[test]
fn a_program_and_its_guest_have_a_state_each() {
    let loaded = "entry c0 exception; guest-load c0";
    check(loaded, [0, 0, 0]);
    let inside = alloc::format!("{loaded}; guest-enter c0; user-write c0 AVX 8; user-pkru c0 0x5");
    check_with_pkru(&inside, [0, 0, 8], Pkru(5));
    check(&alloc::format!("{inside}; guest-exit c0"), [0, 0, 8]);
    check(&alloc::format!("{inside}; guest-exit c0; guest-put c0"), [1, 2, 3]);
    check_with_pkru(
        &alloc::format!("{inside}; guest-exit c0; guest-put c0; guest-load c0; guest-enter c0"),
        [0, 0, 8],
        Pkru(5),
    );
    assert!(after(WRITTEN).states.get(&T0).expect("a live task").guest.is_none());
}

#[test]
fn a_user_worker_has_the_pkru_of_its_maker_and_no_state() {
    let mut spec = after(WRITTEN);
    follow(&mut spec, "user-pkru c0 0x5; user-worker c0 T1; kernel-pkru c0 0x6");
    assert_eq!((spec.pkru(T0), spec.pkru(T1)), (Some(Pkru(6)), Some(Pkru(5))));
    assert_eq!(spec.state(T1), None);
    follow(&mut spec, "in c1 T1; exit c1; write-pkru T0 none");
    assert_eq!((spec.pkru(T0), spec.pkru(T1)), (Some(Pkru(0)), None));
}

#[test]
fn a_child_takes_no_dynamic_component() {
    let mut spec = Spec::new(ComponentSet::from_bits(0b111)).with_dynamic(ComponentSet::from_bits(0b100));
    follow(&mut spec, WRITTEN);
    follow(&mut spec, "fork c0 T1");
    assert_eq!(seen(&spec, T1), Some(([1, 2, 0], Pkru(0))));
    assert_eq!(seen(&spec, T0), Some(([1, 2, 3], Pkru(0))));
}

#[test]
fn a_forged_frame_restores_the_initial_configuration() {
    check("sigreturn c0; sigreturn-load c0", [0, 0, 0]);
    check("sigreturn c0; frame T0 absent; sigreturn-load c0", [1, 2, 3]);
}

#[test]
fn the_oldest_of_five_frames_is_dropped() {
    let deliver = |value| alloc::format!("write T0 AVX {value}; signal-deliver c0; signal-save c0");
    let load = |count| "; sigreturn c0; sigreturn-load c0".repeat(count);
    let five = [11, 12, 13, 14, 15].map(deliver).join(";");
    check(&alloc::format!("{five}{}", load(1)), [1, 2, 15]);
    check(&alloc::format!("{five}{}", load(4)), [1, 2, 12]);
    check(&alloc::format!("{five}{}", load(5)), [0, 0, 0]);
}

#[test]
fn names_that_mean_nothing_change_nothing() {
    let events = "entry c0 interrupt; out c0; idle c0; return c0 T0; first-use c0; kernel-fpu-begin c0 task;
        kernel-fpu-end c0; migrate T0 c0; fork c0 T0; exec c0; exit c0; read T0 x87; write T0 x87 1;
        user-write c0 x87 1; user-pkru c0 0x0; copy-to-cpu c0; invalidate-registers c0; signal-deliver c0;
        signal-save c0; signal-fault-in c0; signal-enter c0; sigreturn c0; sigreturn-load c0;
        frame T0 absent; offline c0; online c0; power-loss c0";
    let mut spec = after(events);
    assert_eq!(spec, Spec::new(ComponentSet::from_bits(0b111)));
    // A kernel thread has no frames and no registers of its own either.
    follow(&mut spec, "kernel-thread T1; in c0 T1");
    let before = spec.clone();
    follow(
        &mut spec,
        "user-write c0 x87 1; user-pkru c0 0x0; signal-deliver c0; signal-save c0; signal-fault-in c0;
         signal-enter c0; sigreturn c0; sigreturn-load c0; frame T1 short; exec c0; exit c0",
    );
    assert_eq!(spec, before);
    assert_eq!(seen(&spec, T1), None);
}

#[test]
fn whoever_accesses_a_task_from_outside_brings_it_into_the_kernel() {
    let (cpu, task) = (CpuId(0), TaskId::first(0));
    for access in [Event::Read(task, Component::SSE), Event::Write(task, Component::SSE, Value::INITIAL)] {
        let mut spec = Spec::new(ComponentSet::EMPTY.with(Component::SSE));
        for event in [Event::Spawn(task), Event::ScheduleIn(cpu, task), Event::Return(cpu, task)] {
            spec.apply(event);
        }
        assert!(spec.in_user_mode(cpu));
        spec.apply(access);
        assert!(!spec.in_user_mode(cpu), "{access}");
    }
}

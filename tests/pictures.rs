//! Pictures and traces of recordings: well-formed, complete, and of the part that was asked for.

mod recordings;

use fpuswitch::{
    fpu::{Policy, policy::Builtin},
    replay::{
        Costs, Holder, Mark, Options, ReplayError, Report, Timeline, Window, WindowError, replay,
        replay_with_timeline,
    },
    report::{BreakEven, cost_plot, perfetto, timeline_svg},
};
use recordings::{functions, gzip};
use serde_json::Value;

const OWNER_SLOT: usize = 3;

fn timeline(input: &[u8], window: Window) -> (Report, Timeline) {
    replay_with_timeline(input, &Options::default(), OWNER_SLOT, window).expect("a recording")
}

fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).expect("XML");
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.map(|node| node.text().unwrap_or_default().trim().to_owned()).collect()
}

/// One task on two CPUs, with a kernel FPU section: line n comes at 1 s + 10 n µs.
fn two_cpus() -> Vec<u8> {
    let rows = "
        0 7 returns
        0 7 loaded
        0 7 enters
        0 7 to 0
        0 7 saved
        0 0 kernel-fpu
        0 0 kernel-fpu-end
        1 0 to 7
        1 7 returns
        1 7 loaded
        1 7 enters
        1 7 to 0
        1 7 saved
        1 0 to 7
        1 7 returns
        1 7 enters";
    functions(rows).text.into_bytes()
}

#[test]
fn a_timeline_says_who_held_the_registers_and_what_was_done() {
    let (_, timeline) = timeline(&two_cpus(), Window::ALL);
    assert_eq!((timeline.policy, timeline.start_us), ("owner-slot", 1_000_010));
    let holders =
        |cpu: usize| timeline.lanes[cpu].holders.iter().map(|(_, holder)| *holder).collect::<Vec<_>>();
    assert_eq!(holders(0), [Holder::Task(0), Holder::KernelFpu, Holder::Nobody]);
    assert_eq!(holders(1), [Holder::Nobody, Holder::Task(0)]);
    let marks = |cpu: usize| timeline.lanes[cpu].marks.iter().map(|(_, mark)| *mark).collect::<Vec<_>>();
    assert_eq!(marks(0), [Mark::Restored, Mark::Saved, Mark::KernelFpu]);
    assert_eq!(marks(1), [Mark::Restored, Mark::Saved, Mark::Skipped]);
    assert_eq!((timeline.tasks[0].name.as_str(), timeline.tasks[0].pid), ("task", 7));
    // The section begins in line 6 and ends in line 7.
    assert!(timeline.lanes[0].holders.contains(&(1_000_060, Holder::KernelFpu)), "{:?}", timeline.lanes[0]);
}

#[test]
fn registers_whose_task_ran_elsewhere_are_outdated() {
    let rows = "
        0 7 returns
        0 7 loaded
        0 7 enters
        0 7 to 0
        0 7 saved
        1 0 to 7
        1 7 returns
        1 7 loaded
        1 7 enters";
    let (_, timeline) = timeline(functions(rows).text.as_bytes(), Window::ALL);
    let holders: Vec<_> = timeline.lanes[0].holders.iter().map(|(_, holder)| *holder).collect();
    assert_eq!(holders, [Holder::Task(0), Holder::Outdated(0)]);
}

#[test]
fn marks_of_the_whole_recording_are_the_counts_of_its_policy() {
    for name in ["fork-2cpu-6.1", "sig-2cpu-6.1", "mix-4cpu-6.1"] {
        let (report, timeline) = timeline(&gzip(name), Window::ALL);
        let counts = &report.policies[OWNER_SLOT];
        let marks = |mark| timeline.lanes.iter().flat_map(|lane| &lane.marks).filter(|m| m.1 == mark).count();
        assert_eq!(marks(Mark::Saved) as u64, counts.saves, "{name}");
        assert_eq!(marks(Mark::Restored) as u64, counts.restores, "{name}");
        assert_eq!(marks(Mark::Skipped) as u64, counts.restores_skipped, "{name}");
        for lane in &timeline.lanes {
            assert!(
                lane.holders.is_sorted_by_key(|(at, _)| *at) && lane.marks.is_sorted_by_key(|(at, _)| *at)
            );
        }
        // To look on changes nothing.
        let alone = replay(&gzip(name)[..], &Options::default()).expect("a recording");
        assert_eq!(alone.policies, report.policies, "{name}");
    }
}

#[test]
fn a_picture_has_a_lane_a_cpu_and_its_counts_beside_it() {
    let name = "mix-4cpu-6.1";
    let (_, timeline) = timeline(&gzip(name), Window::ALL);
    let svg = timeline_svg(name, &timeline).expect("a picture");
    let texts = texts(&svg);
    for (cpu, lane) in timeline.lanes.iter().enumerate() {
        assert!(texts.contains(&format!("CPU {cpu}")), "{texts:?}");
        let saves = lane.marks.iter().filter(|(_, mark)| *mark == Mark::Saved).count();
        assert!(texts.contains(&format!("{saves} saves")), "{texts:?}");
    }
    assert_eq!(texts.iter().filter(|text| text.starts_with("CPU ")).count(), 4);
    assert!(texts.iter().any(|text| text.starts_with("nobody, ")));
    assert!(texts.iter().any(|text| text.starts_with("kernel FPU section, ")));
    let document = roxmltree::Document::parse(&svg).expect("XML");
    let elements = document.descendants().filter(roxmltree::Node::is_element).count();
    assert!((100..50_000).contains(&elements), "{elements} elements");
    let number =
        |node: &roxmltree::Node<'_, '_>, name| node.attribute(name).and_then(|n| n.parse::<f64>().ok());
    let size = document.root_element();
    for node in document.descendants().filter(|node| node.has_tag_name("rect")) {
        let [x, y, wide, high] =
            ["x", "y", "width", "height"].map(|name| number(&node, name).expect("a number"));
        assert!(x >= 0.0 && y >= 0.0 && wide >= 0.0 && high >= 0.0);
        assert!(x + wide <= number(&size, "width").expect("a width"), "{node:?}");
        assert!(y + high <= number(&size, "height").expect("a height"), "{node:?}");
    }
}

#[test]
fn shares_of_the_legend_are_of_the_cpus_that_are_drawn() {
    let rows = "0 7 returns\n 0 7 loaded\n 0 7 enters\n 0 7 kernel-fpu\n 0 7 kernel-fpu-end\n 0 7 timer";
    let legend = |rows: &str| {
        let (_, timeline) = timeline(functions(rows).text.as_bytes(), Window::ALL);
        let svg = timeline_svg("one CPU", &timeline).expect("a picture");
        texts(&svg).into_iter().filter(|text| text.ends_with(" %")).collect::<Vec<_>>()
    };
    let first = legend(rows);
    assert!(first.len() == 4 && first.contains(&"kernel FPU section, 20.00 %".to_owned()), "{first:?}");
    // Those in front of CPU 15 have no line.
    assert_eq!(legend(&rows.replace("0 7 ", "15 7 ")), first);
}

#[test]
fn many_cpus_and_many_switches_stay_within_the_elements_of_a_picture() {
    let mut rows = String::new();
    for round in 0..40 {
        for cpu in 0..100 {
            let (from, to) = (1000 + cpu * 3 + round % 3, 1000 + cpu * 3 + (round + 1) % 3);
            rows += &format!(
                "{cpu} {from} returns\n{cpu} {from} loaded\n{cpu} {from} enters\n{cpu} {from} to {to}\n{cpu} {from} saved\n"
            );
        }
    }
    let (_, timeline) = timeline(functions(&rows).text.as_bytes(), Window::ALL);
    let svg = timeline_svg("many", &timeline).expect("a picture");
    let document = roxmltree::Document::parse(&svg).expect("XML");
    assert!(document.descendants().count() < 100_000);
    assert_eq!(texts(&svg).iter().filter(|text| text.starts_with("CPU ")).count(), 100);
}

#[test]
fn a_window_selects_what_is_drawn() {
    let (_, all) = timeline(&gzip("mix-4cpu-6.1"), Window::ALL);
    let window = Window::new(Some(0.1), Some(0.2)).expect("a window");
    let (_, part) = timeline(&gzip("mix-4cpu-6.1"), window);
    assert_eq!((part.from_us, part.to_us), (all.start_us + 100_000, all.start_us + 200_000));
    for (whole, lane) in all.lanes.iter().zip(&part.lanes) {
        let inside = |at: &u64| (part.from_us..part.to_us).contains(at);
        let expected: Vec<_> = whole.marks.iter().filter(|(at, _)| inside(at)).collect();
        assert_eq!(lane.marks.iter().collect::<Vec<_>>(), expected);
        assert!(lane.holders.iter().all(|(at, _)| inside(at)));
        // What held when the window began holds from its beginning on.
        let before = whole.holders.iter().rev().find(|(at, _)| *at <= part.from_us).expect("a holder").1;
        assert_eq!((lane.holders[0].0, pid(&part, lane.holders[0].1)), (part.from_us, pid(&all, before)));
    }
}

#[test]
fn what_happens_where_two_windows_meet_is_in_one_of_them() {
    // One mark in each of these lines, 10 µs apart: loaded in the second, saved in the fifth, a section in the sixth.
    let input = two_cpus();
    let marks = |from: Option<f64>, to: Option<f64>| {
        let (_, timeline) = timeline(&input, Window::new(from, to).expect("a window"));
        timeline.lanes.iter().map(|lane| lane.marks.len()).sum::<usize>()
    };
    let us = |us: u32| Some(f64::from(us) / 1e6);
    // The recording takes from 0 to 150 µs, and three marks are on each CPU.
    assert_eq!(marks(None, None), 6);
    for meet in (1..150).map(us) {
        assert_eq!(marks(None, meet) + marks(meet, None), 6, "{meet:?}");
        assert_eq!(marks(us(0), meet) + marks(meet, us(150)), 6, "{meet:?}");
    }
    // The section begins 50 µs after the first event.
    assert_eq!((marks(us(0), us(50)), marks(us(50), us(51))), (2, 1));
    // The end of the recording belongs to what ends there.
    assert_eq!(marks(us(149), us(150)), marks(us(149), None));
}

/// Whose the registers are; 0 for nobody.
fn pid(timeline: &Timeline, holder: Holder) -> u32 {
    match holder {
        Holder::Task(task) | Holder::Outdated(task) => timeline.tasks[task as usize].pid,
        Holder::Nobody | Holder::KernelFpu => 0,
    }
}

#[test]
fn windows_that_are_none_are_refused_with_what_to_do() {
    let refused = |from, to| Window::new(from, to).expect_err("no window");
    assert_eq!(refused(Some(-1.0), None), WindowError::NotSeconds(-1.0));
    assert!(matches!(refused(Some(f64::NAN), None), WindowError::NotSeconds(_)));
    assert_eq!(refused(Some(2.0), Some(1.0)), WindowError::Empty { from: 2.0, to: 1.0 });
    assert_eq!(refused(None, Some(0.0)), WindowError::Empty { from: 0.0, to: 0.0 });
    let window = Window::new(Some(9.0), None).expect("a window");
    let error = replay_with_timeline(&two_cpus()[..], &Options::default(), 0, window).expect_err("outside");
    assert!(matches!(error, ReplayError::Window(WindowError::Outside { from: 9.0, .. })), "{error}");
    assert!(error.to_string().contains("the recording is over after 0.00"), "{error}");
}

#[test]
fn names_of_tasks_cannot_break_a_picture_or_a_trace() {
    let text = String::from_utf8(two_cpus()).expect("text").replace(" task-7", " <&\"\u{1}>-7");
    let (_, timeline) = timeline(text.as_bytes(), Window::ALL);
    assert_eq!(timeline.tasks[0].name, "<&\"\u{1}>");
    let svg = timeline_svg("<&>", &timeline).expect("a picture");
    assert!(texts(&svg).iter().any(|text| text.starts_with("<&\"·> 7, ")), "{:?}", texts(&svg));
    trace(&timeline);
}

/// A trace's events, each checked against the format.
fn trace(timeline: &Timeline) -> Vec<Value> {
    let mut bytes = Vec::new();
    perfetto(&mut bytes, "a recording", timeline).expect("memory");
    let trace: Value = serde_json::from_slice(&bytes).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events").clone();
    let mut last = std::collections::BTreeMap::new();
    let mut ends = std::collections::BTreeMap::new();
    for event in &events {
        assert!(event["pid"].is_u64() && event["name"].is_string(), "{event}");
        let ts = event["ts"].as_u64();
        match event["ph"].as_str().expect("a phase") {
            "M" => {
                assert!(event["args"].is_object(), "{event}");
                continue;
            }
            "X" => {
                let track = (event["pid"].as_u64(), event["tid"].as_u64().expect("a track"));
                let dur = event["dur"].as_u64().expect("not negative");
                // The spans of a track follow each other, so that none lies across another.
                let end = ends.insert(track, ts.expect("a time") + dur).unwrap_or(0);
                assert!(ts >= Some(end), "{event}");
            }
            "C" => assert!(event["args"]["saves"].is_u64() && event["args"]["restores"].is_u64(), "{event}"),
            "i" => assert_eq!((&event["s"], event["tid"].is_u64()), (&Value::from("t"), true)),
            phase => panic!("no such phase: {phase}"),
        }
        // A counter has no thread, and its name tells its track.
        let track = (event["pid"].as_u64(), event["tid"].as_u64(), event["ph"] == "C");
        let last = last.entry(track).or_insert(0);
        let ts = ts.expect("a time");
        assert!(ts >= *last, "{event} comes before {last}");
        *last = ts;
    }
    events
}

#[test]
fn a_trace_is_in_order_and_has_tracks_for_cpus_tasks_and_policies() {
    for name in ["mix-4cpu-6.1", "kfpu-2cpu-6.1", recordings::TRACEPOINTS_ONLY] {
        let (report, timeline) = timeline(&gzip(name), Window::ALL);
        let events = trace(&timeline);
        let tracks =
            |pid: u64| events.iter().filter(|e| e["name"] == "thread_name" && e["pid"] == pid).count();
        assert_eq!(tracks(1), report.cpus, "{name}");
        assert!(tracks(2) >= report.top.len().min(3), "{name}");
        for policy in &report.policies {
            let of = |event: &&Value| event["ph"] == "C" && event["name"] == policy.name;
            let counts: Vec<_> =
                events.iter().filter(of).map(|event| event["args"]["saves"].as_u64()).collect();
            assert!(counts.is_sorted() && !counts.is_empty(), "{name}: {}", policy.name);
            assert!(counts.last().copied().flatten() <= Some(policy.saves), "{name}: {}", policy.name);
        }
    }
}

#[test]
fn the_plot_has_a_bar_a_policy_and_the_curves_of_all_formulas() {
    let name = "fork-2cpu-6.1";
    let options = Options { policies: Builtin::ALL.to_vec(), fpu_use: 0.5, ..Options::default() };
    let report = replay(&gzip(name)[..], &options).expect("a recording");
    let texts = texts(&cost_plot(name, &report, &Costs::TABLE).expect("a picture"));
    for policy in Builtin::ALL
        .iter()
        .map(|policy| policy.name().to_owned())
        .chain(["the kernel".into(), "optimum".into()])
    {
        assert!(texts.contains(&policy), "{policy} has no bar: {texts:?}");
    }
    for policy in BreakEven::POLICIES {
        assert!(
            texts.iter().any(|text| text.starts_with(&format!("{}: ", policy.name()))),
            "{policy:?} has no curve"
        );
    }
    assert!(texts.iter().any(|text| text.contains("replayed")), "{texts:?}");
}

#[test]
fn the_formulas_cross_where_they_should() {
    let report = replay(&gzip("cargo-build-2cpu-6.18")[..], &Options::default()).expect("a recording");
    let model = BreakEven::new(&report, Costs::TABLE);
    let ns = |policy, q, p| model.ns(policy, q, p).expect("a formula");
    let q = model.owner_slot_wins_above().expect("a check is cheaper than a restore");
    assert!((ns(Builtin::OwnerSlot, q, 1.0) - ns(Builtin::Deferred, q, 1.0)).abs() < 1e-9);
    let p = model.trap_restore_wins_below().expect("it is above 0");
    assert!((ns(Builtin::TrapRestore, 0.5, p) - ns(Builtin::Eager, 0.5, p)).abs() < 1e-9);
    assert_eq!(model.ns(Builtin::EagerOwner, 0.5, 0.5), None);
    // At the recording's own q the formula gives what the replay counted, the checks alone too.
    let checks = Costs { save_ns: 0.0, restore_ns: 0.0, check_ns: 100.0, ..Costs::TABLE };
    for costs in [Costs::TABLE, checks] {
        let counts = report.policies[OWNER_SLOT].cost_ns(&costs) / report.schedule.switch_ins as f64;
        let formula =
            BreakEven::new(&report, costs).ns(Builtin::OwnerSlot, report.schedule.valid_share(), 1.0);
        let formula = formula.expect("a formula");
        assert!((counts / formula - 1.0).abs() < 0.03, "{counts} {formula}");
    }
}

#[test]
fn policies_that_look_at_the_owner_look_at_each_load_that_is_due() {
    for name in ["cargo-build-2cpu-6.18", "mix-4cpu-6.1"] {
        let options = Options { policies: Builtin::ALL.to_vec(), ..Options::default() };
        let report = replay(&gzip(name)[..], &options).expect("a recording");
        let counts = |policy: Builtin| {
            report.policies.iter().find(|counts| counts.name == policy.name()).expect("a policy")
        };
        for policy in [Builtin::Eager, Builtin::Deferred, Builtin::EntryExit] {
            assert_eq!(counts(policy).looks, 0, "{name}: {policy:?}");
        }
        for policy in [Builtin::OwnerSlot, Builtin::LazySave, Builtin::EagerOwner] {
            let counts = counts(policy);
            let all = counts.restores + counts.restores_skipped;
            // Loads for frames and behind kernel FPU sections are no answer to a look of the policy.
            assert!(counts.looks > counts.restores_skipped && counts.looks <= all, "{name}: {counts:?}");
        }
        let owner_slot = counts(Builtin::OwnerSlot);
        assert!(owner_slot.looks.abs_diff(report.schedule.due_returns) * 50 <= owner_slot.looks, "{name}");
        // It looks at each switch, and arms the trap or finds the registers valid.
        let full_lazy = counts(Builtin::FullLazy);
        assert!(full_lazy.looks > full_lazy.restores_skipped, "{name}: {full_lazy:?}");
        assert!(full_lazy.looks <= report.schedule.switch_ins + full_lazy.restores_skipped, "{name}");
        assert!(counts(Builtin::TrapRestore).looks <= report.schedule.switch_ins, "{name}");
    }
}

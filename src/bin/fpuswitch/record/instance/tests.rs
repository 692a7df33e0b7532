//! Against a directory with files like those of tracefs.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A fake tracefs, in which an instance has no files until [`fill`](Self::fill).
struct Fake(PathBuf);

impl Fake {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("fpuswitch-fake-{}-{test}", std::process::id()));
        fs::create_dir_all(root.join("instances")).expect("a scratch directory");
        fs::write(
            root.join("available_filter_functions"),
            "a\nswitch_fpu_return\nkernel_fpu_begin\nfpu_clone\nkernel_fpu_end\nx [module]\n",
        )
        .expect("a scratch file");
        Self(root)
    }

    fn instance(&self) -> Instance {
        Instance::new(Tracefs::at(&self.0), "own").expect("an instance")
    }

    fn own(&self, file: &str) -> PathBuf {
        self.0.join("instances/own").join(file)
    }

    /// What the kernel puts into an instance, with these events.
    fn fill(&self, tracers: &str, events: &[&str]) {
        for file in ["tracing_on", "buffer_size_kb", "trace_clock", "set_ftrace_filter", "current_tracer"] {
            self.put(file, "before");
        }
        self.put("set_ftrace_filter", "");
        self.put("available_tracers", tracers);
        self.put("trace_pipe", "");
        for event in events {
            self.put(&enable(event), "0");
        }
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.own(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a scratch directory");
        fs::write(path, text).expect("a scratch file");
    }

    #[track_caller]
    fn holds(&self, file: &str, text: &str) {
        assert_eq!(fs::read_to_string(self.own(file)).expect("a file"), text, "{file}");
    }

    /// What rmdir does on the real one.
    fn clear(&self) {
        fs::remove_dir_all(self.0.join("instances/own")).expect("the instance");
        fs::create_dir(self.0.join("instances/own")).expect("the instance");
    }

    fn instances(&self) -> usize {
        fs::read_dir(self.0.join("instances")).expect("the directory").count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_the_kernel_has_is_turned_on_and_what_it_lacks_is_named() {
    let fake = Fake::new("all");
    let mut instance = fake.instance();
    fake.fill("blk function nop\n", &["sched/sched_switch", "x86_fpu", "raw_syscalls/sys_enter"]);
    let given = instance.set_up(4096).expect("set up");
    for event in ["sched/sched_switch", "x86_fpu", "raw_syscalls/sys_enter"] {
        fake.holds(&enable(event), "1");
    }
    assert_eq!(given.missing_events.len(), EVENTS.len() - 1);
    assert!(given.missing_events.contains(&"exceptions/page_fault_user"));
    fake.holds("buffer_size_kb", "4096");
    fake.holds("trace_clock", "mono");
    fake.holds("set_ftrace_filter", "switch_fpu_return\nkernel_fpu_begin\nfpu_clone\nkernel_fpu_end\n");
    fake.holds("current_tracer", "function");
    let Functions::Traced { missing } = given.functions else { panic!("{given:?}") };
    assert_eq!(missing.len(), FUNCTIONS.len() - 1);
    assert!(missing.contains(&"fpu__drop") && !missing.contains(&"fpu_clone"));
    fake.holds("tracing_on", "0");
    instance.start().expect("started");
    fake.holds("tracing_on", "1");
    instance.stop().expect("stopped");
    fake.holds("tracing_on", "0");
    fake.clear();
}

#[test]
fn without_function_lines_the_rest_is_recorded() {
    let events = ["sched/sched_switch", "x86_fpu"];
    let fake = Fake::new("functions");
    let mut instance = fake.instance();
    fake.fill("nop\n", &events);
    assert!(matches!(instance.set_up(64).expect("set up").functions, Functions::NoTracer));
    fake.fill("function nop\n", &events);
    // Some of these would be worse than none: replay would infer no returns, or no kernel FPU sections.
    for (available, needed) in [
        ("kernel_fpu_begin_mask\nkernel_fpu_end\n", "switch_fpu_return"),
        ("switch_fpu_return\nfpu_clone\n", "kernel_fpu_begin_mask"),
        ("switch_fpu_return\nkernel_fpu_end\n", "kernel_fpu_begin_mask"),
        ("switch_fpu_return\nkernel_fpu_begin\n", "kernel_fpu_end"),
    ] {
        fs::write(fake.0.join("available_filter_functions"), available).expect("a file");
        let functions = instance.set_up(64).expect("set up").functions;
        assert!(matches!(functions, Functions::Without(function) if function == needed), "{functions:?}");
        assert!(functions.to_string().contains(needed), "{functions}");
    }
    fs::remove_file(fake.0.join("available_filter_functions")).expect("a file");
    assert!(matches!(instance.set_up(64).expect("set up").functions, Functions::Refused(_)));
    fake.holds("set_ftrace_filter", "");
    fake.holds("current_tracer", "before");
    fake.clear();
}

#[test]
fn a_kernel_that_does_not_tell_of_its_registers_is_refused() {
    let fake = Fake::new("none");
    let mut instance = fake.instance();
    fake.fill("nop\n", &["sched/sched_switch"]);
    let error = instance.set_up(64).expect_err("no events");
    assert!(matches!(error, RecordError::NoEvent { event: "x86_fpu" }), "{error:?}");
    fs::remove_file(fake.own("trace_clock")).expect("a file");
    let error = instance.set_up(64).expect_err("no clock");
    let RecordError::Refused { path, .. } = error else { panic!("{error:?}") };
    assert_eq!(path, fake.own("trace_clock"));
    fake.clear();
}

#[test]
fn the_instance_is_removed_at_the_end_on_an_error_and_on_a_panic() {
    let fake = Fake::new("remove");
    let mut instance = fake.instance();
    assert_eq!(fake.instances(), 1);
    instance.leave().expect("removed");
    assert_eq!(fake.instances(), 0);
    drop(instance);
    let mut instance = fake.instance();
    assert!(instance.set_up(64).is_err());
    drop(instance);
    assert_eq!(fake.instances(), 0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _instance = fake.instance();
        panic!("in the middle of a recording");
    }));
    assert!(panicked.is_err());
    assert_eq!(fake.instances(), 0);
    // Somebody else's is left alone.
    fs::create_dir(fake.own("")).expect("a directory");
    let error = Instance::new(Tracefs::at(&fake.0), "own").expect_err("it is there");
    assert!(matches!(error, RecordError::Refused { .. }), "{error:?}");
    assert_eq!(fake.instances(), 1);
}

#[test]
fn an_instance_that_cannot_be_removed_is_named() {
    let fake = Fake::new("stuck");
    let mut instance = fake.instance();
    fake.fill("nop\n", &[]);
    let error = instance.leave().expect_err("it is not empty");
    let RecordError::StillThere { path, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*path, fake.0.join("instances/own"));
}

#[test]
fn losses_are_counted_by_cpu() {
    let fake = Fake::new("losses");
    let instance = fake.instance();
    let stats = |overrun, dropped| {
        format!(
            "entries: 3\noverrun: {overrun}\ncommit overrun: 0\nbytes: 100\noldest event ts:  1.0\n\
             now ts:  2.0\ndropped events: {dropped}\nread events: 9\n"
        )
    };
    fake.put("per_cpu/cpu0/stats", &stats(0, 0));
    fake.put("per_cpu/cpu10/stats", &stats(7, 1));
    fake.put("per_cpu/cpu2/stats", &stats(3, 0));
    let (losses, cpus) = instance.losses().expect("stats");
    assert_eq!(losses, [Loss { cpu: 2, events: 3 }, Loss { cpu: 10, events: 8 }]);
    assert_eq!(cpus, 3);
    fake.clear();
}

//! Recordings as `trace-cmd report` and `perf script` print them give what the kernel's own text would.

use fpuswitch::replay::{InputError, Options, ReplayError, Report, replay};
use std::{fs, io::Read, path::Path};

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name);
    let mut text = String::new();
    let file = fs::File::open(path).expect("a sample");
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    text
}

fn read(text: &str) -> Result<Report, ReplayError> {
    replay(text.as_bytes(), &Options { check: true, ..Options::default() })
}

/// As the kernel would print it: behind the name's column there are no names before the details.
fn from_perf(line: &str) -> String {
    let (comm, rest) = line.split_at(16);
    let words: Vec<_> = rest.split_whitespace().collect();
    let [pid, cpu, time, event, ref details @ ..] = words[..] else { panic!("{line}") };
    let (_, event) = event.split_once(':').expect("a system");
    format!("{comm}-{pid:<7} {cpu} ..... {time} {event} {}\n", details.join(" "))
}

#[track_caller]
fn same(tool: &str, kernels: &str, decisions: u64) {
    let [found, expected] = [tool, kernels].map(|text| read(text).expect("a recording"));
    assert_eq!(found.agreement, expected.agreement);
    assert_eq!(found.kernel, expected.kernel);
    assert_eq!(found.policies, expected.policies);
    assert_eq!((found.lines, found.cpus, found.seconds), (expected.lines, expected.cpus, expected.seconds));
    assert!(found.ignored.is_empty(), "{:?}", found.ignored);
    assert_eq!((found.agreement.decisions, found.agreement.disagreements), (decisions, 0));
}

#[test]
fn trace_cmd_report_in_short_and_in_full() {
    // In full, only the flags of the kernel's text are missing.
    let kernels =
        sample("trace-cmd-full.txt.gz").replacen("cpus=2", "# tracer: nop", 1).replace("] ", "] ..... ");
    for name in ["trace-cmd.txt.gz", "trace-cmd-full.txt.gz"] {
        same(&sample(name), &kernels, 14);
    }
}

#[test]
fn perf_script() {
    let tool = sample("perf-script.txt.gz");
    same(&tool, &tool.lines().map(from_perf).collect::<String>(), 29);
}

#[test]
fn a_changed_answer_is_a_disagreement_in_each_form() {
    for name in ["trace-cmd.txt.gz", "perf-script.txt.gz"] {
        let text = sample(name);
        let kept: Vec<_> = text.lines().filter(|line| !line.contains("regs_deactivated")).collect();
        let report = read(&(kept.join("\n") + "\n")).expect("a recording");
        assert!(report.agreement.disagreements > 3, "{name}: {:?}", report.agreement);
    }
}

#[test]
fn a_line_that_is_cut_short_is_refused_in_each_form() {
    for name in ["trace-cmd.txt.gz", "perf-script.txt.gz"] {
        let text = sample(name);
        let head = text.lines().take(20).collect::<Vec<_>>().join("\n");
        let switch = text.lines().find(|line| line.contains("sched_switch")).expect("a switch");
        for (cut, expected) in
            [(switch.len() - 4, "next_prio=NUMBER"), (30, "a timestamp"), (12, "a task name and -PID")]
        {
            let error = read(&format!("{head}\n{}\n", &switch[..cut])).expect_err("cut");
            let ReplayError::Malformed { line: 21, expected: found } = error else { panic!("{error:?}") };
            assert_eq!(found, expected, "{name}");
        }
        let error = read(&format!("{head}\n{}", &switch[..switch.len() - 4])).expect_err("cut");
        assert!(matches!(error, ReplayError::Input(InputError::CutOff { line: 21 })), "{error:?}");
    }
}

#[test]
fn lines_of_another_form_are_refused() {
    let [trace_cmd, perf] = ["trace-cmd.txt.gz", "perf-script.txt.gz"].map(sample);
    for (first, second) in [(&trace_cmd, &perf), (&perf, &trace_cmd)] {
        let first_lines = first.lines().count() as u64;
        let error = read(&format!("{first}{second}")).expect_err("mixed");
        assert!(matches!(error, ReplayError::Malformed { line, .. } if line == first_lines + 1), "{error:?}");
    }
}

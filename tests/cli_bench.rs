//! `fpuswitch bench`: every arm runs, and its numbers are numbers. What they are is nobody's business here.

use std::process::Command;

/// Exit status, standard output and standard error.
fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fpuswitch"));
    let output = command.arg("bench").arg("--quick").args(arguments).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const WITHOUT_CLASS: [&str; 5] = ["coroutine", "null-call", "null-call-promised", "yield", "futex"];
const WITH_CLASS: [&str; 5] =
    ["swap", "kernel-thread", "kernel-thread-lazy-save", "empty-handler", "preemption"];

#[test]
fn hardware_every_arm_of_bench_has_a_number() {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        let (status, _, error) = bench(&[]);
        assert_eq!(status, Some(2));
        assert!(error.contains("x86-64 Linux"), "{error}");
        println!("HARDWARE bench: SKIPPED: no x86-64 Linux");
        return;
    }
    let (status, text, error) = bench(&[]);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert!(text.contains("gate bare: ") || text.contains("gate parked"), "{text}");
    let (status, line, error) = bench(&["--json"]);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    let report: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let arms = report["arms"].as_array().expect("arms");
    for arm in arms {
        assert!(arm["ns"].as_f64().is_some_and(|ns| ns > 0.0), "{arm}");
    }
    for what in WITHOUT_CLASS.iter().chain(&WITH_CLASS) {
        let of_what = arms.iter().filter(|arm| arm["what"] == *what);
        let has_class = WITH_CLASS.contains(what);
        assert!(of_what.clone().all(|arm| (arm["class"] != "") == has_class), "{what}");
        assert!(of_what.count() > 0, "{what}");
    }
    let ratios = report["ratios"].as_array().expect("ratios");
    for ratio in ratios {
        assert!(ratio["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio}");
        assert_eq!(ratio["reason"].is_string(), ratio["is_reached"] == false, "{ratio}");
    }
    println!("HARDWARE bench: ran");
}

//! The command line, as a user calls it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name)
}

fn fpuswitch() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fpuswitch"))
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the binary starts")
}

fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A child that refuses its input closes the pipe early.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("the binary ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn scratch(name: &str, content: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("a scratch file");
    path
}

#[test]
fn the_bundled_recordings_agree_and_each_has_a_row() {
    let output = output(fpuswitch().arg("replay"));
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    for entry in std::fs::read_dir(folder).expect("recordings") {
        let name = entry.expect("a file").file_name().into_string().expect("UTF-8");
        let short = name.trim_end_matches(".txt.gz");
        assert!(text.contains(&format!("| {short} ")), "{short} has no row in\n{text}");
    }
    assert!(text.lines().count() <= 24, "more than one screen:\n{text}");
}

#[test]
fn json_is_one_object_a_line_with_the_documented_fields() {
    let files = [recording("hop-2cpu-6.1.txt.gz"), recording("ptrace-2cpu-6.1.txt.gz")];
    let output = output(fpuswitch().args(["replay", "--json"]).args(&files));
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    for (line, file) in lines.iter().zip(&files) {
        assert_eq!(line["file"].as_str(), file.to_str());
        assert!(line["lines"].is_u64() && line["seconds"].is_f64());
        for field in ["switches", "returns", "saves", "restores"] {
            assert!(line["kernel"][field].is_u64(), "kernel.{field}");
        }
        for field in ["decisions", "disagreements", "inferred", "undecidable"] {
            assert!(line["agreement"][field].is_u64(), "agreement.{field}");
        }
        assert_eq!(line["agreement"]["disagreements"], 0);
        assert_eq!(line["use"], 1.0);
        assert_eq!((line["cpus"].as_u64(), line["cpu_seconds"].is_f64()), (Some(2), true));
        let sum: u64 = line["causes"].as_object().expect("causes").values().filter_map(|n| n.as_u64()).sum();
        assert_eq!(line["as_the_kernel"]["restores"], sum);
        let task = &line["tasks"][0];
        assert!(task["name"] == "workload" && task["pid"].is_u64() && task["causes"].is_object(), "{task}");
        for field in ["saves", "restores", "restores_for_frames"] {
            assert!(line["beyond_optimum"][field].is_u64(), "beyond_optimum.{field}");
        }
        assert!(line["optimum"]["cost_ns"].is_f64() && line["schedule"]["due_returns"].is_u64());
        assert_eq!((&line["has_functions"], &line["says_little"]), (&true.into(), &false.into()));
        assert_eq!(line["says_little_because"].as_array().map(Vec::len), Some(0));
        assert_eq!(line["tasks_cut"], false);
        for field in ["save_and_restore", "check", "others"] {
            let from = line["costs_from"][field].as_str().unwrap_or_else(|| panic!("costs_from.{field}"));
            assert!(["measured", "assumed", "file", "table"].contains(&from), "{from}");
        }
        let beyond = &line["beyond_optimum"];
        let quirk = &beyond["quirks"][0];
        assert!(
            quirk["name"] == "exit_saves_dead_task" && quirk["origin"] == "fpu__drop, from 5.2",
            "{quirk}"
        );
        assert!(quirk["cost_ns"].is_f64() && beyond["itself"]["cost_ns"].is_f64(), "{beyond}");
        let rest = beyond["itself"]["saves"].as_i64().expect("a number");
        assert_eq!(beyond["saves"].as_i64(), Some(rest + quirk["saves"].as_i64().expect("a number")));
        assert!(line["optimum"]["share_of_cpu"].is_f64());
        assert!(line["agreement"]["quirks"]["exit_saves_dead_task"].is_u64());
        assert_eq!(line["agreement"]["first"].as_array().map(Vec::len), Some(0));
        let policies = line["policies"].as_array().expect("policies");
        let names: Vec<_> = policies.iter().filter_map(|policy| policy["name"].as_str()).collect();
        assert_eq!(names, ["eager", "eager-owner", "deferred", "owner-slot", "lazy-save"]);
        for policy in policies {
            for field in ["saves", "restores", "restores_skipped", "looks", "traps", "flushes"] {
                assert!(policy[field].is_u64(), "policies[].{field}");
            }
            assert_eq!(policy["counts"], "exact");
            for field in ["cost_ns", "share_of_cpu", "saves_over_optimum", "restores_over_optimum"] {
                assert!(policy[field].is_f64(), "policies[].{field}");
            }
        }
    }
    // 171 lines of switch_fpu_return in the recording.
    assert_eq!(lines[1]["kernel"]["returns"], 171);
}

#[test]
fn a_ratio_to_an_optimum_of_zero_is_null() {
    let trace = "# tracer: function\n            init-1       [000] .....     1.000000: sched_process_exit: comm=init pid=1 prio=1\n";
    let output = with_input(fpuswitch().args(["replay", "--json", "-"]), trace.as_bytes());
    let line: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(line["file"], "-");
    assert!(line["policies"][0]["saves_over_optimum"].is_null());
    assert!(line["policies"][0]["restores_over_optimum"].is_null());
}

#[test]
fn policies_can_be_chosen_and_costs_given() {
    let costs = scratch("costs.json", br#"{"save_ns": 100, "restore_ns": 1000, "check_ns": 1}"#);
    let mut command = fpuswitch();
    command.args(["replay", "--json", "--policy", "owner-slot", "--policy", "eager", "--costs"]);
    let output = output(command.arg(costs).arg(recording("hop-2cpu-6.1.txt.gz")));
    let line: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let policies = line["policies"].as_array().expect("policies");
    assert_eq!(policies.len(), 2);
    assert_eq!(policies[0]["name"], "owner-slot");
    for policy in policies {
        let count = |field: &str| policy[field].as_u64().expect("a count") as f64;
        let cost = count("saves") * 100.0 + count("restores") * 1000.0 + count("looks");
        assert_eq!(policy["cost_ns"].as_f64(), Some(cost));
    }
}

#[test]
fn the_use_of_the_fpu_is_printed_and_counts_for_policies_that_trap() {
    let file = recording("hop-2cpu-6.1.txt.gz");
    let traps = |share: &str| {
        let mut command = fpuswitch();
        command.args(["replay", "--json", "--policy", "full-lazy", "--policy", "entry-exit", "--use", share]);
        let line = stdout(&output(command.arg(&file)));
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["use"].as_f64(), share.parse().ok());
        let [lazy, entry_exit] = [0, 1].map(|policy| line["policies"][policy].clone());
        assert_eq!((&lazy["counts"], &entry_exit["counts"]), (&"fpu-use".into(), &"lower-bound".into()));
        assert!(lazy["restores_over_optimum"].is_null() && entry_exit["restores_over_optimum"].is_f64());
        lazy["traps"].as_u64().expect("a count")
    };
    let [always, sometimes, never] = ["1", "0.25", "0"].map(traps);
    assert!(always > sometimes && sometimes > never && never == 0, "{always} {sometimes} {never}");

    let one = stdout(&output(fpuswitch().args(["replay", "--all-policies", "--use", "0.25"]).arg(&file)));
    let by_use = "trap-restore, full-lazy, use-class: if a slice (for use-class, a program) uses the FPU with probability 0.25";
    assert!(one.contains(by_use), "{one}");
    assert!(row(&one, "entry-exit")[1].starts_with('≥'), "{one}");
    assert_eq!(row(&one, "full-lazy")[2], "–", "{one}");
    let all = stdout(&output(fpuswitch().args(["replay", "--all-policies"])));
    for policy in
        ["eager", "trap-restore", "full-lazy", "entry-exit", "call-boundary", "use-class", "optimum"]
    {
        assert!(!row(&all, policy).is_empty(), "{policy} has no row in\n{all}");
    }
    assert!(all.lines().all(|line| line.chars().count() <= 132), "{all}");
    for share in ["1.5", "-1", "NaN", "often"] {
        let output = output(fpuswitch().args(["replay", &format!("--use={share}")]));
        assert_eq!(output.status.code(), Some(2), "{share}");
        assert!(stderr(&output).contains("a share from 0 to 1"), "{}", stderr(&output));
    }
}

#[test]
fn one_recording_fills_one_screen_at_most() {
    for name in ["mix-4cpu-6.1", "fork-2cpu-6.1", "cargo-build-2cpu-6.18"] {
        // As a user names it, from the folder of the crate.
        let mut command = fpuswitch();
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("replay");
        let text = stdout(&output(command.arg(format!("recordings/{name}.txt.gz"))));
        assert!(text.lines().count() <= 40, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!row(&text, "the kernel").is_empty() && !row(&text, "optimum").is_empty(), "{text}");
        for header in ["why the kernel restored", "most restores", "the kernel beyond the optimum"] {
            assert!(!row(&text, header).is_empty(), "no {header} in\n{text}");
        }
    }
}

#[test]
fn checking_every_event_finds_nothing_wrong() {
    let output = output(fpuswitch().args(["replay", "--check"]).arg(recording("fork-2cpu-6.1.txt.gz")));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_kernel_that_decides_otherwise_gives_status_1_and_the_line() {
    let trace = "# tracer: function
          worker-7       [000] .....     1.000000: sys_enter: NR 1 (1, 2, 3, 4, 5, 6)
          worker-7       [000] d..2.     1.000100: sched_switch: prev_comm=worker prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
          <idle>-0       [000] d..2.     1.000200: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=worker next_pid=7 next_prio=120
";
    let output = with_input(fpuswitch().args(["replay", "-"]), trace.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("1 disagreements"), "{text}");
    assert!(text.contains("-: line 3: switch-out of 7 on c0: expected did it, the kernel did not"), "{text}");
}

#[test]
fn bad_input_gives_status_2_and_says_where_and_what() {
    let cases: [(&[u8], &str); 4] = [
        (b"hello\n", "not an ftrace recording"),
        (b"", "not an ftrace recording"),
        (b"# tracer: function\nnonsense\n", "line 2: expected"),
        (b"# tracer: function\n   init-1  [000] d....  1.0: switch_fpu_return <-x", "line 2 is cut off"),
    ];
    for (input, expected) in cases {
        let output = with_input(fpuswitch().args(["replay", "-"]), input);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.starts_with("fpuswitch: -: ") && text.contains(expected), "{text}");
    }
    let missing = output(fpuswitch().args(["replay", "/nonexistent/recording"]));
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("/nonexistent/recording"), "{}", stderr(&missing));
    let policy = output(fpuswitch().args(["replay", "--policy", "eagre"]));
    assert_eq!(policy.status.code(), Some(2));
    assert!(stderr(&policy).contains("no such policy"), "{}", stderr(&policy));
    for costs in ["{}", r#"{"save_ns": -1, "restore_ns": 1, "check_ns": 1}"#] {
        let file = scratch("bad-costs.json", costs.as_bytes());
        let output = output(fpuswitch().args(["replay", "--costs"]).arg(file));
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("expected"), "{}", stderr(&output));
    }
}

#[test]
fn the_worst_of_several_files_wins_and_the_others_are_still_reported() {
    let broken = scratch("broken.txt", b"nonsense\n");
    let good = recording("hop-2cpu-6.1.txt.gz");
    let output = output(fpuswitch().args(["replay", "--json"]).arg(broken).arg(good));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output).lines().count(), 1);
}

#[test]
fn run_prints_a_row_per_step() {
    let events = "spawn T0\nin c0 T0\nreturn c0 T0 # loads\nentry c0 interrupt\nout c0\nidle c0\nin c0 T0\nreturn c0 T0\n";
    let output = with_input(fpuswitch().args(["run", "-"]), events.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(2)
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[2], ["3", "return c0 T0", "restored", "c0:T0*", "T0:c0", "–", "T0:c0"]);
    assert_eq!(rows[4], ["5", "out c0", "saved", "c0:T0", "T0:c0", "T0", "T0:memory+c0"]);
    assert_eq!(rows[7][2], "restore skipped");
    let lazy = with_input(fpuswitch().args(["run", "--policy", "lazy-save", "-"]), events.as_bytes());
    assert!(stdout(&lazy).contains("| 5    | out c0             | kept"), "{}", stdout(&lazy));
}

/// The case of the mailing list: T1 may not read the page, and the register is still T0's.
#[test]
fn run_shows_what_is_wrong_with_pkru_in_images() {
    let events =
        "spawn T0; spawn T1; in c0 T0; return c0 T0; user-pkru c0 0x55555550; entry c0 interrupt; out c0
        in c0 T1; user-memory c0 T1 read 1";
    let events = events.replace(';', "\n");
    let eager = with_input(fpuswitch().args(["run", "-"]), events.as_bytes());
    assert_eq!(eager.status.code(), Some(0), "{}", stderr(&eager));
    assert!(stdout(&eager).contains("access denied"), "{}", stdout(&eager));
    let in_xsave = with_input(fpuswitch().args(["run", "--pkru-in-xsave", "-"]), events.as_bytes());
    assert_eq!(in_xsave.status.code(), Some(1), "{}", stderr(&in_xsave));
    let broken = "line 9: I7 is broken: c0 accesses T1 (read 1), which is allowed, expected denied";
    assert!(stdout(&in_xsave).contains(broken), "{}", stdout(&in_xsave));
    let traps = ["run", "--pkru-in-xsave", "--policy", "full-lazy", "-"];
    let refused = with_input(fpuswitch().args(traps), events.as_bytes());
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("PKRU cannot be switched inside XSAVE under full-lazy"));
}

#[test]
fn run_refuses_what_cannot_happen_with_the_line() {
    for (events, expected) in [
        ("spawn T0\n\nreturn c0 T0\n", "line 3: return c0 T0: c0 is idle, not T0"),
        ("spawn T0\nfly c0\n", "line 2: expected an event name"),
        ("idle c9999\n", "line 1: c9999 is too high"),
    ] {
        let output = with_input(fpuswitch().args(["run", "-"]), events.as_bytes());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_fails_is_no_success() {
    let full = || Stdio::from(std::fs::File::create("/dev/full").expect("a device"));
    let file = recording("hop-2cpu-6.1.txt.gz");
    let output = fpuswitch().arg("replay").arg(&file).stdout(full()).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("standard output"), "{}", stderr(&output));
    // A reader that has gone away is no error, and hides none.
    let mut child = fpuswitch()
        .args(["replay", "--json"])
        .args([file.as_path(), Path::new("/nonexistent/recording")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("the binary ends").code(), Some(2));
}

#[test]
fn lost_events_that_leave_more_unknown_than_known_are_a_finding() {
    let trace = "# tracer: function
          worker-7       [000] .....     1.000000: sys_enter: NR 1 (1, 2, 3, 4, 5, 6)
          worker-7       [000] d..2.     1.000100: sched_switch: prev_comm=worker prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
CPU:0 [LOST 12 EVENTS]
";
    let output = with_input(fpuswitch().args(["replay", "-"]), trace.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("events were lost in 1 places: more is unknown than known"));
}

fn cpu(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cpus").join(name)
}

/// The cells of the row of a table that begins with `first`.
fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let rows = text.lines().map(|line| line.split('|').map(str::trim).skip(1).collect::<Vec<_>>());
    rows.into_iter().find(|cells| cells.first() == Some(&first)).unwrap_or_default()
}

#[test]
fn layout_shows_both_formats_and_what_is_only_listed() {
    let output = output(fpuswitch().args(["layout", "--cpuid"]).arg(cpu("emerald-rapids.txt")));
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(row(&text, "6"), ["6", "ZMM_Hi256", "512", "1152", "896", "", "enabled", ""]);
    let tiles = ["18", "TILEDATA", "8192", "2816", "-", "aligned to 64, dynamic (XFD)", "listed only", ""];
    assert_eq!(row(&text, "18"), tiles);
    assert!(text.contains("XCR0 = 0xe7: 2688 bytes in the standard format, 2432 compacted."), "{text}");
    // From standard input, and without XCR0.
    let dump = std::fs::read_to_string(cpu("zen4.txt")).expect("a file").replace("XCR0: 0x2e7", "");
    let guessed = with_input(fpuswitch().args(["layout", "--cpuid", "-"]), dump.as_bytes());
    assert!(stdout(&guessed).contains("what the CPU lists counts as enabled"), "{}", stdout(&guessed));
}

#[test]
fn layout_refuses_a_description_with_its_line_or_field() {
    let zen4 = std::fs::read_to_string(cpu("zen4.txt")).expect("a file");
    for (text, expected) in [
        ("\nleaf 13\n".to_owned(), "line 2: expected `0xLEAF"),
        (zen4.replace("ebx=0x00000988", "ebx=0x00000240"), "CPUID gives 576 bytes for the standard format"),
        (zen4.replace("XCR0: 0x2e7", "XCR0: 0x602e7"), "XCR0 = 0x602e7 enables TILECFG, whose size"),
    ] {
        let output = with_input(fpuswitch().args(["layout", "--cpuid", "-"]), text.as_bytes());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn hardware_layout_and_costs_of_this_machine() {
    let layout = output(fpuswitch().arg("layout"));
    if layout.status.code() == Some(2) {
        println!("HARDWARE command-line: SKIPPED: {}", stderr(&layout).trim());
        return;
    }
    assert_eq!(row(&stdout(&layout), "1")[1], "SSE");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("costs-of-this-machine.json");
    // What an earlier run has left.
    let _ = std::fs::remove_file(&file);
    assert!(!file.exists());
    let costs = output(fpuswitch().args(["costs", "--out"]).arg(&file));
    assert_eq!(costs.status.code(), Some(0), "{}", stderr(&costs));
    assert!(stdout(&costs).contains("FXSAVE"), "{}", stdout(&costs));
    check_costs(&std::fs::read_to_string(&file).expect("it was written"));
    // What it writes is what replay reads.
    let recording = recording("hop-2cpu-6.1.txt.gz");
    let replayed = output(fpuswitch().args(["replay", "--costs"]).arg(&file).arg(recording));
    assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
    assert!(stdout(&replayed).contains("(from the file)"), "{}", stdout(&replayed));
    println!("HARDWARE command-line: ran");
}

/// Checks what `costs --out` wrote.
fn check_costs(json: &str) {
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    for field in ["save_ns", "restore_ns", "check_ns"] {
        let ns = json[field].as_f64().unwrap_or_else(|| panic!("{field} is no number"));
        assert!(ns.is_finite() && ns > 0.0, "{field}: {ns}");
    }
    let instructions = json["instructions"].as_array().expect("an array");
    let class = |row: &serde_json::Value| row["class"].as_str().expect("a class").to_owned();
    let rows: Vec<_> = instructions.iter().filter(|row| !class(row).is_empty()).collect();
    for areas in [2, 64] {
        assert!(rows.iter().any(|row| row["areas"] == areas), "no row with {areas} areas");
    }
    assert!(rows.iter().any(|row| class(row) != class(rows[0])), "a single class: {}", class(rows[0]));
    let ratios = rows.iter().map(|row| row["ratio"].as_f64().expect("a ratio"));
    assert_eq!(ratios.fold(f64::INFINITY, f64::min), 1.0);
}

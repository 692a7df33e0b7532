//! What is no recording is refused, with the line and what was expected there; odd names and unknown events are
//! no errors.

mod recordings;

use fpuswitch::replay::{InputError, Options, ReplayError, Report, replay};
use recordings::{functions, gzip, text};
use std::{error::Error, io::Write};

fn read(input: impl AsRef<[u8]>) -> Result<Report, ReplayError> {
    replay(input.as_ref(), &Options { policies: Vec::new(), ..Options::default() })
}

/// The error and those behind it, as one line.
#[track_caller]
fn refused(input: impl AsRef<[u8]>) -> (ReplayError, String) {
    let error = match read(input) {
        Ok(report) => panic!("{report:?}"),
        Err(error) => error,
    };
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message += &format!(": {error}");
        source = error.source();
    }
    (error, message)
}

fn compressed(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

const GOOD: &str = "# tracer: function
            task-7       [000] .....     1.000010: sys_enter: NR 1 (1, 2, 3, 4, 5, 6)
";

#[test]
fn what_is_no_recording_is_not_read_on() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let inputs: [&[u8]; 9] = [
        b"",
        b"\n\n \n",
        b"# a comment\n#\n",
        b"CPU:0 [LOST EVENTS]\n",
        b"Dear diary,\n",
        b"{\"traceEvents\": []}\n",
        b"\0\0\0\0\n",
        &program,
        &compressed(b"hello\n"),
    ];
    for input in inputs {
        let (error, message) = refused(input);
        let start = String::from_utf8_lossy(&input[..input.len().min(20)]).into_owned();
        // A program may well begin with a line that is too long.
        let too_long =
            matches!(error, ReplayError::Input(InputError::LineTooLong { .. })) && input == program;
        assert!(matches!(error, ReplayError::NotATrace { .. }) || too_long, "{start}: {error:?}");
        assert!(too_long || message.contains(": not an ftrace recording: expected "), "{message}");
    }
    // A recording of nothing is one.
    assert_eq!(read("# tracer: nop\n").unwrap().lines, 1);
}

#[test]
fn a_malformed_line_is_named_with_what_was_expected() {
    let header = "            task-7       [000] .....     1.000010: ";
    for (line, expected) in [
        ("hello".to_owned(), "a task name and -PID"),
        ("            task-7       (-------) 1.000010: fpu_clone <-x".to_owned(), "a CPU number in brackets"),
        (
            "            task-7       [8192] .....     1.000010: fpu_clone <-x".to_owned(),
            "a CPU number in brackets",
        ),
        ("            task-7       [000] .....     now: fpu_clone <-x".to_owned(), "a timestamp"),
        (header.to_owned(), "an event or function name"),
        (format!("{header}sched_switch: prev_comm=a"), "next_prio=NUMBER"),
        (format!("{header}sched_process_fork: comm=a pid=7 child_comm=b child_pid=x"), "child_pid=NUMBER"),
        (
            format!("{header}sched_migrate_task: comm=a pid=7 prio=1 orig_cpu=0 dest_cpu=8192"),
            "dest_cpu=NUMBER",
        ),
        ("CPU:0 [LOST SOME EVENTS]".to_owned(), "CPU:NUMBER [LOST NUMBER EVENTS]"),
    ] {
        for input in [format!("{GOOD}{line}\n"), format!("{GOOD}\r\n{line}\r\n{GOOD}")] {
            let number = input.lines().position(|found| found == line).unwrap() as u64 + 1;
            let (error, message) = refused(&input);
            assert!(
                matches!(&error, ReplayError::Malformed { line, expected: found }
                    if *line == number && *found == expected),
                "{error:?}, expected {expected} in {line}"
            );
            assert_eq!(message, format!("line {number}: expected {expected}"));
            assert_eq!(refused(compressed(input.as_bytes())).1, message);
        }
    }
}

#[test]
fn a_recording_that_is_cut_off_says_where() {
    for end in [GOOD.len() - 1, GOOD.len() - 20, "# tracer: fun".len()] {
        let line = GOOD[..end].lines().count() as u64;
        for input in [GOOD.as_bytes()[..end].to_vec(), compressed(&GOOD.as_bytes()[..end])] {
            let (error, message) = refused(input);
            assert!(matches!(error, ReplayError::Input(InputError::CutOff { line: found }) if found == line));
            assert!(message.starts_with(&format!("line {line} is cut off")), "{message}");
        }
    }
}

#[test]
fn gzip_data_that_is_cut_or_changed_is_damaged() {
    let whole = gzip("spin-2cpu-6.1");
    // In the checksum: a byte further up may give text that is refused before the checksum is reached.
    let mut changed = whole.clone();
    changed[whole.len() - 6] ^= 0x10;
    let tail = [&whole[..], b"\n"].concat();
    for input in [&whole[..whole.len() / 2], &whole[..whole.len() - 1], &whole[..10], &changed, &tail] {
        let (error, message) = refused(input);
        let ReplayError::Input(InputError::DamagedGzip { line, .. }) = error else { panic!("{error:?}") };
        assert!(message.starts_with(&format!("gzip data is damaged at or after line {line}: ")), "{message}");
        assert!((1..=text("spin-2cpu-6.1").lines().count() as u64 + 1).contains(&line));
    }
}

#[test]
fn a_line_that_is_too_long_is_named() {
    let long = "x".repeat(65 << 10);
    for input in [format!("{GOOD}# {long}\n"), format!("{GOOD}{long}")] {
        let (error, message) = refused(input);
        assert!(matches!(error, ReplayError::Input(InputError::LineTooLong { line: 3 })), "{error:?}");
        assert!(message.starts_with("line 3 is longer than 65536 bytes"), "{message}");
    }
    assert_eq!(read(format!("{GOOD}# {}\n", &long[..65_534])).unwrap().lines, 3);
}

#[test]
fn a_reader_that_fails_is_no_damage() {
    struct Failing(usize);
    impl std::io::Read for Failing {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let left = &GOOD.as_bytes()[self.0..];
            if left.is_empty() {
                return Err(std::io::Error::other("the disk is gone"));
            }
            let bytes = left.len().min(into.len());
            into[..bytes].copy_from_slice(&left[..bytes]);
            self.0 += bytes;
            Ok(bytes)
        }
    }
    let error = replay(Failing(0), &Options::default()).unwrap_err();
    assert!(matches!(error, ReplayError::Input(InputError::Io(_))), "{error:?}");
    assert_eq!(error.source().unwrap().to_string(), "the disk is gone");
}

/// A load that is not due, so that a name which is misread shows.
const STORY: &str = "
    0 7 enters
    0 7 to 8
    0 7 saved
    0 8 enters
    0 8 clones
    0 8 copies
    0 8 forks 9
    0 8 migrates 9 1
    0 8 exits
    0 8 dropped
    0 8 to 7 Z
    0 8 saved
    1 0 to 9
    1 9 returns
    1 9 loaded
    1 9 flushes
    1 9 execs 9
    ! 0 7 returns
    0 7 enters";

#[test]
fn names_of_tasks_change_nothing() {
    let plain = functions(STORY).text;
    let report = read(&plain).unwrap();
    assert_eq!((report.agreement.decisions, report.agreement.disagreements), (4, 1));
    for name in [
        "a b",
        "a-1",
        "-1 [007] .....",
        "]",
        "[0]",
        "(-------)",
        "<...>",
        "",
        " ",
        "a: b <-c",
        "CPU:0",
        "#",
        "é中-7",
        "sys_enter: NR 1",
        "==> next_comm=",
        "prev_state=Z",
        "next_pid=9",
        "x dest_cpu=9",
        " 1 [000] 1.0: x",
    ] {
        let named = plain.replace("comm=task ", &format!("comm={name} "));
        let named = named.replace("            task-", &format!("{name:>16}-"));
        assert_eq!(named.matches(&format!("{name}-7 ")).count(), 5, "{name}");
        let found = read(&named).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((found.kernel, found.agreement), (report.kernel, report.agreement.clone()), "{name}");
        assert_eq!((found.cpus, found.optimum, found.ignored.len()), (2, report.optimum, 0), "{name}");
    }
}

#[test]
fn unknown_events_are_counted_by_name() {
    let report = functions(
        "0 7 enters
         0 7 | sched_waking: comm=task pid=9 prio=120 target_cpu=000
         0 7 | do_exit <-__x64_sys_exit
         0 7 | sched_waking: comm=task pid=8 prio=120 target_cpu=000
         0 7 enters",
    )
    .agrees(0);
    let ignored: Vec<_> = report.ignored.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(ignored, [("do_exit", 1), ("sched_waking", 2)]);
}

#[test]
fn unknown_events_take_no_more_than_a_bounded_memory() {
    let names = |count: usize| (0..count).map(|name| format!("0 7 | event_{name}: x\n0 7 | event_0: x\n"));
    let report = functions(&names(3000).collect::<String>()).agrees(0);
    assert_eq!(report.ignored.len(), 1001);
    assert_eq!((report.ignored["event_0"], report.ignored["event_999"]), (3001, 1));
    assert_eq!(report.ignored["(further names)"], 2000);
    assert_eq!(functions(&names(1000).collect::<String>()).agrees(0).ignored.len(), 1000);
}

#[test]
fn an_unknown_event_does_not_come_between_a_question_and_its_answer() {
    let report = functions(
        "0 7 enters
         0 7 to 0
         0 7 | sched_stat_runtime: comm=task pid=7 runtime=1 [ns]
         0 7 saved
         0 0 timer",
    )
    .agrees(1);
    assert_eq!(report.kernel.saves, 1);
}

#[test]
fn lines_bytes_seconds_and_cpus_are_counted() {
    let report =
        read(format!("{GOOD}\r\n{}", GOOD.replace("1.000010", "3.500010").replace("[000]", "[002]")));
    let report = report.unwrap();
    assert_eq!((report.lines, report.bytes, report.cpus), (5, 2 * GOOD.len() as u64 + 2, 2));
    assert!((report.seconds - 2.5).abs() < 1e-9);
}

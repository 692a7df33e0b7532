//! Pictures from the command line: where they go, of which part, and what is refused.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Exit status, and what is on standard error.
fn replay(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fpuswitch"));
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("replay").args(arguments).output();
    let output = output.expect("the binary starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

const RECORDING: &str = "recordings/hop-2cpu-6.1.txt.gz";

#[test]
fn each_picture_goes_to_its_file() {
    let files = ["timeline.svg", "costs.svg", "trace.json"].map(scratch);
    let [svg, plot, perfetto] = files.each_ref().map(|file| file.to_str().expect("UTF-8"));
    let arguments =
        [RECORDING, "--svg", svg, "--plot", plot, "--perfetto", perfetto, "--policy", "lazy-save"];
    let (status, error) = replay(&[&arguments[..], &["--from", "0.1", "--to", "0.2"]].concat());
    assert_eq!((status, error.as_str()), (Some(0), ""));
    for file in &files[..2] {
        let text = std::fs::read_to_string(file).expect("a picture");
        assert!(roxmltree::Document::parse(&text).is_ok());
        assert!(text.contains("hop-2cpu-6.1.txt.gz: "));
    }
    assert!(std::fs::read_to_string(&files[0]).expect("a picture").contains("under lazy-save"));
    let trace = std::fs::read_to_string(&files[2]).expect("a trace");
    let trace: serde_json::Value = serde_json::from_str(&trace).expect("JSON");
    assert_eq!(trace["metadata"]["policy"], "lazy-save");
}

#[test]
fn what_cannot_be_drawn_is_refused_with_what_to_do() {
    let file = scratch("never.svg");
    let svg = file.to_str().expect("UTF-8");
    let cases: [(&[&str], &str); 8] = [
        (&["--svg", svg], "a picture shows one recording: name one file, not 0"),
        (&[RECORDING, RECORDING, "--svg", svg], "name one file, not 2"),
        (&[RECORDING, "--from", "1"], "expected --svg or --perfetto beside them"),
        (&[RECORDING, "--svg", svg, "--from", "2", "--to", "1"], "from 2 s to 1 s is nothing"),
        (&[RECORDING, "--svg", svg, "--from", "-1"], "-1 is no time: expected seconds since"),
        (&[RECORDING, "--svg", svg, "--from", "1e3"], "the recording is over after 0."),
        (&[RECORDING, "--svg", "/nonexistent/folder/a.svg"], "/nonexistent/folder/a.svg: cannot write"),
        (&[RECORDING, "--plot", "/nonexistent/folder/a.svg"], "/nonexistent/folder/a.svg: cannot write"),
    ];
    for (arguments, expected) in cases {
        let (status, error) = replay(arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert!(!file.exists());
}

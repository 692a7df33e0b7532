//! `fpuswitch explore`, and `run` of what it finds.

use fpuswitch::check::corpus::{Tier, bugs};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

fn output(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fpuswitch")).args(arguments).output().expect("the binary starts")
}

/// Exit status, standard output and standard error.
fn fpuswitch(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = output(arguments);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn scratch(name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run has left.
    let _ = std::fs::remove_file(&path);
    path.into_os_string().into_string().expect("UTF-8")
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().expect("an array").iter().map(|name| name.as_str().expect("a name")).collect()
}

#[test]
fn an_exploration_prints_what_it_went_through() {
    let (status, text, errors) = fpuswitch(&["explore", "--threads", "1"]);
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "owner-slot, 2 CPUs, 2 tasks, core: no violation");
    assert!(lines[1].contains(" states, ") && lines[1].contains(" transitions, depth "), "{text}");
    assert!(lines[2].ends_with(" states/s, 1 thread"), "{text}");
    assert!(text.contains("\n  two programs run at once\n"), "{text}");
    assert!(text.ends_with("never reached: nothing that ought to be\n"), "{text}");
}

#[test]
fn an_exploration_is_one_object_of_json() {
    let arguments = ["explore", "--json", "--policy", "lazy-save", "--cpus", "1", "--groups", "pkru,signals"];
    let (status, text, errors) = fpuswitch(&[&arguments[..], &["--tasks", "1"]].concat());
    let found: Value = serde_json::from_str(&text).expect("one object");
    assert_eq!((found["policy"].as_str(), found["defect"].is_null()), (Some("lazy-save"), true));
    assert_eq!((&found["scope"]["cpus"], &found["scope"]["tasks"]), (&1.into(), &1.into()));
    assert_eq!(names(&found["scope"]["groups"]), ["pkru", "signals"]);
    for count in ["states", "transitions", "depth"] {
        assert!(found[count].as_u64().is_some_and(|count| count > 0), "{count}: {text}");
    }
    assert!(names(&found["reached"]).contains(&"a handler runs"), "{text}");
    // A situation that ought to come up and does not is a finding.
    let expected = if names(&found["never"]).is_empty() { 0 } else { 1 };
    assert_eq!((status, errors.as_str()), (Some(expected), ""), "{text}");
    assert!(found["violation"].is_null());
}

#[test]
fn each_bug_of_the_corpus_has_a_line_of_json_and_the_status_says_whether_all_are_found() {
    let (status, text, errors) = fpuswitch(&["explore", "--corpus", "--json"]);
    assert_eq!(text.lines().count(), bugs().len(), "{text}");
    let mut all_as_expected = true;
    for (line, bug) in text.lines().zip(bugs()) {
        let found: Value = serde_json::from_str(line).expect("JSON");
        let begins = format!(r#"{{"id":"{}","found":{},"invariant":"#, bug.id, found["found"]);
        assert!(line.starts_with(&begins) && found["found"].is_boolean(), "{line}");
        assert_eq!(found["found"], found["invariant"].is_string(), "{line}");
        assert!(found["events"].is_u64() && found["states"].is_u64(), "{line}");
        assert_eq!(found.as_object().map(|fields| fields.len()), Some(5), "{line}");
        let invariant = (!bug.harmless).then(|| bug.invariant.to_string());
        all_as_expected &= found["invariant"].as_str() == invariant.as_deref();
    }
    let expected = if all_as_expected { 0 } else { 1 };
    assert_eq!((status, errors.as_str()), (Some(expected), ""), "{text}");
}

#[test]
fn a_defect_is_found_and_its_list_replays() {
    let file = scratch("exec-keeps-claim.events");
    let bug = ["--defect", "exec-keeps-claim"];
    let (status, text, errors) = fpuswitch(&[&["explore", "--events", &file][..], &bug].concat());
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{text}");
    assert!(text.starts_with("exec-keeps-claim (pattern; none; "), "{text}");
    assert!(text.contains("owner-slot, 2 CPUs, 2 tasks, core: I5 is broken, length 2, "), "{text}");
    assert!(text.contains("\nevent ") && text.contains("owner slots  last_cpu  need_fpu_load"), "{text}");
    let replay =
        format!("Replay it with: fpuswitch run --policy owner-slot --defect exec-keeps-claim {file}\n");
    assert!(text.ends_with(&replay), "{text}");
    let written = std::fs::read_to_string(&file).expect("it was written");
    assert!(written.starts_with("# I5 is broken: ") && text.contains(&written), "{written}");

    for registers in ["abstract", "soft", "host"] {
        let replay = ["run", "--registers", registers, &file];
        let (status, text, errors) = fpuswitch(&[&replay[..], &bug].concat());
        if status == Some(2) {
            assert_eq!(registers, "host", "{errors}");
            println!("HARDWARE explored-list-on-host: SKIPPED: {errors}");
            continue;
        }
        assert_eq!(status, Some(1), "{registers}: {text}");
        let last = text.lines().last().expect("a line");
        let line = written.lines().count();
        assert!(last.starts_with(&format!("line {line}: I5 is broken: ")), "{registers}: {last}");
        // Nothing is wrong with the mechanism as it is.
        assert_eq!(fpuswitch(&replay).0, Some(0), "{registers}");
        if registers == "host" {
            println!("HARDWARE explored-list-on-host: ran");
        }
    }
}

#[test]
fn a_count_of_slices_belongs_to_trap_restore() {
    let file = scratch("preload-initialises.events");
    let bug = ["--defect", "12"];
    let explored = fpuswitch(&[&["explore", "--json", "--events", &file][..], &bug].concat());
    let found: Value = serde_json::from_str(&explored.1).expect("one object");
    assert_eq!((explored.0, &found["defect"]), (Some(0), &"preload-initialises".into()), "{}", explored.1);
    assert_eq!(found["violation"]["invariant"], "I2");
    let events = names(&found["violation"]["events"]).join("\n");
    let written = std::fs::read_to_string(&file).expect("it was written");
    assert!(written.ends_with(&format!("{events}\n")), "{written}");

    let run = [&["run", &file][..], &bug].concat();
    assert_eq!(fpuswitch(&[&run[..], &["--slices", "0"]].concat()).0, Some(1));
    let refused = fpuswitch(&[&run[..], &["--policy", "owner-slot", "--slices", "0"]].concat());
    assert_eq!(refused.0, Some(2));
    let expected = "--slices: owner-slot counts no slices: expected --policy trap-restore beside it";
    assert!(refused.2.contains(expected), "{}", refused.2);
}

/// A file of the corpus.
fn corpus(id: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(id).with_extension("events");
    path.into_os_string().into_string().expect("UTF-8")
}

#[test]
fn every_file_of_the_corpus_replays() {
    for bug in bugs() {
        let file = corpus(bug.id);
        let (status, text, errors) = fpuswitch(&["run", "--defect", bug.id, &file]);
        assert_eq!(status, Some(if bug.harmless { 0 } else { 1 }), "{}: {text}{errors}", bug.id);
        assert_eq!(text.contains(" is broken: "), !bug.harmless, "{}: {text}", bug.id);
    }
}

#[test]
fn what_takes_bytes_is_shown_on_them() {
    let bug = bugs().iter().find(|bug| bug.tier == Tier::Software).expect("one");
    let (status, text, errors) = fpuswitch(&["explore", "--defect", bug.id]);
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{text}");
    assert!(text.contains(&format!("owner-slot, software registers: {} is broken", bug.invariant)), "{text}");
    let (status, _, errors) = fpuswitch(&["explore", "--serve", "localhost:0", "--defect", bug.id]);
    assert_eq!(status, Some(2));
    assert!(errors.contains("--serve: this bug shows on bytes alone"), "{errors}");
}

#[test]
fn a_violation_is_a_finding_without_a_defect() {
    let file = scratch("pkru-in-images.events");
    let machine = ["--pkru-in-xsave", "--policy", "deferred"];
    let explore = ["explore", "--threads", "1", "--groups", "pkru", "--events", &file];
    let (status, text, errors) = fpuswitch(&[&explore[..], &machine].concat());
    assert_eq!((status, errors.as_str()), (Some(1), ""), "{text}");
    assert!(
        text.contains("\n# I7 is broken: ") && text.contains("under deferred, PKRU in images\n"),
        "{text}"
    );
    assert_eq!(fpuswitch(&[&["run", &file][..], &machine].concat()).0, Some(1));
}

#[test]
fn what_cannot_be_explored_is_refused_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let cases: [(&[&str], &str); 13] = [
        (&["--cpus", "9"], "fpuswitch: explore: expected 1 to 3 CPUs, not 9"),
        (&["--tasks", "0"], "expected 1 to 3 slots for tasks, not 0"),
        (&["--threads", "0"], "0 is not in 1..=256"),
        (&["--groups", "pkru,signal"], "[possible values: pkru, signals, guest, dynamic, power, all]"),
        (&["--policy", "eagre"], "no such policy; there are eager, "),
        (&["--defect", "exec-clears"], "no such bug of the corpus; there are retry-trusts-old-owner, "),
        (&["--defect", "15"], "is not in the corpus: the mark had no effect"),
        (&["--defect", "2", "--cpus", "3"], "cannot be used with"),
        (&["--corpus", "--events", "a"], "cannot be used with"),
        (
            &["--pkru-in-xsave", "--policy", "trap-restore"],
            "PKRU cannot be switched inside XSAVE under trap-restore",
        ),
        (&["--serve", &taken], "no page can be served there: "),
        (&["--serve", "somewhere"], "--serve somewhere: no page can be served there: invalid socket address"),
        (&["--defect", "2", "--events", "/nonexistent/folder/a"], "/nonexistent/folder/a: "),
    ];
    for (arguments, expected) in cases {
        let (status, _, errors) = fpuswitch(&[&["explore"], arguments].concat());
        assert_eq!(status, Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected) && !errors.contains("panicked"), "{arguments:?}: {errors}");
    }
}

/// A page that ends with the test.
struct Page {
    server: Child,
    address: String,
}

impl Page {
    fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fpuswitch"));
        let command = command.args(["explore", "--serve", "127.0.0.1:0"]).args(arguments);
        let mut server = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut line = String::new();
        let out = server.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).map(String::from);
        Self { server, address: address.unwrap_or_else(|| panic!("no address: {line}")) }
    }

    /// The server listens a moment after it says so.
    fn connect(&self) -> TcpStream {
        let tries = (0..500).find_map(|_| {
            let stream = TcpStream::connect(&self.address).ok();
            if stream.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            stream
        });
        tries.expect("the server listens")
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}"))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn the_page_shows_states_for_people() {
    let page = Page::new(&["--defect", "exec-keeps-claim"]);
    let status = page.get("/.status");
    assert!(status["properties"].as_array().is_some_and(|all| all.len() > 14), "{status}");
    let states = page.get("/.states/");
    let first = &states[0];
    let text = first["state"].as_str().expect("a state");
    let begins = |line: &str| text.lines().any(|other| other.starts_with(line));
    assert!(begins("c0: T0 in user mode") && begins("c1: T2 in the kernel") && begins("T0: "), "{text}");
    // One operation further.
    let next = page.get(&format!("/.states/{}", first["fingerprint"].as_str().expect("a number")));
    let mut steps = next.as_array().expect("operations").iter();
    let entry = steps.find(|step| step["action"].as_str().is_some_and(|what| what.starts_with("entry c0")));
    let state = entry.expect("an operation")["state"].as_str().expect("a state");
    assert!(state.starts_with("c0: T0 in the kernel"), "{state}");
}

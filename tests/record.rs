//! `fpuswitch record` on the running kernel: what it records replays, and it leaves nothing behind.
#![cfg(target_os = "linux")]

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn fpuswitch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fpuswitch"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Where it records if it does not mount tracefs itself.
fn mounted_tracefs() -> Option<&'static Path> {
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(Path::new);
    places.into_iter().find(|place| place.join("instances").is_dir())
}

/// tracefs on a directory where no recorder looks for it.
struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    fn mount() -> Option<Self> {
        let root = std::env::temp_dir().join(format!("fpuswitch-test-{}", std::process::id()));
        fs::create_dir(&root).expect("a scratch directory");
        let mounted = mount("tracefs", &root, "tracefs", MountFlags::empty(), None);
        let tracefs = Self { root };
        mounted.ok().map(|()| tracefs)
    }

    /// What other tracing has set, which a recording must not touch.
    fn settings(&self) -> Vec<String> {
        let files = [
            "set_event",
            "current_tracer",
            "set_ftrace_filter",
            "trace_clock",
            "tracing_on",
            "buffer_size_kb",
            "trace_options",
            "events/enable",
        ];
        let read = |file| fs::read_to_string(self.root.join(file)).unwrap_or_else(|error| error.to_string());
        files.map(read).to_vec()
    }

    /// What is there of a recorder's own: mounts, temporary directories, instances.
    fn made_by(&self, recorder: u32) -> Vec<String> {
        let names = ["fpuswitch", "fpuswitch-tracefs"].map(|name| format!("{name}-{recorder}"));
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mut own: Vec<_> =
            mounts.lines().filter(|mount| mount.contains(&names[1])).map(str::to_owned).collect();
        for directory in [std::env::temp_dir(), self.root.join("instances")] {
            for entry in fs::read_dir(directory).expect("a directory") {
                let name = entry.expect("a name").file_name().to_string_lossy().into_owned();
                own.extend(Some(name).filter(|name| names.contains(name)));
            }
        }
        own
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        let _ = unmount(&self.root, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.root);
    }
}

#[test]
fn hardware_a_recording_of_this_kernel_replays_and_leaves_nothing_behind() {
    let file = scratch("of-this-kernel.txt.gz");
    let path = file.to_str().expect("UTF-8");
    let tracefs = Tracefs::mount();
    let before = tracefs.as_ref().map(Tracefs::settings);
    let recorder =
        fpuswitch(&["record", "--seconds", "20", "--out", path, "--", "sh", "-c", "sleep 0.2; exit 7"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
    let pid = recorder.id();
    let ended = recorder.wait_with_output().expect("the binary ends");
    let said = stderr(&ended);
    if ended.status.code() == Some(2) {
        assert!(said.starts_with("fpuswitch: record: "), "{said}");
        println!("HARDWARE record: SKIPPED: {}", said.trim());
        return;
    }
    // The command's failure is a finding.
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("sh failed: exit status: 7"), "{said}");
    let replayed = fpuswitch(&["replay", "--json", path]).output().expect("the binary starts");
    let line: serde_json::Value = serde_json::from_slice(&replayed.stdout).expect("JSON");
    assert!(line["kernel"]["switches"].as_u64().is_some_and(|switches| switches > 0), "{line}");
    assert!(line["agreement"]["decisions"].as_u64().is_some_and(|decisions| decisions > 0), "{line}");
    assert_eq!(line["ignored"], serde_json::json!({}));
    let Some((tracefs, before)) = tracefs.zip(before) else {
        println!("HARDWARE record: SKIPPED: tracefs cannot be mounted to look at what is left");
        return;
    };
    assert_eq!((tracefs.made_by(pid), tracefs.settings()), (vec![], before.clone()));
    // A terminal signals the recorder and its command; `kill` and limits, the recorder alone.
    for (signal, group) in
        [("INT", "-"), ("HUP", "-"), ("TERM", ""), ("QUIT", ""), ("USR1", ""), ("XCPU", "")]
    {
        let recorder = fpuswitch(&["record", "--out", "/dev/null", "--", "sleep", "100"])
            .process_group(0)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let pid = recorder.id();
        instance_of(pid);
        assert!(!tracefs.made_by(pid).is_empty());
        assert_eq!(tracefs.settings(), before);
        let status = Command::new("kill").args(["-s", signal, "--", &format!("{group}{pid}")]).status();
        assert!(status.expect("kill starts").success());
        let ended = recorder.wait_with_output().expect("the binary ends");
        assert!(stderr(&ended).contains("asked to end"), "{signal}: {}", stderr(&ended));
        assert_eq!((tracefs.made_by(pid), tracefs.settings()), (vec![], before.clone()), "{signal}");
    }
    a_file_that_becomes_too_large_is_an_error(&tracefs);
    an_instance_in_use_can_be_removed_as_it_is_said();
    assert_eq!(tracefs.settings(), before);
    println!("HARDWARE record: ran");
}

fn a_file_that_becomes_too_large_is_an_error(tracefs: &Tracefs) {
    let file = scratch("too-large.txt");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 8; exec \"$0\" record --out \"$1\" -- sleep 100"]);
    limited.arg(env!("CARGO_BIN_EXE_fpuswitch")).arg(&file).stdin(Stdio::null()).stderr(Stdio::piped());
    let recorder = limited.spawn().expect("sh starts");
    let pid = recorder.id();
    let ended = recorder.wait_with_output().expect("the binary ends");
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(stderr(&ended).contains("too-large.txt: cannot write the recording"), "{}", stderr(&ended));
    assert_eq!(tracefs.made_by(pid), [""; 0]);
}

fn an_instance_in_use_can_be_removed_as_it_is_said() {
    let mut recording = fpuswitch(&["record", "--seconds", "1", "--out", "/dev/null"]);
    let recorder = recording.stderr(Stdio::piped()).spawn().expect("the binary starts");
    let instance = instance_of(recorder.id());
    // Only one can read trace_pipe, but any open file keeps the instance.
    let reader = fs::File::open(instance.join("tracing_on")).expect("a reader");
    let ended = recorder.wait_with_output().expect("the binary ends");
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    // The recording itself is complete.
    assert!(said.contains("the time is up"), "{said}");
    assert!(said.contains(&format!("{} is still there", instance.display())), "{said}");
    drop(reader);
    fs::remove_dir(&instance).expect("nobody reads from it");
    let root = instance.ancestors().nth(2).expect("tracefs");
    if mounted_tracefs().is_none() {
        assert!(said.contains(&format!("umount {0} and rmdir {0}", root.display())), "{said}");
        assert!(Command::new("umount").arg(root).status().expect("umount starts").success());
        fs::remove_dir(root).expect("not mounted any more");
    }
}

/// The instance of a recorder that has just been started, as soon as it records.
fn instance_of(recorder: u32) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let open = fs::read_dir(format!("/proc/{recorder}/fd")).expect("it runs");
        let mut files = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        if let Some(pipe) = files.find(|file| file.ends_with("trace_pipe")) {
            return pipe.parent().expect("an instance").to_path_buf();
        }
        assert!(Instant::now() < deadline, "{recorder} does not begin to record");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_cannot_be_recorded_is_said_and_leaves_files_as_they_were() {
    let nowhere = fpuswitch(&["record", "--seconds", "1", "--out", "/nonexistent/a.txt"]).output();
    let nowhere = nowhere.expect("the binary starts");
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(
        stderr(&nowhere).contains("/nonexistent/a.txt: cannot write the recording"),
        "{}",
        stderr(&nowhere)
    );
    let file = scratch("never.txt.gz");
    let out = file.to_str().expect("UTF-8");
    let _ = fs::remove_file(&file);
    // Whether or not this user and this kernel let it come to the command.
    let record = || {
        let mut record = fpuswitch(&["record", "--out", out, "--", "/nonexistent/command"]);
        let tried = record.output().expect("the binary starts");
        assert_eq!(tried.status.code(), Some(2), "{tried:?}");
    };
    record();
    assert!(!file.exists());
    fs::write(&file, "a recording of before").expect("a scratch file");
    record();
    assert_eq!(fs::read_to_string(&file).expect("the file"), "a recording of before");
    fs::remove_file(&file).expect("the file");
    for arguments in [&["--seconds", "0"], &["--seconds", "x"], &["--buffer-kb", "1"]] {
        let refused = fpuswitch(&["record"]).args(arguments).output().expect("the binary starts");
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
    }
}

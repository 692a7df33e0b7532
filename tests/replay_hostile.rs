//! The bundled recordings as they may arrive: cut, begun later, with lost lines, shuffled. What is missing is no
//! disagreement, and nothing makes a replay panic or refuse to go on.

mod recordings;

use fpuswitch::replay::{InputError, Options, ReplayError, Report, replay};
use recordings::{TRACEPOINTS_ONLY, WITH_FUNCTIONS, text};
use std::sync::LazyLock;

fn read(text: &str) -> Result<Report, ReplayError> {
    replay(text.as_bytes(), &Options { policies: Vec::new(), ..Options::default() })
}

/// Xorshift: Marsaglia, "Xorshift RNGs", 2003.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    fn position<T>(&mut self, list: &[T]) -> usize {
        self.below(list.len())
    }
}

/// The comments of a recording, and its events.
struct Recording {
    name: &'static str,
    header: String,
    events: Vec<String>,
}

static ALL: LazyLock<Vec<Recording>> = LazyLock::new(|| {
    let all = WITH_FUNCTIONS.into_iter().chain([TRACEPOINTS_ONLY]).map(|name| {
        let text = text(name);
        let (header, events): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
        Recording {
            name,
            header: header.join("\n") + "\n",
            events: events.into_iter().map(str::to_owned).collect(),
        }
    });
    all.collect()
});

impl Recording {
    /// Some events in a row.
    fn part(&self, random: &mut Random, most: usize) -> Vec<String> {
        let start = random.below(self.events.len() - 100);
        self.events[start..self.events.len().min(start + most)].to_vec()
    }

    fn with(&self, events: &[String]) -> String {
        self.header.clone() + &events.join("\n") + "\n"
    }

    /// Expects no disagreement, and nothing inferred where there are function lines.
    #[track_caller]
    fn agrees(&self, events: &[String]) -> Report {
        let text = self.with(events);
        let report = read(&text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", self.name));
        assert_eq!(report.agreement.first, [], "{}\n{text}", self.name);
        assert!(!report.has_functions || report.agreement.inferred() == 0, "{}\n{text}", self.name);
        report
    }
}

fn cpu_of(event: &str) -> u32 {
    let at = event.find(" [").unwrap() + 2;
    event[at..at + 3].parse().unwrap()
}

#[test]
fn a_recording_may_end_behind_any_line() {
    let text = text("mix-4cpu-6.1");
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    let mut decisions = 0;
    for end in ends[..400].iter().chain(ends.iter().skip(400).step_by(250)) {
        let report = read(&text[..*end]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.bytes, *end as u64);
        assert_eq!(report.agreement.disagreements, 0);
        assert!(report.agreement.decisions >= decisions);
        decisions = report.agreement.decisions;
    }
}

#[test]
fn a_recording_may_not_end_inside_a_line() {
    let text = text("mix-4cpu-6.1");
    let start = text.find("sched_switch").unwrap();
    for end in (1..200).chain(start..start + 300) {
        let whole_lines = text[..end].ends_with('\n');
        let line = text[..end].lines().count() as u64;
        match read(&text[..end]) {
            Ok(report) => assert!(whole_lines && report.lines == line),
            Err(ReplayError::Input(InputError::CutOff { line: found })) => {
                assert!(!whole_lines && found == line);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn a_recording_may_begin_anywhere() {
    let random = &mut Random(1);
    for recording in &*ALL {
        for _ in 0..8 {
            recording.agrees(&recording.part(random, 1200));
        }
    }
}

#[test]
fn a_cpu_may_lose_lines() {
    let random = &mut Random(2);
    let mut lost = 0;
    for recording in &*ALL {
        for _ in 0..8 {
            let events = recording.part(random, 1200);
            let cpu = cpu_of(&events[random.position(&events)]);
            let of_cpu: Vec<usize> = (0..events.len()).filter(|at| cpu_of(&events[*at]) == cpu).collect();
            let first = random.position(&of_cpu);
            let behind = first + 1 + random.below(40);
            // The kernel tells of the gap before the next line of that CPU.
            let Some(next) = of_cpu.get(behind) else { continue };
            let mut left = Vec::new();
            for (at, event) in events.into_iter().enumerate() {
                if at == *next {
                    left.push(format!("CPU:{cpu} [LOST EVENTS]"));
                }
                if !of_cpu[first..behind].contains(&at) {
                    left.push(event);
                }
            }
            lost += recording.agrees(&left).lost;
        }
    }
    assert!(lost > 50);
}

#[test]
fn the_first_lines_of_a_cpu_may_be_overwritten() {
    let random = &mut Random(3);
    for recording in &*ALL {
        for _ in 0..8 {
            let mut events = recording.part(random, 1200);
            let start = random.position(&events);
            let cpu = cpu_of(&events[start]);
            events.insert(start, format!("##### CPU {cpu} buffer started ####"));
            let mut at = 0;
            events.retain(|event| {
                at += 1;
                at > start || cpu_of(event) != cpu
            });
            assert_eq!(recording.agrees(&events).lost, 1);
        }
    }
}

/// Ways to spoil a recording so that it contradicts itself.
fn spoil(events: &mut Vec<String>, way: usize, random: &mut Random) {
    let cpus: Vec<u32> = events.iter().map(|event| cpu_of(event)).collect();
    for _ in 0..events.len() / 8 {
        let (at, other) = (random.position(events), random.position(events));
        match way {
            0 => events.swap(at, other),
            1 => drop(events.remove(at)),
            2 => events.insert(at, events[other].clone()),
            3 => events.swap(at, at.saturating_sub(1)),
            4 => events.insert(at, format!("CPU:{} [LOST EVENTS]", cpus[random.position(&cpus)])),
            // Of another CPU, or by another task.
            5 => events[at] = events[at].replacen("[001]", "[000]", 1).replacen("[002]", "[001]", 1),
            6 => {
                let pid = |event: &str| event.split_once('-').map(|(_, rest)| rest[..5].to_owned());
                if let (Some(old), Some(new)) = (pid(&events[at]), pid(&events[other])) {
                    events[at] = events[at].replacen(&old, &new, 1);
                }
            }
            _ => {
                for at in (1..events.len()).rev() {
                    events.swap(at, random.below(at + 1));
                }
                break;
            }
        }
    }
}

#[test]
fn a_recording_that_contradicts_itself_is_replayed_all_the_same() {
    let random = &mut Random(4);
    for recording in &*ALL {
        for way in 0..8 {
            for check in [false, true] {
                let mut events = recording.part(random, if check { 150 } else { 700 });
                spoil(&mut events, way, random);
                let text = recording.with(&events);
                let replayed = replay(text.as_bytes(), &Options { check, ..Options::default() });
                assert!(replayed.is_ok(), "{}, {way}: {}\n{text}", recording.name, replayed.unwrap_err());
            }
        }
    }
}

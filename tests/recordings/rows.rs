//! Lines of ftrace text, split by hand: good enough for the bundled recordings, and none of the crate's code.

/// One event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) pid: u32,
    pub(crate) cpu: u32,
    pub(crate) name: &'a str,
    details: &'a str,
}

/// The events of a recording.
pub(crate) fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (task, rest) = line.split_once(" [").unwrap();
        let (_, pid) = task.rsplit_once('-').unwrap();
        let (cpu, rest) = rest.split_once(']').unwrap();
        let body = rest.split_once(": ").unwrap().1.trim_start();
        let (name, details) = body.split_at(body.find([':', ' ']).unwrap());
        Row { pid: pid.trim().parse().unwrap(), cpu: cpu.parse().unwrap(), name, details }
    })
}

impl Row<'_> {
    /// The number behind `key`.
    pub(crate) fn number(&self, key: &str) -> u32 {
        let (_, rest) = self.details.split_once(key).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    }

    /// Whether the task that is switched out is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.details.contains("prev_state=Z") || self.details.contains("prev_state=X")
    }

    /// The task that a ptrace call is about, if the row is one.
    pub(crate) fn ptrace_target(&self) -> Option<u32> {
        let arguments = self.details.strip_prefix(": NR 101 (")?;
        u32::from_str_radix(arguments.split(", ").nth(1)?, 16).ok()
    }

    /// Whether the details hold `text`.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.details.contains(text)
    }
}

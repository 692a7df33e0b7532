//! The recordings that come with the crate.

/// Name and content of each.
pub(crate) const RECORDINGS: &[(&str, &[u8])] = &[
    ("cargo-build-2cpu-6.18.txt.gz", include_bytes!("../../../recordings/cargo-build-2cpu-6.18.txt.gz")),
    ("fork-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/fork-2cpu-6.1.txt.gz")),
    ("hop-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/hop-2cpu-6.1.txt.gz")),
    ("kfpu-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/kfpu-2cpu-6.1.txt.gz")),
    ("mix-4cpu-6.1.txt.gz", include_bytes!("../../../recordings/mix-4cpu-6.1.txt.gz")),
    ("pipe-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/pipe-2cpu-6.1.txt.gz")),
    ("pipe-nofp-1cpu-6.1.txt.gz", include_bytes!("../../../recordings/pipe-nofp-1cpu-6.1.txt.gz")),
    ("ptrace-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/ptrace-2cpu-6.1.txt.gz")),
    ("sig-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/sig-2cpu-6.1.txt.gz")),
    ("spin-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/spin-2cpu-6.1.txt.gz")),
    ("yield-2cpu-6.1.txt.gz", include_bytes!("../../../recordings/yield-2cpu-6.1.txt.gz")),
];

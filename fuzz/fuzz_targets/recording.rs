//! Recordings of any bytes, plain or gzip: see README.md.
#![no_main]

use fpuswitch::{
    fpu::policy::Builtin,
    replay::{Options, ReplayError, replay},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let options = Options { check: true, fpu_use: 0.5, ..Options::new(Builtin::ALL.to_vec()) };
    match replay(data, &options) {
        Ok(report) => {
            let agreement = &report.agreement;
            assert!(agreement.disagreements <= agreement.decisions);
            assert!(agreement.first.len() as u64 <= agreement.disagreements);
            assert!(report.seconds >= 0.0);
        }
        Err(ReplayError::Input(_) | ReplayError::NotATrace { .. } | ReplayError::Malformed { .. }) => {}
        // A recording may say anything. What it says last happened, and the machines have to follow.
        Err(error) => panic!("{error}"),
    }
});

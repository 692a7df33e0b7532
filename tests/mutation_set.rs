//! The tests that `cargo mutants` holds against each change of `src/fpu` (`.cargo/mutants.toml`), as one target: it is
//! built once a mutant, not once a file. `cargo test` leaves it out, as the files are targets of their own.

#![expect(
    clippy::duplicate_mod,
    reason = "each file is a target of its own, too, and brings the helpers along"
)]

#[cfg(feature = "explore")]
#[path = "corpus.rs"]
mod corpus;
#[path = "dynamic.rs"]
mod dynamic;
#[path = "guest.rs"]
mod guest;
#[path = "lifecycle.rs"]
mod lifecycle;
#[path = "pkru.rs"]
mod pkru;
#[path = "policies.rs"]
mod policies;
#[path = "protocol.rs"]
mod protocol;
#[path = "scenarios.rs"]
mod scenarios;
#[path = "signals.rs"]
mod signals;

/// Stories happen on what `on_every_register_file` finds here: abstract registers alone. The protocol is generic over
/// register files, and a mutant is built and tested in a fraction of the time.
mod support {
    pub(crate) mod register_files {
        use fpuswitch::registers::AbstractRegs;

        pub(crate) fn software_cpus() -> [AbstractRegs; 0] {
            []
        }

        #[cfg(feature = "host")]
        pub(crate) fn host() -> Option<AbstractRegs> {
            None
        }
    }
}

//! Green threads on the real registers, which need x86-64 Linux: no machine can be made here.

pub mod audit;
mod config;
#[allow(dead_code, unreachable_pub, reason = "nothing is counted here")]
mod counters;
mod error;

pub use config::{Config, Gate};
pub use counters::Counts;
pub use error::LiveError;

use crate::{arch::NotAvailable, fpu::Policy};
use core::{convert::Infallible, marker::PhantomData};

/// Green threads; there are none here.
#[derive(Debug)]
pub struct Machine(Infallible);

impl Machine {
    /// Refused.
    ///
    /// # Errors
    /// [`LiveError::Registers`].
    pub fn start<P: Policy + Send + 'static>(_: P, _: Config) -> Result<Self, LiveError> {
        Err(NotAvailable::Target.into())
    }

    /// Makes a thread that runs `f`.
    ///
    /// # Errors
    /// None: there is no machine.
    pub fn spawn<F, T>(&self, _: F) -> Result<JoinHandle<T>, LiveError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.0 {}
    }

    /// What was saved, restored and skipped so far.
    pub fn counts(&self) -> Counts {
        match self.0 {}
    }

    /// Waits until all threads have ended.
    pub fn shutdown(self) -> Counts {
        match self.0 {}
    }
}

/// The right to a thread's result.
#[derive(Debug)]
pub struct JoinHandle<T>(Infallible, PhantomData<T>);

impl<T> JoinHandle<T> {
    /// Waits until the thread has ended.
    ///
    /// # Errors
    /// None: there is no thread.
    pub fn join(self) -> std::thread::Result<T> {
        match self.0 {}
    }
}

//! The explorer's page.

use super::{Scope, ScopeError, model::Model};
use crate::fpu::Policy;
use alloc::vec::Vec;
use stateright::Model as _;
use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no such machine.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The address cannot be listened on.
    #[error("no page can be served there")]
    Address(#[from] io::Error),
}

/// Serves stateright's page at an address, on which states and operations can be followed one by one, and says where as soon
/// as it can be listened on there. It does not return but for an error.
///
/// # Errors
/// [`ServeError`] for an address that is in use, or a scope that there is no machine for.
pub fn serve<P: Policy + Send + Sync + 'static>(
    policy: P,
    scope: &Scope,
    address: impl ToSocketAddrs,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let model = Model::new(policy, scope.clone())?.with_named_invariants();
    let addresses: Vec<_> = address.to_socket_addrs()?.collect();
    // The server would panic where this fails.
    let listened_on = TcpListener::bind(&addresses[..])?.local_addr()?;
    ready(listened_on);
    model.checker().threads(scope.threads.max(1)).serve(listened_on);
    Ok(())
}

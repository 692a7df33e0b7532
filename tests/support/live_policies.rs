//! The policies that real registers can have.

/// Evaluates an expression for each: those of the crate under which no user code runs behind a first-use trap.
macro_rules! for_live_policies {
    ($policy:ident => $body:expr) => {{
        use fpuswitch::fpu::policy;
        for_live_policies!(@each $policy => $body;
            policy::Eager, policy::EagerOwner, policy::Deferred, policy::OwnerSlot, policy::LazySave,
            policy::EntryExit, policy::CallBoundary);
    }};
    (@each $policy:ident => $body:expr; $($name:path),+) => {
        $({
            let $policy = $name;
            $body
        })+
    };
}

pub(crate) use for_live_policies;

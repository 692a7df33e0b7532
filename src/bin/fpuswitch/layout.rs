//! `fpuswitch layout`: what XSAVE areas of a CPU look like.

use crate::{Status, complain, print, table};
use fpuswitch::{
    registers::HostCpu,
    xstate::{Component, CpuidDump, Format, Layout, XcompBv, XsaveFeatures},
};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A CPUID dump as `cpuid -r` prints it, with a line `XCR0: 0x…`; - for standard input. Without it, this
    /// machine's CPU.
    #[arg(long, value_name = "FILE")]
    cpuid: Option<PathBuf>,
}

/// What can be wrong with a description.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Dump(#[from] fpuswitch::xstate::CpuidDumpError),
    #[error(transparent)]
    Layout(#[from] fpuswitch::xstate::LayoutError),
    #[error(transparent)]
    Host(#[from] fpuswitch::registers::HostError),
}

pub(crate) fn layout(arguments: &Arguments) -> Status {
    let (about, shown) = match &arguments.cpuid {
        Some(file) => (file.display().to_string(), from_file(file)),
        None => ("this CPU".into(), this_cpu()),
    };
    match shown {
        Ok(()) => Status::Fine,
        Err(problem) => complain(&about, &problem),
    }
}

fn this_cpu() -> Result<(), Problem> {
    show(&Layout::from_cpuid(&HostCpu::new()?)?);
    Ok(())
}

fn from_file(file: &Path) -> Result<(), Problem> {
    let dump: CpuidDump = crate::read(file)?.parse()?;
    let layout = Layout::from_cpuid(&dump)?;
    show(&layout);
    if layout.has_xsave() && !dump.has_xcr0() {
        print(format_args!(
            "The file does not give XCR0: what the CPU lists counts as enabled, as far as it fits.\n"
        ));
    }
    Ok(())
}

fn show(layout: &Layout) {
    let mut rows = table();
    rows.set_header(["", "component", "bytes", "standard", "compacted", "", ""]);
    let legacy = [(Component::X87, "0-23, 32-159"), (Component::SSE, "24-27, 160-415")];
    for (component, at) in legacy {
        let number = component.number().to_string();
        let bytes = if component == Component::X87 { "152" } else { "260" };
        rows.add_row([&number, &component.to_string(), bytes, at, at, "", "enabled"]);
    }
    let all = XcompBv::compacted(layout.enabled());
    for place in layout.places() {
        let enabled = layout.enabled().contains(place.component);
        let compacted = layout.compacted_offset_bytes(all, place.component);
        let traits = [(place.is_aligned, "aligned to 64"), (place.is_dynamic, "dynamic (XFD)")];
        let traits: Vec<_> = traits.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
        rows.add_row([
            place.component.number().to_string(),
            place.component.to_string(),
            place.size_bytes.to_string(),
            if place.is_supervisor { "-".into() } else { place.offset_bytes.to_string() },
            compacted.map_or("-".into(), |offset| offset.to_string()),
            traits.join(", "),
            match (enabled, place.is_supervisor) {
                (true, _) => "enabled",
                (false, false) => "listed only",
                (false, true) => "supervisor",
            }
            .into(),
        ]);
    }
    print(format_args!("{rows}\n\n"));
    if !layout.has_xsave() {
        print(format_args!("No XSAVE, or not enabled by the system: areas of FXSAVE, 512 bytes.\n"));
        return;
    }
    let names = layout.features().iter_names().map(|(name, _)| match name {
        "XGETBV1" => "XGETBV(1)",
        name => name,
    });
    let instructions: Vec<_> = std::iter::once("XSAVE").chain(names).collect();
    print(format_args!(
        "XCR0 = {:#x}: {} bytes in the standard format",
        layout.enabled().bits(),
        layout.size_bytes(Format::Standard)
    ));
    if layout.features().contains(XsaveFeatures::XSAVEC) {
        print(format_args!(", {} compacted", layout.size_bytes(Format::Compacted)));
    }
    print(format_args!(". The CPU has {}.\n", instructions.join(", ")));
}

//! Where the costs come from.

use crate::complain;
use fpuswitch::replay::Costs;
use std::{fmt, path::Path};

/// Costs and where they come from.
pub(crate) struct Source {
    pub(crate) costs: Costs,
    from: &'static str,
}

#[derive(Debug, thiserror::Error)]
enum CostsError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}: expected JSON such as {{\"save_ns\": 40, \"restore_ns\": 43, \"check_ns\": 1.3}}")]
    Malformed(#[from] serde_json::Error),
    #[error("expected costs that are finite and not negative")]
    NotSensible,
}

impl Source {
    /// From a file, or measured here, or from the table. `None` if the file is no good; it has been said.
    pub(crate) fn new(file: Option<&Path>) -> Option<Self> {
        match file {
            Some(file) => match read(file) {
                Ok(costs) => Some(Self { costs, from: "from the file" }),
                Err(error) => {
                    complain(&file.display().to_string(), &error);
                    None
                }
            },
            None => Some(match Costs::measure() {
                Some(costs) => Self { costs, from: "measured here" },
                None => Self { costs: Costs::TABLE, from: "from the built-in table" },
            }),
        }
    }
}

fn read(file: &Path) -> Result<Costs, CostsError> {
    let costs: Costs = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    if costs.is_sensible() { Ok(costs) } else { Err(CostsError::NotSensible) }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Costs { save_ns, restore_ns, check_ns } = self.costs;
        write!(f, "save {save_ns:.1} ns, restore {restore_ns:.1} ns, check {check_ns:.1} ns ({})", self.from)
    }
}

//! The feature gates that `--feature-gates` names. Not here: what they switch.

use super::values::{NumberError, parse_bool};

/// A gate: its name, how ripe etcd calls it, and whether it is open by itself.
pub struct Gate {
    /// The name.
    pub name: &'static str,
    /// `ALPHA` or `BETA`.
    pub stage: &'static str,
    /// Open unless it is closed.
    pub default: bool,
}

const fn gate(name: &'static str, stage: &'static str, default: bool) -> Gate {
    Gate { name, stage, default }
}

/// Every gate of etcd 3.7, by name. The first two stand for all gates of a stage.
pub const GATES: [Gate; 11] = [
    gate("AllAlpha", "ALPHA", false),
    gate("AllBeta", "BETA", false),
    gate("CompactHashCheck", "ALPHA", false),
    gate("FastLeaseKeepAlive", "BETA", true),
    gate("InitialCorruptCheck", "ALPHA", false),
    gate("LeaseCheckpoint", "ALPHA", false),
    gate("LeaseCheckpointPersist", "ALPHA", false),
    gate("PriorityRequest", "ALPHA", false),
    gate("SetMemberLocalAddr", "ALPHA", false),
    gate("StopGRPCServiceOnDefrag", "ALPHA", false),
    gate("TxnModeWriteWithSharedBuffer", "BETA", true),
];

/// Which gates were set, and to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: [Option<bool>; GATES.len()],
}

impl FeatureGates {
    /// Sets gates as `A=true,B=false` says; the error is etcd's text.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(format!("missing bool value for {}", pair.trim()));
            };
            let (name, value) = (name.trim(), value.trim());
            let Some(open) = parse_bool(value) else {
                let why = NumberError::Syntax.strconv_text("ParseBool", value);
                return Err(format!("invalid value of {name}={value}, err: {why}"));
            };
            let Some(at) = GATES.iter().position(|gate| gate.name == name) else {
                return Err(format!("unrecognized feature gate: {name}"));
            };
            self.set[at] = Some(open);
        }
        Ok(())
    }

    /// True if the gate of this name is open.
    pub fn enabled(&self, name: &str) -> bool {
        GATES.iter().position(|gate| gate.name == name).is_some_and(|at| self.is_open(at))
    }

    /// Every gate, and whether it is open.
    pub fn all(&self) -> impl Iterator<Item = (&'static Gate, bool)> {
        GATES.iter().enumerate().map(|(at, gate)| (gate, self.is_open(at)))
    }

    fn is_open(&self, at: usize) -> bool {
        let gate = &GATES[at];
        let of_stage = usize::from(gate.stage == "BETA");
        self.set[at].or(self.set[of_stage]).unwrap_or(gate.default)
    }
}

/// The gates that were set, as the flag would set them.
impl std::fmt::Display for FeatureGates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut comma = "";
        for (gate, set) in GATES.iter().zip(self.set) {
            if let Some(open) = set {
                write!(f, "{comma}{}={open}", gate.name)?;
                comma = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_open_and_close() {
        let mut gates = FeatureGates::default();
        assert!(gates.enabled("FastLeaseKeepAlive") && !gates.enabled("PriorityRequest"));
        gates.set("PriorityRequest=true,FastLeaseKeepAlive=0,").expect("known");
        assert!(!gates.enabled("FastLeaseKeepAlive") && gates.enabled("PriorityRequest"));
        assert_eq!(gates.to_string(), "FastLeaseKeepAlive=false,PriorityRequest=true");
        gates.set("AllAlpha=true").expect("known");
        assert!(gates.enabled("LeaseCheckpoint") && !gates.enabled("FastLeaseKeepAlive"));
    }

    #[test]
    fn what_is_wrong_is_said_as_etcd_says_it() {
        for (text, error) in [
            ("Foo=true", "unrecognized feature gate: Foo"),
            ("PriorityRequest", "missing bool value for PriorityRequest"),
            (
                "PriorityRequest=x",
                "invalid value of PriorityRequest=x, err: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(FeatureGates::default().set(text), Err(error.to_owned()));
        }
    }
}

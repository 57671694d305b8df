//! What a check has to say: how bad, about what, what was found, and what to do. Main type: [`Finding`].

use serde::Serialize;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Green,
    /// Worth a look, or nobody could look.
    Yellow,
    /// A way around the gate, or something that does not work.
    Red,
}

/// One line of the examination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) check: &'static str,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }

    /// The number of its colour on a terminal.
    pub(super) fn colour(self) -> u8 {
        match self {
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        }
    }
}

impl Finding {
    pub(super) fn green(check: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Green, check, found: found.into(), fix: None }
    }

    pub(super) fn yellow(check: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Yellow, check, found: found.into(), fix: None }
    }

    pub(super) fn red(check: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Red, check, found: found.into(), fix: None }
    }

    /// A check that could not look.
    pub(super) fn blind(check: &'static str, what: &str, error: &kube::Error) -> Self {
        let fix = "run this as somebody who may read it; nothing is known about it now";
        Self::yellow(check, format!("cannot read {what}: {error}")).fix(fix)
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

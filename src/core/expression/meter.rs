//! How much an expression may still do.

use super::problem::EvaluationError;

/// What an evaluation may spend: about one for each step, and one for each 16 bytes or each element it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fuel(u64);

impl Fuel {
    /// So many steps.
    #[must_use]
    pub const fn new(steps: u64) -> Self {
        Self(steps)
    }
}

impl Default for Fuel {
    /// Enough for any honest rule, and spent within a fraction of a second.
    fn default() -> Self {
        Self(1_000_000)
    }
}

#[derive(Debug)]
pub(super) struct Meter {
    left: u64,
}

impl Meter {
    pub(super) fn new(fuel: Fuel) -> Self {
        Self { left: fuel.0 }
    }

    pub(super) fn spend(&mut self, steps: u64) -> Result<(), EvaluationError> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                // What ran out stays out, whatever absorbs the error.
                self.left = 0;
                Err(EvaluationError::OUT_OF_FUEL)
            }
        }
    }

    /// For looking at so many elements.
    pub(super) fn elements(&mut self, count: usize) -> Result<(), EvaluationError> {
        self.spend(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// For looking at so many bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<(), EvaluationError> {
        self.elements(count / 16)
    }
}

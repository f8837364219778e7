//! One execution of a plan: its steps, the record of what was done, and what is next. A saga (Garcia-Molina and Salem, 1987):
//! each step is written down before it is done, and has an undo.
//!
//! Pure: who runs a plan appends [`Event`]s to the run's record, one number after the other, and asks [`Run`] what is next.
//! Whoever reads the record later, on whatever machine, comes to the same answer.

mod next;
mod record;
mod steps;

pub use next::Action;
pub use record::{Entry, Event, Phase, RecordError, Run, RunPoint, StepState, Stored, Times};
pub use steps::{DERIVATION, Owner, RunKind, Step, StepKind, When, steps};

#[cfg(test)]
mod tests;

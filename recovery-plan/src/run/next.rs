//! What is next.

use super::record::{Phase, Run, StepState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Do the step of this index. Where it was begun before, nobody knows how far it came: it is done again, and finds what
    /// it made then.
    Do(usize),
    /// Take away what the step of this index made, or may have made.
    Undo(usize),
}

impl Run {
    /// All that can be done now, side by side. Empty: the run has come to its end, or failed steps bar all others.
    pub fn next(&self) -> Vec<Action> {
        let all = 0..self.steps.len();
        match self.phase {
            Phase::Committed => Vec::new(),
            Phase::Forward => all
                .filter(|step| self.is_ready(*step))
                .map(Action::Do)
                .collect(),
            Phase::Undoing => all
                .filter(|step| self.is_undoable(*step))
                .map(Action::Undo)
                .collect(),
        }
    }

    fn is_ready(&self, step: usize) -> bool {
        match self.states[step] {
            StepState::Intended => true,
            StepState::Waiting => self.steps[step]
                .after
                .iter()
                .all(|before| self.is_done(*before)),
            _ => false,
        }
    }

    /// Something may be left of it, and nothing is left of what was built on it. A test's deadline goes last: all rests on it,
    /// and until then it is what tears down if this program dies.
    pub(super) fn is_undoable(&self, step: usize) -> bool {
        let mut rests_on = vec![false; self.steps.len()];
        rests_on[step] = true;
        for other in step + 1..self.steps.len() {
            rests_on[other] = self.steps[other]
                .after
                .iter()
                .any(|before| rests_on[*before]);
            if rests_on[other] && self.may_have_left(other) {
                return false;
            }
        }
        self.may_have_left(step)
    }

    pub(super) fn may_have_left(&self, step: usize) -> bool {
        let begun = !matches!(self.states[step], StepState::Waiting | StepState::Undone);
        begun && self.steps[step].kind.leaves_something()
    }

    /// Undone, with nothing left.
    pub fn is_undone(&self) -> bool {
        self.phase == Phase::Undoing && self.next().is_empty()
    }
}

//! What is next.

use super::record::{Phase, Run, StepState};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Do the step of this index. Where it was begun before, nobody knows how far it came: it is done again, with the same
    /// client token, and finds what it made then. Who has it under way itself waits for that instead.
    Do(usize),
    /// Take away what the step of this index made, or may have made.
    Undo(usize),
}

impl Run {
    /// All that can be done now, side by side. Empty: the run has come to its end, or failed steps bar all others.
    pub fn next(&self) -> Vec<Action> {
        let under_way = |step: &usize| self.states[*step] == StepState::Intended;
        let all = 0..self.steps.len();
        match self.phase {
            Phase::Committed => Vec::new(),
            Phase::Forward => {
                let waits =
                    |step: &usize| self.states[*step] == StepState::Waiting && self.is_ready(*step);
                all.filter(|step| under_way(step) || waits(step))
                    .map(Action::Do)
                    .collect()
            }
            // A call that is under way may still make something after its undo found nothing: it is settled first.
            Phase::Undoing => {
                let settle = all.filter(under_way).map(Action::Do);
                settle
                    .chain(self.undoable().into_iter().map(Action::Undo))
                    .collect()
            }
        }
    }

    /// All its steps by their names, those of a round side by side: each needs what is in rounds before its own.
    pub fn rounds(&self) -> Vec<Vec<String>> {
        let mut of = vec![0; self.steps.len()];
        let mut rounds: Vec<Vec<String>> = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let round = step
                .after
                .iter()
                .map(|before| of[*before] + 1)
                .max()
                .unwrap_or(0);
            of[number] = round;
            if rounds.len() <= round {
                rounds.resize(round + 1, Vec::new());
            }
            rounds[round].push(step.name());
        }
        rounds
    }

    /// Steps of which something may be left, and nothing of what was built on them. A test's deadline goes last: all rests on
    /// it, and until then it is what tears down if this program dies.
    pub(super) fn undoable(&self) -> Vec<usize> {
        let mut holds = vec![false; self.steps.len()];
        let mut undoable = Vec::new();
        for step in (0..self.steps.len()).rev() {
            let left = self.may_have_left(step);
            if left && !holds[step] && self.states[step] != StepState::Intended {
                undoable.push(step);
            }
            if left || holds[step] {
                self.steps[step]
                    .after
                    .iter()
                    .for_each(|before| holds[*before] = true);
            }
        }
        undoable.reverse();
        undoable
    }

    fn may_have_left(&self, step: usize) -> bool {
        match self.states[step] {
            StepState::Waiting | StepState::Undone => false,
            // Whatever it is, it is settled before what it rests on goes.
            StepState::Intended => true,
            _ => self.steps[step].kind.leaves_something(),
        }
    }

    /// Undone, with nothing left.
    pub fn is_undone(&self) -> bool {
        self.phase == Phase::Undoing && self.next().is_empty()
    }
}

//! What users get wrong, and what happens to them: the exit code, and a message that names the
//! thing and the remedy. Never a panic, never half a result.

#[path = "wrong_input/configuration.rs"]
mod configuration;
#[path = "wrong_input/disks.rs"]
mod disks;
#[path = "wrong_input/keys.rs"]
mod keys;
#[path = "wrong_input/places.rs"]
mod places;

use journeys::Run;

/// Judges a table of refusals; all of its lines, before it fails.
#[derive(Debug, Default)]
struct Refusals {
    judged: usize,
    wrong: Vec<String>,
}

impl Refusals {
    /// `words`: what the message must hold, the thing and the remedy.
    fn expect(&mut self, what: &str, run: Run, code: i32, words: &[&str]) {
        self.judged += 1;
        let missing: Vec<_> = words
            .iter()
            .filter(|word| !run.stderr.contains(**word))
            .collect();
        let is_error = run.stderr.lines().any(|line| line.starts_with("error: "));
        if run.code != Some(code) || !missing.is_empty() || !is_error {
            self.wrong.push(format!(
                "{what}: expected exit code {code}, lacks {missing:?}: {run}"
            ));
        }
    }

    #[track_caller]
    fn finish(self) {
        let (wrong, judged) = (self.wrong.len(), self.judged);
        assert!(
            wrong == 0,
            "{wrong} of {judged} refusals:\n\n{}",
            self.wrong.join("\n\n")
        );
    }
}

//! `plan prices`: the table that comes with the program, to be edited.

use anyhow::Result;
use console::{Exit, OutputArgs};
use recovery_plan::prices::{AWS, Prices};

pub fn run(output: &OutputArgs) -> Result<Exit> {
    match output.json {
        true => console::print_json(&Prices::aws())?,
        false => console::print(AWS.trim_end())?,
    }
    Ok(Exit::Done)
}

//! The arguments that every command takes for its output, and the logs.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{
    Failure,
    stdio::{LogWriter, MANNER, Manner},
};

/// Flatten this into a program's arguments.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print exactly one JSON document on stdout instead of text for people
    #[arg(long, global = true)]
    pub json: bool,

    /// Show no progress, and log errors only
    #[arg(long, global = true)]
    pub quiet: bool,

    /// How to write to stderr; RUST_LOG chooses what is logged
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Starts the logs and settles how progress and failures are shown. Call it first in `run`;
/// a second call changes nothing. Refuses a `RUST_LOG` that cannot be understood.
pub fn init_logging(args: &OutputArgs) -> Result<(), Failure> {
    let json_lines = args.log_format == LogFormat::Json;
    let _ = MANNER.set(Manner {
        quiet: args.quiet,
        json_lines,
    });
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref(), args.quiet)?;
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LogWriter::default)
        .with_ansi(colour)
        // Its own complaint about a closed stderr would be a panic on stderr.
        .log_internal_errors(false);
    let _ = match json_lines {
        true => logs.json().try_init(),
        false => logs.try_init(),
    };
    Ok(())
}

fn filter(rust_log: Option<&str>, quiet: bool) -> Result<EnvFilter, Failure> {
    let wanted = match rust_log.map(str::trim) {
        None | Some("") if quiet => "error",
        None | Some("") => "warn",
        Some(wanted) => wanted,
    };
    EnvFilter::try_new(wanted).map_err(|error| {
        Failure::usage(format!("RUST_LOG={wanted:?} is not a log filter"))
            .because(error)
            .remedy("write a level (error, warn, info, debug, trace) or target=level,…")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        output: OutputArgs,
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Command {
        Points,
    }

    #[test]
    fn the_arguments_stand_before_or_after_the_command() {
        for line in [
            "p --json --log-format json points",
            "p points --log-format json --json",
        ] {
            let program = Program::try_parse_from(line.split(' ')).expect("parses");
            assert!(program.output.json && !program.output.quiet);
            assert_eq!(program.output.log_format, LogFormat::Json);
            assert!(matches!(program.command, Command::Points));
        }
        let wrong = Program::try_parse_from(["p", "points", "--log-format", "xml"]).err();
        assert_eq!(wrong.expect("refused").exit_code(), 2);
    }

    #[test]
    fn the_filter_is_warn_unless_asked() {
        let shown = |rust_log, quiet| filter(rust_log, quiet).map(|f| f.to_string()).ok();
        assert_eq!(shown(None, false).as_deref(), Some("warn"));
        assert_eq!(shown(Some(" "), true).as_deref(), Some("error"));
        assert_eq!(shown(Some("debug"), true).as_deref(), Some("debug"));
        let refused = filter(Some("gateway=loud"), false).expect_err("no such level");
        assert_eq!(
            refused.to_string(),
            "RUST_LOG=\"gateway=loud\" is not a log filter"
        );
    }
}

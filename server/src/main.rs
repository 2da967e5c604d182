//! The one binary. See `dunlin --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dunlin::cli::run(std::env::args_os(), dunlin::app::run::serve)
}

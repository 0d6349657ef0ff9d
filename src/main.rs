//! Parses arguments, runs the command, maps errors to exit codes.

fn main() -> std::process::ExitCode {
    countersign::cli::main()
}

//! Parses arguments, runs the command, maps errors to exit codes.

#[cfg(fuzzing)]
compile_error!("what is built for fuzzing makes receipts out of thin air: it is no program to run");

fn main() -> std::process::ExitCode {
    countersign::cli::main()
}

//! `ledger export`.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::cli::terminal;
use crate::ledger::export;
use crate::ledger::read::{ReadError, Reader};

/// Write entries as JSON lines or CSV, for other programs
///
/// JSON lines carry every field by name, the texts that are still there, the signed bytes in base64 and
/// their hash in the tree; CSV carries the fields that most questions are about. In CSV a cell that a spreadsheet
/// would take for a formula begins with an apostrophe, and so does one that begins with an apostrophe by itself:
/// without its first apostrophe each is what it was.
///
/// Damaged data is left out and named in `damaged`; the exit code is then the one of `ledger
/// verify` (12 missing entry, 13 missing signature, 15 entry, 18 missing end, 20 text).
///
/// Output to a terminal is made safe to display. Output to a pipe or a file is written unchanged, with control
/// characters that an agent sent: do not pipe CSV to a pager or to `cat`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The ledger file: the live one or a copy
    file: PathBuf,
    /// The output format
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// The number of the first entry to write
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The number of the last entry to write [default: the newest]
    #[arg(long)]
    to: Option<u64>,
    /// Write to this new file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

/// Writes a range of entries.
type Writing = fn(&Reader, u64, u64, &mut dyn Write) -> anyhow::Result<()>;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (name, write): (_, Writing) = match arguments.format {
        Format::Jsonl => ("jsonl", jsonl),
        Format::Csv => ("csv", csv),
    };
    let what = format!("ledger export --format {name}");
    let reader = super::open(&arguments.file, &what, Some(arguments.from), arguments.to)?;
    let last = reader.size()?.saturating_sub(1);
    let to = arguments.to.unwrap_or(last).min(last);
    let output: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(
            std::fs::File::create_new(path).with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => terminal::out_for_programs(match arguments.format {
            Format::Jsonl => terminal::As::Json,
            Format::Csv => terminal::As::Text,
        }),
    };
    let mut output = BufWriter::new(output);
    write(&reader, arguments.from, to, &mut output)?;
    output.flush()?;
    Ok(super::damage_report(&reader))
}

/// A failure while entries are read or written.
enum Failure {
    Read(ReadError),
    Write(anyhow::Error),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Read(error) => error.into(),
            Failure::Write(error) => error,
        }
    }
}

fn jsonl(reader: &Reader, from: u64, to: u64, output: &mut dyn Write) -> anyhow::Result<()> {
    let written = reader.each::<Failure>(from, to, |stored| {
        let object = export::to_json(reader, &stored)?;
        let object = object.to_string();
        writeln!(output, "{}", terminal::json(&object)).map_err(|error| Failure::Write(error.into()))
    });
    Ok(written?)
}

fn csv(reader: &Reader, from: u64, to: u64, output: &mut dyn Write) -> anyhow::Result<()> {
    // Quoted whole, so that other separators than the comma do not cut a cell in two.
    let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(output);
    writer.write_record(export::csv_header())?;
    reader.each::<Failure>(from, to, |stored| {
        let row = export::to_csv(reader, &stored)?;
        writer.write_record(row).map_err(|error| Failure::Write(error.into()))
    })?;
    writer.flush()?;
    Ok(())
}

//! What was seen, told: as text on the terminal, as JSON, as a page with a picture, as the README's table. [`goals`] says what it is
//! held against.

pub mod goals;
pub mod machine;
mod page;
pub mod results;
mod svg;
pub mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::failure::{Doing, Result, failed};
use results::Results;

/// Tell again what earlier runs found, from their JSON files; a later file's workloads replace those of an earlier one.
#[derive(clap::Args)]
pub struct Report {
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Writes docs/benchmark.md, .svg and .json and the README's table
    #[arg(long)]
    write: bool,
}

pub fn main(report: &Report) -> ExitCode {
    match again(report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn again(report: &Report) -> Result<()> {
    let mut all: Option<Results> = None;
    for file in &report.files {
        let text = std::fs::read_to_string(file).doing(file.display())?;
        let results: Results = serde_json::from_str(&text).doing(file.display())?;
        match &mut all {
            None => all = Some(results),
            Some(all) => all.add(results),
        }
    }
    let Some(results) = all else {
        return failed("no file");
    };
    for outcome in &results.workloads {
        println!("{}", text::workload(outcome));
    }
    println!("{}", text::goals(&results));
    if report.write {
        write_docs(&results)
    } else {
        Ok(())
    }
}

/// Where and with what, in one line.
pub fn machine_line(results: &Results) -> String {
    page::machine(&results.machine)
}

/// The JSON file of a run.
pub fn write_json(results: &Results, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(results).doing("JSON")?;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).doing(folder.display())?;
    }
    std::fs::write(file, text + "\n").doing(file.display())
}

/// Writes what the repository shows of the benchmark.
pub fn write_docs(results: &Results) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let write = |file: &str, text: &str| std::fs::write(root.join(file), text).doing(file);
    let readme = std::fs::read_to_string(root.join("README.md")).doing("README.md")?;
    write(
        "README.md",
        &page::replace(&readme, &page::summary(results))?,
    )?;
    write("docs/benchmark.md", &page::page(results))?;
    write("docs/benchmark.svg", &svg::picture(results))?;
    write_json(results, &root.join("docs/benchmark.json"))?;
    println!("written: README.md, docs/benchmark.md, docs/benchmark.svg, docs/benchmark.json");
    Ok(())
}

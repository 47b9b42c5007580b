//! The output of the command line: lines and tables of data on standard output, notes and errors on
//! standard error.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::config::Problems;
use crate::container;
use crate::observe::log;

/// Whether a line of data was printed. Then a failure adds no JSON of its own.
static HAS_DATA: AtomicBool = AtomicBool::new(false);

/// Prints a line of data. When the reader is gone (as `head` in a pipe), the program exits quietly
/// with 0.
pub(crate) fn line(text: &str) {
    HAS_DATA.store(true, Ordering::Relaxed);
    if writeln!(anstream::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints a value to standard output as indented JSON: the data of a verb under `--json`.
pub(crate) fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()));
}

/// Prints why a verb failed as JSON. A verb that has printed data before (a report of what is
/// wrong) prints nothing more.
pub(crate) fn failure(code: &str, message: &str, problems: &Value) {
    if HAS_DATA.load(Ordering::Relaxed) {
        return;
    }
    let mut error = json!({ "code": code, "message": message });
    if !problems.is_null() {
        error["problems"] = problems.clone();
    }
    self::json(&json!({ "error": error }));
}

/// Prints a line for people to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// An error with its causes, as one line. A cause that the line already contains is left out:
/// errors of the store quote the driver's.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |line, cause| {
        let text = cause.to_string();
        match line.as_str() {
            "" => text,
            said if said.contains(&text) => line,
            said => format!("{said}: {text}"),
        }
    })
}

/// Prints why a verb failed to standard error, as a line of the log where the log is JSON.
pub(crate) fn error(text: &str) {
    if log::is_json() {
        container::report_error(text);
        return;
    }
    let style = anstyle::AnsiColor::Red.on_default().bold();
    note(&format!("{style}error:{style:#} {text}"));
}

/// Prints the problems of a configuration to standard error.
pub(crate) fn problems(problems: &Problems) {
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    container::report_problems(problems, colour);
}

/// Prints some fields of each entry of a list as a table, or `empty` as a note when there are no
/// entries.
pub(crate) fn table(list: &Value, columns: &[(&str, &str)], empty: &str) {
    let rows = list.as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        note(empty);
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|(title, _)| *title));
    for row in rows {
        table.add_row(columns.iter().map(|(_, field)| text(&row[*field])));
    }
    for line_of_table in table.to_string().lines() {
        line(line_of_table.trim_end());
    }
}

/// A value as people read it, on one line: `-` for null, texts without quotes.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => one_line(text),
        other => other.to_string(),
    }
}

/// Text from outside, with control characters replaced: it can neither move the cursor nor start a
/// line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

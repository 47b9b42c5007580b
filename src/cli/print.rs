//! Tables, values, problems.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::config::Problems;
use crate::container;
use crate::observe::log;

/// Whether data was printed.
static HAS_DATA: AtomicBool = AtomicBool::new(false);

/// A line of data. A reader that has gone away ends the program quietly, as is usual in a pipe.
pub(crate) fn line(text: &str) {
    HAS_DATA.store(true, Ordering::Relaxed);
    if writeln!(anstream::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A value as JSON.
pub(crate) fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()));
}

/// Why a verb that was to print JSON failed, as its data. A verb that has printed its own, as a report of what is wrong, keeps to that.
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

/// A line for people, beside the data.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// What went wrong.
pub(crate) fn error(text: &str) {
    if log::is_json() {
        container::tell_error(text);
        return;
    }
    let style = anstyle::AnsiColor::Red.on_default().bold();
    note(&format!("{style}error:{style:#} {text}"));
}

/// The problems of a configuration.
pub(crate) fn problems(problems: &Problems) {
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    container::tell_problems(problems, colour);
}

/// A table of some fields of a list.
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

/// A value as a person reads it; foreign text stays on its line.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => one_line(text),
        other => other.to_string(),
    }
}

/// Foreign text without what could move the cursor or start a line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

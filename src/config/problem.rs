//! What is wrong with a configuration, where, and how to mend it.

use std::fmt::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::mask::masked;

/// No more problems are shown at once.
const RENDERED_MAX: usize = 100;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is, but something is probably not meant.
    Warning,
}

/// A place in a file: which of the read texts, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Index into the texts of [`Problems`].
    pub file: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Length in characters.
    pub length: usize,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code.
    pub code: &'static str,
    /// Where.
    pub place: Option<Place>,
    /// The key path, `handlers.billing.retry.max`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// A text that was read.
#[derive(Debug, Clone)]
pub struct Text {
    /// What to call it in messages.
    pub name: String,
    /// Its content.
    pub content: String,
}

/// All problems of a configuration, with the texts they point into.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// The texts, in the order they were read.
    pub texts: Vec<Text>,
    /// The problems, in the order they were found.
    pub list: Vec<Problem>,
    /// Warnings count as errors.
    pub strict: bool,
}

impl Problems {
    /// Adds a problem.
    pub fn push(&mut self, mut problem: Problem) {
        // What a file holds must not move the reader's cursor or start a line of its own.
        if problem.message.contains(char::is_control) {
            let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            problem.message = problem.message.chars().map(shown).collect();
        }
        self.list.push(problem);
    }

    /// Whether the configuration must not be used.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|p| self.is_error(p))
    }

    /// A difference to qhook is told, and is no mistake even to the strict.
    fn is_error(&self, problem: &Problem) -> bool {
        problem.severity == Severity::Error || self.strict && problem.code != "new_reading"
    }

    /// The problems by file and place, errors and warnings together.
    pub fn sorted(&self) -> Vec<Problem> {
        let mut list = self.list.clone();
        for problem in &mut list {
            if self.is_error(problem) {
                problem.severity = Severity::Error;
            }
        }
        list.sort_by_key(|p| p.place.map_or((usize::MAX, 0, 0), |at| (at.file, at.line, at.column)));
        list
    }

    /// `file:line:column` of a problem.
    pub fn place_of(&self, problem: &Problem) -> Option<String> {
        let at = problem.place?;
        let name = &self.texts.get(at.file)?.name;
        Some(format!("{name}:{}:{}", at.line, at.column))
    }

    /// All problems as text for people; colours are decoration only.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in self.sorted().iter().take(RENDERED_MAX) {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}\n", self.render_one(problem, &renderer));
        }
        if self.list.len() > RENDERED_MAX {
            let _ = writeln!(out, "… and {} more problems", self.list.len() - RENDERED_MAX);
        }
        out
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str()).id(problem.code);
        let quoted = problem.place.and_then(|at| Some((at, self.texts.get(at.file)?)));
        // One line is shown, without its secrets.
        let line = quoted.map_or(String::new(), |(at, text)| masked(line_of(&text.content, at)));
        let mut group = match quoted {
            Some((at, text)) => {
                let label = problem.key.as_str();
                let annotation = AnnotationKind::Primary.span(span_of(&line, at));
                let annotation = if label.is_empty() { annotation } else { annotation.label(label) };
                let snippet = Snippet::source(line.as_str()).line_start(at.line).path(text.name.as_str());
                title.element(snippet.annotation(annotation))
            }
            None => Group::with_title(title),
        };
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// The line of a place.
fn line_of(text: &str, at: Place) -> &str {
    text.split('\n').nth(at.line.saturating_sub(1)).unwrap_or("").trim_end_matches('\r')
}

/// The byte range of a place in its line; columns are counted in characters.
fn span_of(line: &str, at: Place) -> std::ops::Range<usize> {
    let offset = |chars: usize| line.char_indices().nth(chars).map_or(line.len(), |(i, _)| i);
    let start = offset(at.column.saturating_sub(1));
    let end = offset(at.column.saturating_sub(1) + at.length.max(1));
    start..end.max(start)
}

/// The nearest of some names, if it is near enough to be a slip.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = |k: &str| strsim::damerau_levenshtein(&k.to_lowercase(), &name.to_lowercase());
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known.into_iter().map(|k| (far(k), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// `did you mean …?` when something is near.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|k| format!("did you mean `{k}`?"))
}

//! What is wrong with a configuration, where, and how to fix it.

use std::fmt::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::mask::masked;

/// The most problems that are printed.
const RENDERED_MAX: usize = 100;

/// Whether a problem prevents the use of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but something in it is probably not intended.
    Warning,
}

/// A place in a file: which file, and the line and columns in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The index of the file in `Problems::texts`.
    pub file: usize,
    /// The line in the text, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// How many characters are marked; 1 where a value spans several lines.
    pub length: usize,
}

/// One mistake or doubt in a configuration, with its place and a suggestion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The severity before `strict` is applied; [`Problems::sorted`] applies it.
    pub severity: Severity,
    /// A stable code for programs, as `unknown_key`; the message may change, the code does not.
    pub code: &'static str,
    /// The place in a file; `None` when the problem is about a whole file or the environment.
    pub place: Option<Place>,
    /// The path of the key, as `handlers.billing.retry.max`; empty when it belongs to no key.
    pub key: String,
    /// One sentence that says what is wrong.
    pub message: String,
    /// What to do about it, if there is a suggestion.
    pub help: Option<String>,
}

/// A file as it was read; problems are shown with lines quoted from it.
#[derive(Debug, Clone)]
pub struct Text {
    /// The name of the file in messages.
    pub name: String,
    /// The whole text before variables are replaced, so that places stay true.
    pub content: String,
}

/// All problems of a configuration, with the texts they point into.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    /// The texts, in the order they were read.
    pub texts: Vec<Text>,
    /// The problems, in the order they were found.
    pub list: Vec<Problem>,
    /// Whether warnings count as errors (`--strict`).
    pub strict: bool,
}

impl Problems {
    /// Adds a problem. Control characters in its message are escaped, so that the content of a file
    /// cannot forge lines of output.
    pub fn push(&mut self, mut problem: Problem) {
        // What a file holds must not move the reader's cursor or start a line of its own.
        if problem.message.contains(char::is_control) {
            let shown = |c: char| {
                if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
            };
            problem.message = problem.message.chars().map(shown).collect();
        }
        self.list.push(problem);
    }

    /// Whether some problem prevents the use of the configuration; with `strict`, warnings do.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|p| self.is_error(p))
    }

    /// Whether a problem counts as an error. Notes on differences to qhook never do, even with
    /// `strict`.
    fn is_error(&self, problem: &Problem) -> bool {
        problem.severity == Severity::Error || self.strict && problem.code != "new_reading"
    }

    /// The problems in the order of files and places, with the severity that counts after `strict`.
    pub fn sorted(&self) -> Vec<Problem> {
        let mut list = self.list.clone();
        for problem in &mut list {
            if self.is_error(problem) {
                problem.severity = Severity::Error;
            }
        }
        list.sort_by_key(|p| {
            p.place.map_or((usize::MAX, 0, 0), |at| (at.file, at.line, at.column))
        });
        list
    }

    /// `file:line:column` of a problem.
    pub fn place_of(&self, problem: &Problem) -> Option<String> {
        let at = problem.place?;
        let name = &self.texts.get(at.file)?.name;
        Some(format!("{name}:{}:{}", at.line, at.column))
    }

    /// All problems as text for people, with the lines they point into. Colour carries no
    /// information.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in self.sorted().iter().take(RENDERED_MAX) {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}\n", self.render_one(problem, &renderer));
        }
        if self.list.len() > RENDERED_MAX {
            let _ = writeln!(out, "… and {} more problem(s)", self.list.len() - RENDERED_MAX);
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
                let annotation =
                    if label.is_empty() { annotation } else { annotation.label(label) };
                let snippet =
                    Snippet::source(line.as_str()).line_start(at.line).path(text.name.as_str());
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

/// The line of a text that a place points into; empty where the text has no such line.
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

/// The known name that is most similar, if it is similar enough to be a typing mistake.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = |k: &str| strsim::damerau_levenshtein(&k.to_lowercase(), &name.to_lowercase());
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known.into_iter().map(|k| (far(k), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// The suggestion `did you mean …?`, if a known name is similar enough.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|k| format!("did you mean `{k}`?"))
}

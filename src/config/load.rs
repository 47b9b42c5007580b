//! Loads a configuration from files: the text, its overlay, `.env` files and variables. It is the
//! only file of `config` that reads the disk.

use std::path::{Path, PathBuf};

use super::layers::{self, Variables};
use super::problem::{Problem, Problems, Severity, Text};
use super::tree::{self, Node};
use super::{Config, External, keys};

/// The variable that names the database when the file does not.
const DATABASE_URL: &str = "DATABASE_URL";

/// Which configuration to load, and how strictly to judge it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The file to load; `None` takes the first that exists of those that [`default_path`] tries.
    pub path: Option<PathBuf>,
    /// The name of an environment: it adds the variables of `.env.NAME` and the overlay
    /// `<stem>.NAME.<ext>`.
    pub env: Option<String>,
    /// Warnings count as errors (`--strict`), except notes on differences to qhook.
    pub strict: bool,
    /// Unknown keys are warnings and not errors (`--lenient`).
    pub lenient: bool,
    /// The variables that `${…}` may name; those of `.env.NAME` are added where they are not set.
    pub variables: Variables,
}

/// The result of loading: a configuration or the reasons why there is none.
#[derive(Debug)]
pub struct Loaded {
    /// The file that was read, or the one that was looked for and not found.
    pub path: PathBuf,
    /// The configuration, or `None` when it has errors.
    pub config: Option<Config>,
    /// Every error and warning that was found; warnings are there beside a usable configuration,
    /// too.
    pub problems: Problems,
}

/// Loads a configuration: merges its overlay, replaces variables, and collects every problem.
pub fn load(request: &Request, known: &External) -> Loaded {
    let mut problems = Problems { strict: request.strict, ..Problems::default() };
    let path = request.path.clone().unwrap_or_else(default_path);
    let Some(base) = read_text(&path, &mut problems) else {
        return Loaded { path, config: None, problems };
    };
    let mut variables = request.variables.clone();
    let overlay = request.env.as_deref().and_then(|env| {
        let before = problems.list.len();
        let of_file = env_file(&path, env, &mut problems);
        let overlay = overlay_path(&path, env);
        // A file that cannot be read is there, and has its own message.
        if of_file.is_none() && problems.list.len() == before && !overlay.exists() {
            let message = format!(
                "neither {} nor .env.{env} exists, so the environment `{env}` has no effect",
                overlay.display()
            );
            let problem = unreadable(message, Some("check the name, or create one of these files"));
            problems.push(Problem {
                severity: Severity::Warning,
                code: "empty_environment",
                ..problem
            });
        }
        for (key, value) in of_file.into_iter().flatten() {
            variables.entry(key).or_insert(value);
        }
        overlay.exists().then(|| read_text(&overlay, &mut problems)).flatten()
    });
    let texts = [Some(base), overlay];
    let mut config = from_texts(
        texts.into_iter().flatten().collect(),
        &variables,
        request.lenient,
        known,
        &mut problems,
    );
    // A file of qhook's finds its API as it was: open without a token, with a warning.
    let is_of_qhook = path
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("qhook"));
    if let Some(config) = config.as_mut().filter(|_| is_of_qhook) {
        config.api.open = true;
    }
    if request.env.is_none() && config.is_none() {
        hint_at_overlays(&path, &mut problems);
    }
    Loaded { path, config, problems }
}

/// Adds a hint to errors about private URLs when an overlay lies beside the file: perhaps `--env`
/// was forgotten.
fn hint_at_overlays(path: &Path, problems: &mut Problems) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let extension = path.extension().map_or("yaml".into(), |extension| extension.to_string_lossy());
    let end = format!(".{extension}");
    let of_overlay =
        |name: String| Some(name.strip_prefix(&format!("{stem}."))?.strip_suffix(&end)?.to_owned());
    let mut envs: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(name)
        .filter_map(of_overlay)
        .collect();
    envs.sort();
    let Some(first) = envs.first() else { return };
    let hint = format!(
        "to merge {stem}.{first}{end} over this file, use `--env {first}` or TIDEHOOK_ENV={first}"
    );
    for problem in problems.list.iter_mut().filter(|problem| problem.code == "private_url") {
        problem.help = Some(match problem.help.take() {
            Some(help) => format!("{hint}; {help}"),
            None => hint.clone(),
        });
    }
}

/// Reads a configuration from texts in memory; each later one is an overlay over those before it.
pub fn from_texts(
    texts: Vec<Text>,
    variables: &Variables,
    lenient: bool,
    known: &External,
    problems: &mut Problems,
) -> Option<Config> {
    let mut root: Option<Node> = None;
    for text in texts {
        let file = problems.texts.len();
        let parsed = tree::parse(&text.content, file);
        problems.texts.push(text);
        match parsed {
            Ok(node) => {
                root = Some(match root {
                    Some(base) => layers::merge(base, node),
                    None => node,
                });
            }
            Err(problem) => problems.push(problem),
        }
    }
    let mut root = root.filter(|_| !problems.list.iter().any(|p| p.severity == Severity::Error))?;
    // Before variables are replaced: what runs are pinned to holds no secret, and a new secret
    // changes no definition.
    let written = tree::get(&root, "workflows").map(super::read::json).unwrap_or_default();
    let (variables, failed) = with_references(&root, variables, known);
    let variables = &variables;
    layers::expand(&mut root, variables, &failed, problems);
    if lenient {
        set_lenient(&mut root);
    }
    let mut config = super::read(&root, known, problems)?;
    config.set_written(&written, variables, problems);
    if config.database.url.is_none()
        && let Some(url) = variables.get(DATABASE_URL).filter(|u| !u.is_empty())
    {
        let unresolved = failed.get(DATABASE_URL).cloned();
        let (code, message, help) = match (unresolved, config.database.take_from_environment(url)) {
            (Some(why), _) => (
                "unresolved_reference",
                format!("DATABASE_URL is `{url}`, which cannot be resolved: {why}"),
                None,
            ),
            (None, Err(message)) => (
                "bad_url",
                message,
                Some("set `database.url`, or change `database.driver` to match DATABASE_URL"),
            ),
            (None, Ok(())) => return Some(config),
        };
        problems.push(Problem {
            key: "database.url".to_owned(),
            code,
            ..unreadable(message, help)
        });
        return None;
    }
    if let Some(message) = config.database.lacks_url() {
        let help =
            "set `database.url` or DATABASE_URL; commands that need no database work without it";
        let problem = Problem { key: "database.url".to_owned(), ..unreadable(message, Some(help)) };
        problems.push(Problem {
            severity: Severity::Warning,
            code: "needs_database_url",
            ..problem
        });
    }
    (!problems.has_errors()).then_some(config)
}

/// The variables with all secrets by reference resolved, and the reasons for those that failed.
///
/// References may stand in the tree, in the values of variables that the tree uses, and in
/// `DATABASE_URL`, which the file need not name.
fn with_references(root: &Node, variables: &Variables, known: &External) -> (Variables, Variables) {
    let (mut all, mut failed) = (variables.clone(), Variables::new());
    let (mut names, used) = (layers::references(root), layers::variables_of(root));
    let holders: Vec<_> = variables
        .iter()
        .filter(|(name, _)| *name == DATABASE_URL || used.contains(*name))
        .map(|(name, value)| (name, value, layers::references_in(value)))
        .filter(|(_, _, references)| !references.is_empty())
        .collect();
    holders.iter().for_each(|(_, _, references)| names.extend(references.iter().cloned()));
    if names.is_empty() {
        return (all, failed);
    }
    if let Some(resolve) = known.resolve {
        layers::sort_answers(resolve(&names), &mut all, &mut failed);
    }
    for (name, value, _) in holders {
        match layers::with_values(value, &all, &failed) {
            Ok(value) => drop(all.insert(name.clone(), value)),
            Err(why) => drop(failed.insert(name.clone(), why)),
        }
    }
    (all, failed)
}

/// Applies `--lenient` by setting `compat.unknown_keys: warn` in the tree.
fn set_lenient(root: &mut Node) {
    let place = root.place;
    let scalar = tree::Scalar { text: "warn".into(), plain: true, ..tree::Scalar::default() };
    let key = |text: &str| tree::Key { text: text.into(), place };
    let over = Node {
        value: tree::Value::Map(vec![(
            key("unknown_keys"),
            Node { value: tree::Value::Scalar(scalar), place },
        )]),
        place,
    };
    let over = Node { value: tree::Value::Map(vec![(key("compat"), over)]), place };
    *root = layers::merge(std::mem::replace(root, Node::null(place)), over);
    debug_assert!(keys::TOP.iter().any(|k| k.name == "compat"));
}

/// The file to load when none is named: the first that exists of `/opt/tidehook.yaml` (a layer of a
/// function), `tidehook.yaml` in the code of a function, `tidehook.yaml` and `qhook.yaml`. When
/// none exists, `tidehook.yaml`.
pub fn default_path() -> PathBuf {
    let ours = PathBuf::from("tidehook.yaml");
    let theirs = PathBuf::from("qhook.yaml");
    // Where a layer of a function puts its files, and where its code lies.
    let layer = PathBuf::from("/opt/tidehook.yaml");
    let beside =
        std::env::var_os("LAMBDA_TASK_ROOT").map(|root| PathBuf::from(root).join("tidehook.yaml"));
    let found = [Some(layer), beside, Some(ours.clone()), Some(theirs)]
        .into_iter()
        .flatten()
        .find(|path| path.exists());
    found.unwrap_or(ours)
}

fn overlay_path(base: &Path, env: &str) -> PathBuf {
    let stem = base.file_stem().unwrap_or_default().to_string_lossy();
    let extension = base.extension().map_or("yaml".into(), |e| e.to_string_lossy());
    base.with_file_name(format!("{stem}.{env}.{extension}"))
}

/// Reads `.env.NAME` of the working directory, else the one beside the configuration; `None` when
/// there is neither or it cannot be read.
fn env_file(base: &Path, env: &str, problems: &mut Problems) -> Option<Variables> {
    let name = format!(".env.{env}");
    let beside = base.with_file_name(&name);
    let found = [PathBuf::from(name), beside]
        .into_iter()
        .find_map(|path| Some((std::fs::read(&path).ok()?, path)));
    let (bytes, path) = found?;
    let shown = path.display();
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let help = "save the file as UTF-8";
            problems.push(unreadable(
                format!("{shown}, line {line}: the file is not UTF-8 text"),
                Some(help),
            ));
            return None;
        }
    };
    match layers::dotenv(&text) {
        Ok(variables) => Some(variables),
        Err(why) => {
            let help = "write each line as `NAME=value`, `NAME=\"value\"` or `export NAME=value`; \
                text after ` #` is a comment";
            problems.push(unreadable(format!("{shown}: {why}"), Some(help)));
            None
        }
    }
}

fn read_text(path: &Path, problems: &mut Problems) -> Option<Text> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(content) => return Some(Text { name, content }),
            Err(_) => problems.push(unreadable(
                format!(
                    "Failed to read config: {name}: the file is not UTF-8 text; save it as UTF-8"
                ),
                None,
            )),
        },
        Err(why) => {
            let help = "name a file with --config, or create one with `tidehook init`";
            problems.push(unreadable(format!("Failed to read config: {name}: {why}"), Some(help)));
        }
    }
    None
}

fn unreadable(message: String, help: Option<&str>) -> Problem {
    Problem {
        severity: Severity::Error,
        code: "unreadable",
        place: None,
        key: String::new(),
        message,
        help: help.map(str::to_owned),
    }
}

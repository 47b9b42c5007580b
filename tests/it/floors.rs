//! The architecture as a test: no arrow points up, and no file is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which rooms a room may import, besides itself. What is not listed is not allowed.
const MAY_IMPORT: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("decide", &["model"]),
    ("config", &["decide", "model"]),
    ("store", &["config", "decide", "model"]),
    ("deliver", &["config", "decide", "model"]),
    ("ingress", &["config", "decide", "model"]),
    ("wake", &["observe", "config", "decide", "model"]),
    ("observe", &["model"]),
    ("engine", &["store", "deliver", "ingress", "wake", "observe", "config", "decide", "model"]),
    (
        "http",
        &["engine", "store", "deliver", "ingress", "wake", "observe", "config", "decide", "model"],
    ),
    (
        "server",
        &[
            "environment",
            "http",
            "engine",
            "store",
            "deliver",
            "ingress",
            "wake",
            "observe",
            "config",
            "decide",
            "model",
        ],
    ),
    ("aws", &["model"]),
    ("secrets", &["aws", "config", "decide", "model"]),
    ("environment", &["aws", "secrets", "ingress", "config", "decide", "model"]),
    ("container", &["environment", "server", "observe", "config", "model"]),
    (
        "lambda",
        &[
            "environment",
            "server",
            "http",
            "engine",
            "store",
            "wake",
            "observe",
            "config",
            "decide",
            "model",
        ],
    ),
    (
        "cli",
        &[
            "container",
            "environment",
            "server",
            "http",
            "engine",
            "store",
            "deliver",
            "ingress",
            "wake",
            "observe",
            "config",
            "decide",
            "model",
        ],
    ),
    ("main", &["cli", "container", "lambda"]),
    ("bin", &["lambda"]),
];

fn sources() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        texts_under("src", ".rs").into_iter().map(|(path, _)| path).collect();
    found.sort();
    found
}

fn room(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms a file names, in `use` lines and in paths.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::").chain(text.match_indices("tidehook::")) {
        let rest = text[at..].split_once("::").unwrap().1;
        let name: String =
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            // `use crate::{a, b}`
            let list = rest.trim_start_matches('{').split('}').next().unwrap();
            let first = |part: &str| part.trim().split("::").next().unwrap().to_owned();
            found.extend(list.split(',').map(first));
        } else {
            found.push(name);
        }
    }
    found
}

#[test]
fn no_arrow_points_up() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let mut wrong = Vec::new();
    for path in sources() {
        let room = room(&path);
        if room == "lib" {
            continue;
        }
        let may = allowed
            .get(room.as_str())
            .unwrap_or_else(|| panic!("{room} has no floor; give it one in this test"));
        let text = std::fs::read_to_string(&path).unwrap();
        for import in imports(&text) {
            let is_room = allowed.contains_key(import.as_str());
            if is_room && import != room && !may.contains(&import.as_str()) {
                wrong.push(format!("{}: {room} may not import {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up (see ARCHITECTURE.md):\n{}", wrong.join("\n"));
}

#[test]
fn the_ground_floor_awaits_nothing_and_reads_no_clock() {
    for path in sources().into_iter().filter(|p| ["model", "decide"].contains(&room(p).as_str())) {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in [
            "async fn",
            ".await;",
            ".await?",
            ".await.",
            "std::fs",
            "std::net::Tcp",
            "tokio::",
            "rand::rng",
            "std::env",
        ] {
            assert!(!text.contains(word), "{} holds `{word}`", path.display());
        }
    }
}

#[test]
fn every_file_is_named_by_a_mod_line_and_no_file_is_a_warehouse() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= 600, "{} is longer than 600 lines", path.display());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // Binaries are named by the manifest.
        if ["lib", "main", "mod"].contains(&name.as_str()) || room(&path) == "bin" {
            continue;
        }
        let parent = path.parent().unwrap();
        let heads = [parent.join("mod.rs"), parent.join("lib.rs"), parent.with_extension("rs")];
        let line = format!("mod {name};");
        let named = heads
            .iter()
            .filter_map(|h| std::fs::read_to_string(h).ok())
            .any(|head| head.contains(&line));
        assert!(named, "no `{line}` names {}", path.display());
    }
}

/// Names that were used here once and that a person from another job queue would not guess.
const OLD_NAMES: [&str; 49] = [
    "Finish",
    "Visiting",
    "NotNow",
    "untold",
    "Offer",
    "Ask",
    "Wished",
    "Commit",
    "InHand",
    "Held",
    "WORD",
    "Moment",
    "Beat",
    "Drawn",
    "moot",
    "in_hand",
    "Here",
    "Birth",
    "OfStep",
    "Ran",
    "Handed",
    "Wish",
    "Armed",
    "AtHand",
    "Speaks",
    "Brought",
    "Standing",
    "Got",
    "Ending",
    "Refusal",
    "Around",
    "Announce",
    "Announced",
    "tune",
    "came_to",
    "came_of",
    "word_to",
    "word_to_run",
    "put_down",
    "put_back",
    "hand_over",
    "unborn",
    "wish_of",
    "crowded",
    "told_of",
    "takes_token",
    "have_turn",
    "from_word",
    "bad_word",
];

/// Turns of speech that were once used in the documentation and in messages.
const OLD_TURNS: [&str; 12] = [
    "is told of",
    "are told of",
    "keeps house",
    "keep house",
    "stays alone",
    "stay alone",
    "before they matter",
    "is nothing where",
    "is no number",
    "is no condition",
    "is no template",
    "in the hands of",
];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn texts_under(folder: &str, ends: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut open = vec![root];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.to_string_lossy().ends_with(ends) && !path.ends_with("floors.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

#[test]
fn names_and_turns_that_were_given_up_do_not_come_back() {
    let code = texts_under("src", ".rs").into_iter().chain(texts_under("tests", ".rs"));
    for (path, text) in code {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for word in code.flat_map(words) {
            assert!(!OLD_NAMES.contains(&word), "{} has the name `{word}`", path.display());
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|page| (root.join(page), std::fs::read_to_string(root.join(page)).unwrap()));
    let prose = texts_under("docs", ".md").into_iter().chain(texts_under("src", ".rs"));
    for (path, text) in prose.chain(pages) {
        for turn in OLD_TURNS {
            assert!(!text.contains(turn), "{} says `{turn}`", path.display());
        }
    }
}

/// The documentation comments of a file, each joined to one line.
fn comments(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines().map(str::trim_start) {
        match line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
            Some(part) if goes_on => {
                let last = all.last_mut().unwrap();
                last.push(' ');
                last.push_str(part.trim());
            }
            Some(part) => all.push(part.trim().to_owned()),
            None => {}
        }
        goes_on = line.starts_with("///") || line.starts_with("//!");
    }
    all
}

#[test]
fn few_comments_are_too_short_to_say_more_than_a_name() {
    let short: Vec<String> = texts_under("src", ".rs")
        .iter()
        .flat_map(|(path, text)| {
            let path = path.display().to_string();
            comments(text).into_iter().map(move |comment| (path.clone(), comment))
        })
        .filter(|(_, comment)| comment.chars().count() <= 22)
        .map(|(path, comment)| format!("{path}: {comment}"))
        .collect();
    assert!(short.len() < 60, "{}", short.join("\n"));
}

#[test]
fn lines_of_code_and_prose_have_a_hundred_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(|page| (root.join(page), std::fs::read_to_string(root.join(page)).unwrap()));
    let texts = texts_under("src", ".rs").into_iter().chain(texts_under("docs", ".md"));
    let mut long = Vec::new();
    for (path, text) in texts.chain(pages) {
        let mut is_block = false;
        for (at, line) in text.lines().enumerate() {
            is_block ^= line.trim_start().starts_with("```");
            // Tables, commands and addresses cannot be broken.
            let is_bound = line.starts_with('|') || is_block || line.contains("://");
            if line.chars().count() > 100 && !is_bound {
                long.push(format!("{}:{}", path.display(), at + 1));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_map_names_only_places_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.split([' ', ':']).next().unwrap();
            let is_path =
                ["src/", "tests/", "docs/", "migrations/", "examples/", "scripts/", ".ci/"]
                    .iter()
                    .any(|p| path.starts_with(p));
            if is_path
                && !path.contains(['{', '*', '<'])
                && !path.contains("NNNN")
                && !path.contains("/x.rs")
                && !path.contains("/x/")
            {
                assert!(root.join(path).exists(), "{document} names {path}, which is not there");
            }
        }
    }
}

//! Modules stand on floors and import only downwards: reads the sources and holds the table.
//!
//! Beside the floors: no two modules import each other, not even by detours, and a plan knows
//! nothing of how a lake is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first. Modules of one floor may import each other, but not in a circle.
const FLOORS: [&[&str]; 8] = [
    &["error", "caught", "decimal", "render"],
    &["clock", "document", "event", "time", "unit"],
    &["meter", "schema"],
    &["lake", "dedupe", "functions", "plan"],
    &["ingest", "registry", "table"],
    &["engine"],
    &[
        "usage",
        "catalogue",
        "comparison",
        "correct",
        "explain",
        "export",
        "period",
        "picture",
        "rollup",
        "schedule",
        "sql",
        "trial",
        "verify",
    ],
    &["cli"],
];

/// Imports that the floors would allow.
const FORBIDDEN: [(&str, &str); 1] = [("plan", "lake")];

#[test]
fn modules_import_only_downwards() {
    let imports = imports_of_all();
    let mut wrong = Vec::new();
    for (from, to, place) in &imports {
        let (Some(above), Some(below)) = (floor(from), floor(to)) else {
            wrong.push(format!("{place}: `{from}` or `{to}` stands on no floor"));
            continue;
        };
        let pair = (from.as_str(), to.as_str());
        if below > above || FORBIDDEN.contains(&pair) {
            wrong.push(format!("{place}: `{from}` (floor {above}) imports `{to}` (floor {below})"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_import_in_no_circle() {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to, _) in imports_of_all() {
        graph.entry(from).or_default().insert(to);
    }
    for start in graph.keys() {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&String> = graph[start].iter().collect();
        while let Some(module) = open.pop() {
            assert_ne!(module, start, "`{start}` imports itself by way of {reached:?}");
            if reached.insert(module) {
                open.extend(graph.get(module).into_iter().flatten());
            }
        }
    }
}

#[test]
fn only_the_shell_reads_arguments_and_variables_and_prints() {
    let forbidden = ["println!", "print!(", "eprint", "env::args", "env::var", "process::exit"];
    let mut wrong = Vec::new();
    for (module, path) in sources() {
        let is_tests = path.to_str().unwrap().ends_with("tests.rs");
        if module == "cli" || is_tests {
            continue;
        }
        for (number, line) in code_lines(&fs::read_to_string(&path).unwrap()) {
            let found = forbidden.iter().filter(|word| line.contains(**word));
            wrong.extend(found.map(|word| format!("{}:{number}: {word}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_begins_with_what_it_is() {
    for (_, path) in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let is_tests = path.ends_with("tests.rs");
        assert!(is_tests || text.starts_with("//! "), "{} has no header", path.display());
    }
}

#[test]
fn code_ends_where_tests_begin() {
    let text = "use crate::a::B; // crate::no\n//! crate::no\n#[cfg(test)]\nmod tests {\n    use \
                crate::no;\n}\nuse crate::{c, d::{E}};\n#[cfg(test)]\nmod tests;\nuse crate::f;\n";
    let lines: Vec<String> = code_lines(text).into_iter().map(|(_, line)| line).collect();
    assert_eq!(imported(&lines.join("\n")), ["a", "c", "d", "f"]);
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// Module, what it imports, and where.
fn imports_of_all() -> Vec<(String, String, String)> {
    let mut imports = Vec::new();
    for (module, path) in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<String> = code_lines(&text).into_iter().map(|(_, line)| line).collect();
        let others = imported(&code.join("\n"));
        let place = path.display().to_string();
        let others = others.into_iter().filter(|other| *other != module);
        imports.extend(others.map(|other| (module.clone(), other, place.clone())));
    }
    assert!(imports.len() > FLOORS.len(), "the sources were not found");
    imports
}

/// Every source file with the top module that it belongs to.
fn sources() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let first = inside.iter().next().unwrap().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                // The two roots only name the modules.
                if module != "lib" && module != "main" {
                    files.push((module, path));
                }
            }
        }
    }
    files.sort();
    files
}

/// The numbered lines of code: no comments, no tests.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            skip_item(&mut lines);
            continue;
        }
        let line = line.split("//").next().unwrap_or_default();
        if !line.trim().is_empty() {
            code.push((number + 1, line.to_owned()));
        }
    }
    code
}

/// Passes over an item: one line, or all to its closing brace, which rustfmt indents like its start.
fn skip_item<'t>(lines: &mut impl Iterator<Item = (usize, &'t str)>) {
    let Some((_, first)) = lines.find(|(_, line)| !line.trim().starts_with("#[")) else { return };
    if !first.trim_end().ends_with('{') {
        return;
    }
    let indent = &first[..first.len() - first.trim_start().len()];
    let end = format!("{indent}}}");
    lines.find(|(_, line)| *line == end);
}

/// The modules that paths beginning with `crate` name, sorted, each once.
fn imported(code: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
            continue;
        }
        let path = &code[at + "crate::".len()..];
        match path.strip_prefix('{') {
            Some(group) => found.extend(members(group)),
            None => found.extend(first_word(path)),
        }
    }
    found.into_iter().collect()
}

/// The first words of the members of a group of imports, which begins behind its brace.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut at_start, mut words) = (1, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_start = true,
            c if at_start && !c.is_whitespace() => {
                words.extend(first_word(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    words
}

/// The module at the beginning of a path; a type or macro of the root is none.
fn first_word(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    let word = &path[..end];
    word.chars().next().is_some_and(char::is_lowercase).then(|| word.to_owned())
}

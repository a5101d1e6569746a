//! Checks that the tests and paths in the guide `src/docs/security.md` exist, and that its rows are
//! consistent.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A row of the guide's tables.
struct Row {
    requirement: String,
    mechanism: String,
    test: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let guide = fs::read_to_string(root().join("src/docs/security.md")).unwrap();
    let rows = guide.lines().filter_map(|line| {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let cells: Vec<_> = cells.split(" | ").collect();
        let [requirement, _, mechanism, test] = cells[..] else {
            panic!("not four cells: {line}");
        };
        let is_number = requirement.starts_with(|c: char| c.is_ascii_digit());
        is_number.then(|| Row {
            requirement: requirement.to_owned(),
            mechanism: mechanism.to_owned(),
            test: test.to_owned(),
        })
    });
    rows.collect()
}

/// The functions with the attribute `test` in a file.
fn tests_in(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let mut tests = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            let function = lines.find_map(|line| {
                let line = line.strip_prefix("async ").unwrap_or(line);
                let name = line.strip_prefix("fn ")?;
                name.split('(').next()
            });
            tests.extend(function.map(str::to_owned));
        }
    }
    tests
}

pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn guide_names_only_existing_tests() {
    let folders = ["src", "tests/api"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| rust_files(folder));
    let tests: BTreeSet<_> = files.flat_map(|file| tests_in(&file)).collect();
    let rows = rows();
    assert!(rows.len() >= 40, "the guide has {} rows", rows.len());
    let mut numbers = BTreeSet::new();
    for Row {
        requirement,
        mechanism,
        test,
    } in rows
    {
        assert!(numbers.insert(requirement.clone()), "{requirement} twice");
        // Every second part is between backticks.
        for name in test.split('`').skip(1).step_by(2) {
            let exists = if name.contains('/') {
                root().join(name).exists()
            } else {
                tests.contains(name)
            };
            assert!(exists, "{requirement} names {name}, which does not exist");
        }
        let is_open = test.contains("**open**");
        assert_eq!(is_open, mechanism.contains("Open:"), "{requirement}");
        let is_applicable = !mechanism.starts_with("Not applicable");
        assert_eq!(test == "–", !is_applicable, "{requirement}");
        assert!(
            is_open || !is_applicable || test.contains('`'),
            "{requirement}"
        );
    }
}

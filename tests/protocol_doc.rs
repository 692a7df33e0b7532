//! The tables of `docs/protocol.md` against the code: every event has a row, and every row names tests that there are.

use fpuswitch::check::Invariant;
use std::{collections::BTreeSet, fs, path::Path};

const DOC: &str = include_str!("../docs/protocol.md");

/// The cells of the rows of the table that begins with `head`.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = DOC.split_once(head).expect("the table");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The functions of the tests, each with its body and the text of the constants that it names.
fn tests() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files =
        |folder: &Path| fs::read_dir(folder).expect("the tests").map(|entry| entry.expect("an entry").path());
    let all = files(&folder).chain(files(&folder.join("support"))).filter(|path| path.is_file());
    let sources: Vec<_> = all.map(|path| fs::read_to_string(path).expect("a test")).collect();
    let text = sources.concat();
    let constants = text.split("const ").skip(1).filter_map(|constant| {
        let (name, value) = constant.split_once(':')?;
        Some((name, value.split_once(';').map_or(value, |_| value.split("\";").next().unwrap_or(value))))
    });
    let constants: Vec<_> = constants.collect();
    let functions = text.split("fn ").skip(1).filter_map(|function| function.split_once('('));
    let whole = functions.map(|(name, body)| {
        let named = constants.iter().filter(|(constant, _)| body.contains(constant)).map(|(_, value)| *value);
        (name.to_owned(), named.fold(body.to_owned(), |body, value| body + value))
    });
    whole.collect()
}

/// The names of the events, as the other document has them.
fn events() -> BTreeSet<&'static str> {
    let (_, rest) = include_str!("../docs/events.md").split_once("|---|---|---|\n").expect("the table");
    let rows = rest.lines().map_while(|row| row.strip_prefix("| `"));
    rows.filter_map(|row| row.split([' ', '`']).next()).collect()
}

#[test]
fn every_event_has_a_row_that_names_its_tests() {
    let tests = tests();
    let mut named = BTreeSet::new();
    let mut before: Vec<&str> = Vec::new();
    for row in table("| event | requires | does | holds afterwards | test |") {
        let [events, _, _, _, cell] = row[..] else { panic!("{} cells: {row:?}", row.len()) };
        named.extend(quoted(events));
        let mut here: Vec<_> = quoted(cell).collect();
        if cell.starts_with("the same") {
            here.extend(&before);
        }
        assert!(!here.is_empty(), "{events} names no test");
        for test in &here {
            assert!(tests.iter().any(|(name, _)| name == test), "{events} names {test}, which is no test");
        }
        let bodies = || tests.iter().filter(|(name, _)| here.contains(&name.as_str())).map(|(_, body)| body);
        for event in quoted(events) {
            let happens = bodies().any(|body| body.contains(event));
            assert!(happens, "{event} does not happen in {here:?}");
        }
        before = here;
    }
    assert_eq!(named, events());
}

#[test]
fn every_invariant_has_a_row_that_names_tests_that_there_are() {
    let tests = tests();
    let rows = table("| | statement | form of a policy, exemptions | checked on | breaking it is found by |");
    let names: Vec<_> = rows.iter().map(|row| row[0]).collect();
    let all = [
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I4,
        Invariant::I5,
        Invariant::I6,
        Invariant::I7,
        Invariant::I8,
        Invariant::I9,
        Invariant::I10,
        Invariant::I11,
        Invariant::I12,
        Invariant::I13,
        Invariant::I14,
    ];
    assert_eq!(names, all.map(|invariant| invariant.to_string()));
    for row in rows {
        for test in quoted(row[4]) {
            assert!(tests.iter().any(|(name, _)| name == test), "{} names {test}, which is no test", row[0]);
        }
    }
}

#[test]
fn the_other_document_names_tests_that_there_are() {
    let folders = ["audit", "differential", "live"].map(|name| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        fs::read_dir(folder).expect("the tests")
    });
    let elsewhere = folders.into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let mut text: String = elsewhere.map(|path| fs::read_to_string(path).expect("a test")).collect();
    text += include_str!("../src/check/explore/tests.rs");
    let tests = tests();
    let is_test =
        |name: &str| tests.iter().any(|(test, _)| test == name) || text.contains(&format!("fn {name}()"));
    let doc = include_str!("../docs/testing.md");
    let is_name = |word: &&str| {
        word.matches('_').count() > 2 && word.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    let mut names: Vec<_> = doc.lines().flat_map(quoted).filter(is_name).collect();
    assert!(names.len() > 20, "{}", names.len());
    names.retain(|name| !is_test(name));
    assert!(names.is_empty(), "no such tests: {names:?}");
}

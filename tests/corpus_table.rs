//! docs/corpus.md and the lists of events in corpus/ are what the explorer finds.

#[path = "../examples/corpus.rs"]
#[allow(dead_code, reason = "its main")]
mod corpus;

use corpus::Searched;
use fpuswitch::check::corpus::bugs;

const DOCS: &str = include_str!("../docs/corpus.md");

/// Bugs that are found soon, for where code is slow.
const SOON: [&str; 3] = ["save-legacy-only", "exec-clears-owner", "preload-of-another"];

#[test]
fn the_docs_and_the_lists_have_what_is_found_soon() {
    for id in SOON {
        let searched = Searched::new(bugs().iter().find(|bug| bug.id == id).expect("in the corpus"));
        assert!(searched.is_as_said(), "{id}");
        assert!(DOCS.contains(&searched.row()), "docs/corpus.md ought to have\n{}", searched.row());
        let (_, list) = searched.list().expect("found by exploring");
        assert_eq!(list, searched.bug.events, "{id}");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "explores for minutes: cargo test --release --features explore")]
fn the_docs_and_the_lists_have_every_bug_of_the_corpus() {
    let (files, is_as_said) = corpus::files();
    assert!(is_as_said, "the bugs that stand above");
    let others = corpus::others(&files);
    let anew = "cargo run --release --features explore --example corpus";
    assert!(others.is_empty(), "`{anew}` makes other ones of {others:?}");
}

//! docs/agreement.md says what the recordings that come with the crate give, and what each quirk is.

#[path = "../examples/agreement.rs"]
#[allow(dead_code, reason = "its main")]
mod agreement;

use fpuswitch::replay::Quirk;

const DOCS: &str = include_str!("../docs/agreement.md");

#[test]
fn the_docs_have_the_row_of_each_recording_that_comes_with_the_crate() {
    let files = agreement::bundled().unwrap();
    assert_eq!(files.len(), 11);
    let (table, all_agree) = agreement::table(&files).unwrap();
    assert!(all_agree && DOCS.contains(&table), "docs/agreement.md ought to have\n{table}");
}

#[test]
fn the_docs_say_of_each_quirk_where_it_comes_from() {
    for quirk in Quirk::ALL {
        let row = format!("| `{}` | {} | {} | ", quirk.name(), quirk.origin(), quirk.costs());
        assert!(DOCS.contains(&row), "docs/agreement.md ought to have\n{row}");
    }
    let listed = DOCS.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(listed, Quirk::ALL.len());
}

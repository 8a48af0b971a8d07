//! What nodes say, in both forms.

use super::said::Said;
use super::*;

fn expected() -> Vec<(String, String, String)> {
    [
        ("01-base-up", "base", "up"),
        ("02-base-system-time-it-is", "base-system", "time: it is"),
        ("03-base-system-no", "base-system", "no"),
    ]
    .map(|(a, b, c)| (a.into(), b.into(), c.into()))
    .to_vec()
}

/// A line a check: overlay, name, passed, output.
fn read(text: &str) -> (Vec<String>, bool) {
    let (expected, overlays) = (expected(), ["base".to_owned(), "base-system".to_owned()]);
    let mut said = Said::new(&expected, &overlays);
    let mut found: Vec<Checked> = text.lines().filter_map(|line| said.line(line)).collect();
    found.extend(said.end());
    let shown = |c: &Checked| {
        let (overlay, file) = (c.overlay.as_deref().unwrap_or("?"), c.file.as_deref().unwrap_or("-"));
        format!("{overlay}/{}/{file}/{}/{}", c.name, c.passed, c.output.replace('\n', "+"))
    };
    (found.iter().map(shown).collect(), said.finished)
}

#[test]
fn each_check_has_its_overlay_and_its_output() {
    let (checks, finished) = read(
        "ok 01-base-up up\nFAILED 02-base-system-time-it-is time: it is\n| ok no\n| \n| gt-check: x\n\
         ok 03-base-system-no no\ngt-check: 2 passed, 1 failed\n",
    );
    let want = [
        "base/up/01-base-up/true/",
        "base-system/time: it is/02-base-system-time-it-is/false/ok no++gt-check: x+",
        "base-system/no/03-base-system-no/true/",
    ];
    assert_eq!((checks, finished), (want.map(str::to_owned).to_vec(), true));
}

#[test]
fn a_node_of_another_generation_is_understood() {
    let (checks, finished) = read("ok 07-base-system-old old\nok 08-gone-x x\n");
    assert_eq!(checks, ["base-system/old/07-base-system-old/true/", "?/x/08-gone-x/true/"]);
    assert!(!finished);
    let (checks, _) =
        read("ok up\nFAILED time: it is: late\nvery late\nFAILED new: y\ngt-check: 1 passed, 2 failed\n");
    let want = [
        "base/up/01-base-up/true/",
        "base-system/time: it is/02-base-system-time-it-is/false/late+very late+",
        "?/new/-/false/y+",
    ];
    assert_eq!(checks, want);
}

#[test]
fn junk_is_no_check() {
    assert_eq!(read("Warning: x\n\n| y\n").0, [""; 0]);
}

//! What somebody probably meant to write.
//! Must not know: what the names are names of.
//! Spec: Damerau-Levenshtein distance in its restricted form (optimal string alignment).

/// Longer words are not compared: the work grows with the square, and no key of ours is longer.
const LONGEST: usize = 64;

/// The name among `known` that is nearest to `word`, if any is near: at most a third of the longer
/// one's characters may differ, and at least one may. Of several equally near, the first in byte order.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().filter_map(|name| {
        let allowed = (word.chars().count().max(name.chars().count()) / 3).max(1);
        let distance = distance(word, name).filter(|d| *d <= allowed)?;
        Some((distance, name))
    });
    near.min().map(|(_, name)| name)
}

/// How many characters must be added, dropped, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > LONGEST || b.len() > LONGEST {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let changed = above[j] + usize::from(a[i] != b[j]);
            let mut best = changed.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        let known = ["name", "roles", "serial", "model", "hostname", "ip", "mac"];
        for (word, want) in [
            ("hostnme", Some("hostname")),
            ("nmae", Some("name")),
            ("serail", Some("serial")),
            ("role", Some("roles")),
            ("i", Some("ip")),
            ("modle", Some("model")),
            ("colour", None),
            ("", None),
            ("x".repeat(100).as_str(), None),
        ] {
            assert_eq!(nearest(word, known), want, "given {word:?}");
        }
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (a, b, want) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 1), ("é", "e", 1), ("a", "a", 0)]
        {
            assert_eq!(distance(a, b), Some(want), "{a} {b}");
            assert_eq!(distance(b, a), Some(want), "{b} {a}");
        }
    }
}

//! The nearest valid name, for the sentence about one that is unknown.

/// Longest name that is compared or repeated in full; a longer one is cut.
const NAME_CHARACTERS_MAX: usize = 64;
/// Most names that are compared, so that a large catalog costs a bounded time.
const CANDIDATES_MAX: usize = 4096;

/// The sentence that no thing of a kind has this name, with the nearest name where one is near.
#[must_use]
pub fn unknown<'a>(what: &str, name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let shown: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
    match nearest(name, candidates) {
        Some(other) => format!("unknown {what} `{shown}`; did you mean `{other}`?"),
        None => format!("unknown {what} `{shown}`"),
    }
}

/// The candidate with the fewest edits to `name` whatever the case of ASCII letters, None when even that one is too far.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = |letter: char| letter.to_ascii_lowercase();
    let wanted: Vec<char> = name.chars().take(NAME_CHARACTERS_MAX).map(lower).collect();
    let near_enough = wanted.len().div_ceil(3).max(1);
    candidates
        .take(CANDIDATES_MAX)
        .map(|candidate| (distance(&wanted, candidate), candidate))
        .filter(|(edits, _)| *edits <= near_enough)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row at a time (Wagner and Fischer 1974).
fn distance(wanted: &[char], candidate: &str) -> usize {
    let mut row: Vec<usize> = (0..=wanted.len()).collect();
    for (count, letter) in candidate.chars().take(NAME_CHARACTERS_MAX).enumerate() {
        let mut diagonal = count;
        let mut left = count.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (above, other) in row.iter_mut().skip(1).zip(wanted) {
            let change = diagonal.saturating_add(usize::from(!other.eq_ignore_ascii_case(&letter)));
            diagonal = *above;
            left = change.min(left.saturating_add(1)).min(above.saturating_add(1));
            *above = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names = ["level", "country_code", "gender"];
        assert_eq!(nearest("levle", names.into_iter()), Some("level"));
        assert_eq!(nearest("countrycode", names.into_iter()), Some("country_code"));
        assert_eq!(nearest("Gender", names.into_iter()), Some("gender"));
        assert_eq!(nearest("embedding", names.into_iter()), None);
        assert_eq!(
            unknown("field", "lvel", names.into_iter()),
            "unknown field `lvel`; did you mean `level`?"
        );
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        let letters: Vec<char> = "kitten".chars().collect();
        assert_eq!(distance(&letters, "sitting"), 3);
        assert_eq!(distance(&letters, ""), 6);
        assert_eq!(distance(&[], "abc"), 3);
    }

    #[test]
    fn a_huge_name_costs_no_more_than_a_long_one() {
        let name = "x".repeat(1_000_000);
        assert!(unknown("field", &name, ["level"].into_iter()).len() < 100);
    }
}

//! What a wrong word may have meant. Not here: where it stood.

/// Edits between two words that are still near.
const NEAR: usize = 2;

/// Whether `name` may be what `word` was meant to be: few edits away, or the beginning of it is the same.
pub fn is_near(word: &str, name: &str) -> bool {
    let (word, name) = (word.to_lowercase(), name.to_lowercase());
    distance(&word, &name) <= NEAR || name.starts_with(&word)
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_book() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert!(is_near("snapshto", "snapshot"));
        assert!(is_near("LEA", "lease"));
        assert!(!is_near("nosuch", "version"));
    }
}

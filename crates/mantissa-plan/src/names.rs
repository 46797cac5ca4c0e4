//! Suggesting the name a person probably meant.

/// The known name nearest to `wanted`, by Jaro-Winkler similarity, if any is at all like it.
pub(crate) fn nearest<'a>(
    wanted: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    ranked(wanted, known).into_iter().next()
}

/// `; did you mean `NAME`?`, or a full stop where no name is like it.
pub(crate) fn did_you_mean<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wanted, known).map_or_else(
        || ".".to_string(),
        |name| format!("; did you mean `{name}`?"),
    )
}

/// The names like `wanted`, nearest first, at most three.
pub(crate) fn ranked<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const LIKE_IT: f64 = 0.6;
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(score, _)| *score >= LIKE_IT)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.truncate(3);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// A list of names for a message: the first `limit`, and how many more there are.
pub(crate) fn listed<S: AsRef<str>>(names: &[S], limit: usize) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(limit)
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    match names.len().saturating_sub(limit) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Compares names as people sort them: `layers.2` before `layers.10`.
pub(crate) fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (mut a_rest, mut b_rest) = (a.as_bytes(), b.as_bytes());
    loop {
        let (a_part, a_next) = digits_or_byte(a_rest);
        let (b_part, b_next) = digits_or_byte(b_rest);
        let both_numbers = a_part.first().is_some_and(u8::is_ascii_digit)
            && b_part.first().is_some_and(u8::is_ascii_digit);
        let order = if both_numbers {
            let (a_number, b_number) = (without_zeros(a_part), without_zeros(b_part));
            a_number
                .len()
                .cmp(&b_number.len())
                .then_with(|| a_number.cmp(b_number))
        } else {
            a_part.cmp(b_part)
        };
        if order != Ordering::Equal {
            return order;
        }
        if a_part.is_empty() {
            return a.cmp(b);
        }
        (a_rest, b_rest) = (a_next, b_next);
    }
}

/// A run of digits, or one byte, from the front; nothing at the end.
fn digits_or_byte(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(digits.max(1).min(text.len()))
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_sort_by_value() {
        let mut names = vec!["l.10.a", "l.2.b", "l.2.a", "l", "l.02.a", "k.3"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["k.3", "l", "l.02.a", "l.2.a", "l.2.b", "l.10.a"]);
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        assert_eq!(nearest("int9", ["fp16", "int8", "bf16"]), Some("int8"));
        assert_eq!(nearest("zzz", ["fp16", "int8"]), None);
        assert_eq!(listed(&["a", "b", "c"], 2), "`a`, `b` and 1 more");
    }
}

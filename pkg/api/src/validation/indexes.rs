//! Texts that name indexes of a Job's pods: `1,3-5,7`.

/// How many indexes a text names.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    for part in parts(text) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|&last| last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both name; what is none in them is told elsewhere.
pub(super) fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let good = |text| parts(text).filter_map(|part| interval(part, completions).ok());
    let (mut a, mut b) = (good(a).peekable(), good(b).peekable());
    while let (Some(one), Some(other)) = (a.peek(), b.peek()) {
        if one.0 <= other.1 && other.0 <= one.1 {
            return Some(one.0.max(other.0));
        }
        if one.0 <= other.0 {
            a.next();
        } else {
            b.next();
        }
    }
    None
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(move |_| !text.is_empty())
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| {
        let index = text
            .parse::<i64>()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if index >= completions {
            return Err(format!("too large index: {text:?}"));
        }
        Ok(index)
    };
    let mut ends = part.split('-');
    let (first, end, third) = (ends.next().unwrap_or(""), ends.next(), ends.next());
    if third.is_some() {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let first = index(first)?;
    let Some(end) = end else { return Ok((first, first)) };
    let end = index(end)?;
    if first >= end {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
    }
    Ok((first, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_and_compared() {
        assert_eq!(count("", 6), Ok(0));
        assert_eq!(count("1,3-5", 6), Ok(4));
        for (text, why) in [
            ("3,1", "non-increasing order, previous: 3, current: 1"),
            ("2-2", "non-increasing order, previous: 2, current: 2"),
            ("6", "too large index: \"6\""),
            ("x", "cannot convert string to integer for index: \"x\""),
        ] {
            assert_eq!(count(text, 6), Err(why.into()));
        }
        assert!(count("1-2-3", 6).is_err());
        assert_eq!(overlap("1,3-5", "0,2,4", 6), Some(4));
        assert_eq!(overlap("1,x,3", "0,2", 6), None);
        assert_eq!(overlap("", "0", 6), None);
    }
}

//! Where two values begin and end to differ, in lines, below the words that say that they may not.

use std::fmt::Write as _;

use serde_json::Value;

/// Lines that are shown before and after.
const CONTEXT: usize = 3;
/// Most lines that are shown of either.
const MOST: usize = 40;

/// One hunk of a unified comparison, on lines of its own.
pub(super) fn hunk(new: &Value, old: &Value) -> String {
    let text = |value| serde_json::to_string_pretty(value).unwrap_or_default();
    let (new, old) = (text(new), text(old));
    let (new, old): (Vec<&str>, Vec<&str>) = (new.lines().collect(), old.lines().collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let before = same(&mut new.iter().zip(&old));
    let shorter = new.len().min(old.len()) - before;
    let after = same(&mut new.iter().rev().zip(old.iter().rev())).min(shorter);
    let start = before.saturating_sub(CONTEXT);
    let tail = after.min(CONTEXT);
    let shown = |lines: &[&str]| lines.len() - after + tail - start;
    let mut hunk = format!(
        "\n@@ -{},{} +{},{} @@\n",
        start + 1,
        shown(&old),
        start + 1,
        shown(&new)
    );
    let mut add = |mark: char, lines: &[&str]| {
        for line in lines.iter().take(MOST) {
            let _ = writeln!(hunk, "{mark}{line}");
        }
    };
    add(' ', &old[start..before]);
    add('-', &old[before..old.len() - after]);
    add('+', &new[before..new.len() - after]);
    add(' ', &old[old.len() - after..old.len() - after + tail]);
    hunk
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_shown_with_what_is_around_it() {
        let old = json!({"a": 1, "b": [1, 2], "c": 3, "d": 4});
        let new = json!({"a": 1, "b": [1, 5], "c": 3, "d": 4});
        let lines = [
            "@@ -2,7 +2,7 @@",
            "   \"a\": 1,",
            "   \"b\": [",
            "     1,",
            "-    2",
            "+    5",
            "   ],",
            "   \"c\": 3,",
            "   \"d\": 4",
        ];
        assert_eq!(hunk(&new, &old), format!("\n{}\n", lines.join("\n")));
        assert_eq!(hunk(&json!(1), &json!(2)), "\n@@ -1,1 +1,1 @@\n-2\n+1\n");
        let long: Vec<u32> = (0..1000).collect();
        assert!(hunk(&json!(long), &json!([])).lines().count() < 2 * MOST + 2 * CONTEXT);
    }
}

//! Patterns as KEYS and SCAN take them, with all of Redis' corners: `*`, `?`, `[a-z]`, `[^a]` and `\`.

/// Whether the pattern matches the whole text. What it takes is added to `steps`, in bytes looked at; none once those are more
/// than `most`: the time grows with the product of both lengths, and both come from clients.
pub(crate) fn matches(pattern: &[u8], text: &[u8], steps: &mut usize, most: usize) -> Option<bool> {
    let (mut rest, mut left) = (pattern, text);
    // The latest `*`: what follows it, and the text from where that has been tried. An earlier one needs no second try: if what follows
    // the latest can't be found from here, it can't be found further on, either.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        *steps += 1;
        if *steps > most {
            return None;
        }
        if let [b'*', after @ ..] = rest {
            if after.is_empty() {
                return Some(true);
            }
            rest = after;
            star = Some((after, left));
            continue;
        }
        let Some((byte, after)) = left.split_first() else { return Some(rest.is_empty()) };
        let (matched, next) = item(rest, *byte);
        *steps += rest.len() - next.len();
        if matched {
            (rest, left) = (next, after);
            continue;
        }
        let Some((after_star, [_, tried @ ..])) = star else { return Some(false) };
        (rest, left) = (after_star, tried);
        star = Some((after_star, tried));
    }
}

/// Whether the first item of a pattern matches a byte, and what follows that item.
fn item(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    match pattern {
        [] => (false, pattern),
        [b'?', rest @ ..] => (true, rest),
        [b'[', b'^', rest @ ..] => {
            let (matched, rest) = class(rest, byte);
            (!matched, rest)
        }
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte, rest),
    }
}

/// The same for a class after its `[` or `[^`. One that isn't closed ends with the pattern.
fn class(mut pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let mut matched = false;
    loop {
        pattern = match pattern {
            [] => return (matched, pattern),
            [b'\\', literal, rest @ ..] => {
                matched |= *literal == byte;
                rest
            }
            [b']', rest @ ..] => return (matched, rest),
            [from, b'-', to, rest @ ..] => {
                matched |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                matched |= *literal == byte;
                rest
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), &mut 0, usize::MAX).unwrap()
    }

    #[test]
    fn patterns_mean_what_they_mean_in_redis() {
        for (pattern, good, bad) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "a*b"], &[]),
            ("h?llo", &["hello", "h?llo"], &["hllo", "heello"]),
            ("h*llo", &["hllo", "heeeello", "hllollo"], &["hell", "xhllo"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a", ""]),
            ("**a", &["a", "ba"], &["ab"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo", "hllo"]),
            ("h[^e]llo", &["hallo", "h^llo"], &["hello", "hllo"]),
            ("[a-c]", &["a", "b", "c"], &["d", "-", ""]),
            ("[c-a]", &["a", "b", "c"], &["d", "-"]),
            ("[a-]", &["a", "]", "^"], &["-", "b"]),
            ("[\\]a]", &["]", "a"], &["\\"]),
            ("[]a", &[], &["a", "]a", ""]),
            ("[ab", &["a", "b"], &["[ab", "c"]),
            ("[^", &["x"], &["", "xy"]),
            ("\\*", &["*"], &["\\*", "a"]),
            ("a\\", &["a\\"], &["a"]),
            ("a*?", &["ab", "abc"], &["a"]),
        ] {
            good.iter().for_each(|text| assert!(check(pattern, text), "{pattern} {text}"));
            bad.iter().for_each(|text| assert!(!check(pattern, text), "{pattern} {text}"));
        }
    }

    #[test]
    fn a_costly_pattern_is_given_up() {
        let (pattern, text) = (format!("*{}b", "a".repeat(500)), "a".repeat(50_000));
        let mut steps = 0;
        let result = matches(pattern.as_bytes(), text.as_bytes(), &mut steps, 1 << 20);
        assert_eq!(result, None);
        assert!(steps < (1 << 20) + pattern.len());
    }

    #[test]
    fn stars_take_no_more_than_the_product_of_the_lengths() {
        let (pattern, text) = ("*a?a".repeat(12) + "b", "a".repeat(1000));
        let mut steps = 0;
        let result = matches(pattern.as_bytes(), text.as_bytes(), &mut steps, usize::MAX);
        assert_eq!(result, Some(false));
        assert!(steps <= 3 * pattern.len() * text.len(), "{steps}");
    }
}

//! Patterns as KEYS and SCAN take them, with all of Redis' corners: `*`, `?`, `[a-z]`, `[^a]` and
//! `\`.

/// The longest pattern, in bytes. It bounds how long one item of it, a class, takes: some 100 µs.
pub(crate) const MAX_PATTERN_BYTES: usize = 64 << 10;

/// A pattern that is being matched with a text. That takes a time of the product of both lengths,
/// at most, and both come from clients; so it can be done in parts.
pub(crate) struct Matching<'a> {
    rest: &'a [u8],
    left: &'a [u8],
    /// The latest `*`: what follows it, and the text from where that has been tried. An earlier one
    /// needs no second try: if what follows the latest can't be found from here, it can't be found
    /// further on, either.
    star: Option<(&'a [u8], &'a [u8])>,
    /// Redis matches the empty text with the empty pattern only: not even with `**`.
    is_empty: bool,
}

impl<'a> Matching<'a> {
    pub(crate) fn new(pattern: &'a [u8], text: &'a [u8]) -> Self {
        Self { rest: pattern, left: text, star: None, is_empty: text.is_empty() }
    }

    /// Whether the pattern matches the whole text. None: that is not known after so many steps,
    /// which are bytes looked at; call it again. What it takes is subtracted from `steps`.
    pub(crate) fn go_on(&mut self, steps: &mut usize) -> Option<bool> {
        if self.is_empty {
            return Some(self.rest.is_empty());
        }
        while *steps > 0 {
            *steps -= 1;
            if let [b'*', after @ ..] = self.rest {
                if after.is_empty() {
                    return Some(true);
                }
                self.rest = after;
                self.star = Some((after, self.left));
                continue;
            }
            let Some((byte, after)) = self.left.split_first() else {
                return Some(self.rest.is_empty());
            };
            let (matched, next) = item(self.rest, *byte);
            *steps = steps.saturating_sub(self.rest.len() - next.len());
            if matched {
                (self.rest, self.left) = (next, after);
                continue;
            }
            let Some((after_star, [_, tried @ ..])) = self.star else { return Some(false) };
            (self.rest, self.left) = (after_star, tried);
            self.star = Some((after_star, tried));
        }
        None
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
        let mut steps = usize::MAX;
        Matching::new(pattern.as_bytes(), text.as_bytes()).go_on(&mut steps).unwrap()
    }

    #[test]
    fn patterns_mean_what_they_mean_in_redis() {
        for (pattern, good, bad) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["a", "a*b"], &[""]),
            ("**", &["a", "ab"], &[""]),
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
    fn a_costly_pattern_is_matched_in_parts() {
        let (pattern, text) = (format!("*{}b", "a".repeat(500)), "a".repeat(5000) + "b");
        let mut matching = Matching::new(pattern.as_bytes(), text.as_bytes());
        let mut parts = 1;
        let matched = loop {
            let mut steps = 1000;
            if let Some(matched) = matching.go_on(&mut steps) {
                break matched;
            }
            assert_eq!(steps, 0);
            parts += 1;
        };
        assert!(matched);
        assert!(parts > 1000, "{parts}");
    }

    #[test]
    fn stars_take_no_more_than_the_product_of_the_lengths() {
        let (pattern, text) = ("*a?a".repeat(12) + "b", "a".repeat(1000));
        let mut most = 3 * pattern.len() * text.len();
        let result = Matching::new(pattern.as_bytes(), text.as_bytes()).go_on(&mut most);
        assert_eq!(result, Some(false));
    }
}

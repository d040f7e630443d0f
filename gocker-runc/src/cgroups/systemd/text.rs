//! Values written as text, as annotations `org.systemd.property.NAME` have them.
//!
//! ```text
//! 'text'  "text"  true  12  0x1f  -3.5         a string, a boolean, an int32, a double
//! uint64 12   objectpath '/a'   @as []         with the type before it
//! [1, 2]   ('a', true)   {'key': 1}   <'any'>  arrays, tuples, dictionaries, variants
//! ```
//!
//! Spec: <https://docs.gtk.org/glib/gvariant-text-format.html>

use super::value::Value;

/// Reads one value.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { rest: text };
    let value = reader.value(None)?;
    reader.skip_space();
    if reader.rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("{:?} follows the value", reader.rest))
    }
}

struct Reader<'t> {
    rest: &'t str,
}

/// The words that name a type.
const KEYWORDS: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl Reader<'_> {
    fn value(&mut self, expected: Option<&str>) -> Result<Value, String> {
        self.skip_space();
        let first = self.rest.chars().next().ok_or("a value is missing")?;
        match first {
            '@' => {
                let end = self
                    .rest
                    .find(char::is_whitespace)
                    .unwrap_or(self.rest.len());
                let signature = self.rest[1..end].to_owned();
                if first_type(&signature) != Some(signature.as_str()) {
                    return Err(format!("{signature:?} is not a type"));
                }
                self.rest = &self.rest[end..];
                self.value(Some(&signature))
            }
            '\'' | '"' => text_of(self.quoted(first)?, expected),
            '[' => self.array(expected),
            '(' => self.tuple(expected),
            '{' => self.dictionary(expected),
            '<' => self.variant(expected),
            '+' | '-' | '.' | '0'..='9' => number_of(&self.word(), expected),
            _ => self.keyword(expected),
        }
    }

    fn keyword(&mut self, expected: Option<&str>) -> Result<Value, String> {
        let word = self.word();
        match word.as_str() {
            "true" | "false" => {
                is_expected("b", expected)?;
                Ok(Value::Bool(word == "true"))
            }
            _ => match KEYWORDS.iter().find(|(keyword, _)| *keyword == word) {
                Some((_, signature)) => self.value(Some(signature)),
                None => Err(format!("{word:?} is neither a value nor a type")),
            },
        }
    }

    fn array(&mut self, expected: Option<&str>) -> Result<Value, String> {
        let mut items = match expected.map(|signature| signature.strip_prefix('a')) {
            Some(None) => return Err(format!("an array is no {}", expected.unwrap_or_default())),
            Some(Some(items)) => Some(items.to_owned()),
            None => None,
        };
        let mut values = Vec::new();
        self.list('[', ']', |reader| {
            let value = reader.value(items.as_deref())?;
            items.get_or_insert_with(|| value.signature());
            values.push(value);
            Ok(())
        })?;
        let items = items.ok_or("an empty array needs its type before it, such as @as []")?;
        Ok(Value::Array(items, values))
    }

    fn tuple(&mut self, expected: Option<&str>) -> Result<Value, String> {
        let fields = match expected {
            None => None,
            Some(signature) => Some(
                signature
                    .strip_prefix('(')
                    .and_then(|rest| rest.strip_suffix(')'))
                    .ok_or_else(|| format!("a tuple is no {signature}"))?,
            ),
        };
        let mut left = fields;
        let mut values = Vec::new();
        self.list('(', ')', |reader| {
            let field = left.map(|left| first_type(left).ok_or("a tuple has too many values"));
            let field = field.transpose()?;
            left = left.zip(field).map(|(left, field)| &left[field.len()..]);
            values.push(reader.value(field)?);
            Ok(())
        })?;
        match left {
            Some(left) if !left.is_empty() => Err("a tuple has too few values".into()),
            _ if values.is_empty() => Err("a tuple is empty".into()),
            _ => Ok(Value::Struct(values)),
        }
    }

    fn dictionary(&mut self, expected: Option<&str>) -> Result<Value, String> {
        let mut types: Option<(String, String)> = match expected {
            None => None,
            Some(signature) => Some(
                signature
                    .strip_prefix("a{")
                    .and_then(|rest| rest.strip_suffix('}'))
                    .and_then(|types| types.split_at_checked(1))
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .ok_or_else(|| format!("a dictionary is no {signature}"))?,
            ),
        };
        let mut entries = Vec::new();
        self.list('{', '}', |reader| {
            let key = reader.value(types.as_ref().map(|(key, _)| key.as_str()))?;
            reader.take(':')?;
            let value = reader.value(types.as_ref().map(|(_, value)| value.as_str()))?;
            types.get_or_insert_with(|| (key.signature(), value.signature()));
            entries.push(Value::Entry(Box::new((key, value))));
            Ok(())
        })?;
        let (key, value) = types.ok_or("an empty dictionary needs its type before it")?;
        Ok(Value::Array(format!("{{{key}{value}}}"), entries))
    }

    fn variant(&mut self, expected: Option<&str>) -> Result<Value, String> {
        is_expected("v", expected)?;
        self.take('<')?;
        let value = self.value(None)?;
        self.take('>')?;
        Ok(Value::Variant(Box::new(value)))
    }

    /// Reads items between `open` and `close`, with commas between; one may follow the last.
    fn list(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.take(open)?;
        loop {
            self.skip_space();
            if self.rest.starts_with(close) {
                return self.take(close);
            }
            item(self)?;
            self.skip_space();
            if !self.rest.starts_with(close) {
                self.take(',')?;
            }
        }
    }

    /// The text in quotes, with its escapes resolved.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                _ if char == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, escaped @ ('\\' | '\'' | '"'))) => text.push(escaped),
                    _ => return Err("an escape that is not known".into()),
                },
                char => text.push(char),
            }
        }
        Err("a quote is not closed".into())
    }

    fn word(&mut self) -> String {
        let is_part = |char: char| char.is_ascii_alphanumeric() || "+-._".contains(char);
        let end = self
            .rest
            .find(|char| !is_part(char))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn take(&mut self, char: char) -> Result<(), String> {
        self.skip_space();
        self.rest = self
            .rest
            .strip_prefix(char)
            .ok_or_else(|| format!("{char:?} is missing"))?;
        Ok(())
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

fn is_expected(signature: &str, expected: Option<&str>) -> Result<(), String> {
    match expected {
        Some(expected) if expected != signature => {
            Err(format!("a value of type {signature} is no {expected}"))
        }
        _ => Ok(()),
    }
}

fn text_of(text: String, expected: Option<&str>) -> Result<Value, String> {
    if text.contains('\0') {
        return Err("a text holds a NUL".into());
    }
    match expected {
        None | Some("s") => Ok(Value::Text(text)),
        Some("o") => Ok(Value::Path(text)),
        Some("g") => Ok(Value::Signature(text)),
        Some(expected) => Err(format!("a text is no {expected}")),
    }
}

fn number_of(word: &str, expected: Option<&str>) -> Result<Value, String> {
    let is_hexadecimal = word.trim_start_matches(['+', '-']).starts_with("0x");
    let is_fraction = !is_hexadecimal && word.contains(['.', 'e', 'E']);
    let expected = expected.unwrap_or(if is_fraction { "d" } else { "i" });
    let problem = || format!("{word:?} is not a value of type {expected}");
    if expected == "d" {
        return word.parse().map(Value::Double).map_err(|_| problem());
    }
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.trim_start_matches('+')),
    };
    let (radix, digits) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(digits), _) => (16, digits),
        (None, Some(octal)) if !octal.is_empty() => (8, octal),
        _ => (10, digits),
    };
    let number = sign * i128::from_str_radix(digits, radix).map_err(|_| problem())?;
    let value = match expected {
        "y" => number.try_into().map(Value::Byte),
        "n" => number.try_into().map(Value::Int16),
        "q" => number.try_into().map(Value::Uint16),
        "i" => number.try_into().map(Value::Int32),
        "u" => number.try_into().map(Value::Uint32),
        "x" => number.try_into().map(Value::Int64),
        "t" => number.try_into().map(Value::Uint64),
        _ => return Err(problem()),
    };
    value.map_err(|_| problem())
}

/// The first complete type of a signature.
fn first_type(signature: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, char) in signature.char_indices() {
        match char {
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.checked_sub(1)?,
            'a' => continue,
            'y' | 'b' | 'n' | 'q' | 'i' | 'u' | 'x' | 't' | 'd' | 's' | 'o' | 'g' | 'v' => (),
            _ => return None,
        }
        if depth == 0 {
            return Some(&signature[..=at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_values() {
        let text = |text: &str| Value::Text(text.into());
        let table = [
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""it's""#, text("it's")),
            (r"'it\'s\n'", text("it's\n")),
            ("true", Value::Bool(true)),
            (" uint64 123456789 ", Value::Uint64(123_456_789)),
            ("-5", Value::Int32(-5)),
            ("0x1f", Value::Int32(31)),
            ("byte 010", Value::Byte(8)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("@as []", Value::Array("s".into(), Vec::new())),
            (
                "['a', 'b',]",
                Value::Array("s".into(), vec![text("a"), text("b")]),
            ),
            (
                "@a(st) [('/dev/null', 5)]",
                Value::Array(
                    "(st)".into(),
                    vec![Value::Struct(vec![text("/dev/null"), Value::Uint64(5)])],
                ),
            ),
            (
                "{'k': <uint32 3>}",
                Value::Array(
                    "{sv}".into(),
                    vec![Value::Entry(Box::new((
                        text("k"),
                        Value::Variant(Box::new(Value::Uint32(3))),
                    )))],
                ),
            ),
        ];
        for (written, value) in table {
            assert_eq!(parse(written), Ok(value), "{written}");
        }
    }

    #[test]
    fn what_is_no_value() {
        for (written, problem) in [
            ("", "a value is missing"),
            ("yes", "\"yes\" is neither a value nor a type"),
            ("uint32 -1", "\"-1\" is not a value of type u"),
            ("3000000000", "\"3000000000\" is not a value of type i"),
            (
                "[]",
                "an empty array needs its type before it, such as @as []",
            ),
            ("['a', 1]", "\"1\" is not a value of type s"),
            ("'a", "a quote is not closed"),
            ("1 2", "\"2\" follows the value"),
            ("@(ss) ('a',)", "a tuple has too few values"),
            ("@s 1", "\"1\" is not a value of type s"),
            ("uint32 'a'", "a text is no u"),
            ("@a 1", "\"a\" is not a type"),
        ] {
            assert_eq!(parse(written), Err(problem.to_owned()), "{written}");
        }
    }
}

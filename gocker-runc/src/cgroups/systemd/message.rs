//! Messages on the wire: a call that goes out, a reply or a signal that comes in.
//!
//! ```text
//! endian type flags version | body length | serial | fields: a(yv) | padding to 8 | body
//! ```
//!
//! Spec: <https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-messages>

use super::value::{Value, align};

/// No message of systemd is longer; one that says so is not read.
const LONGEST: usize = 16 << 20;
/// What tells how long the rest is.
pub(super) const FIXED: usize = 16;

const CALL: u8 = 1;

/// What to call, and on whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// The bytes of a call.
pub(super) fn call(serial: u32, target: &Target<'_>, arguments: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|value| value.write(&mut body));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let text = |text: &str| Value::Text(text.into());
    let mut fields = vec![
        (1, Value::Path(target.path.into())),
        (2, text(target.interface)),
        (3, text(target.member)),
        (6, text(target.destination)),
    ];
    if !signature.is_empty() {
        fields.push((8, Value::Signature(signature)));
    }
    let fields = fields
        .into_iter()
        .map(|(code, value)| {
            Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
        })
        .collect();
    let mut message = vec![b'l', CALL, 0, 1];
    Value::Uint32(u32::try_from(body.len()).unwrap_or(u32::MAX)).write(&mut message);
    Value::Uint32(serial).write(&mut message);
    Value::Array("(yv)".into(), fields).write(&mut message);
    align(&mut message, 8);
    message.extend_from_slice(&body);
    message
}

/// What kind of message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Reply,
    Error,
    Signal,
    /// To be passed over.
    Unknown,
}

/// A message that came in.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The call that it answers.
    pub(super) answers: Option<u32>,
    /// The signal's name.
    pub(super) member: String,
    /// The error's name.
    pub(super) error: String,
    /// The body's type.
    pub(super) signature: String,
    body: Vec<u8>,
    is_big_endian: bool,
}

/// How many bytes follow the first [`FIXED`] of a message; None for what is none.
pub(super) fn rest_of(fixed: &[u8]) -> Option<usize> {
    let is_big_endian = is_big_endian(fixed)?;
    let number = |at| Cursor::new(fixed, at, is_big_endian).number();
    let body = usize::try_from(number(4)?).ok()?;
    let fields = usize::try_from(number(12)?).ok()?;
    let all = fields.next_multiple_of(8).checked_add(body)?;
    (all <= LONGEST).then_some(all)
}

fn is_big_endian(message: &[u8]) -> Option<bool> {
    match message.first()? {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

impl Message {
    /// Reads a whole message; None for what is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let is_big_endian = is_big_endian(bytes)?;
        let fields = Cursor::new(bytes, 12, is_big_endian).number()?;
        let end = FIXED + usize::try_from(fields).ok()?;
        let mut message = Self {
            kind: match bytes.get(1)? {
                1 => Kind::Call,
                2 => Kind::Reply,
                3 => Kind::Error,
                4 => Kind::Signal,
                _ => Kind::Unknown,
            },
            answers: None,
            member: String::new(),
            error: String::new(),
            signature: String::new(),
            body: bytes.get(end.next_multiple_of(8)..)?.to_vec(),
            is_big_endian,
        };
        let mut cursor = Cursor::new(bytes.get(..end)?, FIXED, is_big_endian);
        while cursor.at < end {
            cursor.align(8);
            let code = cursor.byte()?;
            match (code, cursor.signature()?.as_str()) {
                (3, "s") => message.member = cursor.text()?,
                (4, "s") => message.error = cursor.text()?,
                (5, "u") => message.answers = Some(cursor.number()?),
                (8, "g") => message.signature = cursor.signature()?,
                (_, "s" | "o") => drop(cursor.text()?),
                (_, "u") => drop(cursor.number()?),
                (_, "g") => drop(cursor.signature()?),
                _ => return None,
            }
        }
        Some(message)
    }

    /// The texts and paths of the body; other values of four bytes are passed over. None where
    /// the body holds anything else.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let mut cursor = Cursor::new(&self.body, 0, self.is_big_endian);
        let mut texts = Vec::new();
        for kind in self.signature.chars() {
            match kind {
                's' | 'o' => texts.push(cursor.text()?),
                'u' | 'i' | 'b' => drop(cursor.number()?),
                'v' if cursor.signature()? == "s" => texts.push(cursor.text()?),
                _ => return None,
            }
        }
        Some(texts)
    }
}

/// A place in a message.
struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
    is_big_endian: bool,
}

impl<'b> Cursor<'b> {
    fn new(bytes: &'b [u8], at: usize, is_big_endian: bool) -> Self {
        Self {
            bytes,
            at,
            is_big_endian,
        }
    }

    fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(match self.is_big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        })
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()?;
        self.text_of(usize::try_from(length).ok()?)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.text_of(usize::from(length))
    }

    /// A text, and the NUL that ends it.
    fn text_of(&mut self, length: usize) -> Option<String> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message as systemd would send it.
    pub(in super::super) fn incoming(
        kind: u8,
        fields: Vec<(u8, Value)>,
        body: &[Value],
    ) -> Vec<u8> {
        let mut content = Vec::new();
        body.iter().for_each(|value| value.write(&mut content));
        let mut fields = fields;
        if !body.is_empty() {
            let signature = body.iter().map(Value::signature).collect();
            fields.push((8, Value::Signature(signature)));
        }
        let fields = fields
            .into_iter()
            .map(|(code, value)| {
                Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
            })
            .collect();
        let mut message = vec![b'l', kind, 0, 1];
        Value::Uint32(u32::try_from(content.len()).expect("is short")).write(&mut message);
        Value::Uint32(1).write(&mut message);
        Value::Array("(yv)".into(), fields).write(&mut message);
        align(&mut message, 8);
        message.extend(content);
        message
    }

    #[test]
    fn a_call_is_read_back() {
        let target = Target {
            destination: "org.example",
            path: "/org/example",
            interface: "org.example.Manager",
            member: "StartUnit",
        };
        let bytes = call(
            7,
            &target,
            &[Value::Text("a.scope".into()), Value::Uint32(3)],
        );
        assert_eq!(rest_of(&bytes[..FIXED]), Some(bytes.len() - FIXED));
        let message = Message::parse(&bytes).expect("is a message");
        assert_eq!(message.kind, Kind::Call);
        assert_eq!(
            (message.member.as_str(), message.signature.as_str()),
            ("StartUnit", "su")
        );
        assert_eq!(message.texts(), Some(vec!["a.scope".to_owned()]));
        let bytes = call(8, &target, &[]);
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(
            Message::parse(&bytes).expect("is a message").texts(),
            Some(vec![])
        );
    }

    #[test]
    fn replies_errors_and_signals() {
        let bytes = incoming(
            3,
            vec![
                (5, Value::Uint32(9)),
                (4, Value::Text("org.example.No".into())),
            ],
            &[Value::Text("why".into())],
        );
        let message = Message::parse(&bytes).expect("is a message");
        assert_eq!((message.kind, message.answers), (Kind::Error, Some(9)));
        assert_eq!(message.error, "org.example.No");
        assert_eq!(message.texts(), Some(vec!["why".to_owned()]));

        let bytes = incoming(
            4,
            vec![(3, Value::Text("JobRemoved".into()))],
            &[
                Value::Uint32(4),
                Value::Path("/job/4".into()),
                Value::Text("a.scope".into()),
                Value::Text("done".into()),
            ],
        );
        let message = Message::parse(&bytes).expect("is a message");
        let texts = ["/job/4", "a.scope", "done"].map(str::to_owned).to_vec();
        assert_eq!((message.kind, message.texts()), (Kind::Signal, Some(texts)));
    }

    #[test]
    fn what_is_cut_short_or_no_message_is_none() {
        let whole = incoming(2, vec![(5, Value::Uint32(9))], &[Value::Path("/x".into())]);
        for end in 0..whole.len() {
            if let Some(message) = Message::parse(&whole[..end]) {
                assert_eq!(message.texts(), None, "{end}");
            }
        }
        assert_eq!(rest_of(&[0; FIXED]), None);
        let mut huge = whole[..FIXED].to_vec();
        huge[4..8].fill(0xff);
        assert_eq!(rest_of(&huge), None);
    }
}

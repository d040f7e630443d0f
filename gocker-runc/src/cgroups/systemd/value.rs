//! Values as D-Bus carries them, and how they are written in a message.
//!
//! Spec: <https://dbus.freedesktop.org/doc/dbus-specification.html#type-system>

/// A value that knows its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    Int16(i16),
    /// `q`
    Uint16(u16),
    /// `i`
    Int32(i32),
    /// `u`
    Uint32(u32),
    /// `x`
    Int64(i64),
    /// `t`
    Uint64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `v`
    Variant(Box<Value>),
    /// `a` and the type of the items.
    Array(String, Vec<Value>),
    /// `(...)`
    Struct(Vec<Value>),
    /// `{..}`: what an array has for items when it is a dictionary.
    Entry(Box<(Value, Value)>),
}

impl Value {
    /// An array of bytes.
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().copied().map(Self::Byte).collect())
    }

    /// Its type.
    pub(super) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::Int16(_) => "n".into(),
            Self::Uint16(_) => "q".into(),
            Self::Int32(_) => "i".into(),
            Self::Uint32(_) => "u".into(),
            Self::Int64(_) => "x".into(),
            Self::Uint64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Variant(_) => "v".into(),
            Self::Array(items, _) => format!("a{items}"),
            Self::Struct(fields) => {
                let fields: String = fields.iter().map(Self::signature).collect();
                format!("({fields})")
            }
            Self::Entry(entry) => format!("{{{}{}}}", entry.0.signature(), entry.1.signature()),
        }
    }

    /// Appends it to `out`, little-endian, aligned as from the start of `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Byte(number) => out.push(*number),
            Self::Bool(is) => put(out, &u32::from(*is).to_le_bytes()),
            Self::Int16(number) => put(out, &number.to_le_bytes()),
            Self::Uint16(number) => put(out, &number.to_le_bytes()),
            Self::Int32(number) => put(out, &number.to_le_bytes()),
            Self::Uint32(number) => put(out, &number.to_le_bytes()),
            Self::Int64(number) => put(out, &number.to_le_bytes()),
            Self::Uint64(number) => put(out, &number.to_le_bytes()),
            Self::Double(number) => put(out, &number.to_le_bytes()),
            Self::Text(text) | Self::Path(text) => {
                put(out, &length(text.len()).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Signature(signature) => write_signature(signature, out),
            Self::Variant(value) => {
                write_signature(&value.signature(), out);
                value.write(out);
            }
            Self::Array(items, values) => {
                align(out, 4);
                let length_at = out.len();
                out.extend_from_slice(&[0; 4]);
                align(out, alignment(items));
                let first = out.len();
                values.iter().for_each(|value| value.write(out));
                let size = length(out.len() - first).to_le_bytes();
                out[length_at..length_at + 4].copy_from_slice(&size);
            }
            Self::Struct(fields) => {
                align(out, 8);
                fields.iter().for_each(|field| field.write(out));
            }
            Self::Entry(entry) => {
                align(out, 8);
                entry.0.write(out);
                entry.1.write(out);
            }
        }
    }
}

/// Zeros up to a multiple of `alignment`.
pub(super) fn align(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

/// How values of the type that begins `signature` are aligned.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// A number is aligned to its own size.
fn put(out: &mut Vec<u8>, number: &[u8]) {
    align(out, number.len());
    out.extend_from_slice(number);
}

fn write_signature(signature: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(signature.as_bytes());
    out.push(0);
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_values() {
        let text = |text: &str| Value::Text(text.into());
        let table: [(Value, &str, &[u8]); 7] = [
            (Value::Byte(7), "y", &[7]),
            (Value::Bool(true), "b", &[1, 0, 0, 0]),
            (text("ab"), "s", &[2, 0, 0, 0, b'a', b'b', 0]),
            (
                Value::Variant(Box::new(Value::Uint32(5))),
                "v",
                &[1, b'u', 0, 0, 5, 0, 0, 0],
            ),
            (Value::bytes(&[1, 2]), "ay", &[2, 0, 0, 0, 1, 2]),
            // An empty array of structs is padded all the same.
            (
                Value::Array("(ss)".into(), Vec::new()),
                "a(ss)",
                &[0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (
                Value::Array(
                    "{yt}".into(),
                    vec![Value::Entry(Box::new((Value::Byte(1), Value::Uint64(2))))],
                ),
                "a{yt}",
                &[
                    16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
                ],
            ),
        ];
        for (value, signature, bytes) in table {
            assert_eq!(value.signature(), signature);
            let mut out = Vec::new();
            value.write(&mut out);
            assert_eq!(out, bytes, "{value:?}");
        }
        let mut out = vec![9];
        Value::Struct(vec![Value::Uint16(3), Value::Int64(-1)]).write(&mut out);
        assert_eq!(out.len(), 24);
    }
}

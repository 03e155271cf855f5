//! Tagged fields: how heads, parts and index values are written. One byte of tag, a varint length, the bytes.
//!
//! An absent field is simply not there, an unknown tag is skipped, so version 1 can grow without a version 2.
//! Reading is total: any bytes give fields or `None`.

/// Writes fields in any order.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// Fields by tag; of a repeated tag all values, in order.
#[derive(Debug)]
pub struct Fields<'a> {
    fields: Vec<(u8, &'a [u8])>,
}

impl Writer {
    /// With room for an ordinary head.
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(512) }
    }
    /// Writes one field.
    pub fn put(&mut self, tag: u8, value: &[u8]) -> &mut Self {
        self.bytes.push(tag);
        varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }
    /// Writes a field if there is a value.
    pub fn put_some(&mut self, tag: u8, value: Option<&[u8]>) -> &mut Self {
        if let Some(value) = value {
            self.put(tag, value);
        }
        self
    }
    /// Writes text if there is some.
    pub fn put_text(&mut self, tag: u8, value: Option<&str>) -> &mut Self {
        self.put_some(tag, value.map(str::as_bytes))
    }
    /// Writes a number in as few bytes as it needs; zero is left out, as [`Fields::number`] reads it back.
    pub fn put_number(&mut self, tag: u8, value: u64) -> &mut Self {
        if value != 0 {
            let used = 8 - value.leading_zeros() as usize / 8;
            self.put(tag, value.to_le_bytes().get(..used).unwrap_or_default());
        }
        self
    }
    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

impl<'a> Fields<'a> {
    /// `None` unless `bytes` are whole fields.
    pub fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Vec::with_capacity(24);
        while let Some((tag, rest)) = bytes.split_first() {
            let (length, rest) = read_varint(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            fields.push((*tag, value));
            bytes = rest;
        }
        Some(Self { fields })
    }
    /// The first value of a tag.
    pub fn get(&self, tag: u8) -> Option<&'a [u8]> {
        self.fields.iter().find(|(t, _)| *t == tag).map(|(_, value)| *value)
    }
    /// All values of a tag.
    pub fn all(&self, tag: u8) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(t, _)| *t == tag).map(|(_, value)| *value)
    }
    /// Text of a tag; `None` also when it is not UTF-8.
    pub fn text(&self, tag: u8) -> Option<&'a str> {
        self.get(tag).and_then(|value| std::str::from_utf8(value).ok())
    }
    /// A number; an absent one is zero.
    pub fn number(&self, tag: u8) -> u64 {
        self.get(tag).map_or(0, little_endian)
    }
    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&self, tag: u8) -> Option<[u8; N]> {
        self.get(tag).and_then(|value| value.try_into().ok())
    }
    /// The single byte of a word.
    pub fn code(&self, tag: u8) -> Option<u8> {
        self.array::<1>(tag).map(|[code]| code)
    }
}

/// A number from up to eight little-endian bytes.
pub fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Appends a varint: seven bits a byte, the high bit says that more follow.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a varint of at most ten bytes.
pub fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn absent_empty_and_unknown_fields_are_three_things() {
        let mut writer = Writer::new();
        writer.put(1, b"").put_text(2, None).put(200, b"later").put_number(3, 0).put_number(4, 70_000);
        let bytes = writer.finish();
        let fields = Fields::parse(&bytes).expect("whole");
        assert_eq!((fields.get(1), fields.get(2)), (Some(b"".as_slice()), None));
        assert_eq!((fields.number(3), fields.number(4)), (0, 70_000));
        assert!(Fields::parse(&bytes[..bytes.len() - 1]).is_none(), "a cut field is not read");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Fields::parse(&bytes);
        }
        #[test]
        fn numbers_survive(value: u64) {
            let mut writer = Writer::new();
            writer.put_number(1, value);
            prop_assert_eq!(Fields::parse(&writer.finish()).map(|f| f.number(1)), Some(value));
            let mut out = Vec::new();
            varint(&mut out, value);
            prop_assert_eq!(read_varint(&out), Some((value, [].as_slice())));
        }
    }
}

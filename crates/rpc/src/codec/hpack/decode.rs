//! Reads header blocks (RFC 7541, 3 to 6). Every block is read to its end, also one that is not wanted: what it
//! does to the table counts for those that follow.

use bytes::Bytes;
use http::HeaderValue;

use super::huffman;
use super::table::{Field, Name, OVERHEAD, Table};

/// Size of the table that clients may fill: the default, and we say nothing else.
const TABLE: usize = 4096;

/// A block that cannot be read; nothing after it can.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// The fields of a block, up to a size as HTTP/2 counts it.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) list: Vec<Field>,
    size: usize,
    max: usize,
}

impl Fields {
    pub(crate) fn new(max: usize) -> Fields {
        Fields { list: Vec::new(), size: 0, max }
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.size = 0;
    }

    /// There were more than may be; those beyond were not kept.
    pub(crate) fn too_large(&self) -> bool {
        self.size > self.max
    }

    fn push(&mut self, field: Field, len: usize) {
        self.size = self.size.saturating_add(len + OVERHEAD);
        if self.size <= self.max {
            self.list.push(field);
        }
    }
}

/// The reading end of one connection's headers.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    text: Vec<u8>,
}

/// A name that was read, and its length.
struct Named(Name, usize);

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { table: Table::new(TABLE), text: Vec::new() }
    }

    /// Moves when the table changes: until then, the same bytes say the same.
    pub(crate) fn generation(&self) -> u64 {
        self.table.generation()
    }

    /// Reads a whole block, adding to `fields`.
    pub(crate) fn decode(&mut self, block: &[u8], fields: &mut Fields) -> Result<(), Broken> {
        let mut rest = block;
        let mut begun = false;
        while let Some(&first) = rest.first() {
            // The table's size may be changed before the first field alone.
            if first & 0xe0 == 0x20 && begun {
                return Err(Broken);
            }
            begun |= first & 0xe0 != 0x20;
            self.step(first, &mut rest, fields)?;
        }
        Ok(())
    }

    fn step(&mut self, first: u8, rest: &mut &[u8], fields: &mut Fields) -> Result<(), Broken> {
        if first & 0x80 != 0 {
            let index = integer(rest, 7)?;
            let (field, name_len) = self.table.get(index).ok_or(Broken)?;
            let len = name_len + field.value.len();
            fields.push(field, len);
            return Ok(());
        }
        if first & 0xe0 == 0x20 {
            let size = integer(rest, 5)?;
            if size > TABLE {
                return Err(Broken);
            }
            self.table.resize(size);
            return Ok(());
        }
        let keep = first & 0x40 != 0;
        let Named(name, name_len) = self.name(rest, if keep { 6 } else { 4 })?;
        let (value, value_len) = self.value(rest)?;
        let field = match value {
            Some(value) => Field { name, value },
            None => Field { name: Name::Bad, value: HeaderValue::from_static("") },
        };
        if keep {
            self.table.insert(field.clone(), name_len, value_len);
        }
        fields.push(field, name_len + value_len);
        Ok(())
    }

    fn name(&mut self, rest: &mut &[u8], prefix: u32) -> Result<Named, Broken> {
        let index = integer(rest, prefix)?;
        if index > 0 {
            let (field, len) = self.table.get(index).ok_or(Broken)?;
            return Ok(Named(field.name, len));
        }
        let (packed, bytes) = string(rest)?;
        if !packed {
            return Ok(Named(Name::parse(bytes), bytes.len()));
        }
        self.text.clear();
        huffman::decode(bytes, &mut self.text).map_err(|()| Broken)?;
        Ok(Named(Name::parse(&self.text), self.text.len()))
    }

    /// A value and its length; none where no field may have such a value.
    fn value(&mut self, rest: &mut &[u8]) -> Result<(Option<HeaderValue>, usize), Broken> {
        let (packed, bytes) = string(rest)?;
        let bytes = if packed {
            self.text.clear();
            huffman::decode(bytes, &mut self.text).map_err(|()| Broken)?;
            &self.text[..]
        } else {
            bytes
        };
        let len = bytes.len();
        Ok((HeaderValue::from_maybe_shared(Bytes::copy_from_slice(bytes)).ok(), len))
    }
}

/// A number whose first bits share a byte with something else (5.1). None that makes sense has more than 28 bits.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Broken> {
    let (&first, mut bytes) = rest.split_first().ok_or(Broken)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (&byte, more) = bytes.split_first().ok_or(Broken)?;
            bytes = more;
            if shift > 21 {
                return Err(Broken);
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = bytes;
    Ok(value)
}

/// A string as it stands there, and whether it is packed (5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Result<(bool, &'a [u8]), Broken> {
    let packed = rest.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer(rest, 7)?;
    let (text, more) = rest.split_at_checked(len).ok_or(Broken)?;
    *rest = more;
    Ok((packed, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |b: u8| (b as char).to_digit(16).expect("hex") as u8;
        hex.chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect()
    }

    fn texts(fields: &Fields) -> Vec<(String, String)> {
        let name = |name: &Name| match name {
            Name::Field(name) => name.to_string(),
            other => format!(":{}", format!("{other:?}").to_lowercase()),
        };
        let text = |value: &HeaderValue| value.to_str().expect("text").to_string();
        fields.list.iter().map(|f| (name(&f.name), text(&f.value))).collect()
    }

    fn check(decoder: &mut Decoder, hex: &str, want: &[(&str, &str)], size: usize) {
        let mut fields = Fields::new(1 << 20);
        assert_eq!(decoder.decode(&bytes(hex), &mut fields), Ok(()));
        let want: Vec<_> = want.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        assert_eq!(texts(&fields), want);
        assert_eq!(decoder.table.size(), size);
    }

    #[test]
    fn single_fields_c2() {
        let literal = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
        check(&mut Decoder::new(), literal, &[("custom-key", "custom-header")], 55);
        let not_kept = "040c 2f73 616d 706c 652f 7061 7468";
        check(&mut Decoder::new(), not_kept, &[(":path", "/sample/path")], 0);
        let never = "1008 7061 7373 776f 7264 0673 6563 7265 74";
        check(&mut Decoder::new(), never, &[("password", "secret")], 0);
        check(&mut Decoder::new(), "82", &[(":method", "GET")], 0);
    }

    fn three_requests(blocks: [&str; 3]) {
        let mut decoder = Decoder::new();
        let first = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ];
        check(&mut decoder, blocks[0], &first, 57);
        let second = [&first[..], &[("cache-control", "no-cache")]].concat();
        check(&mut decoder, blocks[1], &second, 110);
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        check(&mut decoder, blocks[2], &third, 164);
    }

    #[test]
    fn requests_c3_and_c4() {
        three_requests([
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ]);
        three_requests([
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ]);
    }

    /// The answers of C.5 and C.6, whose table of 256 bytes makes entries go. A status is nothing that
    /// a request may have, and shows as bad.
    #[test]
    fn eviction_c5_and_c6() {
        let date = "Mon, 21 Oct 2013 20:13:21 GMT";
        let site = "https://www.example.com";
        for blocks in [
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
                 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
            ],
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
                 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
            ],
        ] {
            let mut decoder = Decoder::new();
            decoder.table.resize(256);
            let fields =
                [(":bad", "302"), ("cache-control", "private"), ("date", date), ("location", site)];
            check(&mut decoder, blocks[0], &fields, 222);
            let fields = [&[(":bad", "307")], &fields[1..]].concat();
            check(&mut decoder, blocks[1], &fields, 222);
        }
    }

    #[test]
    fn numbers_c1() {
        assert_eq!(integer(&mut &[0x0a][..], 5), Ok(10));
        assert_eq!(integer(&mut &[0x1f, 0x9a, 0x0a][..], 5), Ok(1337));
        assert_eq!(integer(&mut &[42][..], 8), Ok(42));
        assert_eq!(integer(&mut &[0xff, 0x80, 0x80, 0x80, 0x80, 0][..], 7), Err(Broken));
        assert_eq!(integer(&mut &[0xff, 0x80][..], 7), Err(Broken));
    }

    #[test]
    fn broken_blocks() {
        for hex in [
            "80",                // number 0
            "be",                // a number that nobody has
            "7f",                // the same, cut short
            "3fe2 1f",           // a table of more than 4096
            "82 20",             // a size behind a field
            "4005 6162",         // a string longer than the block
            "0081 ff81 ff",      // a name of nothing but padding
            "0001 6183 ffff ff", // the end of all strings in one
        ] {
            let mut fields = Fields::new(1 << 20);
            assert_eq!(
                Decoder::new().decode(&bytes(hex), &mut fields).err(),
                Some(Broken),
                "{hex}"
            );
        }
    }

    #[test]
    fn bad_names_and_values_are_marked() {
        for hex in ["0001 4101 78", "0001 6101 0a", "0007 3a73 7461 7475 7301 78", "88", "0000"] {
            let mut fields = Fields::new(1 << 20);
            let mut block = bytes(hex);
            if hex == "0000" {
                block.push(0);
            }
            assert_eq!(Decoder::new().decode(&block, &mut fields), Ok(()), "{hex}");
            assert_eq!(fields.list[0].name, Name::Bad, "{hex}");
        }
    }

    #[test]
    fn what_is_too_much_is_read_and_not_kept() {
        let mut decoder = Decoder::new();
        let mut fields = Fields::new(100);
        // 55 each, and the second is put into the table all the same.
        let literal = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
        assert_eq!(decoder.decode(&[&literal[..], &literal].concat(), &mut fields), Ok(()));
        assert!(fields.too_large());
        assert_eq!((fields.list.len(), decoder.table.size()), (1, 110));
        fields.clear();
        assert_eq!(decoder.decode(&[0xbf], &mut fields), Ok(()));
        assert_eq!(texts(&fields), [("custom-key".to_string(), "custom-header".to_string())]);
    }
}

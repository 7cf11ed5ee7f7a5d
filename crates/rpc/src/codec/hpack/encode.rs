//! Writes header blocks. What every good answer says is put into the client's table at the first of them, and is
//! an index from then on; all else is written out as it is.

/// What our two entries take of the client's table (RFC 7541, 4.1); with less room we use none of it.
const ENTRIES: u32 = 60 + 44;
/// The size of the table as long as the client says nothing.
const TABLE: u32 = 4096;
/// The number of the newest entry of the client's table.
const NEWEST: u8 = 62;

const CONTENT_TYPE: (&str, &str) = ("content-type", "application/grpc");
const GOOD: (&str, &str) = ("grpc-status", "0");

/// The writing end of one connection's headers.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// The table has room for what we put there.
    keeps: bool,
    /// The client has made its table smaller, which the next block has to confirm.
    confirm: Option<u32>,
    size: u32,
    entries: u8,
    /// Which entry was put in as which, counted from 1; 0 is not yet.
    content_type: u8,
    good: u8,
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder { keeps: true, confirm: None, size: TABLE, entries: 0, content_type: 0, good: 0 }
    }

    /// The client's table may be of this size from now on.
    pub(crate) fn resize(&mut self, size: u32) {
        // We never use more than the smallest that there was.
        if size >= self.size {
            return;
        }
        self.size = size;
        if size < ENTRIES {
            self.keeps = false;
            self.entries = 0;
            self.size = 0;
        }
        self.confirm = Some(self.size);
    }

    /// To be said in front of each block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(size) = self.confirm.take() {
            integer(out, 0x20, 5, size as usize);
        }
    }

    /// `:status`.
    pub(crate) fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let index = match status {
            200 => 0x88,
            204 => 0x89,
            206 => 0x8a,
            304 => 0x8b,
            400 => 0x8c,
            404 => 0x8d,
            500 => 0x8e,
            _ => {
                out.push(0x08);
                return string(out, status.to_string().as_bytes());
            }
        };
        out.push(index);
    }

    /// The content type of gRPC.
    pub(crate) fn content_type(&mut self, out: &mut Vec<u8>) {
        if let Some(entry) = self.constant(self.content_type, CONTENT_TYPE, out) {
            self.content_type = entry;
        }
    }

    /// The status of a call that ended well.
    pub(crate) fn good(&mut self, out: &mut Vec<u8>) {
        if let Some(entry) = self.constant(self.good, GOOD, out) {
            self.good = entry;
        }
    }

    /// Writes what is in the table as `entry`, or puts it there and says as which.
    fn constant(&mut self, entry: u8, text: (&str, &str), out: &mut Vec<u8>) -> Option<u8> {
        if !self.keeps {
            self.field(text.0.as_bytes(), text.1.as_bytes(), out);
            return None;
        }
        if entry > 0 {
            out.push(0x80 | (NEWEST + self.entries - entry));
            return None;
        }
        out.push(0x40);
        string(out, text.0.as_bytes());
        string(out, text.1.as_bytes());
        self.entries += 1;
        Some(self.entries)
    }

    /// Any field, its name in lower case.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.push(0x00);
        string(out, name);
        string(out, value);
    }
}

fn integer(out: &mut Vec<u8>, flags: u8, prefix: u32, mut value: usize) {
    let mask = (1 << prefix) - 1;
    if value < mask {
        return out.push(flags | value as u8);
    }
    out.push(flags | mask as u8);
    value -= mask;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::super::decode::{Decoder, Fields};
    use super::*;

    fn head(encoder: &mut Encoder) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.status(200, &mut out);
        encoder.content_type(&mut out);
        out
    }

    fn end(encoder: &mut Encoder) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.good(&mut out);
        out
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Vec<String> {
        let mut fields = Fields::new(1 << 20);
        decoder.decode(block, &mut fields).expect("a good block");
        fields.list.iter().map(|f| f.value.to_str().expect("text").to_string()).collect()
    }

    #[test]
    fn an_answer_is_three_bytes_from_the_second_on() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for _ in 0..2 {
            assert_eq!(read(&mut decoder, &head(&mut encoder)), ["200", "application/grpc"]);
            assert_eq!(read(&mut decoder, &end(&mut encoder)), ["0"]);
        }
        assert_eq!(head(&mut encoder), [0x88, 0xbf]);
        assert_eq!(end(&mut encoder), [0xbe]);
    }

    #[test]
    fn the_other_way_round() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for _ in 0..2 {
            assert_eq!(read(&mut decoder, &end(&mut encoder)), ["0"]);
            assert_eq!(read(&mut decoder, &head(&mut encoder)), ["200", "application/grpc"]);
        }
        assert_eq!(head(&mut encoder), [0x88, 0xbe]);
    }

    #[test]
    fn smaller_tables_are_confirmed_and_too_small_ones_left_alone() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        read(&mut decoder, &head(&mut encoder));
        encoder.resize(200);
        let block = head(&mut encoder);
        assert_eq!(block[..3], [0x3f, 0xa9, 0x01]);
        assert_eq!(read(&mut decoder, &block), ["200", "application/grpc"]);
        encoder.resize(100);
        encoder.resize(4096);
        for first in [true, false] {
            let block = head(&mut encoder);
            assert_eq!(block[0] == 0x20, first);
            assert_eq!(read(&mut decoder, &block), ["200", "application/grpc"]);
            assert_eq!(read(&mut decoder, &end(&mut encoder)), ["0"]);
        }
    }

    #[test]
    fn long_strings_and_rare_statuses() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let long = "x".repeat(20_000);
        let mut out = Vec::new();
        encoder.status(431, &mut out);
        encoder.field(b"x", long.as_bytes(), &mut out);
        let mut fields = Fields::new(1 << 20);
        assert_eq!(decoder.decode(&out, &mut fields), Ok(()));
        assert_eq!(fields.list[0].value, "431");
        assert_eq!(fields.list[1].value, long);
    }
}

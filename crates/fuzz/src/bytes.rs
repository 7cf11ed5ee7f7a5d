//! An input read as a sequence of small choices and pieces, where a target is not a parser of plain bytes. Not
//! here: what is chosen.

/// What is left of an input.
pub struct Bits<'a>(pub &'a [u8]);

impl<'a> Bits<'a> {
    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// A piece, of the length that its first two bytes say; the rest where that is more.
    pub fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes a piece as [`Bits::piece`] reads it: for seeds.
    pub fn put(out: &mut Vec<u8>, piece: &[u8]) {
        let len = piece.len().min(usize::from(u16::MAX));
        out.extend((len as u16).to_le_bytes());
        out.extend(&piece[..len]);
    }
}

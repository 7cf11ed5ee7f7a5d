//! Inputs by chance, from others: bits, bytes, numbers, pieces. The same seed makes the same inputs. Not here:
//! what is done with them.

/// Numbers by chance (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n.max(1) as u64) as usize
    }
}

/// Numbers at which parsers go wrong.
const EDGES: &[u64] = &[
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    256,
    511,
    512,
    4095,
    4096,
    65535,
    65536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 56,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// The longest input that is made.
const LONGEST: usize = 64 << 10;

/// One input out of those there are.
pub fn input(chance: &mut Chance, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus.get(chance.below(corpus.len())).cloned().unwrap_or_default();
    let steps = 1 + chance.below(6);
    for _ in 0..steps {
        step(chance, corpus, &mut input);
    }
    input.truncate(LONGEST);
    input
}

fn step(chance: &mut Chance, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = chance.below(input.len());
    let to = at + chance.below((input.len() - at).min(64) + 1);
    match chance.below(11) {
        0 if !input.is_empty() => input[at] ^= 1 << chance.below(8),
        1 if !input.is_empty() => input[at] = chance.draw() as u8,
        2 => input.insert(at, chance.draw() as u8),
        3 => drop(input.drain(at..to)),
        4 => {
            let piece = input[at..to].to_vec();
            let place = chance.below(input.len() + 1);
            input.splice(place..place, piece);
        }
        5 => input.truncate(at),
        6 => number(chance, input, at),
        7 => varint(chance, input, at),
        8 => {
            let other = &corpus[chance.below(corpus.len())..];
            let other = other.first().map_or(&[][..], Vec::as_slice);
            let from = chance.below(other.len());
            input.truncate(at);
            input.extend(&other[from..]);
        }
        9 => {
            let len = 1 + chance.below(64);
            let byte = if chance.below(2) == 0 { 0 } else { chance.draw() as u8 };
            input.splice(at..at, vec![byte; len]);
        }
        _ => input[at..to].fill(0),
    }
}

/// A number of fixed width, in either order.
fn number(chance: &mut Chance, input: &mut [u8], at: usize) {
    let edge =
        EDGES[chance.below(EDGES.len())].wrapping_add(chance.below(3) as u64).wrapping_sub(1);
    let width = [1, 2, 4, 8][chance.below(4)];
    let little = edge.to_le_bytes();
    let mut bytes = little[..width].to_vec();
    if chance.below(2) == 0 {
        bytes.reverse();
    }
    for (place, byte) in input[at..].iter_mut().zip(bytes) {
        *place = byte;
    }
}

/// A number as protobuf writes it, in the place of one byte.
fn varint(chance: &mut Chance, input: &mut Vec<u8>, at: usize) {
    let mut edge = EDGES[chance.below(EDGES.len())];
    let mut bytes = Vec::new();
    while edge >= 0x80 {
        bytes.push(edge as u8 | 0x80);
        edge >>= 7;
    }
    bytes.push(edge as u8);
    let end = (at + 1).min(input.len());
    input.splice(at..end, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let corpus = [b"some input".to_vec(), vec![7; 100], Vec::new()];
        let run = |seed| {
            let mut chance = Chance(seed);
            (0..500).map(|_| input(&mut chance, &corpus)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(3).iter().collect::<std::collections::BTreeSet<_>>().len() > 300);
    }
}

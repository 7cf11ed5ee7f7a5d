//! HPACK's Huffman code (RFC 7541, 5.2 and Appendix B), read four bits at a time. The code is canonical, so that
//! the lengths say all of it, and the automaton is built from them when this is compiled. Not here: writing it;
//! what we send is short, and mostly an index.

/// The symbol that ends a string and never stands in one.
const END: usize = 256;

/// Length of each symbol's code in bits.
const LENGTHS: [u8; END + 1] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// What four bits do in a state: where they lead, and what they complete. No code is shorter than five bits, so
/// it is one symbol at the most.
#[derive(Clone, Copy)]
struct Step {
    next: u8,
    symbol: u8,
    emits: bool,
    dead: bool,
}

/// A tree of 257 leaves has 256 nodes within: they are the states.
struct Automaton {
    steps: [[Step; 16]; END],
    /// Whether a string may end here: all that follows the last symbol are up to seven bits of ones.
    may_end: [bool; END],
}

static AUTOMATON: Automaton = build();

/// A child is a node (0 is none, for it is the root and nobody's child) or a leaf.
const LEAF: u16 = 0x8000;

const fn tree() -> [[u16; 2]; END] {
    let mut nodes = [[0u16; 2]; END];
    let mut used = 1;
    let mut code = 0u32;
    let mut bits = 1;
    while bits <= 30 {
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] == bits {
                let mut at = 0;
                let mut bit = bits;
                while bit > 1 {
                    bit -= 1;
                    let side = (code >> bit & 1) as usize;
                    if nodes[at][side] == 0 {
                        nodes[at][side] = used;
                        used += 1;
                    }
                    at = nodes[at][side] as usize;
                }
                nodes[at][(code & 1) as usize] = LEAF | symbol as u16;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        bits += 1;
    }
    nodes
}

const fn build() -> Automaton {
    let nodes = tree();
    let mut steps = [[Step { next: 0, symbol: 0, emits: false, dead: false }; 16]; END];
    let mut state = 0;
    while state < END {
        let mut nibble = 0;
        while nibble < 16 {
            let step = &mut steps[state][nibble];
            let mut at = state;
            let mut bit = 4;
            while bit > 0 {
                bit -= 1;
                let child = nodes[at][nibble >> bit & 1];
                if child & LEAF == 0 {
                    at = child as usize;
                } else if child as usize == LEAF as usize | END {
                    step.dead = true;
                } else {
                    step.emits = true;
                    step.symbol = (child & 0xff) as u8;
                    at = 0;
                }
            }
            step.next = at as u8;
            nibble += 1;
        }
        state += 1;
    }
    let mut may_end = [false; END];
    let (mut at, mut ones) = (0usize, 0);
    while ones < 8 {
        may_end[at] = true;
        at = nodes[at][1] as usize;
        ones += 1;
    }
    Automaton { steps, may_end }
}

/// Adds what these bytes say. Padding that is not the shortest, or not of ones, is an error.
pub(crate) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ()> {
    out.reserve(bytes.len() * 8 / 5 + 1);
    let mut state = 0u8;
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            let step = AUTOMATON.steps[usize::from(state)][usize::from(nibble)];
            if step.dead {
                return Err(());
            }
            if step.emits {
                out.push(step.symbol);
            }
            state = step.next;
        }
    }
    if AUTOMATON.may_end[usize::from(state)] { Ok(()) } else { Err(()) }
}

#[cfg(test)]
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    let mut codes = [0u32; END + 1];
    let mut code = 0;
    for bits in 1..=30 {
        for (symbol, length) in LENGTHS.iter().enumerate() {
            if *length == bits {
                codes[symbol] = code;
                code += 1;
            }
        }
        code <<= 1;
    }
    let (mut out, mut held, mut have) = (Vec::new(), 0u64, 0);
    for byte in text {
        let length = LENGTHS[usize::from(*byte)];
        held = held << length | u64::from(codes[usize::from(*byte)]);
        have += length;
        while have >= 8 {
            have -= 8;
            out.push((held >> have) as u8);
        }
    }
    if have > 0 {
        out.push((held << (8 - have)) as u8 | 0xff >> have);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, ()> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&www), Ok(b"www.example.com".to_vec()));
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]), Ok(b"no-cache".to_vec()));
        assert_eq!(decoded(&[0x64, 0x02]), Ok(b"302".to_vec()));
    }

    #[test]
    fn every_byte_comes_back_at_every_place() {
        for shift in 0..8 {
            let text: Vec<u8> = std::iter::repeat_n(b'0', shift).chain(0..=255).collect();
            assert_eq!(decoded(&encode(&text)), Ok(text));
        }
    }

    #[test]
    fn bad_ends() {
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        // Eight bits of padding, padding of zeros, and the end itself.
        assert_eq!(decoded(&[0x07, 0xff]), Err(()));
        assert_eq!(decoded(&[0x00]), Err(()));
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(()));
    }
}

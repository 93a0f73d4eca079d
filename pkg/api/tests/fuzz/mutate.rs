//! Seeded changes of inputs, for whoever tries what bytes from a stranger do.

/// xorshift64: the same numbers each time.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// A range of at most 64 bytes.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        start..(start + self.below(64)).min(length)
    }
}

/// What parsers trip over.
const TOKENS: [&[u8]; 24] = [
    b"k8s\0",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b":",
    b",",
    b"null",
    b"-",
    b"\n",
    b"\t",
    b"&a ",
    b"*a",
    b"<<: ",
    b"e9",
    b"Ki",
    b"\\",
    b"==",
    b" in (",
    b"\xff",
    b"\xff\xff\xff\xff\x0f",
    b"$patch",
    b"0.",
];

/// Changes an input in a few places; parts of others of the corpus may come in.
pub fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(7) {
            0 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] = random.next() as u8;
            }
            1 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] ^= 1 << random.below(8);
            }
            2 => {
                let range = random.range(input.len());
                input.drain(range);
            }
            3 => {
                let copied = input[random.range(input.len())].to_vec();
                for _ in 0..=random.below(20) {
                    input.splice(at..at, copied.iter().copied());
                }
            }
            4 => {
                let other = &corpus[random.below(corpus.len())];
                let part = other[random.range(other.len())].to_vec();
                input.splice(at..at, part);
            }
            5 => input.truncate(at),
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                for _ in 0..=[0, 0, 0, 150][random.below(4)] {
                    input.splice(at..at, token.iter().copied());
                }
            }
        }
    }
}

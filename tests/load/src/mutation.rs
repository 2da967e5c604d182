//! Well-formed input, broken at random: the same seed breaks the same things in the same way.

/// `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, 0 when there is none.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }
}

/// Nothing longer is sent: twice what the server's largest message should be, and not a flood.
const LONGEST: usize = 32 * 1024;
/// One input is broken in up to so many places.
const WOUNDS: usize = 4;

/// What has broken parsers before.
const TOKENS: [&[u8]; 16] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"true",
    b"-0",
    b"1e999",
    b"99999999999999999999999",
    b"\\u0000",
    b"\\ud800",
    b"\\",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b",\"event\":\"pusher:subscribe\"",
    b",\"data\":{\"channel\":null}",
    b"\"channel\":\"presence-\",",
];

/// Breaks a message. The result may not even be UTF-8.
pub(crate) fn break_message(random: &mut Random, text: &mut Vec<u8>) {
    for _ in 0..=random.below(WOUNDS) {
        let at = random.below(text.len() + 1);
        match random.below(7) {
            0 => flip(random, text),
            1 => {
                let end = at + random.below(text.len() - at + 1);
                text.drain(at..end);
            }
            2 => {
                let end = (at + random.below(64)).min(text.len());
                let piece = text[at..end].repeat(1 + random.below(32));
                text.splice(at..at, piece);
            }
            3 => {
                text.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied());
            }
            4 => text.truncate(at),
            5 => {
                let depth = random.below(2_000);
                let open: &[u8] = if random.below(2) == 0 { b"[" } else { b"{\"a\":" };
                text.splice(at..at, open.repeat(depth));
            }
            _ => {
                let name = vec![b'n'; random.below(4_000)];
                text.splice(at..at, name);
            }
        }
        text.truncate(LONGEST);
    }
}

/// Breaks a masked frame, mostly in its header.
pub(crate) fn break_frame(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..=random.below(WOUNDS) {
        match (random.below(8), frame.as_mut_slice()) {
            // Reserved bits, unknown opcodes, fragments.
            (0, [first, ..]) => *first = random.byte(),
            // A fragment, or a continuation of nothing.
            (1, [first, ..]) => *first &= if random.below(2) == 0 { 0x7F } else { 0xF0 },
            // No mask.
            (2, [_, second, ..]) => *second ^= 0x80,
            // Another length than what follows.
            (3, [_, second, ..]) => *second = (*second & 0x80) | (random.byte() & 0x7F),
            (4, [_, second, ..]) => {
                *second |= 0x7F;
                // From a few bytes up to lengths that no 64-bit number may have here.
                let length = random.number() >> random.below(64);
                frame.splice(2..2, length.to_be_bytes());
            }
            (5, _) => {
                let end = random.below(frame.len() + 1);
                frame.truncate(end);
            }
            (6, _) => {
                let again = frame.repeat(1 + random.below(3));
                frame.extend_from_slice(&again);
            }
            _ => flip(random, frame),
        }
        frame.truncate(LONGEST);
    }
}

fn flip(random: &mut Random, bytes: &mut [u8]) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(seed: u64) -> Vec<Vec<u8>> {
        let mut random = Random::new(seed);
        let mut all = Vec::new();
        for _ in 0..2_000 {
            let mut text = b"{\"event\":\"pusher:ping\",\"data\":{}}".to_vec();
            break_message(&mut random, &mut text);
            let mut frame = vec![0x81, 0x82, 1, 2, 3, 4, 5, 6];
            break_frame(&mut random, &mut frame);
            all.extend([text, frame]);
        }
        all
    }

    #[test]
    fn the_same_seed_breaks_in_the_same_way_and_another_in_another() {
        assert_eq!(broken(1), broken(1));
        assert_ne!(broken(1), broken(2));
    }

    #[test]
    fn what_is_broken_is_varied_and_bounded() {
        let all = broken(7);
        assert!(all.iter().all(|input| input.len() <= LONGEST));
        let mut different = all.clone();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() > all.len() / 2, "{}", different.len());
    }

    #[test]
    fn nothing_can_be_broken_further() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            break_frame(&mut random, &mut Vec::new());
            break_message(&mut random, &mut Vec::new());
        }
    }

    #[test]
    fn the_generator_gives_the_published_sequence() {
        let mut random = Random::new(1_234_567);
        assert_eq!(
            [random.number(), random.number()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }
}

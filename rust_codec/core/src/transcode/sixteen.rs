//! What is done to sixteen bytes at once: by SSE2 where every processor has it, elsewhere two
//! words at a time. The two ways are one API; tests hold them against each other.

use super::pen::ROOM;

#[cfg(target_arch = "x86_64")]
pub(super) use sse2::{Digits, gather, is_special};
#[cfg(not(target_arch = "x86_64"))]
pub(super) use words::{Digits, gather, is_special};

#[cfg(target_arch = "x86_64")]
mod sse2;
#[cfg(any(not(target_arch = "x86_64"), test))]
mod words;

/// Room that digits with a point among them take.
type Window = [u8; ROOM];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::needs_escape;

    /// Both ways, as (ASCII, how many up to the last that is not zero).
    fn digits(high: u64, low: u64) -> [(String, u32); 2] {
        let shown = |put: &dyn Fn(&mut Window)| {
            let mut window = [b'?'; ROOM];
            put(&mut window);
            assert_eq!(window[19], b'?');
            String::from_utf8(window[3..19].to_vec()).unwrap()
        };
        let quick = Digits::of(high, low);
        let plain = words::Digits::of(high, low);
        [
            (shown(&|window| quick.put(window, 3)), quick.kept()),
            (shown(&|window| plain.put(window, 3)), plain.kept()),
        ]
    }

    fn draws(count: u32) -> impl Iterator<Item = u64> {
        let mut state = 1_u64;
        (0..count).map(move |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state
        })
    }

    #[test]
    fn sixteen_digits_are_those_of_the_number() {
        for (round, state) in (0..).zip(draws(200_000)) {
            let number = (state >> 1) % 10_u64.pow(round % 17).max(1);
            let number =
                if round % 3 == 0 { number - number % 10_u64.pow(round % 9) } else { number };
            let (high, low) = (number / 100_000_000, number % 100_000_000);
            let wanted = format!("{number:016}");
            let kept = u32::try_from(wanted.trim_end_matches('0').len()).unwrap();
            for found in digits(high, low) {
                assert_eq!(found, (wanted.clone(), kept));
            }
        }
    }

    #[test]
    fn every_number_below_ten_thousand_has_its_digits_in_every_quarter() {
        for number in 0..10_000 {
            let wanted = format!("{number:04}");
            let both = number * 10_000 + number;
            for (found, _) in digits(both, both) {
                assert_eq!(found, wanted.repeat(4));
            }
        }
    }

    #[test]
    fn a_point_stands_after_as_many_digits_as_are_asked_for() {
        let text = "1234567890123456";
        for before in 1..16_u32 {
            for at in [0, 1] {
                let (whole, part) = text.split_at(before as usize);
                let (mut quick, mut plain) = ([b'?'; ROOM], [b'?'; ROOM]);
                Digits::of(12_345_678, 90_123_456).put_with_point(&mut quick, at, before);
                words::Digits::of(12_345_678, 90_123_456).put_with_point(&mut plain, at, before);
                for window in [quick, plain] {
                    assert_eq!(&window[at..at + 17], format!("{whole}.{part}").as_bytes());
                }
            }
        }
    }

    #[test]
    fn nine_digits_are_followed_by_zeros() {
        for (first, others, kept) in [(1, 23_456_789, 9), (9, 0, 1), (0, 10, 8), (0, 0, 0)] {
            let (quick, plain) = (Digits::nine(first, others), words::Digits::nine(first, others));
            let mut windows = [[b'?'; ROOM]; 2];
            let [one, other] = &mut windows;
            quick.put(one, 0);
            plain.put(other, 0);
            for window in windows {
                assert_eq!(&window[..16], format!("{first}{others:08}0000000").as_bytes());
            }
            assert_eq!([quick.kept(), plain.kept()], [kept; 2]);
        }
    }

    #[test]
    fn every_byte_at_every_place_is_special_when_it_must_be_escaped_or_is_not_ascii() {
        for place in 0..16 {
            for byte in 0..=255 {
                for other in [b'a', 0x7F, b' ', b'#', b']'] {
                    let mut chunk = [other; 16];
                    chunk[place] = byte;
                    let special = needs_escape(byte) || byte >= 0x80;
                    for length in 0..=16 {
                        let wanted = special && place < length;
                        assert_eq!(is_special(chunk, length), wanted);
                        assert_eq!(words::is_special(chunk, length), wanted);
                    }
                }
            }
        }
    }

    #[test]
    fn groups_of_seven_bits_are_gathered_alike() {
        for state in draws(100_000) {
            let groups = state & 0x7F7F_7F7F_7F7F_7F7F & (u64::MAX >> (state >> 58));
            let bytes = groups.to_le_bytes();
            let wanted = bytes.iter().rev().fold(0, |all, group| all << 7 | u64::from(*group));
            assert_eq!(gather(groups), wanted);
            assert_eq!(words::gather(groups), wanted);
        }
    }
}

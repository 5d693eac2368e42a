//! Writing into room that is there already: whole words are stored and then only partly kept, so
//! that no length decides how many stores there are.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use super::take::{Stop, Walk};

/// Bytes of a window: more than any value that is no text takes, what is stored beyond it included.
pub(super) const ROOM: usize = 64;

/// A writing position: the room that is left.
pub(super) struct Pen<'a> {
    room: &'a mut [u8],
}

impl<'a> Pen<'a> {
    #[inline(always)]
    pub(super) const fn new(room: &'a mut [u8]) -> Self {
        Self { room }
    }

    /// A pen of its own for a function that is not inlined, which gives back how much room it left:
    /// the address of this one never leaves the loop, so that it stays in registers.
    #[inline(always)]
    pub(super) const fn fork(&mut self) -> Pen<'_> {
        Pen { room: &mut *self.room }
    }

    /// Goes on where a fork stopped.
    #[inline(always)]
    pub(super) fn join(&mut self, left: usize) {
        self.keep(self.room.len().wrapping_sub(left));
    }

    /// Bytes of room that are left.
    #[inline(always)]
    pub(super) const fn left(&self) -> usize {
        self.room.len()
    }

    /// The next `N` bytes of room.
    #[inline(always)]
    pub(super) fn window<const N: usize>(&mut self) -> Walk<&mut [u8; N]> {
        self.room.first_chunk_mut().ok_or(Stop)
    }

    /// Keeps `count` bytes of the last window.
    #[inline(always)]
    pub(super) fn keep(&mut self, count: usize) {
        self.room = std::mem::take(&mut self.room).get_mut(count..).unwrap_or_default();
    }

    #[inline(always)]
    pub(super) fn byte(&mut self, byte: u8) -> Walk<()> {
        *self.window::<1>()? = [byte];
        self.keep(1);
        Ok(())
    }

    /// Any number of bytes.
    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Walk<()> {
        self.room.get_mut(..bytes.len()).ok_or(Stop)?.copy_from_slice(bytes);
        self.keep(bytes.len());
        Ok(())
    }
}

/// Prints an i64 into a window and gives its length, at most 20.
#[inline(always)]
pub(super) fn print_long(window: &mut [u8; ROOM], value: i64) -> usize {
    print_signed(window, value.is_negative(), value.unsigned_abs())
}

/// The same for its zigzag bits, in which the lowest is the sign.
#[inline(always)]
pub(super) fn print_zigzag(window: &mut [u8; ROOM], bits: u64) -> usize {
    let negative = bits & 1;
    print_signed(window, negative != 0, (bits >> 1).wrapping_add(negative))
}

#[inline(always)]
fn print_signed(window: &mut [u8; ROOM], negative: bool, magnitude: u64) -> usize {
    let negative = usize::from(negative);
    put(window, 0, [b'-']);
    if magnitude < 100_000_000 {
        return print_head(window, negative, magnitude);
    }
    print_large(window, negative, magnitude)
}

#[inline]
fn print_large(window: &mut [u8; ROOM], at: usize, magnitude: u64) -> usize {
    let (high, low) = (magnitude / 100_000_000, magnitude % 100_000_000);
    let at = if high < 100_000_000 {
        print_head(window, at, high)
    } else {
        let at = print_head(window, at, high / 100_000_000);
        put(window, at, eight_digits(high % 100_000_000));
        at.wrapping_add(8)
    };
    put(window, at, eight_digits(low));
    at.wrapping_add(8)
}

/// Prints a number below 10^8 without leading zeros and gives the position after it.
#[inline(always)]
fn print_head(window: &mut [u8; ROOM], at: usize, value: u64) -> usize {
    let digits = eight(value);
    // The lowest bit of the last digit's byte stands in for it when all digits are zero.
    let zeros = (digits | 1).leading_zeros() & 0x38;
    let shown = (digits | ASCII_ZEROS) << zeros;
    put(window, at, shown.to_be_bytes());
    let length = 8_u32.wrapping_sub(zeros >> 3);
    at.wrapping_add(length as usize)
}

fn eight_digits(value: u64) -> [u8; 8] {
    (eight(value) | ASCII_ZEROS).to_be_bytes()
}

/// Eight zeros, to which digits are added.
pub(super) const ASCII_ZEROS: u64 = 0x3030_3030_3030_3030;

/// The eight decimal digits of a number below 10^8, last digit in the lowest byte: halves, then
/// quarters, then digits of all parts at once, dividing by multiplication (as in P. Khuong, "How to
/// print integers really fast"). Adding (2^k - d) times the quotient by d puts the quotient k bits
/// higher and leaves the remainder.
#[inline(always)]
pub(super) const fn eight(value: u64) -> u64 {
    let quotient = value.wrapping_mul(109_951_163) >> 40;
    let halves = value.wrapping_add(quotient.wrapping_mul((1 << 32) - 10_000));
    let quotients = (halves.wrapping_mul(10_486) >> 20) & 0x0000_007F_0000_007F;
    let quarters = halves.wrapping_add(quotients.wrapping_mul((1 << 16) - 100));
    let quotients = (quarters.wrapping_mul(103) >> 10) & 0x000F_000F_000F_000F;
    quarters.wrapping_add(quotients.wrapping_mul((1 << 8) - 10))
}

/// Stores up to 32 bytes at a position of the window below 32. Positions are so by construction; the
/// mask tells it to the compiler, which then leaves the check out.
#[inline(always)]
pub(super) fn put<const N: usize>(window: &mut [u8; ROOM], at: usize, bytes: [u8; N]) {
    if let Some(slot) = window.get_mut(at & 31..).and_then(<[u8]>::first_chunk_mut::<N>) {
        *slot = bytes;
    }
}

/// Stores short text of at most 24 bytes with overlapping words, and gives its length.
#[inline(always)]
pub(super) fn print_short(window: &mut [u8; ROOM], text: &[u8]) -> usize {
    let length = text.len();
    if let (Some(head), Some(tail)) = (text.first_chunk::<16>(), text.last_chunk::<8>()) {
        put(window, 0, *head);
        put(window, length.wrapping_sub(8), *tail);
    } else if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        put(window, 0, *head);
        put(window, length.wrapping_sub(8), *tail);
    } else {
        for (slot, byte) in window.iter_mut().zip(text) {
            *slot = *byte;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: i64) -> String {
        let mut window = [b'?'; ROOM];
        let length = print_long(&mut window, value);
        let zigzag = (value << 1) ^ (value >> 63);
        let mut other = [b'?'; ROOM];
        assert_eq!(print_zigzag(&mut other, zigzag.cast_unsigned()), length);
        assert_eq!(window[..length], other[..length]);
        String::from_utf8(window[..length].to_vec()).unwrap()
    }

    #[test]
    fn integers_print_as_the_standard_library_prints_them() {
        let mut values = vec![0, i64::MIN, i64::MAX];
        let mut power: i64 = 1;
        while let Some(next) = power.checked_mul(10) {
            for value in [power - 1, power, power + 1, next / 2, next / 3] {
                values.extend([value, -value]);
            }
            power = next;
        }
        values.extend((0..63).flat_map(|bit| [(1_i64 << bit) - 1, 1 << bit, -(1_i64 << bit)]));
        for value in values {
            assert_eq!(shown(value), value.to_string());
        }
    }

    #[test]
    fn every_number_below_ten_thousand_and_a_stride_beyond_print_right() {
        for value in (0..10_000).chain((10_000..100_000_000).step_by(9973)) {
            assert_eq!(shown(value), value.to_string());
        }
    }

    #[test]
    fn short_texts_are_stored_whole() {
        let text = b"abcdefghijklmnopqrstuvwx";
        for length in 0..=text.len() {
            let mut window = [0; ROOM];
            assert_eq!(print_short(&mut window, &text[..length]), length);
            assert_eq!(&window[..length], &text[..length]);
        }
    }
}

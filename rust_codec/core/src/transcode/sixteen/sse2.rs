//! Sixteen bytes in one register of SSE2, which every x86-64 processor has.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use safe_arch::{
    add_i64_m128i as add_u64, bitand_m128i as and, bitor_m128i as or,
    byte_shl_imm_u128_m128i as move_up, cmp_eq_mask_i8_m128i as equal,
    cmp_gt_mask_i8_m128i as greater, cmp_lt_mask_i8_m128i as less,
    get_i64_from_m128i_s as lower_word, load_unaligned_m128i as load, m128i,
    move_mask_i8_m128i as high_bits, mul_i16_horizontal_add_m128i as sums_of_products,
    mul_i16_keep_low_m128i as times, mul_u16_keep_high_m128i as times_upper,
    mul_widen_u32_odd_m128i as times_wide, pack_i32_to_i16_m128i as narrow, set_i64_m128i as words,
    set_i64_m128i_s as word, set_splat_i8_m128i as each_i8, set_splat_i16_m128i as each_i16,
    set_splat_i32_m128i as each_i32, set_splat_i64_m128i as each_i64, shl_imm_u16_m128i as shl_u16,
    shl_imm_u32_m128i as shl_u32, shr_imm_u16_m128i as shr_u16, shr_imm_u64_m128i as shr_u64,
    shuffle_ai_f32_all_m128i as shuffle, store_unaligned_m128i as store, sub_i16_m128i as sub_u16,
    unpack_low_i8_m128i as widen, zeroed_m128i as zeros,
};

use super::Window;
use crate::transcode::pen::{eight, put};

/// Sixteen decimal digits, the first in the lowest byte.
#[derive(Clone, Copy)]
pub(in crate::transcode) struct Digits(m128i);

impl Digits {
    /// The digits of two numbers below 10^8: quarters, then halves of them, then digits, all parts at
    /// once. Quotients are products' upper parts; for numbers that small they are exact.
    #[inline(always)]
    pub(in crate::transcode) fn of(high: u64, low: u64) -> Self {
        let halves = words(high.cast_signed(), low.cast_signed());
        let quotients = shr_u64::<40>(times_wide(halves, each_i64(109_951_163)));
        // Adding (2^32 - 10^4) times the quotient puts it 32 bits higher and leaves the remainder.
        let down = times_wide(quotients, each_i64((1 << 32) - 10_000));
        // Now in the lowest lane is what is to stand last.
        let quarters = shuffle::<0b00_01_10_11>(add_u64(halves, down));
        Self(digits_of(quarters))
    }

    /// A digit, a number below 10^8, and zeros.
    #[inline(always)]
    pub(in crate::transcode) fn nine(first: u64, others: u64) -> Self {
        let digits = eight(others).swap_bytes();
        let high = (digits >> 56).cast_signed();
        Self(words(high, (first | (digits << 8)).cast_signed()))
    }

    /// How many digits there are up to the last that is not zero.
    #[inline(always)]
    pub(in crate::transcode) fn kept(self) -> u32 {
        let set = high_bits(greater(self.0, zeros()));
        32_u32.wrapping_sub(set.leading_zeros())
    }

    /// Stores them.
    #[inline(always)]
    pub(in crate::transcode) fn put(self, window: &mut Window, at: usize) {
        put(window, at, bytes(self.ascii()));
    }

    /// Stores them with a point after the first `before`, 1 to 15.
    #[inline(always)]
    pub(in crate::transcode) fn put_with_point(self, window: &mut Window, at: usize, before: u32) {
        let text = self.ascii();
        // The last digit first: what follows it is what ends one byte earlier.
        put(window, at.wrapping_add(1), bytes(text));
        let Some(Cut { before, point, after }) = CUTS.get((before & 15) as usize) else { return };
        let whole = and(text, load(before));
        let part = and(move_up::<1>(text), load(after));
        put(window, at, bytes(or(or(whole, part), load(point))));
    }

    #[inline(always)]
    fn ascii(self) -> m128i {
        or(self.0, each_i8(b'0'.cast_signed()))
    }
}

/// The four digits of each of four numbers below 10^4.
#[inline(always)]
fn digits_of(quarters: m128i) -> m128i {
    let hundred = each_i16(100);
    let upper = shr_u16::<3>(times_upper(quarters, each_i16(5243)));
    let lower = sub_u16(quarters, times(upper, hundred));
    let pairs = or(upper, shl_u32::<16>(lower));
    let tens = times_upper(pairs, each_i16(6554));
    // The tens in the lower byte, and pairs - 10 × tens in the upper.
    sub_u16(shl_u16::<8>(pairs), times(tens, each_i16(10 * 256 - 1)))
}

/// What is kept of digits in place, of digits moved on by one, and what stands between.
struct Cut {
    before: [u8; 16],
    point: [u8; 16],
    after: [u8; 16],
}

static CUTS: [Cut; 16] = {
    let mut cuts = [const { Cut { before: [0; 16], point: [0; 16], after: [0; 16] } }; 16];
    let mut rest: &mut [Cut] = &mut cuts;
    let mut bits: u32 = 0;
    while let Some((cut, others)) = rest.split_first_mut() {
        let before = (1_u128 << bits).wrapping_sub(1);
        cut.before = before.to_le_bytes();
        cut.point = ((b'.' as u128) << bits).to_le_bytes();
        cut.after = (!before & !(0xFF << bits)).to_le_bytes();
        bits = bits.saturating_add(8);
        rest = others;
    }
    cuts
};

#[inline(always)]
fn bytes(vector: m128i) -> [u8; 16] {
    let mut bytes = [0; 16];
    store(&mut bytes, vector);
    bytes
}

/// Whether one of the first `length` bytes, at most 16, must be escaped in JSON or is not ASCII.
#[inline(always)]
pub(in crate::transcode) fn is_special(chunk: [u8; 16], length: usize) -> bool {
    let text = load(&chunk);
    let quote = equal(text, each_i8(b'"'.cast_signed()));
    let backslash = equal(text, each_i8(b'\\'.cast_signed()));
    // As a signed byte, what is not ASCII is below zero.
    let control = less(text, each_i8(0x20));
    let special = high_bits(or(or(quote, backslash), control));
    // What lies below `length`.
    special.cast_unsigned() & !(u32::MAX << (length & 31)) != 0
}

/// Moves the low seven bits of eight bytes together; the high bits are clear: pairs, then pairs of
/// pairs by sums of products, then both halves.
#[inline(always)]
pub(in crate::transcode) fn gather(groups: u64) -> u64 {
    let groups = word(groups.cast_signed());
    let wide = widen(groups, zeros());
    let pairs = sums_of_products(wide, each_i32(1 | (1 << 7 << 16)));
    let pairs = narrow(pairs, zeros());
    let fours = sums_of_products(pairs, each_i32(1 | (1 << 14 << 16)));
    let fours = lower_word(fours).cast_unsigned();
    (fours & 0x0FFF_FFFF) | ((fours >> 4) & 0x00FF_FFFF_F000_0000)
}

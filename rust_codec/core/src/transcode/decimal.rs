//! Printing doubles and floats in their shortest decimal form, without a table of big powers.
//!
//! Of all decimals that read back to the same number, the one with the fewest digits is printed,
//! and of those the nearest (Steele and White 1990; the one-multiplication form is after R. Giulietti,
//! "The Schubfach way to render doubles", 2020). A number is c × 2^q with 2^52 <= c < 2^53. Let n be
//! the most decimal places for which a step of c is worth less than one unit: 0.1 <= 2^q × 10^n < 1.
//! That step is a fraction of a word of 64 bits, exactly so within the range below, where it has no
//! more bits than that. Then the upper word of c times the step is the number in those units and the
//! lower word is the rest, so nothing is rounded on the way and every comparison is exact. A unit next to the number within half a step is the answer, and as a step
//! is less than a unit there is at most one; otherwise one more digit is needed and always enough.
//!
//! Whatever lies outside the range is left to the caller (None), and so are powers of two that are no
//! whole number of units, because steps differ on their two sides.
#![expect(clippy::inline_always, reason = "the loop is one function by measurement")]

use std::hint::select_unpredictable;

use super::pen::{ROOM, put};
use super::sixteen::Digits;

/// The scale of one binary exponent.
#[derive(Clone, Copy)]
struct Scale {
    /// 2^q × 10^n, in 2^-64.
    step: u64,
    /// n
    places: u32,
}

/// Biased exponent of the first double in range: 2^-16, about 1.5e-5. All below print an exponent.
const DOUBLE_FIRST: i32 = 1007;
/// Binades in range; the last ends at 2^49, so that at most 15 digits stand before the point.
const DOUBLE_COUNT: usize = 65;
static DOUBLES: [Scale; DOUBLE_COUNT] = scales(DOUBLE_FIRST - 1075);

/// Biased exponent of the first float in range: 2^-19, about 1.9e-6.
const FLOAT_FIRST: i32 = 108;
/// Binades in range; the last ends at 2^23, from where on floats are whole.
const FLOAT_COUNT: usize = 42;
static FLOATS: [Scale; FLOAT_COUNT] = scales(FLOAT_FIRST - 150);

/// The scales from a binary exponent on.
#[expect(clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
const fn scales<const N: usize>(first: i32) -> [Scale; N] {
    let mut scales = [Scale { step: 0, places: 0 }; N];
    let mut rest: &mut [Scale] = &mut scales;
    let mut exponent = first;
    while let Some((scale, after)) = rest.split_first_mut() {
        // floor(log10(2^exponent)); the fraction is log10(2) × 2^20.
        let magnitude = (exponent * 315_653) >> 20;
        scale.places = (-magnitude - 1).cast_unsigned();
        // 5^n × 2^(q + n)
        let shift = (-exponent).cast_unsigned() - scale.places;
        scale.step = 5_u64.pow(scale.places) << (64 - shift);
        exponent += 1;
        rest = after;
    }
    scales
}

/// Prints a double into a window and gives its length, at most 24; None when it is not of those.
#[inline(always)]
pub(super) fn print_double(window: &mut [u8; ROOM], value: f64) -> Option<usize> {
    const IMPLICIT: u64 = 1 << 52;
    let bits = value.to_bits();
    let exponent = (bits >> 52) & 0x7FF;
    let mantissa = bits & IMPLICIT.wrapping_sub(1);
    let index = exponent.wrapping_sub(u64::from(DOUBLE_FIRST.cast_unsigned()));
    let scale = DOUBLES.get(usize::try_from(index).ok()?)?;
    let (units, digit) = shorten(mantissa | IMPLICIT, scale, mantissa == 0)?;
    // Sixteen digits, and perhaps a seventeenth.
    let long = units >= 1_000_000_000_000_000;
    // Which it is cannot be foreseen, so neither is branched on.
    let sixteen = select_unpredictable(long, units, units.wrapping_mul(10).wrapping_add(digit));
    let last = select_unpredictable(long, digit, 0);
    let before = 15_u32.wrapping_add(u32::from(long)).wrapping_sub(scale.places);
    let digits = Digits::of(sixteen / 100_000_000, sixteen % 100_000_000);
    let kept = select_unpredictable(last == 0, digits.kept(), 17);
    let sign = usize::from(bits >> 63 != 0);
    Some(lay_out(window, sign, digits, last, before.cast_signed(), kept))
}

/// Prints a float into a window and gives its length, at most 16; None when it is not of those.
#[inline(always)]
pub(super) fn print_float(window: &mut [u8; ROOM], value: f32) -> Option<usize> {
    const IMPLICIT: u32 = 1 << 23;
    let bits = value.to_bits();
    let exponent = (bits >> 23) & 0xFF;
    let mantissa = bits & IMPLICIT.wrapping_sub(1);
    let index = exponent.wrapping_sub(FLOAT_FIRST.cast_unsigned());
    let scale = FLOATS.get(usize::try_from(index).ok()?)?;
    let (units, digit) = shorten(u64::from(mantissa | IMPLICIT), scale, mantissa == 0)?;
    // Seven to nine digits, made nine.
    let all = units.wrapping_mul(10).wrapping_add(digit);
    let (nine, length) = match all {
        0..10_000_000 => (all.wrapping_mul(100), 7_u32),
        10_000_000..100_000_000 => (all.wrapping_mul(10), 8),
        _ => (all, 9),
    };
    let before = length.wrapping_sub(1).wrapping_sub(scale.places);
    let digits = Digits::nine(nine / 100_000_000, nine % 100_000_000);
    let sign = usize::from(bits >> 31 != 0);
    Some(lay_out(window, sign, digits, 0, before.cast_signed(), digits.kept()))
}

/// The fewest digits of so many steps: whole units, and one digit more or 0.
#[inline(always)]
fn shorten(steps: u64, scale: &Scale, power_of_two: bool) -> Option<(u64, u64)> {
    let product = u128::from(steps).wrapping_mul(u128::from(scale.step));
    let (units, rest) = (low(product >> 64), low(product));
    // Half a step away still reads back to an even number: ties go to even.
    let within = (scale.step >> 1).wrapping_sub(steps & 1);
    let (down, up) = (rest <= within, !rest < within);
    if power_of_two && rest != 0 {
        return None;
    }
    let tenths = u128::from(rest).wrapping_mul(10);
    // The nearest digit, and of two that are equally near the even one.
    let odd = (tenths >> 64) & 1;
    let digit = low(tenths.wrapping_add(odd).wrapping_add((1 << 63) - 1) >> 64);
    let digit = if down | up { 0 } else { digit };
    Some((units.wrapping_add(u64::from(up)), digit))
}

/// Lays out up to seventeen digits, of which `before` stand before the point (zeros follow it when
/// that is negative) and `kept` in all; `last` is the seventeenth.
#[inline(always)]
fn lay_out(
    window: &mut [u8; ROOM],
    sign: usize,
    digits: Digits,
    last: u64,
    before: i32,
    kept: u32,
) -> usize {
    let last = [b'0'.wrapping_add(lowest(last))];
    put(window, 0, [b'-']);
    let kept = kept as usize;
    if before > 0 {
        digits.put_with_point(window, sign, before.cast_unsigned());
        put(window, sign.wrapping_add(17), last);
        let before = before.cast_unsigned() as usize;
        return sign.wrapping_add(1).wrapping_add(kept.max(before.wrapping_add(1)));
    }
    put(window, sign, *b"0.000000");
    let at = sign.wrapping_add(2).wrapping_add(before.unsigned_abs() as usize);
    digits.put(window, at);
    put(window, at.wrapping_add(16), last);
    at.wrapping_add(kept)
}

/// The low word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low word is what is asked for")]
const fn low(value: u128) -> u64 {
    value as u64
}

/// The low byte.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low byte is what is asked for")]
const fn lowest(value: u64) -> u8 {
    value as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(length: Option<usize>, window: &[u8; ROOM]) -> Option<String> {
        length.map(|length| String::from_utf8(window[..length].to_vec()).unwrap())
    }

    fn double(value: f64) -> Option<String> {
        let mut window = [b'?'; ROOM];
        shown(print_double(&mut window, value), &window)
    }

    fn float(value: f32) -> Option<String> {
        let mut window = [b'?'; ROOM];
        shown(print_float(&mut window, value), &window)
    }

    /// Whether it was printed at all; what is printed is what the reference prints.
    fn same_double(value: f64) -> bool {
        let shown = double(value);
        if let Some(shown) = &shown {
            assert_eq!(*shown, zmij::Buffer::new().format_finite(value), "{:x}", value.to_bits());
        }
        shown.is_some()
    }

    fn same_float(value: f32) -> bool {
        let shown = float(value);
        if let Some(shown) = &shown {
            assert_eq!(*shown, zmij::Buffer::new().format_finite(value), "{:x}", value.to_bits());
        }
        shown.is_some()
    }

    /// A generator of bit patterns (Steele, Lea and Flood 2014, `SplitMix64`).
    fn patterns(count: usize) -> impl Iterator<Item = u64> {
        let mut state = 0_u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        })
        .take(count)
    }

    #[test]
    fn a_million_doubles_of_the_range_print_as_the_reference_prints_them() {
        let printed = patterns(1_000_000).filter(|pattern| {
            let exponent = u64::from(DOUBLE_FIRST.cast_unsigned()) + (pattern >> 52) % 65;
            let mantissa = pattern & ((1 << 52) - 1);
            same_double(f64::from_bits((pattern & (1 << 63)) | (exponent << 52) | mantissa))
        });
        assert!(printed.count() > 999_000);
    }

    #[test]
    fn decimals_as_people_write_them_print_as_they_were_written() {
        let mut places: u32 = 0;
        for pattern in patterns(300_000) {
            places = (places + 1) % 9;
            let whole = (pattern >> 20) % 10_u64.pow(8);
            let text = format!(
                "{}.{:0width$}",
                whole,
                pattern % 10_u64.pow(places.max(1)),
                width = places.max(1) as usize
            );
            let value: f64 = text.parse().unwrap();
            assert!(same_double(value) || value < 2e-5, "{text}");
            assert!(same_double(-value) || value < 2e-5, "{text}");
            same_float(text.parse().unwrap());
        }
    }

    #[test]
    fn neighbours_of_powers_of_two_and_ten_print_as_the_reference_prints_them() {
        let twos = (-80..80).map(|power| 2_f64.powi(power));
        let tens = (-30..40).map(|power| 10_f64.powi(power));
        for middle in twos.chain(tens) {
            let bits = middle.to_bits();
            for near in bits - 200..bits + 200 {
                same_double(f64::from_bits(near));
                same_double(-f64::from_bits(near));
            }
        }
        let twos = (-40..60).map(|power| 2_f32.powi(power));
        let tens = (-15..15).map(|power| 10_f32.powi(power));
        for middle in twos.chain(tens) {
            let bits = middle.to_bits();
            for near in bits - 200..bits + 200 {
                same_float(f32::from_bits(near));
                same_float(-f32::from_bits(near));
            }
        }
    }

    #[test]
    fn every_thirteenth_float_of_the_range_prints_as_the_reference_prints_it() {
        let first = FLOAT_FIRST.cast_unsigned() << 23;
        let last = first + (42 << 23);
        let all = (first..last).step_by(if cfg!(debug_assertions) { 1301 } else { 13 });
        let printed = all.clone().filter(|bits| same_float(f32::from_bits(*bits)));
        assert!(printed.count() * 1000 > all.count() * 999);
    }

    #[test]
    fn numbers_out_of_range_are_left_to_the_caller() {
        for value in [0.0, -0.0, 1e-5, 1e15, 1e300, 5e-324, f64::NAN, f64::INFINITY, f64::MAX] {
            assert_eq!(double(value), None, "{value}");
        }
        for value in [0.0, -0.0, 1e-7, 1e8, f32::NAN, f32::NEG_INFINITY, f32::MAX] {
            assert_eq!(float(value), None, "{value}");
        }
    }

    #[test]
    fn common_numbers_print_here() {
        for (value, text) in [
            (1.0, "1.0"),
            (0.5, "0.5"),
            (-2.0, "-2.0"),
            (100.0, "100.0"),
            (0.1, "0.1"),
            (0.3, "0.3"),
            (0.000_5, "0.0005"),
            (12.25, "12.25"),
            (123_456_789.0, "123456789.0"),
            (2.0 / 3.0, "0.6666666666666666"),
            (100_000_000_000_000.0, "100000000000000.0"),
            (-715.827_881_6, "-715.8278816"),
        ] {
            assert_eq!(double(value).as_deref(), Some(text));
        }
        for (value, text) in [(0.1, "0.1"), (-0.75, "-0.75"), (3.0, "3.0"), (0.001, "0.001")] {
            assert_eq!(float(value).as_deref(), Some(text));
        }
    }

    proptest! {
        #[test]
        fn any_double_prints_as_the_reference_prints_it(value: f64) {
            same_double(value);
        }

        #[test]
        fn any_float_prints_as_the_reference_prints_it(value: f32) {
            same_float(value);
        }
    }
}

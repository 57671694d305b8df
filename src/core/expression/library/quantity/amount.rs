//! The number in a quantity: reading, comparing, adding.

use num_bigint::{BigInt, Sign};
use std::cmp::Ordering;

/// Digits a quantity may have to be small.
const SMALL_DIGITS: usize = 18;
/// Decimals of the smallest part, a nano.
const NANO: u32 = 9;

/// Most digits a number is written out to; only an exponent can ask for more.
const MAX_DIGITS: u32 = 4096;

/// `value` × 10^`scale`.
#[derive(Debug, Clone)]
pub(super) enum Amount {
    Small { value: i64, scale: i32 },
    Large { value: BigInt, scale: i32 },
}

/// What a suffix multiplies by.
enum Suffix {
    /// A power of ten.
    Decimal(i32),
    /// A power of two.
    Binary(u32),
}

fn suffix(text: &str) -> Option<Suffix> {
    Some(match text {
        "n" => Suffix::Decimal(-9),
        "u" => Suffix::Decimal(-6),
        "m" => Suffix::Decimal(-3),
        "" => Suffix::Decimal(0),
        "k" => Suffix::Decimal(3),
        "M" => Suffix::Decimal(6),
        "G" => Suffix::Decimal(9),
        "T" => Suffix::Decimal(12),
        "P" => Suffix::Decimal(15),
        "E" => Suffix::Decimal(18),
        "Ki" => Suffix::Binary(10),
        "Mi" => Suffix::Binary(20),
        "Gi" => Suffix::Binary(30),
        "Ti" => Suffix::Binary(40),
        "Pi" => Suffix::Binary(50),
        "Ei" => Suffix::Binary(60),
        _ => Suffix::Decimal(text.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

impl Amount {
    /// Reads a quantity.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if text.is_empty() {
            return None;
        }
        let unsigned = rest.trim_start_matches('0');
        if unsigned.is_empty() {
            return Some(Self::Small { value: 0, scale: 0 });
        }
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = unsigned.split_at_checked(digits(unsigned))?;
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at_checked(digits(rest))?,
            None => ("", rest),
        };
        let whole = if whole.is_empty() { "0" } else { whole };
        let found = Digits { is_negative, whole, fraction };
        // A sign without digits is read as zero.
        let suffix = suffix(rest)?;
        found.small(&suffix).or_else(|| found.large(&suffix))
    }

    fn parts(&self) -> (BigInt, i32) {
        match self {
            Self::Small { value, scale } => (BigInt::from(*value), *scale),
            Self::Large { value, scale } => (value.clone(), *scale),
        }
    }

    /// About what bringing two to the same scale costs.
    pub(super) fn distance(&self, other: &Self) -> u64 {
        let scale = |of: &Self| match of {
            Self::Small { scale, .. } | Self::Large { scale, .. } => *scale,
        };
        let digits = u64::from(scale(self).abs_diff(scale(other)).min(MAX_DIGITS));
        // Sums of sums grow.
        let size = |of: &Self| match of {
            Self::Small { .. } => 1,
            Self::Large { value, .. } => value.bits() / 16,
        };
        digits / 4 + size(self) + size(other)
    }

    pub(super) fn sign(&self) -> i64 {
        match self.parts().0.sign() {
            Sign::Minus => -1,
            Sign::NoSign => 0,
            Sign::Plus => 1,
        }
    }

    /// The integer it is; none when it is not small.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Small { value, scale } if *scale >= 0 => scaled(*value, *scale),
            Self::Small { .. } | Self::Large { .. } => None,
        }
    }

    pub(super) fn approximate(&self) -> f64 {
        let (base, exponent) = match self {
            #[expect(clippy::cast_precision_loss, reason = "an approximation is asked for")]
            Self::Small { value, scale } => (*value as f64, *scale),
            Self::Large { value, scale } => (value.to_string().parse().unwrap_or(f64::NAN), *scale),
        };
        if exponent == 0 {
            return base;
        }
        // Go's Pow10 is the double nearest to the power.
        let power: f64 = format!("1e{exponent}").parse().unwrap_or(f64::NAN);
        base * power
    }

    pub(super) fn negated(&self) -> Self {
        match self {
            Self::Small { value, scale } => match value.checked_neg() {
                Some(value) => Self::Small { value, scale: *scale },
                None => Self::Large { value: -BigInt::from(*value), scale: *scale },
            },
            Self::Large { value, scale } => Self::Large { value: -value.clone(), scale: *scale },
        }
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        if let (Self::Small { value: a, scale }, Self::Small { value: b, scale: b_scale }) = (self, other)
            && scale == b_scale
        {
            return a.cmp(b);
        }
        let ((a, a_scale), (b, b_scale)) = (self.parts(), other.parts());
        if a.sign() != b.sign() || a.sign() == Sign::NoSign {
            return a.sign().cmp(&b.sign());
        }
        // Signs agree; what cannot be written out at the other's scale is the larger in size.
        let (larger, smaller) = if a.sign() == Sign::Plus {
            (Ordering::Greater, Ordering::Less)
        } else {
            (Ordering::Less, Ordering::Greater)
        };
        let difference = i64::from(a_scale) - i64::from(b_scale);
        if difference >= 0 {
            raised(&a, difference).map_or(larger, |a| a.cmp(&b))
        } else {
            raised(&b, -difference).map_or(smaller, |b| a.cmp(&b))
        }
    }

    /// The sum; none when it takes more digits than there are.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        if let (Self::Small { value: a, scale: a_scale }, Self::Small { value: b, scale: b_scale }) = (self, other) {
            if *b == 0 {
                return Some(self.clone());
            }
            if *a == 0 {
                return Some(other.clone());
            }
            let scale = *a_scale.min(b_scale);
            let at = |value: i64, from: i32| scaled(value, from.checked_sub(scale)?);
            if let (Some(a), Some(b)) = (at(*a, *a_scale), at(*b, *b_scale))
                && let Some(value) = a.checked_add(b)
            {
                return Some(Self::Small { value, scale });
            }
        }
        let ((a, a_scale), (b, b_scale)) = (self.parts(), other.parts());
        let scale = a_scale.min(b_scale);
        let at = |value: &BigInt, from: i32| raised(value, i64::from(from) - i64::from(scale));
        Some(Self::Large { value: at(&a, a_scale)? + at(&b, b_scale)?, scale })
    }
}

/// `value` × 10^`by`.
fn scaled(value: i64, by: i32) -> Option<i64> {
    value.checked_mul(10i64.checked_pow(u32::try_from(by).ok()?)?)
}

/// `value` × 10^`by`; none when that has too many digits.
fn raised(value: &BigInt, by: i64) -> Option<BigInt> {
    let by = u32::try_from(by).ok().filter(|by| *by <= MAX_DIGITS)?;
    Some(value * BigInt::from(10).pow(by))
}

struct Digits<'t> {
    is_negative: bool,
    whole: &'t str,
    fraction: &'t str,
}

impl Digits<'_> {
    fn small(&self, suffix: &Suffix) -> Option<Amount> {
        let count = self.whole.len() + self.fraction.len();
        let (scale, factor) = match suffix {
            Suffix::Decimal(exponent) if count <= SMALL_DIGITS => (*exponent, 1),
            Suffix::Binary(exponent) if self.fraction.is_empty() => {
                // About as many digits as the factor has.
                let taken = self.whole.len() + usize::try_from(exponent * 3 / 10).ok()? + 1;
                (taken <= 15).then_some((0, 1i64 << exponent))?
            }
            Suffix::Decimal(_) | Suffix::Binary(_) => return None,
        };
        let scale = scale.checked_sub(i32::try_from(self.fraction.len()).ok()?)?;
        if scale < -9 {
            return None;
        }
        let digits: i64 = [self.whole, self.fraction].concat().parse().ok()?;
        let value = digits.checked_mul(factor)?;
        Some(Amount::Small { value: if self.is_negative { -value } else { value }, scale })
    }

    fn large(&self, suffix: &Suffix) -> Option<Amount> {
        let digits: BigInt = [self.whole, self.fraction].concat().parse().ok()?;
        let decimals = i32::try_from(self.fraction.len()).ok()?;
        let (value, scale, is_binary) = match suffix {
            Suffix::Decimal(exponent) => (digits, exponent.checked_sub(decimals)?, false),
            Suffix::Binary(exponent) => (digits * (BigInt::from(1) << exponent), decimals.checked_neg()?, true),
        };
        let mut value = if value.sign() == Sign::NoSign { value } else { nanos(value, scale)? };
        if is_binary {
            value = value.min(BigInt::from(i64::MAX) * BigInt::from(10).pow(NANO));
        }
        let scale = -9;
        Some(Amount::Large { value: if self.is_negative { -value } else { value }, scale })
    }
}

/// `value` × 10^`scale` in nanos, rounded up.
fn nanos(value: BigInt, scale: i32) -> Option<BigInt> {
    let by = i64::from(scale) + i64::from(NANO);
    if by >= 0 {
        return raised(&value, by);
    }
    let Some(divisor) = raised(&BigInt::from(1), -by) else { return Some(BigInt::from(1)) };
    Some((value + &divisor - 1) / divisor)
}

//! The number in a quantity: reading, comparing, adding.

use std::cmp::Ordering;

/// Digits a quantity may have to be small.
const SMALL_DIGITS: usize = 18;
/// Decimals of the smallest part, a nano.
const NANO: u32 = 9;

/// `value` × 10^`scale`, or `mantissa` / 10^`decimals`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Amount {
    Small { value: i64, scale: i32 },
    Large { mantissa: i128, decimals: i32 },
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

    fn parts(&self) -> (i128, i32) {
        match self {
            Self::Small { value, scale } => (i128::from(*value), *scale),
            Self::Large { mantissa, decimals } => (*mantissa, decimals.saturating_neg()),
        }
    }

    pub(super) fn sign(&self) -> i64 {
        self.parts().0.signum().try_into().unwrap_or_default()
    }

    /// The integer it is; none when it is not small.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Small { value, scale } if *scale >= 0 => scaled(*value, *scale),
            Self::Small { .. } | Self::Large { .. } => None,
        }
    }

    pub(super) fn approximate(&self) -> f64 {
        let (mantissa, exponent) = self.parts();
        #[expect(clippy::cast_precision_loss, reason = "an approximation is asked for")]
        let base = mantissa as f64;
        if exponent == 0 {
            return base;
        }
        // Go's Pow10 is the double nearest to the power.
        let power: f64 = format!("1e{exponent}").parse().unwrap_or(f64::NAN);
        base * power
    }

    pub(super) fn negated(&self) -> Option<Self> {
        Some(match self {
            Self::Small { value, scale } => match value.checked_neg() {
                Some(value) => Self::Small { value, scale: *scale },
                None => Self::Large { mantissa: -i128::from(*value), decimals: scale.checked_neg()? },
            },
            Self::Large { mantissa, decimals } => {
                Self::Large { mantissa: mantissa.checked_neg()?, decimals: *decimals }
            }
        })
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let ((a, a_scale), (b, b_scale)) = (self.parts(), other.parts());
        if a.signum() != b.signum() || a == 0 {
            return a.signum().cmp(&b.signum());
        }
        // Signs agree; what overflows when brought to the other's scale is the larger in size.
        let difference = i64::from(a_scale) - i64::from(b_scale);
        if difference >= 0 {
            raised(a, difference).map_or(if a > 0 { Ordering::Greater } else { Ordering::Less }, |a| a.cmp(&b))
        } else {
            raised(b, -difference).map_or(if b > 0 { Ordering::Less } else { Ordering::Greater }, |b| a.cmp(&b))
        }
    }

    /// The sum; none when it takes more digits than there are.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        if let (Self::Small { value: a, scale: a_scale }, Self::Small { value: b, scale: b_scale }) = (self, other) {
            if *b == 0 {
                return Some(*self);
            }
            if *a == 0 {
                return Some(*other);
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
        let at = |mantissa: i128, from: i32| raised(mantissa, i64::from(from) - i64::from(scale));
        let mantissa = at(a, a_scale)?.checked_add(at(b, b_scale)?)?;
        Some(Self::Large { mantissa, decimals: scale.checked_neg()? })
    }
}

/// `value` × 10^`by`.
fn scaled(value: i64, by: i32) -> Option<i64> {
    value.checked_mul(10i64.checked_pow(u32::try_from(by).ok()?)?)
}

/// `value` × 10^`by`.
fn raised(value: i128, by: i64) -> Option<i128> {
    value.checked_mul(10i128.checked_pow(u32::try_from(by).ok()?)?)
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
        let digits: i128 = [self.whole, self.fraction].concat().parse().ok()?;
        let decimals = i32::try_from(self.fraction.len()).ok()?;
        let (mantissa, decimals, is_binary) = match suffix {
            Suffix::Decimal(exponent) => (digits, decimals.checked_sub(*exponent)?, false),
            Suffix::Binary(exponent) => (digits.checked_mul(1i128 << exponent)?, decimals, true),
        };
        let mut mantissa = if mantissa == 0 { 0 } else { nanos(mantissa, decimals)? };
        if is_binary {
            mantissa = mantissa.min(i128::from(i64::MAX) * 10i128.pow(NANO));
        }
        Some(Amount::Large { mantissa: if self.is_negative { -mantissa } else { mantissa }, decimals: 9 })
    }
}

/// `mantissa` / 10^`decimals` in nanos, rounded up.
fn nanos(mantissa: i128, decimals: i32) -> Option<i128> {
    let by = i64::from(decimals) - i64::from(NANO);
    if by <= 0 {
        return raised(mantissa, -by);
    }
    let Some(divisor) = u32::try_from(by).ok().and_then(|by| 10i128.checked_pow(by)) else { return Some(1) };
    Some(mantissa / divisor + i128::from(mantissa % divisor != 0))
}

//! Quantities in Kubernetes' notation: `500m`, `1.5Gi`, `12e6`.
//!
//! Pure: no I/O, no clock, no randomness. A quantity is kept exactly, in billionths of its unit. Podman parses most
//! quantities as Kubernetes does, but not memory with a fraction: it takes the digits of `1.5Gi` or `100m` and ignores
//! the point. So the renderer writes only whole bytes and thousandths of a core ([`bytes`], [`millis`]).

/// The longest quantity in bytes. No person writes a longer one.
const BYTES_MAX: usize = 64;

/// One unit in billionths.
const NANO: i128 = 1_000_000_000;

/// The largest quantity in Kubernetes: an `i64` of whole units.
const UNITS_MAX: i128 = i64::MAX as i128;

/// A quantity in billionths of its unit, rounded up as in Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

impl Quantity {
    /// In whole units, rounded up.
    pub(crate) fn units(self) -> i128 {
        up(self.0, NANO)
    }

    /// In thousandths of a unit, rounded up.
    pub(crate) fn millis(self) -> i128 {
        up(self.0, NANO / 1000)
    }

    pub(crate) fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }
}

fn up(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) > 0)
}

/// The message for a text that is no quantity.
pub(crate) const FORM: &str = "use digits, alone or followed by one of m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent such as e3";
const LARGE: &str = "the maximum is 2^63-1";

/// Parses a quantity by Kubernetes' grammar.
pub(crate) fn parse(text: &str) -> Result<Quantity, &'static str> {
    if text.len() > BYTES_MAX {
        return Err(FORM);
    }
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) | None => (false, text),
    };
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let end = unsigned.find(|c| !is_number(c)).unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(FORM);
    }
    let (factor, exponent) = scale(suffix).ok_or(FORM)?;
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(Quantity(0));
    }
    let exponent = exponent
        .saturating_sub(i64::try_from(fraction.len()).unwrap_or(i64::MAX))
        .saturating_add(9);
    let value: i128 = digits.parse().map_err(|_| LARGE)?;
    let value = value.checked_mul(factor).ok_or(LARGE)?;
    let nanos = match u32::try_from(exponent) {
        Ok(exponent) => 10_i128
            .checked_pow(exponent)
            .and_then(|by| value.checked_mul(by))
            .ok_or(LARGE)?,
        Err(_) => match u32::try_from(exponent.unsigned_abs()).map(|by| 10_i128.checked_pow(by)) {
            Ok(Some(by)) => up(value, by),
            Ok(None) | Err(_) => 1,
        },
    };
    match nanos <= UNITS_MAX * NANO {
        true if negative => Ok(Quantity(-nanos)),
        true => Ok(Quantity(nanos)),
        false => Err(LARGE),
    }
}

/// The factor of a suffix, and its power of ten.
fn scale(suffix: &str) -> Option<(i128, i64)> {
    let ten = |exponent| Some((1, exponent));
    let two = |exponent: u32| Some((1 << exponent, 0));
    match suffix {
        "" => ten(0),
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => two(10),
        "Mi" => two(20),
        "Gi" => two(30),
        "Ti" => two(40),
        "Pi" => two(50),
        "Ei" => two(60),
        _ => ten(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

/// A quantity of bytes as a whole number. A text that is no quantity stays unchanged.
pub(crate) fn bytes(text: &str) -> String {
    parse(text).map_or_else(|_| text.to_owned(), |value| value.units().to_string())
}

/// A quantity of cores in thousandths, at least `least`. Zero, and a text that is no quantity, stay unchanged.
pub(crate) fn millis(text: &str, least: i128) -> String {
    match parse(text) {
        Ok(value) if !value.is_zero() => format!("{}m", value.millis().max(least)),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_what_kubernetes_takes_them_for() {
        for (text, units, millis) in [
            ("0", 0, 0),
            ("64Mi", 64 << 20, (64 << 20) * 1000),
            ("1.5Gi", 3 << 29, (3 << 29) * 1000),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("+5", 5, 5000),
            ("100m", 1, 100),
            ("0.1m", 1, 1),
            ("1n", 1, 1),
            ("1e-30", 1, 1),
            ("1e-999999999999", 1, 1),
            ("1e3", 1000, 1_000_000),
            ("1E3", 1000, 1_000_000),
            ("1e+3", 1000, 1_000_000),
            (
                "7E",
                7_000_000_000_000_000_000,
                7_000_000_000_000_000_000_000,
            ),
            ("0e99", 0, 0),
            ("-64Mi", -(64 << 20), -(64 << 20) * 1000),
            ("000001k", 1000, 1_000_000),
        ] {
            let value = parse(text).expect(text);
            assert_eq!((value.units(), value.millis()), (units, millis), "{text}");
        }
        for text in [
            "",
            "64MB",
            "6GiB",
            "64mi",
            "64ki",
            "64K",
            "0,5",
            "half",
            "1e",
            "1E+",
            "e3",
            ".",
            "-",
            "1.2.3",
            "1 Gi",
            " 1",
            "1Gi ",
            "0x10",
            "1_000",
            "NaN",
            "inf",
            "١",
            "1e1.5",
            "--1",
            "1e99999999999999999999",
            "1mm",
            "1Mim",
        ] {
            assert_eq!(parse(text), Err(FORM), "{text}");
        }
        for text in [
            "12E",
            "8Ei",
            "9223372036854775808",
            "1e19",
            "1e999",
            "99999999999999999999999999999999999999999999",
        ] {
            assert_eq!(parse(text), Err(LARGE), "{text}");
        }
        assert!(parse("9223372036854775807").is_ok());
        assert_eq!(parse(&"0".repeat(65)), Err(FORM));
    }

    #[test]
    fn renderings_have_no_fraction() {
        for (text, whole) in [
            ("1.5Gi", "1610612736"),
            ("128974848", "128974848"),
            ("1e3", "1000"),
            ("half", "half"),
        ] {
            assert_eq!(bytes(text), whole);
        }
        for (text, shown) in [
            ("0.5", "500m"),
            ("2", "2000m"),
            ("1m", "10m"),
            ("0", "0"),
            ("0,5", "0,5"),
        ] {
            assert_eq!(millis(text, 10), shown);
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_it_and_what_it_renders_it_reads_as_the_same(text in "[-+]?[0-9.]{0,30}[numkKMGTPEei0-9+-]{0,6}") {
            if let Ok(value) = parse(&text) {
                prop_assert_eq!(parse(&bytes(&text)).map(Quantity::units), Ok(value.units()));
            }
        }
    }
}

//! Money as exact decimals. No floating point anywhere near an amount.

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;

/// An unsigned decimal number kept as received (`10000.00`), compared by value (`10000.0` is equal to it).
#[derive(Clone, Debug)]
pub struct Decimal(Box<str>);

/// An amount with its currency, as an event shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money {
    /// The number as received.
    pub value: Decimal,
    /// ISO 4217 code or a provider's own word (`CGM`), upper case letters and digits.
    pub currency: Currency,
}

/// A currency code, `[A-Z0-9]{2,8}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    bytes: [u8; 8],
    len: u8,
}

impl Decimal {
    /// Digits, optionally a point and more digits; at most 40 bytes. `None` for anything else: signs, exponents,
    /// spaces, an empty side of the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (text.len() <= 40 && digits(whole) && fraction.is_none_or(digits)).then(|| Self(text.into()))
    }

    /// The text as received.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Significant digits before and after the point: equal for equal numbers.
    fn parts(&self) -> (&str, &str) {
        let (whole, fraction) = self.0.split_once('.').unwrap_or((&self.0, ""));
        (whole.trim_start_matches('0'), fraction.trim_end_matches('0'))
    }

    /// The shortest text for the same number (`0010.50` -> `10.5`, `0` -> `0`): what digests use.
    pub fn canonical(&self) -> String {
        let (whole, fraction) = self.parts();
        let whole = if whole.is_empty() { "0" } else { whole };
        if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
    }

    /// Whether the number is zero.
    pub fn is_zero(&self) -> bool {
        self.parts() == ("", "")
    }

    /// The number times ten to the `exponent`; `None` where digits would be lost or `i64` is too small.
    pub fn minor_units(&self, exponent: u8) -> Option<i64> {
        let (whole, fraction) = self.parts();
        let exponent = usize::from(exponent);
        if fraction.len() > exponent {
            return None;
        }
        format!("0{whole}{fraction:0<exponent$}").parse().ok()
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}
impl Eq for Decimal {}
impl std::hash::Hash for Decimal {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}
impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((a, a_fraction), (b, b_fraction)) = (self.parts(), other.parts());
        a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| a_fraction.cmp(b_fraction))
    }
}
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Currency {
    /// `None` unless `text` is `[A-Z0-9]{2,8}`.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = (2..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        ok.then(|| {
            let mut bytes = [0; 8];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Self { bytes, len: text.len() as u8 }
        })
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Digits after the point by ISO 4217 (list one, 2024); `None` for what is not on it (`CGM`, `BTC`).
    pub fn exponent(&self) -> Option<u8> {
        const NONE: &[&str] = &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
            "XOF", "XPF",
        ];
        const THREE: &[&str] = &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
        const FOUR: &[&str] = &["CLF", "UYW"];
        const TWO: &[&str] = &[
            "AED", "AFN", "ALL", "AMD", "ANG", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BGN", "BMD",
            "BND", "BOB", "BOV", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHE", "CHF", "CHW", "CNY",
            "COP", "COU", "CRC", "CUC", "CUP", "CVE", "CZK", "DKK", "DOP", "DZD", "EGP", "ERN", "ETB", "EUR", "FJD",
            "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR",
            "IRR", "JMD", "KES", "KGS", "KHR", "KPW", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL",
            "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN", "MXV", "MYR", "MZN", "NAD", "NGN",
            "NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP", "PKR", "PLN", "QAR", "RON", "RSD", "RUB", "SAR",
            "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB",
            "TJS", "TMT", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "USD", "USN", "UYU", "UZS", "VED", "VES", "WST",
            "XCD", "YER", "ZAR", "ZMW", "ZWG",
        ];
        let code = self.as_str();
        [(NONE, 0), (THREE, 3), (FOUR, 4), (TWO, 2)].into_iter().find(|(list, _)| list.contains(&code)).map(|(_, e)| e)
    }
}
impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Money {
    /// The amount in the currency's smallest unit, where it has a known one and no digit is lost.
    pub fn minor_units(&self) -> Option<i64> {
        self.currency.exponent().and_then(|exponent| self.value.minor_units(exponent))
    }
}
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.value, self.currency)
    }
}
impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Money", 3)?;
        out.serialize_field("value", self.value.as_str())?;
        out.serialize_field("currency", self.currency.as_str())?;
        out.serialize_field("minor_units", &self.minor_units())?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).expect("a decimal")
    }

    #[test]
    fn only_plain_decimals_are_numbers() {
        for bad in ["", "-1", "+1", "1e3", " 1", "1 ", "1.", ".5", "1,5", "0x1", "1.2.3", "٣", &"1".repeat(41)] {
            assert!(Decimal::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        assert_eq!(decimal("10000.00"), decimal("10000"));
        assert_eq!(decimal("0010.50").canonical(), "10.5");
        assert_eq!(decimal("0.00").canonical(), "0");
        assert!(decimal("0.000").is_zero() && !decimal("0.01").is_zero());
        assert!(decimal("9.99") < decimal("10") && decimal("1.5") > decimal("1.45"));
    }

    #[test]
    fn minor_units_lose_nothing() {
        let of = |value: &str, currency: &str| {
            Money { value: decimal(value), currency: Currency::parse(currency).expect("a code") }.minor_units()
        };
        assert_eq!(of("6.000", "KWD"), Some(6000));
        assert_eq!(of("10000.00", "IDR"), Some(1_000_000));
        assert_eq!(of("7500.00", "CLP"), Some(7500));
        assert_eq!(of("7500.50", "CLP"), None, "half a peso is not dropped silently");
        assert_eq!(of("0.005", "USD"), None);
        assert_eq!(of("1", "CGM"), None);
        assert_eq!(of("1", "BTC"), None);
        assert_eq!(of("99999999999999999999", "USD"), None);
        assert_eq!(of("0", "USD"), Some(0));
    }
}

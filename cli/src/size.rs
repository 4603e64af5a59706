//! Sizes in bytes, as flags, variables and the file say them.

use std::str::FromStr;

/// A number of bytes: `1048576`, `512KiB`, `32MiB`, `1GiB`, `8MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, usize); 7] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("B", 1),
        ];
        let text = text.trim();
        let split = UNITS
            .iter()
            .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
        let (number, unit) = split.unwrap_or((text, 1));
        let size = number
            .trim()
            .parse::<usize>()
            .ok()
            .and_then(|number| number.checked_mul(unit));
        size.map(Self)
            .ok_or_else(|| "write it like 1048576, 512KiB or 32MiB".to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_or_are_bytes() {
        let bytes = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("32MiB"), Ok(32 << 20));
        assert_eq!(bytes("8 MB"), Ok(8_000_000));
        assert_eq!(bytes("5B"), Ok(5));
        for wrong in ["", "MiB", "1.5MiB", "-1", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}

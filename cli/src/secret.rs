//! Secrets that this program makes up.

use std::fmt::Write as _;

/// 32 random hex digits from the operating system.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

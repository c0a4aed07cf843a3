//! Sizes as people write them: `512MiB`, `2GB`, `1048576`.

/// The bytes that `text` stands for: digits and a unit, decimal (`kB`, `MB`, `GB`, `TB`) or binary
/// (`KiB`, `MiB`, `GiB`, `TiB`); no unit means bytes.
///
/// # Errors
/// What the text should look like, as clap prints it.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let unreadable = || "write a size such as 512MiB, 2GB or 1048576".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let number: u64 = digits.parse().map_err(|_| unreadable())?;
    let unit: u64 = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(unreadable()),
    };
    let bytes = number.checked_mul(unit).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("{text} is more than a machine can have"))
}

/// Least memory a command can work with.
const MEMORY_MIN_BYTES: usize = 16 << 20;

/// As [`parse_size`], for a limit on memory.
pub(super) fn parse_memory(text: &str) -> Result<usize, String> {
    match parse_size(text)? {
        bytes if bytes < MEMORY_MIN_BYTES => Err(format!("{bytes} bytes are less than 16MiB")),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_decimal_and_binary_units() {
        for (text, want) in [
            ("512MiB", Some(512 << 20)),
            ("2GB", Some(2_000_000_000)),
            ("2 gb", Some(2_000_000_000)),
            ("1048576", Some(1 << 20)),
            ("7B", Some(7)),
            ("0", Some(0)),
            ("", None),
            ("MiB", None),
            ("1.5GiB", None),
            ("-1MB", None),
            ("5 apples", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(parse_size(text).ok(), want, "{text:?}");
        }
        assert!(parse_memory("1MB").is_err());
        assert_eq!(parse_memory("16MiB"), Ok(16 << 20));
    }
}

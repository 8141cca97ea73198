//! Sizes in bytes, as people write them.

/// Reads a size in bytes: `4096`, `64K`, `10M`, `1G`, each also with `iB`; units are powers of 1024.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; use one like 500M, 10G or 1T (units of 1024)");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
        "" if unit.is_empty() => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64K", 65_536), ("10MiB", 10 << 20), ("2G", 2 << 30)] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "1.5G", "10MB", "1iB", "99999999T", "10 G"] {
            assert!(parse(bad).expect_err(bad).contains("10G"), "{bad}");
        }
    }
}

//! Plain data as bytes that are kept for ever: one version byte, then postcard. What refuses them says why in words; the
//! caller knows what they should have been, and the cure.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// The bytes of `value`, which serde must be able to write whatever it holds.
pub fn encode<T: Serialize>(version: u8, value: &T) -> Bytes {
    postcard::to_extend(value, vec![version]).expect("plain data can be written").into()
}

/// What follows the version byte, if that is `version`.
pub fn body(version: u8, bytes: &[u8]) -> Result<&[u8], String> {
    match bytes.split_first() {
        Some((found, body)) if *found == version => Ok(body),
        Some((found, _)) => Err(format!("format {found}")),
        None => Err("it is empty".to_owned()),
    }
}

/// Reads what [`encode`] wrote, all of it.
pub fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(body(version, bytes)?) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_anything_else_is_refused() {
        let bytes = encode(3, &("a", 7u8));
        assert_eq!(bytes[..], [3, 1, b'a', 7]);
        assert_eq!(decode(3, &bytes), Ok(("a".to_owned(), 7u8)));
        let refused = |bytes: &[u8]| decode::<(String, u8)>(3, bytes).expect_err("refused");
        assert_eq!(refused(&[]), "it is empty");
        assert_eq!(refused(&[2, 1, b'a', 7]), "format 2");
        assert_eq!(refused(&[3, 1, b'a', 7, 0, 0]), "2 bytes too many");
        refused(&[3, 9]);
    }
}

//! In which forms a secret may show in a job's output.

use std::collections::BTreeSet;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};

use super::{MIN_LINE, MIN_SECRET};

/// Where `base64` and `openssl` break lines.
const WIDTHS: [usize; 2] = [76, 64];

/// Adds all forms of `secret`. Returns whether it was long enough to be masked.
pub(super) fn add(secret: &[u8], forms: &mut BTreeSet<Vec<u8>>) -> bool {
    // A file's last line break is part of the value, and mostly not of what is printed.
    let secret = trim_end(secret);
    if secret.len() < MIN_SECRET {
        return false;
    }
    forms.insert(secret.to_vec());
    if secret.contains(&b'\n') {
        add_lines(secret, forms);
    }
    for shift in 0..3 {
        for core in encodings(secret, shift) {
            if shift == 0 {
                WIDTHS.iter().for_each(|width| add_wrapped(&core, *width, forms));
            }
            forms.insert(core);
        }
    }
    true
}

/// A value of several lines: with the line breaks of a terminal, with those of JSON, and line by line.
fn add_lines(secret: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let lines: Vec<&[u8]> = secret.split(|byte| *byte == b'\n').map(trim_end).collect();
    for glue in [&b"\n"[..], b"\r\n", b"\\n", b"\\r\\n"] {
        forms.insert(lines.join(glue));
    }
    let long = lines.into_iter().map(|line| line.trim_ascii()).filter(|line| line.len() >= MIN_LINE);
    forms.extend(long.map(<[u8]>::to_vec));
}

/// Base64 of text in which `secret` stands `shift` bytes behind a multiple of three: the characters that depend on
/// nothing else, in both alphabets.
fn encodings(secret: &[u8], shift: usize) -> [Vec<u8>; 2] {
    let text = [&[0; 2][..shift], secret].concat();
    let core = (8 * shift).div_ceil(6)..8 * text.len() / 6;
    [BASE64_STANDARD_NO_PAD.encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)]
        .map(|encoded| encoded.as_bytes()[core.clone()].to_vec())
}

/// A secret that was encoded alone, with line breaks.
fn add_wrapped(core: &[u8], width: usize, forms: &mut BTreeSet<Vec<u8>>) {
    if core.len() <= width {
        return;
    }
    let lines: Vec<&[u8]> = core.chunks(width).collect();
    forms.insert(lines.join(&b"\n"[..]));
    forms.extend(lines.into_iter().filter(|line| line.len() >= MIN_LINE).map(<[u8]>::to_vec));
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let Some((b'\n' | b'\r', rest)) = bytes.split_last() {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    #[test]
    fn a_secret_is_found_in_base64_wherever_it_stands() {
        for secret in [&b"hunt"[..], b"hunter2", b"\xff\xfe\xfd\xfb\xff\xef", b"0123456789abcdef"] {
            let mut forms = BTreeSet::new();
            assert!(add(secret, &mut forms));
            for before in 0..7 {
                for behind in 0..4 {
                    let text = [&b"user:xx"[..before], secret, &b"@yy"[..behind]].concat();
                    for encoded in [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE_NO_PAD.encode(&text)] {
                        let found = forms
                            .iter()
                            .any(|form| encoded.as_bytes().windows(form.len()).any(|window| window == form));
                        assert!(found, "{encoded}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_secret_of_several_lines_has_its_long_lines_as_forms() {
        let mut forms = BTreeSet::new();
        assert!(add(b"-----BEGIN KEY-----\r\n  abcdefgh\nshort\n-----END KEY-----\n", &mut forms));
        for form in ["-----BEGIN KEY-----", "abcdefgh", "-----BEGIN KEY-----\\n  abcdefgh\\nshort\\n-----END KEY-----"]
        {
            assert!(forms.contains(form.as_bytes()), "{form}");
        }
        assert!(!forms.contains(&b"short"[..]));
    }

    #[test]
    fn what_is_too_short_has_no_form() {
        let mut forms = BTreeSet::new();
        assert!(!add(b"abc\n", &mut forms) && !add(b"", &mut forms));
        assert!(forms.is_empty());
    }
}

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;

use super::*;

fn secrets(values: &[&[u8]]) -> Secrets {
    let values: Vec<_> = values.iter().map(|value| Secret::new(value.to_vec())).collect();
    Secrets::new(&values).expect("small")
}

/// The output for pieces, each followed by an idle time or not.
fn redact(secrets: &Secrets, pieces: &[&[u8]], idle: bool) -> String {
    let mut redactor = Redactor::new(secrets);
    let mut out = Vec::new();
    for piece in pieces {
        redactor.push(piece, &mut out);
        if idle {
            redactor.idle(&mut out);
        }
    }
    redactor.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn a_secret_is_masked_across_borders() {
    let secrets = secrets(&[b"hunter2\n"]);
    assert_eq!(redact(&secrets, &[b"my hunter2 is hunter2!"], false), "my *** is ***!");
    assert_eq!(redact(&secrets, &[b"my hun", b"t", b"er2\nhunter"], false), "my ***\n***");
    assert_eq!(redact(&secrets, &[b"", b"hunter hunte rhunter2 hun"], false), "hunter hunte r*** hun");
}

#[test]
fn places_that_overlap_become_one_and_neighbours_do_not() {
    let secrets = secrets(&[b"abcdef", b"defghi", b"cdef"]);
    assert_eq!(redact(&secrets, &[b"-abcdefghi-"], false), "-***-");
    assert_eq!(redact(&secrets, &[b"-abcd", b"efgh", b"i-"], false), "-***-");
    assert_eq!(redact(&secrets, &[b"-abcdefcdef-"], false), "-******-");
}

#[test]
fn a_secret_of_several_lines_is_masked_whole_and_line_by_line() {
    let secrets = secrets(&[b"line number one\nab\nline number two\n"]);
    assert_eq!(redact(&secrets, &[b"[line number one\nab\nline number two\n]"], false), "[***\n]");
    assert_eq!(redact(&secrets, &[b"[line number one\r\nab\r\nline number two]"], false), "[***]");
    assert_eq!(redact(&secrets, &[b"> line number one\n> ab\n> line number two\n"], false), "> ***\n> ab\n> ***\n");
}

#[test]
fn base64_is_masked_with_line_breaks_too() {
    let long: Vec<u8> = (0..200_u8).map(|at| at.wrapping_mul(37)).collect();
    let secrets = secrets(&[b"hunter2", &long]);
    let header = BASE64_STANDARD.encode("user:hunter2");
    assert_eq!(redact(&secrets, &[b"Basic ", header.as_bytes()], false), "Basic dXNlcjp***");
    let encoded = BASE64_STANDARD.encode(&long);
    for width in [76, 64] {
        let wrapped = encoded.as_bytes().chunks(width).collect::<Vec<_>>().join(&b"\n"[..]);
        assert_eq!(
            redact(&secrets, &[b"<", &wrapped, b">"], false),
            "<***M=>",
            "the last character is not the secret's alone"
        );
    }
}

#[test]
fn what_ends_like_the_beginning_of_a_secret_waits_unless_it_is_short_and_the_stream_idle() {
    let secrets = secrets(&[b"0123456789abcdef"]);
    let (mut redactor, mut out) = (Redactor::new(&secrets), Vec::new());
    redactor.push(b"number 01", &mut out);
    assert_eq!((&out[..], redactor.held()), (&b"number "[..], 2));
    redactor.idle(&mut out);
    assert_eq!((&out[..], redactor.held()), (&b"number 01"[..], 0));
    redactor.push(b"234567", &mut out);
    redactor.idle(&mut out);
    assert_eq!(out, b"number 01");
    redactor.push(b"89abcdef.", &mut out);
    assert_eq!(out, b"number 01***.");
    redactor.push(b"01234567", &mut out);
    redactor.finish(&mut out);
    assert_eq!(out, b"number 01***.***");
    assert_eq!(redact(&secrets, &[b"0123456"], false), "0123456");
}

#[test]
fn without_a_secret_everything_passes() {
    let none = secrets(&[b"abc", b"\n\n\n\n\n"]);
    assert_eq!(none.too_short(), 2);
    assert_eq!(redact(&none, &[b"abc", b"def"], true), "abcdef");
    let large = [Secret::new(vec![0; MAX_SECRETS]), Secret::new(vec![1])];
    assert!(Secrets::new(&large).is_err());
    assert!(Secrets::new(&large[..1]).is_ok());
}

/// Text of few letters, so that it is full of secrets and of what nearly is one.
fn text(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&b"aab\n"[..]), length)
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_and_no_secret_survives(
        values in prop::collection::vec(text(4..9), 1..4), whole in text(0..200),
        cuts in prop::collection::vec(0..200_usize, 0..12), insert in prop::collection::vec((0..200_usize, 0..3_usize, 0..2_usize), 0..4),
    ) {
        let values: Vec<&[u8]> = values.iter().map(|value| &value[..]).collect();
        let secrets = secrets(&values);
        let mut whole = whole;
        for (at, value, encode) in insert {
            let value = values[value % values.len()];
            let form = if encode == 1 { BASE64_STANDARD.encode(value).into_bytes() } else { value.to_vec() };
            let at = at.min(whole.len());
            whole.splice(at..at, form);
        }
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]).collect();
        let out = redact(&secrets, &pieces, false);
        prop_assert_eq!(&out, &redact(&secrets, &[&whole], false));
        let idle = redact(&secrets, &pieces, true);
        let mut forms = BTreeSet::new();
        for value in values {
            forms::add(value, &mut forms);
        }
        for form in forms {
            for out in [&out, &idle] {
                let survives = out.as_bytes().windows(form.len()).any(|window| window == form);
                prop_assert!(!survives, "{:?} in {out:?}", form.escape_ascii().to_string());
            }
        }
    }
}

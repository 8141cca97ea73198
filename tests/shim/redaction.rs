//! A secret that a process prints never gets to the disk.

use remoting_kafka::{
    agent::shim::{Shim, spec::Outcome},
    job::Hidden,
};

use super::rig::*;

const SECRET: &str = "correct-horse-battery-staple";

/// What the files of the spool hold, records and all.
fn on_disk(attempt: &remoting_kafka::agent::attempt::Attempt) -> Vec<u8> {
    let files = std::fs::read_dir(attempt.spool()).expect("spool");
    files.flat_map(|file| std::fs::read(file.expect("entry").path()).expect("segment")).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_secret_is_masked_in_pieces_in_base64_and_on_both_streams() {
    let rig = Rig::new();
    let go = rig.path("go");
    let (head, tail) = SECRET.split_at(11);
    // The second half comes only when the first was read and had its time to be let go.
    let mut spec = script(&format!(
        "printf 'a %s' {head}; while ! test -e {}; do sleep 0.01; done; echo '{tail} b'; \
         printf 'user:%s' $TOKEN | base64; echo \"err $TOKEN\" >&2; exit 3",
        go.display()
    ));
    spec.env.push(("TOKEN".into(), SECRET.into()));
    spec.redact = vec![Hidden::new(SECRET.as_bytes().to_vec())];
    let (attempt, _) = rig.start("a", &spec).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    // The first word passes, the half of the secret behind it waits.
    let report = report(&mut shim, |report| report.spooled.stdout > 0).await;
    assert_eq!(report.spooled.stdout, 2);
    assert!(!holds(&on_disk(&attempt), &head[..4]));
    std::fs::write(&go, "").expect("go");
    let exit = ended(&attempt).await;
    assert_eq!(exit.outcome, Outcome::Code(3));
    // The hashes are of what is in the spool.
    let [out, err] = text(&attempt, &exit);
    assert!(out.starts_with("a *** b\n") && err == "err ***\n", "{out:?} {err:?}");
    let disk = on_disk(&attempt);
    let encoded = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ";
    for hidden in [SECRET, &encoded[2..20], "horse-battery"] {
        assert!(!holds(&disk, hidden), "{hidden}");
    }
    assert!(out.lines().nth(1).is_some_and(|line| line.contains("***")), "{out:?}");
}

#[tokio::test]
async fn secrets_that_are_too_large_to_be_masked_start_nothing() {
    let rig = Rig::new();
    let mut spec = script("echo never");
    spec.redact = vec![Hidden::new(vec![b'x'; 70_000])];
    let attempt = rig.claim("a", &spec);
    let failed = soon(launcher().start(&attempt)).await.expect_err("refused").to_string();
    assert!(failed.contains("masked"), "{failed}");
}

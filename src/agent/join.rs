//! How an agent that has a join token comes to its credential: once, whatever dies meanwhile.
//!
//! What it asks with is drawn and written down before it asks. So it can ask again when the answer is lost, and gets a
//! credential for the same name without another use of the token.

use std::{fs, io, path::Path, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Config, Error,
    engine::{Complaint, RETRY, asked, is_fatal},
    starts,
    wallet::{Origin, Stored},
};
use crate::{
    clock,
    id::AgentName,
    kafka::{self, SharedCluster},
    link::{Credential, Enrolment, JoinToken, LinkError, TokenId, enrol},
    private_file::{self, PrivateFileError},
};

/// The credential of the agent `name`: the one that it keeps, or one that it gets for `token` and keeps from now on. Tries
/// until it has an answer; `None` if it was told to stop before.
pub async fn join(
    config: &Config,
    cluster: &SharedCluster,
    token: &JoinToken,
    name: &AgentName,
    stops: &mut mpsc::Receiver<()>,
) -> Result<Option<Arc<Credential>>, Error> {
    let dir = config.data.join("agent").join(name.as_str());
    // One of another controller is of no use with this one.
    let ours =
        |stored: &Stored| stored.origin == Origin::Token(token.id) || stored.credential.controller == token.controller;
    if let Some(stored) = Stored::read(&dir)?.filter(ours) {
        return Ok(Some(stored.credential));
    }
    let failed = |error| Error::Data { dir: dir.clone(), error };
    let starts = starts::count(&dir, clock::unix_ms()).map_err(failed)?;
    let enrolment = enrolment(&dir, token.id)?;
    let mut backoff = RETRY;
    let mut complaint = Complaint::default();
    let credential = loop {
        let asking = enrol(cluster.clone(), config.link.clone(), token, name, enrolment, starts);
        let error = tokio::select! {
            biased;
            () = asked(stops) => return Ok(None),
            answer = asking => match answer {
                Ok(credential) => break Arc::new(credential),
                Err(error) => error,
            },
        };
        // Certificates that are wrong at the first contact are a wrong setting.
        let tls = matches!(error, LinkError::Kafka(kafka::Error::Unreachable { hop: kafka::Hop::Tls, .. }));
        if tls || is_fatal(&error) {
            return Err(error.into());
        }
        complaint.make(name.as_str(), &error);
        tokio::select! {
            biased;
            () = asked(stops) => return Ok(None),
            () = tokio::time::sleep(backoff.next(rand::random())) => {}
        }
    };
    let stored = Stored { credential: credential.clone(), origin: Origin::Token(token.id), next: None };
    stored.keep(&dir)?;
    tracing::info!("agent {name} enrolled, its credential is in {}", dir.display());
    match fs::remove_file(dir.join(ENROLMENT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(Some(credential)),
    }
}

const ENROLMENT: &str = "enrolment";

/// What is asked with, by this token: drawn once, and on the disk when this returns.
fn enrolment(dir: &Path, token: TokenId) -> Result<Enrolment, PrivateFileError> {
    let path = dir.join(ENROLMENT);
    let known = match private_file::read(&path) {
        Ok(bytes) => parse(&String::from_utf8_lossy(&bytes), token),
        Err(PrivateFileError::Missing { .. }) => None,
        Err(error) => return Err(error),
    };
    if let Some(known) = known {
        return Ok(known);
    }
    // A broken file, or one of another token: nothing is lost but the right to ask again.
    let drawn = Enrolment::random();
    private_file::replace(&path, format!("{token} {:032x}\n", u128::from_be_bytes(drawn.0)).as_bytes())?;
    Ok(drawn)
}

fn parse(text: &str, token: TokenId) -> Option<Enrolment> {
    let (of, drawn) = text.trim().split_once(' ')?;
    let same = of.parse::<TokenId>() == Ok(token);
    same.then(|| u128::from_str_radix(drawn, 16).ok().map(|drawn| Enrolment(drawn.to_be_bytes()))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_with_is_drawn_once_for_each_token() {
        let dir = tempfile::tempdir().expect("dir");
        let (a, b) = (TokenId([1; 8]), TokenId([2; 8]));
        let first = enrolment(dir.path(), a).expect("drawn");
        assert_eq!(enrolment(dir.path(), a).expect("read"), first);
        let second = enrolment(dir.path(), b).expect("drawn");
        assert_ne!(second, first);
        assert_eq!(enrolment(dir.path(), b).expect("read"), second);
    }
}

//! `DescribeUserScramCredentials` and `AlterUserScramCredentials`.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::credentials::{Change, Changed};
use super::super::scram::{Hash, Verifier};
use super::super::server::Shared;
use super::refusal::{self, Refusal};
use super::{RequestError, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Kafka's own bounds: below, a stolen verifier is guessed too easily; above, each login costs too much.
const ITERATIONS: RangeInclusive<i32> = 4096..=16384;
/// Clients send 16 to 32 bytes; every challenge carries them.
const LONGEST_SALT: usize = 256;

/// Kafka's number for a mechanism.
fn number(hash: Hash) -> i8 {
    match hash {
        Hash::Sha256 => 1,
        Hash::Sha512 => 2,
    }
}

fn hash(number: i8) -> Result<Hash, Refusal> {
    match number {
        1 => Ok(Hash::Sha256),
        2 => Ok(Hash::Sha512),
        _ => Err((ResponseError::UnsupportedSaslMechanism, "Unknown SCRAM mechanism.".to_owned())),
    }
}

pub(super) fn describe(
    shared: &Shared,
    rights: &Rights,
    request: &DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let response = DescribeUserScramCredentialsResponse::default();
    if let Err((error, message)) = refusal::cluster(rights, Operation::Describe) {
        return response.with_error_code(error.code()).with_error_message(text(message));
    }
    let known = shared.accounts.described();
    let infos = |hashes: &BTreeMap<Hash, u32>| {
        let infos = hashes.iter().map(|(hash, iterations)| {
            let iterations = i32::try_from(*iterations).unwrap_or(i32::MAX);
            CredentialInfo::default().with_mechanism(number(*hash)).with_iterations(iterations)
        });
        infos.collect::<Vec<_>>()
    };
    let wanted: Vec<&StrBytes> = request.users.iter().flatten().map(|user| &user.name).collect();
    if wanted.is_empty() {
        let results = known.iter().map(|(user, hashes)| {
            let user = StrBytes::from_string(user.clone());
            DescribeUserScramCredentialsResult::default().with_user(user).with_credential_infos(infos(hashes))
        });
        return response.with_results(results.collect());
    }
    let mut times = BTreeMap::new();
    wanted.iter().for_each(|user| *times.entry(*user).or_insert(0) += 1);
    let results = times.into_iter().map(|(user, times)| {
        let result = DescribeUserScramCredentialsResult::default().with_user(user.clone());
        let refused = |error: ResponseError, message: String| {
            result.clone().with_error_code(error.code()).with_error_message(text(message))
        };
        match known.get(user.as_str()) {
            _ if times > 1 => {
                let message =
                    format!("Cannot describe SCRAM credentials for the same user twice in a single request: {user}");
                refused(ResponseError::DuplicateResource, message)
            }
            None => {
                let message = format!("Attempt to describe a user credential that does not exist: {user}");
                refused(ResponseError::ResourceNotFound, message)
            }
            Some(hashes) => result.with_credential_infos(infos(hashes)),
        }
    });
    response.with_results(results.collect())
}

pub(super) async fn alter(
    shared: &Arc<Shared>,
    rights: &Rights,
    request: AlterUserScramCredentialsRequest,
) -> Result<AlterUserScramCredentialsResponse, RequestError> {
    let allowed = refusal::cluster(rights, Operation::Alter);
    let shared = Arc::clone(shared);
    let altered = tokio::task::spawn_blocking(move || alter_all(&shared, &allowed, &request)).await?;
    let results = altered.into_iter().map(|(user, result)| {
        let response = AlterUserScramCredentialsResult::default().with_user(user.clone());
        match result {
            Ok(()) => {
                tracing::info!(user = user.as_str(), "changed a SCRAM credential");
                response
            }
            Err((error, message)) => response.with_error_code(error.code()).with_error_message(text(message)),
        }
    });
    Ok(AlterUserScramCredentialsResponse::default().with_results(results.collect()))
}

/// One answer for each user, as a user can be named only once.
fn alter_all(
    shared: &Shared,
    allowed: &Result<(), Refusal>,
    request: &AlterUserScramCredentialsRequest,
) -> BTreeMap<StrBytes, Result<(), Refusal>> {
    let mut results = BTreeMap::new();
    let mut changes = Vec::new();
    let configured = |user: &str| shared.accounts.is_configured(user);
    let deletions = request.deletions.iter().map(|d| (&d.name, delete(d, configured(&d.name))));
    let upsertions = request.upsertions.iter().map(|u| (&u.name, upsert(u)));
    for (user, read) in deletions.chain(upsertions) {
        let read = allowed.clone().and(read);
        if results.contains_key(user) {
            changes.retain(|(other, _, _)| *other != user);
            let message = "A user credential cannot be altered twice in the same request".to_owned();
            let twice = allowed.clone().and(Err((ResponseError::DuplicateResource, message)));
            results.insert(user.clone(), twice);
            continue;
        }
        results.insert(user.clone(), read.as_ref().map(|_| ()).map_err(Clone::clone));
        if let Ok((hash, change)) = read {
            changes.push((user, hash, change));
        }
    }
    let users: Vec<StrBytes> = changes.iter().map(|(user, _, _)| (*user).clone()).collect();
    let changes = changes.into_iter().map(|(user, hash, change)| (user.as_str(), hash, change));
    let answers: Vec<Result<(), Refusal>> = match shared.accounts.credentials.alter(changes) {
        Ok(answers) => answers.into_iter().map(verdict).collect(),
        Err(error) => {
            tracing::error!(%error, "cannot keep SCRAM credentials");
            let message = format!("cannot keep the credential: {error}");
            users.iter().map(|_| Err((ResponseError::KafkaStorageError, message.clone()))).collect()
        }
    };
    results.extend(users.into_iter().zip(answers));
    results
}

fn verdict(changed: Changed) -> Result<(), Refusal> {
    match changed {
        Changed::Done => Ok(()),
        Changed::Absent => {
            let message = "Attempt to delete a user credential that does not exist".to_owned();
            Err((ResponseError::ResourceNotFound, message))
        }
        Changed::Full => {
            let message = "the broker keeps no more credentials: delete some first".to_owned();
            Err((ResponseError::PolicyViolation, message))
        }
    }
}

fn unacceptable<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err((ResponseError::UnacceptableCredential, message.into()))
}

fn delete(deletion: &ScramCredentialDeletion, configured: bool) -> Result<(Hash, Change), Refusal> {
    if deletion.name.is_empty() {
        return unacceptable("Username must not be empty");
    }
    Ok((hash(deletion.mechanism)?, Change::Delete { configured }))
}

fn upsert(upsertion: &ScramCredentialUpsertion) -> Result<(Hash, Change), Refusal> {
    if upsertion.name.is_empty() {
        return unacceptable("Username must not be empty");
    }
    let hash = hash(upsertion.mechanism)?;
    if upsertion.iterations < *ITERATIONS.start() {
        return unacceptable("Too few iterations");
    }
    if upsertion.iterations > *ITERATIONS.end() {
        return unacceptable("Too many iterations");
    }
    let Some(iterations) = u32::try_from(upsertion.iterations).ok().and_then(NonZeroU32::new) else {
        return unacceptable("Too few iterations");
    };
    let (salt, salted) = (&upsertion.salt, &upsertion.salted_password);
    if salt.is_empty() || salt.len() > LONGEST_SALT {
        return unacceptable(format!("Salt must have 1 to {LONGEST_SALT} bytes"));
    }
    if salted.len() != hash.length() {
        return unacceptable(format!("Salted password must have {} bytes for this mechanism", hash.length()));
    }
    Ok((hash, Change::Set(Verifier::from_salted(hash, iterations, salt, salted))))
}

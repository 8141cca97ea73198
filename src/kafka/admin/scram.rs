//! Users with a password that never leaves us: Kafka gets what SCRAM derives from it.

use std::{fmt, num::NonZeroU32};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterUserScramCredentialsRequest, ApiKey, DescribeUserScramCredentialsRequest,
        alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
        describe_user_scram_credentials_request::UserName,
    },
};
use ring::pbkdf2;

use super::{Admin, Offered, text};
use crate::{
    kafka::Error,
    secret::{self, Secret},
};

/// Rounds of PBKDF2. Kafka takes 4,096 to 16,384; a login costs the client and the broker about 5 ms at this number.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(8192).expect("it is not 0");

/// Bytes of salt, new for each password.
const SALT: usize = 32;

/// A mechanism of SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// The number in Kafka's protocol.
    const fn code(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    fn of_code(code: i8) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|mechanism| mechanism.code() == code)
    }

    /// What SCRAM calls the salted password; 32 or 64 bytes.
    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        salted
    }
}

impl fmt::Display for ScramMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        })
    }
}

/// A user whom the cluster keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramUser {
    /// The name, without `User:`.
    pub name: String,
    /// The mechanisms with which the user can log in, and the rounds of each.
    pub credentials: Vec<(ScramMechanism, i32)>,
}

impl Admin {
    /// Those of the users `names` whom the cluster keeps, by name. Takes Describe on the cluster.
    pub async fn scram_users(&self, names: &[&str]) -> Result<Offered<Vec<ScramUser>>, Error> {
        self.within("DescribeUserScramCredentials", self.describe_users(names)).await
    }

    async fn describe_users(&self, names: &[&str]) -> Result<Offered<Vec<ScramUser>>, Error> {
        let Offered::Present(connection) = self.connection_for(ApiKey::DescribeUserScramCredentials).await? else {
            return Ok(Offered::Absent);
        };
        // No name at all would mean everybody.
        if names.is_empty() {
            return Ok(Offered::Present(Vec::new()));
        }
        let names = names.iter().map(|name| UserName::default().with_name(text(name)));
        let request = DescribeUserScramCredentialsRequest::default().with_users(Some(names.collect()));
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        let asked = self.asked_of_cluster("DescribeUserScramCredentials", "Describe");
        asked.check_with(response.error_code, response.error_message.as_ref())?;
        let mut users = Vec::new();
        for result in &response.results {
            if result.error_code == ResponseError::ResourceNotFound.code() {
                continue;
            }
            asked.check_with(result.error_code, result.error_message.as_ref())?;
            let credentials = result.credential_infos.iter();
            let credentials = credentials.filter_map(|c| Some((ScramMechanism::of_code(c.mechanism)?, c.iterations)));
            users.push(ScramUser { name: result.user.to_string(), credentials: credentials.collect() });
        }
        users.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Offered::Present(users))
    }

    /// Adds the user, or gives a known one another password. Takes Alter on the cluster.
    ///
    /// [`Error::Config`] for a password that is empty or not of visible ASCII: clients prepare others in different ways.
    pub async fn set_scram_user(
        &self,
        name: &str,
        mechanism: ScramMechanism,
        password: &Secret<String>,
    ) -> Result<Offered<()>, Error> {
        let password = password.expose();
        if password.is_empty() || !password.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Config(format!("the password of {name} must be of visible ASCII characters")));
        }
        let salt: [u8; SALT] = secret::random();
        let upsertion = ScramCredentialUpsertion::default()
            .with_name(text(name))
            .with_mechanism(mechanism.code())
            .with_iterations(i32::try_from(ITERATIONS.get()).expect("it is small"))
            .with_salt(Bytes::copy_from_slice(&salt))
            .with_salted_password(mechanism.salted(password, &salt, ITERATIONS).into());
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
        self.within("AlterUserScramCredentials", self.alter_users(request)).await
    }

    /// Takes a user's login by this mechanism away; one who has none is a success. Sessions that are open stay open.
    /// Takes Alter on the cluster.
    pub async fn delete_scram_user(&self, name: &str, mechanism: ScramMechanism) -> Result<Offered<()>, Error> {
        let deletion = ScramCredentialDeletion::default().with_name(text(name)).with_mechanism(mechanism.code());
        let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
        self.within("AlterUserScramCredentials", self.alter_users(request)).await
    }

    async fn alter_users(&self, request: AlterUserScramCredentialsRequest) -> Result<Offered<()>, Error> {
        let Offered::Present(connection) = self.connection_for(ApiKey::AlterUserScramCredentials).await? else {
            return Ok(Offered::Absent);
        };
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        let asked = self.asked_of_cluster("AlterUserScramCredentials", "Alter");
        for result in &response.results {
            if result.error_code != ResponseError::ResourceNotFound.code() {
                asked.check_with(result.error_code, result.error_message.as_ref())?;
            }
        }
        Ok(Offered::Present(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_salted_password_is_that_of_the_rfc() {
        // RFC 7677, section 3: user "user", password "pencil", 4,096 rounds.
        let salt =
            base64::Engine::decode(&base64::prelude::BASE64_STANDARD, "W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let salted = ScramMechanism::Sha256.salted("pencil", &salt, NonZeroU32::new(4096).expect("not 0"));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &salted);
        let server_key = ring::hmac::sign(&key, b"Server Key");
        let server = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, server_key.as_ref());
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
                       r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
                       c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = ring::hmac::sign(&server, message.as_bytes());
        let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, signature.as_ref());
        assert_eq!(text, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(ScramMechanism::Sha512.salted("pencil", &salt, ITERATIONS).len(), 64);
    }

    #[test]
    fn mechanisms_have_kafkas_numbers() {
        for mechanism in [ScramMechanism::Sha256, ScramMechanism::Sha512] {
            assert_eq!(ScramMechanism::of_code(mechanism.code()), Some(mechanism));
        }
        assert_eq!(ScramMechanism::of_code(0), None);
    }
}

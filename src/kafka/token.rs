//! OAuth tokens: where they come from, and when a new one is due.

use std::{
    fmt,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use super::config::TokenSource;
use crate::secret::Secret;

/// How long the token command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The tokens of one source.
pub(super) struct Tokens {
    source: TokenSource,
    last: Mutex<Option<Token>>,
}

struct Token {
    text: Secret<String>,
    /// When it is to be replaced, since 1970.
    renew_at: Duration,
}

impl Tokens {
    pub(super) fn new(source: TokenSource) -> Self {
        Self { source, last: Mutex::new(None) }
    }

    /// A token that is good for a login now.
    pub(super) async fn current(&self) -> Result<Secret<String>, String> {
        let text = match &self.source {
            TokenSource::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|e| format!("the token file {} cannot be read: {e}", path.display()))?,
            TokenSource::Command(command) => {
                if let Some(token) = self.kept(since_1970()) {
                    return Ok(token);
                }
                run(command).await?
            }
        };
        let text = Secret::new(text.trim().to_owned());
        if text.expose().is_empty() || text.expose().contains(char::is_whitespace) {
            return Err(format!("{self} gave no token"));
        }
        if let Some(life) = Life::of(text.expose()) {
            let now = since_1970();
            if life.end <= now {
                return Err(format!("the token from {self} ended {} s ago; renew it", (now - life.end).as_secs()));
            }
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Token { text: text.clone(), renew_at: life.renew_at(now) });
        }
        Ok(text)
    }

    fn kept(&self, now: Duration) -> Option<Secret<String>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|token| now < token.renew_at).map(|token| token.text.clone())
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            TokenSource::File(path) => write!(f, "{}", path.display()),
            TokenSource::Command(command) => write!(f, "command {:?}", command.first().map_or("", String::as_str)),
        }
    }
}

async fn run(command: &[String]) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("the token command is empty")?;
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output();
    let output = timeout(COMMAND_TIMEOUT, output)
        .await
        .map_err(|_| format!("token command {program:?} took longer than {COMMAND_TIMEOUT:?}"))?
        .map_err(|e| format!("token command {program:?} cannot be run: {e}"))?;
    if !output.status.success() {
        return Err(format!("token command {program:?} failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("token command {program:?} printed no text"))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What a JSON web token says of its time. An opaque token says nothing.
#[derive(Debug, PartialEq)]
struct Life {
    start: Option<Duration>,
    end: Duration,
}

impl Life {
    fn of(token: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Claims {
            iat: Option<f64>,
            exp: f64,
        }
        let claims = token.split('.').nth(1)?.trim_end_matches('=');
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let start = claims.iat.and_then(|iat| Duration::try_from_secs_f64(iat).ok());
        Some(Self { start, end: Duration::try_from_secs_f64(claims.exp).ok()? })
    }

    /// At four fifths of its life.
    fn renew_at(&self, now: Duration) -> Duration {
        let life = self.end.saturating_sub(self.start.unwrap_or(now));
        self.end.saturating_sub(life / 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life() {
        let life = Life::of(&token(r#"{"iat":1000,"exp":1100,"sub":"rk"}"#)).expect("claims");
        assert_eq!(life.renew_at(Duration::from_secs(1000)), Duration::from_secs(1080));
        let life = Life::of(&token(r#"{"exp":1100.5}"#)).expect("claims");
        assert_eq!(life.renew_at(Duration::from_secs_f64(1000.5)), Duration::from_secs_f64(1080.5));
    }

    #[test]
    fn opaque_and_broken_tokens_have_no_life() {
        for text in ["", "abc", "a.b.c", "a..c", &token("[]"), &token(r#"{"exp":-1}"#), &token(r#"{"exp":"x"}"#)] {
            assert_eq!(Life::of(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_command_runs_once_per_life_of_its_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let end = since_1970().as_secs() + 3600;
        let script = format!("echo x >> runs; printf %s {}", token(&format!(r#"{{"exp":{end}}}"#)));
        let cd = format!("cd {}; {script}", folder.path().display());
        let tokens = Tokens::new(TokenSource::Command(vec!["sh".to_owned(), "-c".to_owned(), cd]));
        let first = tokens.current().await.expect("a token");
        assert_eq!(first, tokens.current().await.expect("a token"));
        let runs = std::fs::read_to_string(folder.path().join("runs")).expect("it ran");
        assert_eq!(runs.lines().count(), 1);
    }

    #[tokio::test]
    async fn an_ended_token_is_refused_before_the_broker_sees_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, token(r#"{"exp":1000}"#)).expect("written");
        let refused = Tokens::new(TokenSource::File(path)).current().await.expect_err("ended");
        assert!(refused.contains("renew it"), "{refused}");
    }
}

//! What a request asks for, as a job's spec.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    api::{
        ApiError, Code,
        jobs::{LogFormat, SubmitJob},
    },
    bundle::Used,
    job::{self, Cancel, Command, Hidden, JobSecret, SecretRoute, Spec, Stdin, Target, Workspace},
};

/// The spec that `request` asks for. Whether it is allowed is another question.
pub fn spec(request: SubmitJob, bundles: Vec<Used>) -> Result<Spec, ApiError> {
    let target = match request.agent {
        Some(_) if !request.selector.is_empty() => return Err(invalid("name an agent or a selector, not both")),
        Some(agent) => Target::Agent(agent),
        None => Target::Selector(request.selector.parse().map_err(invalid)?),
    };
    let command = match request.script {
        Some(_) if !request.argv.is_empty() => return Err(invalid("give a command or a script, not both")),
        Some(script) => Command::Script { text: script.text, interpreter: script.interpreter },
        None => Command::Argv(request.argv),
    };
    let mut secrets = std::collections::BTreeMap::new();
    for (name, secret) in request.secrets {
        let value = bytes(&format!("secret {name}"), secret.value.expose())?;
        let route = if secret.file { SecretRoute::File } else { SecretRoute::Variable };
        secrets.insert(name, JobSecret { value: Hidden::new(value), route });
    }
    let usual = Cancel::default();
    Ok(Spec {
        name: request.name,
        command,
        env: request.env,
        cwd: request.cwd,
        target,
        timeout: request.timeout_ms.map(Duration::from_millis),
        priority: request.priority.unwrap_or(Spec::DEFAULT_PRIORITY),
        retries: request.retries,
        stdin: request.stdin.map(|text| bytes("stdin", &text)).transpose()?.map(Stdin::Inline),
        secrets,
        concurrency: request.concurrency,
        submitter: request.submitter,
        workspace: request.keep_workspace.map_or(Workspace::Remove, |quota| Workspace::Keep { quota }),
        cancel: cancel(request.signal, request.grace_ms, usual).unwrap_or(usual),
        log_format: match request.log_format {
            LogFormat::Sealed => job::LogFormat::Sealed,
            LogFormat::Open => job::LogFormat::Open,
        },
        spool_limit: request.spool_limit.unwrap_or(Spec::DEFAULT_SPOOL_LIMIT),
        bundles,
        artifacts: request.artifacts,
    })
}

/// How to end a process, if something was said about it; the rest as `usual`.
pub fn cancel(signal: Option<i32>, grace_ms: Option<u64>, usual: Cancel) -> Option<Cancel> {
    (signal.is_some() || grace_ms.is_some()).then(|| Cancel {
        signal: signal.unwrap_or(usual.signal),
        grace: grace_ms.map_or(usual.grace, Duration::from_millis),
    })
}

fn bytes(what: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    BASE64_STANDARD.decode(text).map_err(|error| invalid(format!("{what} is no base64: {error}")))
}

fn invalid(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(Code::Invalid, error.to_string())
}

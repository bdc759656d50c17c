//! `oomwarden status`: how the running daemon stands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::{Method, StatusCode};
use serde::Deserialize as _;
use serde_json::Value;

use super::output;
use crate::command::{FAILED, Failure, USAGE};
use crate::serve::client::{AskError, ask, ask_within};
use crate::serve::socket::DEFAULT;
use crate::serve::status::Status;

/// Which daemon is asked.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// The daemon's control socket
    #[arg(long, value_name = "PATH", env = "OOMWARDEN_CONTROL", default_value = DEFAULT)]
    control: PathBuf,
}

impl ControlArgs {
    /// Asks it; the answer is JSON.
    pub(super) fn ask(&self, method: &Method, path: &str) -> Result<Value, Failure> {
        self.is_there()?;
        self.understood(ask(&self.control, method, path))
    }

    /// As [`ControlArgs::ask`], with so much time for the answer.
    pub(super) fn ask_within(&self, method: &Method, path: &str, patience: Duration) -> Result<Value, Failure> {
        self.is_there()?;
        self.understood(ask_within(&self.control, method, path, patience))
    }

    /// # Errors
    /// There is none to be asked.
    pub(super) fn is_there(&self) -> Result<(), Failure> {
        if self.control.as_os_str() == "none" {
            let why = "the daemon has no control socket (--control none, or OOMWARDEN_CONTROL=none): give it one";
            return Err(Failure::new(FAILED, why));
        }
        Ok(())
    }

    fn understood(&self, answer: Result<String, AskError>) -> Result<Value, Failure> {
        let answer = answer.map_err(|error| match &error {
            // What was asked for is wrong, not the asking.
            AskError::Refused(_, StatusCode::UNPROCESSABLE_ENTITY, _) => Failure::new(USAGE, error.to_string()),
            _ => Failure::new(FAILED, error.to_string()),
        })?;
        serde_json::from_str(&answer).map_err(|error| self.foreign(&error))
    }

    /// For an answer that is not what was asked for.
    pub(super) fn foreign(&self, error: &serde_json::Error) -> Failure {
        let why = format!("{}: the answer is not understood: {error}; is it oomwarden's control socket?", self.control.display());
        Failure::new(FAILED, why)
    }
}

/// Options of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Every watched group, not only the fullest
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    control: ControlArgs,
    /// One JSON object instead of text; holds everything
    #[arg(long)]
    json: bool,
}

/// Asks the daemon and prints its answer.
#[must_use]
pub fn run(args: &StatusArgs) -> u8 {
    let answer = args.control.ask(&Method::GET, "/api/v1/status");
    let text = |value: &Value| Status::deserialize(value).map(|status| status.text(args.all)).map_err(|error| args.control.foreign(&error));
    match answer {
        Err(failure) => failure.report(),
        Ok(value) if args.json => output::json(&value),
        Ok(value) => text(&value).map_or_else(|failure| failure.report(), |text| output::text(&text)),
    }
}

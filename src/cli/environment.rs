//! The program's environment variables: a name that nobody knows is an error, an empty value counts as none, truth is
//! written as people write it, and what is wrong with a value is said with the variable's name.
//!
//! Which names there are is taken from the definition of the options, those of every command: one file of variables serves all of them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, Error};
use clap::{Arg, ArgAction, Command};

use crate::command::{Failure, USAGE};
use crate::policy::nearest;

/// What the names of all variables begin with.
const PREFIX: &str = "OOMWARDEN_";

/// The definition of the commands as it is to be used for parsing: variables without a value are left out, and flags take any word for truth.
#[must_use]
pub fn prepare(command: Command) -> Command {
    command.mut_subcommands(|command| command.mut_args(prepare_one))
}

fn prepare_one(arg: Arg) -> Arg {
    let Some(name) = arg.get_env() else { return arg };
    if std::env::var_os(name).is_some_and(|value| value.is_empty()) {
        return arg.env(Resettable::Reset);
    }
    if matches!(arg.get_action(), ArgAction::SetTrue) { arg.value_parser(truth) } else { arg }
}

/// Reads truth.
fn truth(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err("write true or false (1 and 0, yes and no, on and off work too)".to_owned()),
    }
}

/// Every variable that an option of some command can be given by, without the prefix.
fn known(command: &Command) -> BTreeSet<String> {
    let args = command.get_subcommands().flat_map(Command::get_arguments);
    let names = args.filter_map(|arg| arg.get_env()?.to_str()?.strip_prefix(PREFIX).map(str::to_owned));
    names.collect()
}

/// Looks for variables that begin like ours and that no option is named by: misspelt ones, which would be passed over without a word.
///
/// # Errors
/// All of them, each with the nearest name that there is.
pub fn check(command: &Command, present: impl IntoIterator<Item = (OsString, OsString)>) -> Result<(), Failure> {
    let known = known(command);
    let own = present.into_iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    let own: Vec<(String, OsString)> = own.map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
    let services = services(&own);
    let lower: Vec<String> = known.iter().map(|name| name.to_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let mut unknown: Vec<String> = Vec::new();
    for (name, _) in &own {
        let Some(rest) = name.strip_prefix(PREFIX).filter(|rest| !known.contains(*rest)) else { continue };
        if services.iter().any(|service| is_of_service(name, service)) {
            continue;
        }
        let hint = match nearest(rest, &lower) {
            Some(near) => format!("did you mean {PREFIX}{}?", near.to_uppercase()),
            None => {
                let all: Vec<String> = known.iter().map(|name| format!("{PREFIX}{name}")).collect();
                format!("there are {}", all.join(", "))
            }
        };
        unknown.push(format!("unknown environment variable {}: {hint}", name.escape_debug()));
    }
    if unknown.is_empty() {
        return Ok(());
    }
    unknown.sort();
    Err(Failure::new(USAGE, unknown.join("\noomwarden: ")))
}

/// The names under which Kubernetes tells every container of services whose names begin like ours, `OOMWARDEN` or `OOMWARDEN_METRICS`:
/// nobody set these by hand.
fn services(own: &[(String, OsString)]) -> Vec<String> {
    let value = |name: &str| own.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let is_url = |value: &OsStr| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.to_string_lossy().starts_with(scheme));
    let hosts = own.iter().filter_map(|(name, _)| name.strip_suffix("_SERVICE_HOST"));
    hosts.filter(|service| value(&format!("{service}_PORT")).is_some_and(|port| is_url(port))).map(str::to_owned).collect()
}

fn is_of_service(name: &str, service: &str) -> bool {
    let rest = name.strip_prefix(service).unwrap_or_default();
    rest == "_PORT" || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|part| rest.starts_with(part))
}

/// Says of an error in an option's value by which variable the value came, if it did not come by the command line.
#[must_use]
pub fn name_variable(mut error: Error, command: &Command, args: &[OsString]) -> Error {
    let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidArg) else { return error };
    // `--psi-groups <N>`.
    let Some(long) = said.split_whitespace().next().and_then(|option| option.strip_prefix("--")) else { return error };
    if is_given(long, args) {
        return error;
    }
    let mut all = command.get_subcommands().flat_map(Command::get_arguments).filter(|arg| arg.get_long() == Some(long));
    let variable = all.find_map(|arg| arg.get_env().filter(|name| std::env::var_os(name).is_some()));
    if let Some(variable) = variable {
        let named = format!("{} (of {said})", variable.to_string_lossy());
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
    error
}

/// Whether an option stands on the command line.
fn is_given(long: &str, args: &[OsString]) -> bool {
    let long = format!("--{long}");
    let rest = |arg: &OsString| arg.to_string_lossy().strip_prefix(&long).map(str::to_owned);
    args.iter().filter_map(rest).any(|rest| rest.is_empty() || rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn checked(present: &[(&str, &str)]) -> Result<(), String> {
        let present = present.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        check(&Cli::command(), present).map_err(|failure| failure.message)
    }

    #[test]
    fn truth_is_written_in_many_ways() {
        for text in ["1", "true", "TRUE", "yes", "Yes", "on", "ON", "y", "t", " true\n"] {
            assert_eq!(truth(text), Ok(true), "{text}");
        }
        for text in ["0", "false", "False", "no", "NO", "off", "n", "f"] {
            assert_eq!(truth(text), Ok(false), "{text}");
        }
        for text in ["", "2", "maybe", "truee", "-1", "enabled"] {
            assert!(truth(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_flag_with_a_variable_takes_every_word() {
        let flags = |command: &Command| {
            let all = command.get_subcommands().flat_map(|command| command.get_arguments().map(|arg| (command.get_name().to_owned(), arg)));
            let flags = all.filter(|(_, arg)| arg.get_env().is_some() && !arg.get_action().takes_values());
            flags.map(|(name, arg)| (name, arg.get_id().to_string(), format!("{:?}", arg.get_value_parser()))).collect::<Vec<_>>()
        };
        let (before, after) = (flags(&Cli::command()), flags(&prepare(Cli::command())));
        assert!(before.iter().any(|(command, id, _)| command == "run" && id == "observe"), "{before:?}");
        for ((command, id, plain), (_, _, parser)) in before.iter().zip(&after) {
            assert_ne!(plain, parser, "{command} {id} takes clap's words only");
        }
    }

    #[test]
    fn names_that_nobody_knows_are_errors_with_the_nearest() {
        assert_eq!(checked(&[("PATH", "/bin"), ("OOMWARDEN_OBSERVE", "1"), ("OOMWARDEN_CONTROL", "x"), ("oomwarden_rounds", "5")]), Ok(()));
        assert_eq!(
            checked(&[("OOMWARDEN_OBSERVER", "true"), ("OOMWARDEN_POLCY", "")]).unwrap_err(),
            "unknown environment variable OOMWARDEN_OBSERVER: did you mean OOMWARDEN_OBSERVE?\n\
             oomwarden: unknown environment variable OOMWARDEN_POLCY: did you mean OOMWARDEN_POLICY?"
        );
        assert!(checked(&[("OOMWARDEN_observe", "1")]).unwrap_err().contains("OOMWARDEN_OBSERVE?"));
        let far = checked(&[("OOMWARDEN_SOMETHING_ELSE", "1")]).unwrap_err();
        assert!(far.contains("OOMWARDEN_LOG_LEVEL, ") && far.contains("OOMWARDEN_STATE"), "{far}");
        assert!(checked(&[("OOMWARDEN_", "1")]).is_err());
    }

    #[test]
    fn what_kubernetes_says_of_a_service_of_that_name_is_no_error() {
        let service = [
            ("OOMWARDEN_SERVICE_HOST", "10.0.0.7"),
            ("OOMWARDEN_SERVICE_PORT", "19877"),
            ("OOMWARDEN_SERVICE_PORT_METRICS", "19877"),
            ("OOMWARDEN_PORT", "tcp://10.0.0.7:19877"),
            ("OOMWARDEN_PORT_19877_TCP", "tcp://10.0.0.7:19877"),
            ("OOMWARDEN_PORT_19877_TCP_PROTO", "tcp"),
            ("OOMWARDEN_PORT_19877_TCP_PORT", "19877"),
            ("OOMWARDEN_PORT_19877_TCP_ADDR", "10.0.0.7"),
        ];
        assert_eq!(checked(&service), Ok(()));
        let longer: Vec<(String, &str)> =
            service.iter().map(|(name, value)| (name.replace("OOMWARDEN", "OOMWARDEN_METRICS_V2"), *value)).collect();
        assert_eq!(checked(&longer.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>()), Ok(()));
        // Without the rest of what Kubernetes says these are slips of the pen.
        for alone in [("OOMWARDEN_PORT", "9000"), ("OOMWARDEN_SERVICE_HOST", "x"), ("OOMWARDEN_LISTEN_PORT", "tcp://x:1")] {
            assert!(checked(&[alone]).is_err(), "{alone:?}");
        }
        assert!(checked(&[&service[..], &[("OOMWARDEN_OBSERVER", "1")]].concat()).is_err());
    }
}

//! Flags made from the table of settings: what `--help` lists is what the file and the environment take.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::Error};

use super::Failure;
use crate::config::{
    Environment, Given, Settings,
    keys::{self, Key, Kind, Role},
};

fn argument(key: &'static Key) -> Arg {
    let arg = Arg::new(key.name).long(key.name).help(key.help).help_heading(key.heading).hide(key.hidden);
    let arg = arg.allow_hyphen_values(key.dashes);
    let arg = key.alias.into_iter().fold(arg, Arg::visible_alias);
    let arg = key.short.into_iter().fold(arg, Arg::short);
    match key.kind {
        Kind::One => arg.value_name(key.value).action(ArgAction::Set),
        Kind::Many => arg.value_name(key.value).action(ArgAction::Append),
        Kind::Switch => arg
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true),
    }
}

fn augment(command: Command, role: Role) -> Command {
    command.args(keys::of_role(role).map(argument))
}

fn given(matches: &ArgMatches, role: Role) -> Given {
    let values = |key: &Key| Some(matches.get_many::<String>(key.name)?.cloned().collect());
    keys::of_role(role).filter_map(|key| Some((key.name, values(key)?))).collect()
}

macro_rules! flags {
    ($(#[$doc:meta] [$with:meta] $name:ident = $role:expr;)*) => {$(
        #[$doc]
        #[cfg($with)]
        #[derive(Debug, Clone, Default)]
        pub struct $name(Given);

        #[cfg($with)]
        impl $name {
            /// Puts the flags over the environment and the file.
            pub fn settings(self, environment: &Environment) -> Result<Settings, Failure> {
                Ok(Settings::gather($role, self.0, environment.clone())?)
            }
        }

        #[cfg($with)]
        impl Args for $name {
            fn augment_args(command: Command) -> Command {
                augment(command, $role)
            }

            fn augment_args_for_update(command: Command) -> Command {
                augment(command, $role)
            }
        }

        #[cfg($with)]
        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
                Ok(Self(given(matches, $role)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
                self.0.extend(given(matches, $role));
                Ok(())
            }
        }
    )*};
}

flags! {
    /// Flags of `rk controller run`.
    [all(feature = "cli", feature = "controller")] ControllerFlags = Role::Controller;
    /// Flags of `rk agent run`.
    [feature = "agent"] AgentFlags = Role::Agent;
    /// Flags of `rk broker`.
    [all(feature = "cli", feature = "broker")] BrokerFlags = Role::Broker;
    /// Flags of `rk doctor`.
    [all(feature = "cli", any(feature = "agent", feature = "controller"))] DoctorFlags = Role::Doctor;
    /// Flags of the commands that ask a controller.
    [feature = "cli"] ClientFlags = Role::Client;
    /// Flags of `rk jenkins-agent`.
    [feature = "cli"] JenkinsFlags = Role::Jenkins;
    /// Flags of `rk topics`.
    [all(feature = "cli", any(feature = "agent", feature = "controller"))] TopicsFlags = Role::Topics;
}

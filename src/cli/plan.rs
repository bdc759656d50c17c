//! `oomwarden plan`: whom each rule would kill right now.

use std::time::Duration;

use clap::Args;

use super::asking::{Policy, PolicyArgs, TreeArgs};
use super::output;
use crate::command::{Failure, USAGE};
use crate::policy::{nearest_name, parse_time};
use crate::preview::Asked;
use crate::preview::plan::{Plan, plan};

/// Options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Only this rule
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Every subject and every candidate, not only what matters now
    #[arg(long)]
    all: bool,
    /// How long growth and pressure are watched where a rule ranks by them
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    watch: Duration,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    tree: TreeArgs,
    /// One JSON object instead of text; holds everything
    #[arg(long)]
    json: bool,
}

/// Makes the plan and prints it. The exit code: 2 for a bad policy or an unknown rule, 3 without cgroup v2.
#[must_use]
pub fn run(args: &PlanArgs) -> u8 {
    match planned(args) {
        Err(failure) => failure.report(),
        Ok(plan) if args.json => output::json(&plan),
        Ok(plan) => output::text(&plan.text(args.all)),
    }
}

fn planned(args: &PlanArgs) -> Result<Plan, Failure> {
    let (loaded, is_guess) = args.policy.load()?.into_parts();
    let asked = Asked::from(loaded);
    let only = args.rule.as_deref().map(|name| index_of(&asked, name)).transpose()?;
    let mut onlooker = args.tree.look(&asked.policy)?;
    Policy::warn_of(is_guess, onlooker.daemon);
    Ok(plan(&mut onlooker, &asked, only, args.watch))
}

fn index_of(asked: &Asked, name: &str) -> Result<usize, Failure> {
    let rules = &asked.policy.rules;
    rules.iter().position(|rule| *rule.name == *name).ok_or_else(|| {
        let names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
        Failure::new(USAGE, nearest_name("rule", name, &names))
    })
}

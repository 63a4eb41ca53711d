//! `rehearse`: lab, traffic and fault without the programs under test. Does the fault reach the client?

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::lab::Lab;
use crate::scenario::{self, Template};
use crate::state::State;
use crate::traffic::Traffic;
use crate::{fault, proof, say, sli, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, value_name = "DIR", default_value = "eval/scenarios")]
    scenarios: PathBuf,
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Seconds of healthy traffic, and again of the fault.
    #[arg(long, value_name = "N", default_value_t = 6)]
    seconds: u64,
}

/// True when every fault was felt and every case without one stayed healthy.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let state = State::open()?;
    let mut all_good = true;
    for file in scenario::files(&options.scenarios, &options.only)? {
        let template = Template::read(&file)?;
        let outcome = one(&template, options, &state);
        stop::check()?;
        match outcome {
            Ok(good) => all_good &= good,
            Err(error) => {
                all_good = false;
                say::result(format_args!("{}: {error:#}", template.name));
            }
        }
    }
    Ok(all_good)
}

fn one(template: &Template, options: &Options, state: &State) -> Result<bool> {
    let seed = template.seed(options.seed);
    let plan = Lab::plan(seed, &template.roles(), &template.wires())?;
    let scenario = template.fill(seed, &plan)?;
    let mut lab = Lab::build(plan, state)?;
    fault::prepare(&scenario, &mut lab)?;
    let mut traffic = Traffic::start(&scenario, &lab.plan)?;
    let phase = Duration::from_secs(options.seconds);
    let mark = traffic.mark();
    stop::sleep(phase)?;
    traffic.check()?;
    let before = traffic.windows(&mark, 1);
    let counted = scenario
        .proof
        .as_ref()
        .map(|proof| proof::read(proof, &lab.plan))
        .transpose()?;
    let mark = traffic.mark();
    fault::inject(&scenario, &mut lab, &mut traffic)?;
    stop::sleep(phase)?;
    traffic.check()?;
    let after = traffic.windows(&mark, 1);

    let mut good = before.values().all(sli::Window::is_healthy);
    let impact = if let (Some(proof), Some(counted)) = (&scenario.proof, counted) {
        proof::verdict(proof, counted, proof::read(proof, &lab.plan)?)
    } else {
        sli::impact_on(&scenario.impact, &before, &after)
    };
    let fault = !scenario.impact.is_empty() || scenario.proof.is_some();
    let verdict = match (fault, &impact) {
        (true, Some(impact)) => impact.clone(),
        (true, None) => {
            good = false;
            "NO IMPACT".to_owned()
        }
        (false, _) => {
            good &= after.values().all(sli::Window::is_healthy);
            "no fault".to_owned()
        }
    };
    say::result(format_args!(
        "{} ({}): {verdict}{}",
        scenario.name,
        scenario.family,
        if good { "" } else { "  <<<" }
    ));
    for (id, window) in &before {
        let late = after
            .get(id)
            .map_or("no report".to_owned(), ToString::to_string);
        say::result(format_args!("  {id:20} {window}\n  {:20} {late}", ""));
    }
    Ok(good)
}

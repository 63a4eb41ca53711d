//! Breaks things, for real, and only inside the lab.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::scenario::{Scenario, Step};
use crate::traffic::Traffic;
use crate::{command, conntrack, netns, stop};

/// What belongs to the lab of a scenario, before there is traffic.
pub(crate) fn prepare(scenario: &Scenario, lab: &mut Lab) -> Result<()> {
    let mut nobody = Traffic::none();
    for step in &scenario.setup {
        apply(step, scenario, lab, &mut nobody)
            .with_context(|| format!("cannot prepare by {step:?}"))?;
    }
    Ok(())
}

/// Applies every step of the scenario's fault, in order.
pub(crate) fn inject(scenario: &Scenario, lab: &mut Lab, traffic: &mut Traffic) -> Result<()> {
    for step in &scenario.fault {
        apply(step, scenario, lab, traffic).with_context(|| format!("cannot apply {step:?}"))?;
    }
    Ok(())
}

/// Undoes the fault, as the scenario says.
pub(crate) fn mend(scenario: &Scenario, lab: &mut Lab, traffic: &mut Traffic) -> Result<()> {
    for step in &scenario.mend {
        apply(step, scenario, lab, traffic).with_context(|| format!("cannot mend by {step:?}"))?;
    }
    Ok(())
}

fn apply(step: &Step, scenario: &Scenario, lab: &mut Lab, traffic: &mut Traffic) -> Result<()> {
    let plan = &lab.plan;
    let namespace = |role: &str| {
        plan.namespace(role)
            .with_context(|| format!("no node `{role}`"))
    };
    match step {
        Step::Nft { node, rules } => {
            let line = format!("ip netns exec {} nft -f -", namespace(node)?);
            command::run_with_input(&line, rules)?;
        }
        Step::Ip { node, run } => {
            command::run(&format!("ip -n {} {run}", namespace(node)?))?;
        }
        Step::Tc { node, run } => {
            command::run(&format!("tc -n {} {run}", namespace(node)?))?;
        }
        Step::Sysctl { node, key, value } => netns::sysctl(namespace(node)?, key, value)?,
        Step::FillConntrack { node } => conntrack::fill(namespace(node)?)?,
        Step::Wire { node, change } => lab
            .wires
            .get_mut(node)
            .with_context(|| format!("the node `{node}` is not listed under `wires`"))?
            .set(change)?,
        Step::Set { actor, change } => traffic.set(actor, change)?,
        Step::Stop { actor } => traffic.stop(actor)?,
        Step::Start { actor } => traffic.start_one(scenario, plan, actor)?,
        Step::Restart { actor } => traffic.restart(scenario, plan, actor)?,
        Step::Wait { seconds } => stop::sleep(Duration::from_secs_f64(*seconds))?,
    }
    Ok(())
}

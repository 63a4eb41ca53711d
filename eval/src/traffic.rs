//! The actors of a scenario: started, checked, asked how they fare.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::actor::Kind;
use crate::certificates;
use crate::lab::Plan;
use crate::process::Actor;
use crate::scenario::{ActorSpec, Scenario};
use crate::sli::Window;

pub(crate) struct Traffic {
    actors: BTreeMap<String, Actor>,
    /// Made when the first actor needs them.
    certificates: Option<tempfile::TempDir>,
}

impl Traffic {
    /// Servers first, so that no client starts with a refused connection.
    pub(crate) fn start(scenario: &Scenario, plan: &Plan) -> Result<Self> {
        let mut traffic = Self::none();
        let (clients, servers): (Vec<_>, Vec<_>) = scenario
            .actors
            .iter()
            .partition(|(_, spec)| spec.target().is_some());
        for (id, _) in &servers {
            traffic.start_one(scenario, plan, id)?;
        }
        // Time to bind and listen.
        crate::stop::sleep(std::time::Duration::from_millis(300))?;
        for (id, _) in &clients {
            traffic.start_one(scenario, plan, id)?;
        }
        traffic.check()?;
        Ok(traffic)
    }

    pub(crate) fn none() -> Self {
        Self {
            actors: BTreeMap::new(),
            certificates: None,
        }
    }

    pub(crate) fn start_one(&mut self, scenario: &Scenario, plan: &Plan, id: &str) -> Result<()> {
        let actor = self.new_actor(scenario, plan, id)?;
        self.actors.insert(id.to_owned(), actor);
        Ok(())
    }

    fn new_actor(&mut self, scenario: &Scenario, plan: &Plan, id: &str) -> Result<Actor> {
        let spec = &scenario.actors[id];
        let (kind, _) = spec.kind()?;
        let mut settings = settings(scenario, plan, id, spec)?;
        if matches!(kind, Kind::TlsServer | Kind::TlsClient) {
            settings["certificates"] = json!(self.certificates()?);
        }
        let namespace = match kind {
            // Prometheus, on the host, must reach it.
            Kind::KubeProxy => None,
            _ => plan.namespace(&spec.node),
        };
        Actor::start(id, namespace, kind, settings)
    }

    fn certificates(&mut self) -> Result<&Path> {
        if self.certificates.is_none() {
            let folder = tempfile::tempdir().context("cannot make a folder for certificates")?;
            certificates::make(folder.path())?;
            self.certificates = Some(folder);
        }
        self.certificates
            .as_ref()
            .map(tempfile::TempDir::path)
            .context("no certificates")
    }

    pub(crate) fn stop(&mut self, id: &str) -> Result<()> {
        self.actors
            .remove(id)
            .map(drop)
            .with_context(|| format!("the actor {id} does not run"))
    }

    /// As a rolling deployment does: the new one listens before the old one drains.
    pub(crate) fn restart(&mut self, scenario: &Scenario, plan: &Plan, id: &str) -> Result<()> {
        let successor = self.new_actor(scenario, plan, id)?;
        crate::stop::sleep(std::time::Duration::from_millis(300))?;
        let mut old = self
            .actors
            .insert(id.to_owned(), successor)
            .with_context(|| format!("the actor {id} does not run"))?;
        old.set(&json!({"drain": true}))?;
        // It ends by itself; dropping it now would cut its connections.
        for _ in 0..100 {
            if old.check().is_err() {
                return Ok(());
            }
            crate::stop::sleep(std::time::Duration::from_millis(50))?;
        }
        bail!("the actor {id} did not drain within 5 s")
    }

    pub(crate) fn set(&mut self, id: &str, change: &Value) -> Result<()> {
        self.actors
            .get_mut(id)
            .with_context(|| format!("the actor {id} does not run"))?
            .set(change)
    }

    /// Fails when an actor ended by itself: a broken lab proves nothing.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.actors.values_mut().try_for_each(Actor::check)
    }

    /// How many samples every client has given: the start of a window.
    pub(crate) fn mark(&self) -> BTreeMap<String, usize> {
        self.actors
            .iter()
            .map(|(id, actor)| (id.clone(), actor.mark()))
            .collect()
    }

    /// What the clients experienced since the mark, without the first `skip` seconds.
    pub(crate) fn windows(
        &self,
        mark: &BTreeMap<String, usize>,
        skip: usize,
    ) -> BTreeMap<String, Window> {
        self.actors
            .iter()
            .filter_map(|(id, actor)| {
                let samples = actor.samples_since(mark.get(id).copied().unwrap_or(0) + skip);
                (!samples.is_empty()).then(|| (id.clone(), Window::of(&samples)))
            })
            .collect()
    }
}

/// The settings as the child wants them: with an address in place of the other actor's name.
pub(crate) fn settings(
    scenario: &Scenario,
    plan: &Plan,
    id: &str,
    spec: &ActorSpec,
) -> Result<Value> {
    let (_, settings) = spec.kind()?;
    let mut settings = settings.clone();
    if let Some(target) = spec.target()
        && let Some(server) = scenario.actors.get(target)
    {
        let (_, server_settings) = server.kind()?;
        let port = server_settings["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .with_context(|| format!("actor `{id}`: `{target}` has no port"))?;
        let node = plan
            .node(&server.node)
            .with_context(|| format!("no node `{}`", server.node))?;
        let address = std::net::SocketAddr::new(node.address(scenario.family), port);
        settings["to"] = json!(address);
    }
    Ok(settings)
}

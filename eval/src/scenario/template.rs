//! A scenario file before its variables are known.
//!
//! `$name` is replaced in the text: `$client` is the namespace of that node, `$client.address`,
//! `$client.address6`, `$client.gateway` and `$client.link` what it says, `$web.port` the port of an
//! actor, and any other a variable of the file, drawn between its two ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::background::Background;
use super::{Family, Scenario, stem};
use crate::lab::Plan;
use crate::seed::Random;

/// The kinds of actors that have a port and a family.
const SERVERS: [&str; 5] = [
    "tcp_server",
    "dns_server",
    "udp_server",
    "tls_server",
    "kube_proxy",
];

pub(crate) struct Template {
    pub(crate) name: String,
    text: String,
    head: Head,
}

/// The part that must be known to draw names, addresses and variables.
#[derive(Debug, Deserialize)]
struct Head {
    #[serde(default)]
    family: FamilyChoice,
    #[serde(default)]
    variables: BTreeMap<String, Range>,
    nodes: Vec<String>,
    #[serde(default)]
    wires: BTreeSet<String>,
    #[serde(default)]
    tags: BTreeSet<String>,
    #[serde(default)]
    background: Background,
    #[serde(default)]
    actors: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FamilyChoice {
    Ipv4,
    Ipv6,
    /// The seed decides.
    #[default]
    Any,
}

/// Whole numbers from–to, both included, or a list of words.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Range {
    Numbers(u64, u64),
    Words(Vec<String>),
}

impl Template {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(stem(file), text).with_context(|| format!("bad scenario {}", file.display()))
    }

    fn parse(name: String, text: String) -> Result<Self> {
        let head: Head = serde_yaml_ng::from_str(&text)?;
        for range in head.variables.values() {
            match range {
                Range::Numbers(low, high) if low > high => {
                    bail!("a variable's range starts above its end")
                }
                Range::Words(words) if words.is_empty() => bail!("a variable has no values"),
                Range::Numbers(..) | Range::Words(_) => {}
            }
        }
        let roles: BTreeSet<&String> = head.nodes.iter().collect();
        if roles.len() != head.nodes.len() || roles.iter().any(|role| *role == "router") {
            bail!("`nodes` must differ; `router` is always there");
        }
        if let Some(wire) = head.wires.iter().find(|wire| !roles.contains(wire)) {
            bail!("`wires` names `{wire}`, which is no node");
        }
        Ok(Self { name, text, head })
    }

    /// The file's nodes and those of the background traffic.
    pub(crate) fn roles(&self) -> Vec<String> {
        let background = self.head.background.roles().iter().map(ToString::to_string);
        self.head.nodes.iter().cloned().chain(background).collect()
    }

    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.head.tags.contains(tag)
    }

    pub(crate) fn wires(&self) -> BTreeSet<String> {
        self.head.wires.clone()
    }

    /// Seeds of one run must give every scenario its own names and addresses.
    pub(crate) fn seed(&self, seed: u64) -> u64 {
        Random::new(seed, &self.name).next()
    }

    pub(crate) fn fill(&self, seed: u64, plan: &Plan) -> Result<Scenario> {
        let mut random = Random::new(seed, "variables");
        let family = match (self.head.family, random.between(0, 1)) {
            (FamilyChoice::Ipv4, _) | (FamilyChoice::Any, 0) => Family::Ipv4,
            (FamilyChoice::Ipv6, _) | (FamilyChoice::Any, _) => Family::Ipv6,
        };
        let mut values = BTreeMap::from([
            ("family".to_owned(), family.to_string()),
            ("router".to_owned(), plan.router.clone()),
        ]);
        for node in &plan.nodes {
            let role = &node.role;
            values.insert(role.clone(), node.namespace.clone());
            values.insert(format!("{role}.address"), node.address(family).to_string());
            values.insert(format!("{role}.address6"), node.ipv6.to_string());
            values.insert(format!("{role}.gateway"), node.gateway(family).to_string());
            values.insert(format!("{role}.link"), node.link.clone());
        }
        for (name, range) in &self.head.variables {
            let value = match range {
                Range::Numbers(low, high) => random.between(*low, *high).to_string(),
                Range::Words(words) => random.pick(words).clone(),
            };
            values.insert(name.clone(), value);
        }
        let background = self.head.background.actors();
        let mut ports = BTreeMap::new();
        for (id, spec) in self
            .head
            .actors
            .iter()
            .chain(background.iter().map(|(id, spec)| (id, spec)))
        {
            let port = if spec.get("dns_server").is_some() {
                53
            } else {
                random.between(1100, 31_000)
            };
            let given = SERVERS
                .iter()
                .find_map(|kind| spec.get(kind)?.get("port")?.as_u64());
            let port = given.unwrap_or(port);
            values.insert(format!("{id}.port"), port.to_string());
            ports.insert(id.clone(), port);
        }
        // Through YAML's own value: numbers that were variables become numbers.
        let mut document: Value = serde_yaml_ng::from_str(&replace(&self.text, &values)?)?;
        document["family"] = json!(family);
        document["name"] = json!(self.name);
        document["nodes"] = json!(self.roles());
        if !document["actors"].is_object() {
            document["actors"] = json!({});
        }
        for (id, spec) in background {
            document["actors"][id] = spec;
        }
        for (id, port) in ports {
            for kind in SERVERS {
                if document["actors"][&id][kind].is_object() {
                    document["actors"][&id][kind]["port"] = json!(port);
                    document["actors"][&id][kind]["family"] = json!(family);
                }
            }
        }
        let scenario: Scenario = serde_json::from_value(document)?;
        scenario.check(plan)?;
        Ok(scenario)
    }
}

/// Replaces every `$name` by its value; the longest name that fits wins.
fn replace(text: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let found = values
            .iter()
            .filter(|(name, _)| rest.starts_with(name.as_str()) && ends_there(rest, name.len()))
            .max_by_key(|(name, _)| name.len());
        let Some((name, value)) = found else {
            let word: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || "._".contains(*c))
                .collect();
            bail!("`${word}` is not known");
        };
        out.push_str(value);
        rest = &rest[name.len()..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a name of this length is not the beginning of a longer word.
fn ends_there(text: &str, length: usize) -> bool {
    !text[length..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
family: ipv6
variables: {rate: [20, 40], speed: [slow, fast]}
nodes: [client, server]
actors:
  web: {node: server, tcp_server: {delay_ms: 2}}
  shop: {node: client, tcp_client: {to: web, rate: $rate}}
fault:
  - nft: {node: server, rules: 'tcp dport $web.port drop # $speed'}
impact: shop
ask: {query: 'requests to $server fail'}
expect: {status: fault, failure_mode: policy-drop, affected: [client, server]}
";

    fn fill(text: &str, seed: u64) -> Result<Scenario> {
        let template = Template::parse("test".into(), text.into())?;
        let plan = Plan::draw(seed, 0, &template.roles(), &template.wires());
        template.fill(seed, &plan)
    }

    fn refused(text: &str) -> String {
        format!("{:#}", fill(text, 1).unwrap_err())
    }

    #[test]
    fn variables_become_numbers_names_and_ports() {
        let scenario = fill(FILE, 3).unwrap();
        let rate = scenario.actors["shop"].kind().unwrap().1["rate"]
            .as_u64()
            .unwrap();
        assert!((20..=40).contains(&rate));
        assert_eq!(scenario.family, Family::Ipv6);
        let port = scenario.actors["web"].kind().unwrap().1["port"]
            .as_u64()
            .unwrap();
        let [super::super::Step::Nft { rules, .. }] = scenario.fault.as_slice() else {
            panic!("{:?}", scenario.fault);
        };
        assert!(
            rules.starts_with(&format!("tcp dport {port} drop")),
            "{rules}"
        );
        assert!(!scenario.ask["query"].as_str().unwrap().contains("server"));
    }

    #[test]
    fn background_traffic_joins_unless_it_is_turned_off() {
        assert!(fill(FILE, 1).unwrap().actors.contains_key("background_web"));
        let silent = fill(&format!("background: none{FILE}"), 1).unwrap();
        assert_eq!(silent.actors.len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(refused(&FILE.replace("$speed", "$spede")).contains("`$spede` is not known"));
        assert!(refused(&FILE.replace("to: web", "to: wbe")).contains("there is no actor `wbe`"));
        assert!(refused(&FILE.replace("impact: shop", "")).contains("needs either `impact`"));
        assert!(refused(&FILE.replace("impact:", "impcat:")).contains("unknown field `impcat`"));
        assert!(
            refused(&FILE.replace("node: server, rules", "node: sever, rules"))
                .contains("no node `sever`")
        );
    }

    #[test]
    fn the_longest_name_wins() {
        let values = BTreeMap::from([("a".into(), "1".into()), ("a.port".into(), "2".into())]);
        assert_eq!(replace("$a $a.port $a.", &values).unwrap(), "1 2 1.");
        assert!(replace("$ab", &values).is_err());
    }
}

//! Real faults in network namespaces, the three real programs, a question, a score.
//!
//! ```text
//! scenario file ─ Template ─► Plan (names, addresses) ─► Scenario
//!                               │
//!            Lab (namespaces) ◄─┘      Traffic (actors)      Stack (collector, Prometheus, assistant)
//!                 └──────────── fault ──────┘                       │
//!                               └─ what clients saw (sli) ─┐        └─ answers ─► score ─► report
//!                                                          └─ impact ─────────────┘
//! ```

mod actor;
mod baseline;
mod bench;
mod case;
mod catalogue;
mod certificates;
mod cluster;
mod command;
mod conntrack;
mod demo;
mod fault;
mod http;
mod kubernetes;
mod lab;
mod netns;
mod process;
mod proof;
mod recording;
mod rehearse;
mod replay;
mod report;
mod retrieval;
mod run;
mod say;
mod scenario;
mod score;
mod seed;
mod series;
mod sli;
mod stack;
mod state;
mod stop;
mod synthetic;
mod table;
mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "runwire-eval", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs scenarios and scores what the assistant answers.
    Run(run::Options),
    /// Asks about recorded cases again: their series in a real Prometheus, the assistant in front of it. Needs no root.
    Replay(replay::Options),
    /// Says how well the diagnosis is over saved cases of one or more runs. Needs no root.
    Report(report::Options),
    /// Runs lab, traffic and fault without the programs: does the client notice?
    Rehearse(rehearse::Options),
    /// Asks questions with known answers of a corpus, and prints how well `/search` ranks. Needs no root.
    Retrieval(retrieval::Options),
    /// Copies a real node many times, and measures what Prometheus and a diagnosis make of so many.
    Cluster(cluster::Options),
    /// Measures what the collector costs: CPU, memory, and what a workload notices of it.
    Bench(bench::Options),
    /// Breaks something in a small lab and shows the diagnosis.
    Demo(demo::Options),
    /// Starts the three programs on this host until Ctrl-C: no lab, no fault.
    Up(demo::UpOptions),
    /// Builds a lab without traffic, prints it as JSON and keeps it until Ctrl-C.
    Lab {
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Names of the nodes; a router joins them.
        #[arg(long, num_args = 1.., default_values = ["client", "server"])]
        nodes: Vec<String>,
        /// Nodes that hang on the user-space wire.
        #[arg(long, num_args = 1..)]
        wires: Vec<String>,
    },
    /// A player inside a namespace.
    #[command(hide = true)]
    Actor {
        kind: actor::Kind,
        #[arg(long)]
        namespace: Option<String>,
        #[arg(long)]
        settings: String,
    },
    /// Makes load for `bench` inside a namespace.
    #[command(hide = true)]
    Load {
        #[arg(long)]
        namespace: String,
        #[arg(long)]
        settings: String,
    },
    /// Takes a record of every packet, for `bench` to compare with.
    #[command(hide = true)]
    Packets,
    /// Runs a program that ends when its parent does.
    #[command(hide = true)]
    Supervise {
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::progress(format_args!("runwire-eval: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Actor {
            kind,
            namespace,
            settings,
        } => actor::run(kind, namespace.as_deref(), &settings).map(|()| true),
        Command::Supervise { command } => process::supervise(&command).map(|()| true),
        Command::Run(options) => {
            prepare()?;
            run::run(&options)
        }
        Command::Replay(options) => replay::run(&options),
        Command::Report(options) => report::run(&options),
        Command::Rehearse(options) => {
            prepare()?;
            rehearse::run(&options)
        }
        Command::Retrieval(options) => retrieval::run(&options),
        Command::Cluster(options) => {
            prepare()?;
            cluster::run(&options)
        }
        Command::Bench(options) => {
            prepare()?;
            bench::run(&options)
        }
        Command::Load {
            namespace,
            settings,
        } => bench::load(&namespace, &settings).map(|()| true),
        Command::Packets => bench::packets().map(|()| true),
        Command::Demo(options) => {
            prepare()?;
            demo::run(&options)
        }
        Command::Up(options) => {
            prepare()?;
            demo::up(&options)
        }
        Command::Lab { seed, nodes, wires } => {
            prepare()?;
            hold_lab(seed, &nodes, wires)
        }
    }
}

/// Says what is missing before anything is created.
fn prepare() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces and BPF need root: run this as root");
    }
    for (program, package) in [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")] {
        if !command::exists(program) {
            bail!("`{program}` is missing: apt-get install {package}");
        }
    }
    stop::listen()
}

fn hold_lab(seed: u64, nodes: &[String], wires: Vec<String>) -> Result<bool> {
    let state = state::State::open()?;
    let plan = lab::Lab::plan(seed, nodes, &wires.into_iter().collect())?;
    let lab = lab::Lab::build(plan, &state)?;
    let nodes: Vec<_> = lab
        .plan
        .nodes
        .iter()
        .map(|node| {
            serde_json::json!({
                "role": node.role, "namespace": node.namespace, "ipv4": node.ipv4, "ipv6": node.ipv6, "link": node.link,
            })
        })
        .collect();
    say::result(serde_json::json!({"router": lab.plan.router, "nodes": nodes}));
    while !stop::requested() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}

//! How much of each program the running kernel had to look at before it took it.

use std::fs;

use aya::programs::loaded_programs;
use runwire_collector::signals::NAMES;

use super::measure::{Measurement, is_older_than, say};

/// A quarter of the million instructions after which a kernel refuses a program
/// (`BPF_COMPLEXITY_LIMIT_INSNS`, since Linux 5.2): other kernels follow more ways through one.
const LIMIT: u64 = 250_000;

/// A compiler that turns one branch into many does not show until some kernel says no.
#[test]
#[ignore = "needs root"]
fn no_program_is_near_what_a_kernel_refuses() {
    // Capture is attached to interfaces that somebody names.
    let signals: Vec<&str> = (NAMES.into_iter())
        .filter(|name| *name != "capture")
        .collect();
    let Some(_measurement) = Measurement::start_all(&signals) else {
        return;
    };
    if is_older_than(5, 16) {
        say("skipped: this kernel does not say what it looked at");
        return;
    }
    let programs = own_programs();
    assert!(programs.len() > signals.len(), "{programs:?}");
    for (id, verified) in programs {
        let name = loaded_programs()
            .flatten()
            .find(|program| program.id() == id)
            .and_then(|program| program.name_as_str().map(str::to_owned));
        assert!(verified <= LIMIT, "{name:?}: {verified} instructions");
    }
}

/// Programs of this process by number, with the instructions that the verifier looked at
/// (`bpf_prog_show_fdinfo`).
fn own_programs() -> Vec<(u32, u64)> {
    let files = fs::read_dir("/proc/self/fdinfo").unwrap();
    files
        .filter_map(|file| {
            // The folder itself is among them, and closed by now.
            let text = fs::read_to_string(file.ok()?.path()).ok()?;
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().parse::<u64>().ok()
            };
            let id = u32::try_from(field("prog_id:")?).ok()?;
            Some((id, field("verified_insns:")?))
        })
        .collect()
}

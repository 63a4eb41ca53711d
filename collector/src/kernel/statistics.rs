//! What our programs cost: the kernel counts their runs and time while someone asks it to.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use super::{Object, syscall};

/// While this lives, the kernel measures every BPF program, at about 60 ns a run.
#[derive(Debug)]
pub struct Measuring(#[expect(dead_code, reason = "measuring ends when this is closed")] OwnedFd);

impl Measuring {
    pub fn start() -> io::Result<Self> {
        aya::sys::enable_stats(aya::sys::Stats::RunTime)
            .map(Self)
            .map_err(|error| error.io_error)
    }
}

/// Totals of one program since it was loaded.
#[derive(Clone, Debug)]
pub struct ProgramRuns {
    pub program: String,
    /// While the kernel measures.
    pub runs: u64,
    pub time: Duration,
    /// Events that it did not run for: it was interrupted on the same CPU by one of its own. With a
    /// program that sees to these, at most as many as that one did not run for either.
    pub missed: u64,
}

/// What the program is called that sees to what another one was not run for.
const AGAIN: &str = "_again";

impl Object {
    pub fn program_runs(&self) -> Vec<ProgramRuns> {
        let mut runs = self.counted_programs();
        let again: Vec<(String, u64)> = (runs.iter_mut())
            .filter_map(|run| {
                let of = run.program.strip_suffix(AGAIN)?.to_owned();
                Some((of, std::mem::take(&mut run.missed)))
            })
            .collect();
        for (of, missed) in again {
            for run in runs.iter_mut().filter(|run| run.program == of) {
                run.missed = run.missed.min(missed);
            }
        }
        runs
    }

    fn counted_programs(&self) -> Vec<ProgramRuns> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| {
                // Those that were not loaded have none.
                let program = program.fd().ok()?.as_fd();
                let [time, runs, missed] = syscall::program_counts(program).ok()?;
                Some(ProgramRuns {
                    program: name.to_owned(),
                    runs,
                    time: Duration::from_nanos(time),
                    missed,
                })
            })
            .collect()
    }
}

//! Attaching to the end of one system call: that tracepoint has no typed form, only a number in
//! tracefs.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::{ProgramError, TracePoint};

use super::{Object, Refusal, syscall};

/// Where tracefs usually is.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

impl Object {
    /// `hook` is the tracepoint's directory, as `syscalls/sys_exit_connect`.
    pub fn attach_system_call(&mut self, program: &str, hook: &'static str) -> Result<(), Refusal> {
        let result = self.attach_by_number(program, hook);
        self.record(hook, result)
    }

    fn attach_by_number(&mut self, program: &str, hook: &str) -> Result<(), ProgramError> {
        let event = event_number(hook).map_err(ProgramError::IOError)?;
        let tracepoint: &mut TracePoint = self.program(program)?;
        tracepoint.load()?;
        let link = syscall::attach_to_event(tracepoint.fd()?.as_fd(), event)
            .map_err(ProgramError::IOError)?;
        self.links.push(link);
        Ok(())
    }
}

/// Also where tracefs is not mounted: then it is opened without a mount point.
fn event_number(hook: &str) -> io::Result<u64> {
    let read = |root: &Path| {
        let text = std::fs::read_to_string(root.join("events").join(hook).join("id"))?;
        text.trim().parse().map_err(io::Error::other)
    };
    if let Some(number) = MOUNTS.iter().find_map(|root| read(Path::new(root)).ok()) {
        return Ok(number);
    }
    let root: OwnedFd = syscall::open_file_system(c"tracefs")?;
    read(&PathBuf::from(format!(
        "/proc/self/fd/{}",
        root.as_raw_fd()
    )))
}

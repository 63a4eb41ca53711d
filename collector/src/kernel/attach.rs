//! Attaching programs to hooks. A hook that cannot be had is recorded with its reason, and is no
//! more than one signal or a part of it.

use std::fs::File;
use std::io;

use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Iter, ProgramError,
};
use thiserror::Error;

use crate::capabilities;

use super::{KernelTypes, LoadError, Object, cgroup2_mount};

/// What a person has to grant.
fn lacking() -> String {
    match capabilities::missing() {
        missing if missing.is_empty() => {
            "no capability is missing, so something else forbids it: lockdown, SELinux, AppArmor, seccomp".to_owned()
        }
        missing => format!("missing: {}; grant it", missing.join(", ")),
    }
}

/// A hook and what became of it.
#[derive(Clone, Debug)]
pub struct HookStatus {
    pub signal: &'static str,
    pub hook: &'static str,
    pub refusal: Option<Refusal>,
}

/// Why a hook is not attached.
#[derive(Clone, Debug, Error)]
#[error("{detail}")]
pub struct Refusal {
    /// A closed set, fit for a label.
    pub reason: &'static str,
    /// For a person.
    pub detail: String,
}

impl Object {
    /// Attaches to a typed raw tracepoint. `program` is the name of the C function.
    pub fn attach_tracepoint(
        &mut self,
        types: &KernelTypes,
        program: &str,
        tracepoint: &'static str,
    ) -> Result<(), Refusal> {
        let result = self.try_tracepoint(types, program, tracepoint);
        self.record(tracepoint, result)
    }

    fn try_tracepoint(
        &mut self,
        types: &KernelTypes,
        program: &str,
        tracepoint: &str,
    ) -> Result<(), ProgramError> {
        let tracing: &mut BtfTracePoint = self.program(program)?;
        tracing.load(tracepoint, &types.btf)?;
        tracing.attach()?;
        Ok(())
    }

    /// Attaches a second program to a tracepoint, for events that the first is not run for. Without
    /// it these are lost, and counted: no hook is refused.
    pub fn attach_tracepoint_again(
        &mut self,
        types: &KernelTypes,
        program: &str,
        tracepoint: &'static str,
    ) -> Result<(), Refusal> {
        self.try_tracepoint(types, program, tracepoint)
            .map_err(|error| Refusal::of(&error))
    }

    /// Attaches the first of several programs for one tracepoint that the kernel takes: its
    /// arguments differ between kernels.
    pub fn attach_tracepoint_variant(
        &mut self,
        types: &KernelTypes,
        programs: &[&str],
        tracepoint: &'static str,
    ) -> Result<(), Refusal> {
        let mut result = Ok(());
        for program in programs {
            result = self.attach_tracepoint(types, program, tracepoint);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Attaches to all packets of all sockets of this host.
    pub fn attach_root_cgroup(
        &mut self,
        program: &str,
        direction: Direction,
    ) -> Result<(), Refusal> {
        let Some(mount) = cgroup2_mount() else {
            let refusal = Refusal {
                reason: "no_cgroup2",
                detail: "cgroup2 is not mounted".into(),
            };
            return self.refuse(direction.hook(), refusal);
        };
        let result = (|| {
            let cgroup = File::open(&mount).map_err(ProgramError::IOError)?;
            let packets: &mut CgroupSkb = self.program(program)?;
            packets.load()?;
            // A link: several programs may sit here although the mode is called single.
            packets.attach(cgroup, direction.attach_type(), CgroupAttachMode::Single)?;
            Ok(())
        })();
        self.record(direction.hook(), result)
    }

    /// Loads an iterator, to be run by [`Object::run_iterator`] or [`Object::run_socket_iterator`].
    pub fn load_iterator(
        &mut self,
        types: &KernelTypes,
        program: &str,
        kind: IteratorKind,
    ) -> Result<(), Refusal> {
        let result = (|| {
            let iterator: &mut Iter = self.program(program)?;
            iterator.load(kind.target(), &types.btf)?;
            Ok(())
        })();
        self.record(kind.hook(), result)
    }

    /// Records that the kernel withholds the addresses of its functions.
    pub fn note_hidden_symbols(&mut self) {
        let refusal = Refusal {
            reason: "permission_denied",
            detail: "/proc/kallsyms shows no addresses: the collector needs CAP_SYSLOG".into(),
        };
        self.remember("kallsyms", Some(refusal));
    }

    /// Replaces what is known of the hooks, for a signal whose hooks come and go.
    pub fn set_hooks(&mut self, hooks: Vec<(&'static str, Option<Refusal>)>) {
        let signal = self.name;
        let status = |(hook, refusal)| HookStatus {
            signal,
            hook,
            refusal,
        };
        self.hooks = hooks.into_iter().map(status).collect();
    }

    pub(super) fn program<'a, P>(&'a mut self, name: &str) -> Result<&'a mut P, ProgramError>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        self.ebpf
            .program_mut(name)
            .ok_or(ProgramError::UnexpectedProgramType)?
            .try_into()
    }

    pub(super) fn record(
        &mut self,
        hook: &'static str,
        result: Result<(), ProgramError>,
    ) -> Result<(), Refusal> {
        match result {
            Ok(()) => {
                self.remember(hook, None);
                Ok(())
            }
            Err(error) => self.refuse(hook, Refusal::of(&error)),
        }
    }

    fn refuse(&mut self, hook: &'static str, refusal: Refusal) -> Result<(), Refusal> {
        self.remember(hook, Some(refusal.clone()));
        Err(refusal)
    }

    fn remember(&mut self, hook: &'static str, refusal: Option<Refusal>) {
        self.hooks.retain(|status| status.hook != hook);
        self.hooks.push(HookStatus {
            signal: self.name,
            hook,
            refusal,
        });
    }
}

/// Which packets, as the sockets of a cgroup or an interface see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn hook(self) -> &'static str {
        match self {
            Self::Ingress => "cgroup_skb/ingress",
            Self::Egress => "cgroup_skb/egress",
        }
    }

    fn attach_type(self) -> CgroupSkbAttachType {
        match self {
            Self::Ingress => CgroupSkbAttachType::Ingress,
            Self::Egress => CgroupSkbAttachType::Egress,
        }
    }
}

/// What an iterator visits.
#[derive(Clone, Copy, Debug)]
pub enum IteratorKind {
    /// Every open file of every process.
    OpenFiles,
    /// Every socket in a socket-storage map.
    StoredSockets,
    /// Every TCP socket of one network namespace.
    NamespaceSockets,
}

impl IteratorKind {
    fn target(self) -> &'static str {
        match self {
            Self::OpenFiles => "task_file",
            Self::StoredSockets => "bpf_sk_storage_map",
            Self::NamespaceSockets => "tcp",
        }
    }

    fn hook(self) -> &'static str {
        match self {
            Self::OpenFiles => "iter/task_file",
            Self::StoredSockets => "iter/bpf_sk_storage_map",
            Self::NamespaceSockets => "iter/tcp",
        }
    }
}

impl Refusal {
    pub(super) fn of(error: &ProgramError) -> Self {
        Self {
            reason: reason(error),
            detail: describe(error),
        }
    }

    /// For a signal of which nothing could be loaded.
    pub fn of_load(error: &LoadError) -> Self {
        let system = find_system_error(error).and_then(io::Error::raw_os_error);
        match (error, system) {
            (_, Some(libc::EPERM)) => Self {
                reason: "permission_denied",
                detail: format!("{}: {}", chain(error), lacking()),
            },
            (LoadError::KernelTypes(_), _) => Self {
                reason: "unsupported_by_kernel",
                detail: chain(error),
            },
            _ => Self {
                reason: "load_failed",
                detail: chain(error),
            },
        }
    }

    /// For a signal that failed while it ran.
    pub fn of_failure(detail: String) -> Self {
        Self {
            reason: "failed",
            detail,
        }
    }
}

fn reason(error: &ProgramError) -> &'static str {
    match error {
        ProgramError::Btf(_) => "unsupported_by_kernel",
        ProgramError::LoadError { io_error, .. } => match io_error.raw_os_error() {
            Some(libc::EPERM) => "permission_denied",
            // Without it the verifier allows less, and says so in its own words.
            Some(libc::EACCES) if capabilities::missing_for_programs().contains(&"CAP_PERFMON") => {
                "permission_denied"
            }
            // What the verifier says no to.
            Some(libc::EACCES | libc::EINVAL) => "rejected_by_verifier",
            _ => "load_failed",
        },
        ProgramError::SyscallError(call) => of_io(&call.io_error),
        ProgramError::IOError(error) => of_io(error),
        _ => "attach_failed",
    }
}

pub(super) fn of_io(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "permission_denied",
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENOSYS) => "unsupported_by_kernel",
        _ => "attach_failed",
    }
}

fn describe(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } if reason(error) == "permission_denied" => {
            format!("{io_error}: {}", lacking())
        }
        // The whole log has thousands of lines; the reason is at its end.
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().rev().take(4).collect();
            let end: Vec<&str> = lines.into_iter().rev().collect();
            format!("{io_error}: {}", end.join(" | "))
        }
        other if reason(other) == "permission_denied" => {
            format!("{}: {}", chain(other), lacking())
        }
        other => chain(other),
    }
}

fn find_system_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

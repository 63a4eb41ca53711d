//! Programs on network interfaces. None of them ever takes the place of another's.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::programs::{ProgramError, SchedClassifier, Xdp};

use super::attach::of_io;
use super::{Direction, Object, Refusal, syscall, traffic_control};

const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// XDP_FLAGS_SKB_MODE
const GENERIC: u32 = 1 << 1;
/// BPF_F_BEFORE: with nobody named, before all.
const FIRST: u32 = 1 << 3;

/// How programs get onto an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The generic hook, never the driver's: that one costs a veth most of its throughput and makes
    /// some cards reset their link.
    Xdp,
    /// Links, from Linux 6.6 on. The first to run, so that nothing is hidden from us.
    Tcx,
    /// Filters of the `clsact` queueing discipline.
    Filter,
}

impl Way {
    /// Its name among the hooks.
    pub fn hook(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
            Self::Filter => "tc",
        }
    }
}

/// Loaded programs, to be put on interfaces.
pub struct Tap {
    way: Way,
    programs: Vec<(Direction, &'static str, OwnedFd)>,
}

/// A tap on one interface.
pub enum Attachment {
    /// Gone when these are dropped.
    Links(Vec<OwnedFd>),
    /// Gone when they are removed, with [`Attachment::remove`].
    Filters { interface: u32, programs: usize },
}

impl Object {
    /// Loads one program for each direction that this way of attaching has.
    pub fn load_tap(
        &mut self,
        way: Way,
        programs: &[(Direction, &'static str)],
    ) -> Result<Tap, Refusal> {
        let programs = (programs.iter())
            .map(|&(direction, name)| {
                let fd = self.load_interface_program(way, name);
                Ok((direction, name, fd.map_err(|error| Refusal::of(&error))?))
            })
            .collect::<Result<_, _>>()?;
        Ok(Tap { way, programs })
    }

    fn load_interface_program(&mut self, way: Way, name: &str) -> Result<OwnedFd, ProgramError> {
        let loaded = |fd: Result<&aya::programs::ProgramFd, _>| match fd {
            Ok(fd) => Some(
                fd.as_fd()
                    .try_clone_to_owned()
                    .map_err(ProgramError::IOError),
            ),
            Err(_) => None,
        };
        if way == Way::Xdp {
            let program: &mut Xdp = self.program(name)?;
            if let Some(fd) = loaded(program.fd()) {
                return fd;
            }
            program.load()?;
        } else {
            let program: &mut SchedClassifier = self.program(name)?;
            if let Some(fd) = loaded(program.fd()) {
                return fd;
            }
            program.load()?;
        }
        self.load_interface_program(way, name)
    }
}

impl Tap {
    /// Whether the kernel has links for this. Takes nothing: no interface has the number 0.
    pub fn has_links(&self) -> bool {
        self.programs.iter().all(|(direction, _, fd)| {
            let result = syscall::attach_to_interface(fd.as_fd(), 0, tcx(*direction), FIRST);
            result.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
        })
    }

    /// The same programs, attached in another way. XDP programs are others.
    #[must_use]
    pub fn attached_by(self, way: Way) -> Self {
        Self { way, ..self }
    }

    pub fn way(&self) -> Way {
        self.way
    }

    /// Puts the programs on an interface of the calling thread's namespace.
    pub fn attach(&self, interface: u32) -> Result<Attachment, Refusal> {
        let attached = match self.way {
            Way::Xdp => self.link(interface, |_| BPF_XDP, GENERIC),
            Way::Tcx => self.link(interface, tcx, FIRST),
            Way::Filter => {
                let programs: Vec<(Direction, &str, BorrowedFd<'_>)> = (self.programs.iter())
                    .map(|(direction, name, fd)| (*direction, *name, fd.as_fd()))
                    .collect();
                traffic_control::attach(interface, &programs).map(|()| Attachment::Filters {
                    interface,
                    programs: programs.len(),
                })
            }
        };
        attached.map_err(|error| self.refusal(&error))
    }

    fn link(
        &self,
        interface: u32,
        attach_type: fn(Direction) -> u32,
        flags: u32,
    ) -> io::Result<Attachment> {
        let link = |(direction, _, fd): &(Direction, _, OwnedFd)| {
            syscall::attach_to_interface(fd.as_fd(), interface, attach_type(*direction), flags)
        };
        let links = self.programs.iter().map(link).collect::<io::Result<_>>()?;
        Ok(Attachment::Links(links))
    }

    fn refusal(&self, error: &io::Error) -> Refusal {
        let (reason, detail) = match (self.way, error.raw_os_error()) {
            (_, Some(libc::ENODEV)) => ("interface_gone", "the interface is gone"),
            (Way::Xdp, Some(libc::EBUSY | libc::EEXIST)) => (
                "another_program",
                "another XDP program is attached, and stays",
            ),
            (Way::Filter, Some(libc::EEXIST)) => (
                "another_program",
                "another queueing discipline has the place of clsact, and stays",
            ),
            _ => (of_io(error), ""),
        };
        let detail = match detail {
            "" => error.to_string(),
            detail => detail.to_owned(),
        };
        Refusal { reason, detail }
    }
}

impl Attachment {
    /// Whether the kernel still has it. To be asked in the namespace of the interface.
    pub fn is_attached(&self) -> bool {
        match self {
            Self::Links(links) => links
                .iter()
                .all(|link| syscall::linked_interface(link.as_fd()).is_ok_and(|index| index != 0)),
            Self::Filters {
                interface,
                programs,
            } => traffic_control::is_attached(*interface, *programs),
        }
    }

    /// Whether [`Attachment::remove`] must be called in the namespace of the interface; else
    /// dropping it, anywhere, is enough.
    pub fn outlives_us(&self) -> bool {
        matches!(self, Self::Filters { .. })
    }

    pub fn remove(self) -> io::Result<()> {
        match self {
            Self::Links(_) => Ok(()),
            Self::Filters { interface, .. } => traffic_control::detach(interface),
        }
    }
}

/// Removes what killed processes have left in the calling thread's namespace.
pub fn remove_stale_filters() -> io::Result<()> {
    traffic_control::remove_stale()
}

fn tcx(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => BPF_TCX_INGRESS,
        Direction::Egress => BPF_TCX_EGRESS,
    }
}

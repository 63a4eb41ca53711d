//! Programs as filters of an interface's `clsact` queueing discipline: how they are attached before
//! Linux 6.6. All of it is about the namespace of the calling thread.
//!
//! A filter outlives the process that made it, so its name says which one that was, and whether the
//! queueing discipline was made with it. Nothing is touched that does not bear such a name.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::Direction;
use crate::host::netlink::{Netlink, attribute, attributes, text, u32_at};

/// `struct tcmsg`
const MESSAGE: usize = 20;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's result is the verdict.
const DIRECT_ACTION: u32 = 1;
const NESTED: u16 = 0x8000;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ALL_PROTOCOLS: u16 = 0x0003;
/// Before most others but never where those sit who want to be the first. Where one is taken by
/// filters of another kind, the next; zero is the kernel's choice.
const PRIORITIES: [u32; 3] = [3, 7, 0];

/// Adds the programs of both directions.
pub(super) fn attach(
    interface: u32,
    programs: &[(Direction, &str, BorrowedFd<'_>)],
) -> io::Result<()> {
    let mut kernel = Netlink::route()?;
    let made_clsact = make_clsact(&mut kernel, interface)?;
    for &(direction, program, fd) in programs {
        let name = Maker::this(made_clsact).name(program);
        if let Err(error) = add_filter(&mut kernel, interface, direction, &name, fd) {
            let _ = detach(interface);
            // If not even the first filter is there to say that it is ours.
            if made_clsact {
                let _ = remove_unused_clsact(&mut kernel, interface);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Removes what [`attach`] added.
pub(super) fn detach(interface: u32) -> io::Result<()> {
    let this = Maker::this(false);
    let mut kernel = Netlink::route()?;
    remove(&mut kernel, interface, |maker| {
        (maker.process, maker.started) == (this.process, this.started)
    })
}

/// Whether all that [`attach`] added is still there.
pub(super) fn is_attached(interface: u32, programs: usize) -> bool {
    let this = Maker::this(false);
    let ours = || {
        let filters = filters(&mut Netlink::route()?, interface)?;
        let made_here = |filter: &&Filter| filter.maker.process == this.process;
        io::Result::Ok(filters.ours.iter().filter(made_here).count())
    };
    // What cannot be read is no reason to attach again.
    ours().map_or(true, |count| count == programs)
}

/// Removes filters whose process was killed.
pub(super) fn remove_stale() -> io::Result<()> {
    let mut kernel = Netlink::route()?;
    let interfaces = kernel.list(libc::RTM_GETQDISC, &message(0, 0, 0, 0), |body| {
        let qdisc = Tcmsg::read(body)?;
        (qdisc.handle == CLSACT_HANDLE).then_some(qdisc.interface)
    })?;
    for interface in interfaces {
        remove(&mut kernel, interface, |maker| !maker.is_running())?;
    }
    Ok(())
}

/// True if it was not there.
fn make_clsact(kernel: &mut Netlink, interface: u32) -> io::Result<bool> {
    let mut body = message(interface, CLSACT_HANDLE, CLSACT_PARENT, 0);
    body.extend(attribute(libc::TCA_KIND, b"clsact\0"));
    match kernel.change(libc::RTM_NEWQDISC, CREATE | EXCLUSIVE, &body) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            if qdisc_kind(kernel, interface)? == "clsact" {
                return Ok(false);
            }
            // `ingress` has the same place, and would take egress filters for its own.
            Err(error)
        }
        Err(error) => Err(error),
    }
}

fn qdisc_kind(kernel: &mut Netlink, interface: u32) -> io::Result<String> {
    let kinds = kernel.list(libc::RTM_GETQDISC, &message(0, 0, 0, 0), |body| {
        let qdisc = Tcmsg::read(body)?;
        let is_meant = qdisc.interface == interface && qdisc.handle == CLSACT_HANDLE;
        is_meant.then(|| text(find(&body[MESSAGE..], libc::TCA_KIND).unwrap_or_default()))
    })?;
    Ok(kinds.into_iter().next().unwrap_or_default())
}

fn add_filter(
    kernel: &mut Netlink,
    interface: u32,
    direction: Direction,
    name: &str,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut options = Vec::new();
    let fd = program.as_raw_fd().cast_unsigned();
    options.extend(attribute(TCA_BPF_FD, &fd.to_ne_bytes()));
    options.extend(attribute(TCA_BPF_NAME, format!("{name}\0").as_bytes()));
    options.extend(attribute(TCA_BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes()));
    let mut result = Ok(());
    for priority in PRIORITIES {
        let info = priority << 16 | u32::from(ALL_PROTOCOLS.to_be());
        let mut body = message(interface, 0, parent(direction), info);
        body.extend(attribute(libc::TCA_KIND, b"bpf\0"));
        body.extend(attribute(libc::TCA_OPTIONS | NESTED, &options));
        result = kernel.change(libc::RTM_NEWTFILTER, CREATE | EXCLUSIVE, &body);
        let taken = (result.as_ref().err()).and_then(io::Error::raw_os_error);
        if !matches!(taken, Some(libc::EINVAL | libc::EEXIST)) {
            break;
        }
    }
    result
}

fn remove(
    kernel: &mut Netlink,
    interface: u32,
    is_meant: impl Fn(&Maker) -> bool,
) -> io::Result<()> {
    let mut made_clsact = false;
    for filter in filters(kernel, interface)?.ours {
        if !is_meant(&filter.maker) {
            continue;
        }
        made_clsact |= filter.maker.made_clsact;
        let mut body = message(interface, filter.handle, filter.parent, filter.info);
        body.extend(attribute(libc::TCA_KIND, b"bpf\0"));
        kernel.change(libc::RTM_DELTFILTER, 0, &body)?;
    }
    if made_clsact {
        remove_unused_clsact(kernel, interface)?;
    }
    Ok(())
}

fn remove_unused_clsact(kernel: &mut Netlink, interface: u32) -> io::Result<()> {
    let filters = filters(kernel, interface)?;
    if filters.others || !filters.ours.is_empty() {
        return Ok(());
    }
    let mut body = message(interface, CLSACT_HANDLE, CLSACT_PARENT, 0);
    body.extend(attribute(libc::TCA_KIND, b"clsact\0"));
    kernel.change(libc::RTM_DELQDISC, 0, &body)
}

struct Filters {
    ours: Vec<Filter>,
    /// Whether there are any of somebody else.
    others: bool,
}

struct Filter {
    maker: Maker,
    handle: u32,
    parent: u32,
    info: u32,
}

fn filters(kernel: &mut Netlink, interface: u32) -> io::Result<Filters> {
    let mut found = Filters {
        ours: Vec::new(),
        others: false,
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        let question = message(interface, 0, parent(direction), 0);
        let filters = kernel.list(libc::RTM_GETTFILTER, &question, |body| {
            let tcmsg = Tcmsg::read(body)?;
            let options = find(&body[MESSAGE..], libc::TCA_OPTIONS).unwrap_or_default();
            let name = text(find(options, TCA_BPF_NAME).unwrap_or_default());
            // Each priority is listed too, as a filter without a handle.
            (tcmsg.handle != 0).then_some((tcmsg, name))
        })?;
        for (tcmsg, name) in filters {
            match Maker::parse(&name) {
                Some(maker) => found.ours.push(Filter {
                    maker,
                    handle: tcmsg.handle,
                    parent: tcmsg.parent,
                    info: tcmsg.info,
                }),
                None => found.others = true,
            }
        }
    }
    Ok(found)
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    all.find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// Who made a filter.
#[derive(Debug, PartialEq, Eq)]
struct Maker {
    process: u32,
    /// When, in the kernel's ticks: process numbers are used again.
    started: u64,
    made_clsact: bool,
}

impl Maker {
    fn this(made_clsact: bool) -> Self {
        let process = std::process::id();
        Self {
            process,
            started: started(process).unwrap_or(0),
            made_clsact,
        }
    }

    fn name(&self, program: &str) -> String {
        let (process, started) = (self.process, self.started);
        let clsact = if self.made_clsact { "/clsact" } else { "" };
        format!("runwire/{program}/{process}.{started}{clsact}")
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("runwire/")?.split('/').skip(1);
        let (process, started) = parts.next()?.split_once('.')?;
        Some(Self {
            process: process.parse().ok()?,
            started: started.parse().ok()?,
            made_clsact: parts.next() == Some("clsact"),
        })
    }

    fn is_running(&self) -> bool {
        started(self.process) == Some(self.started)
    }
}

fn started(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let (_, fields) = status.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

struct Tcmsg {
    interface: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Tcmsg {
    fn read(body: &[u8]) -> Option<Self> {
        Some(Self {
            interface: u32_at(body, 4)?,
            handle: u32_at(body, 8)?,
            parent: u32_at(body, 12)?,
            info: u32_at(body, 16)?,
        })
    }
}

fn message(interface: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    for field in [interface, handle, parent, info] {
        message.extend_from_slice(&field.to_ne_bytes());
    }
    message
}

fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    }
}

#[test]
fn a_filter_says_who_made_it() {
    for made_clsact in [false, true] {
        let this = Maker::this(made_clsact);
        assert_eq!(Maker::parse(&this.name("capture_ingress")), Some(this));
    }
    assert!(Maker::this(false).is_running());
    let gone = Maker::parse("runwire/capture_egress/1.0/clsact").unwrap();
    assert!(gone.made_clsact && !gone.is_running());
    for other in ["cil_from_container-eth0", "runwire", "runwire/x/1", ""] {
        assert_eq!(Maker::parse(other), None, "{other}");
    }
}

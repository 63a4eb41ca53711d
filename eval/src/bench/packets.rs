//! `packets`: an agent that takes a record of every packet to user space. Also what a program that does nothing is measured at.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, RingBuf};
use aya::programs::links::CgroupAttachMode;
use aya::programs::{BtfTracePoint, CgroupSkb, CgroupSkbAttachType};
use aya::{Btf, Ebpf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{say, stop};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/packets.bpf.o"));

/// Where cgroup2 is mounted, alone or beside version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Runs until SIGTERM, then says how many packets it saw and how many found the ring full.
pub(crate) fn run() -> Result<()> {
    stop::listen()?;
    let mut object = Ebpf::load(OBJECT).context("cannot load the programs on packets")?;
    let root = ROOTS
        .into_iter()
        .find(|root| {
            std::path::Path::new(root)
                .join("cgroup.controllers")
                .exists()
        })
        .context("cgroup2 is not mounted")?;
    for (name, direction) in [
        ("packet_egress", CgroupSkbAttachType::Egress),
        ("packet_ingress", CgroupSkbAttachType::Ingress),
    ] {
        let program: &mut CgroupSkb = object.program_mut(name).context(name)?.try_into()?;
        program
            .load()
            .with_context(|| format!("cannot load {name}"))?;
        program
            .attach(File::open(root)?, direction, CgroupAttachMode::Single)
            .with_context(|| format!("cannot attach {name}"))?;
    }
    say::result("ready");
    let mut ring = RingBuf::try_from(object.take_map("records").context("no ring")?)?;
    let mut seen = 0_u64;
    let mut bytes = 0_u64;
    while !stop::requested() {
        let mut descriptors = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(Duration::from_millis(50))?;
        let _ = poll(&mut descriptors, patience);
        while let Some(record) = ring.next() {
            seen += 1;
            // As little as an agent can do with a packet.
            bytes += u64::from(u32::from_ne_bytes(record[16..20].try_into()?));
        }
    }
    let lost = Array::<_, u64>::try_from(object.map("lost").context("no map")?)?.get(&0, 0)?;
    say::result(serde_json::json!({"seen": seen, "lost": lost, "bytes": bytes}));
    Ok(())
}

/// While the result lives, the kernel measures every program, at about 60 ns a run.
pub(super) fn measure() -> Result<OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("the kernel does not measure programs: BPF_ENABLE_STATS needs Linux 5.8 and root")
}

/// A program that does nothing, at every change of state of a TCP socket.
pub(super) struct Empty(Ebpf);

impl Empty {
    pub(super) fn attach() -> Result<Self> {
        let mut object = Ebpf::load(OBJECT).context("cannot load the empty program")?;
        let types = Btf::from_sys_fs().context("the kernel has no BTF")?;
        let program: &mut BtfTracePoint =
            object.program_mut("empty").context("empty")?.try_into()?;
        program.load("inet_sock_set_state", &types)?;
        program.attach()?;
        Ok(Self(object))
    }

    /// Runs and seconds since it was attached.
    pub(super) fn measured(&self) -> Result<(f64, f64)> {
        let info = self.0.program("empty").context("empty")?.info()?;
        Ok((info.run_count() as f64, info.run_time().as_secs_f64()))
    }
}

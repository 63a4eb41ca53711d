//! The few system calls that neither aya nor nix has: BPF map batches, iterators bound to a map or to
//! the caller's namespace, tracepoints by number, a file system without a mount point.

#![expect(
    unsafe_code,
    reason = "bpf(2), perf_event_open(2), fsmount(2), membarrier(2), clock_gettime(2), capset(2) and prctl(2) called directly; each wrapper states what the kernel reads and writes"
)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_TEST_RUN: libc::c_long = 10;
const MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const OBJECT_INFO: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const ITER_CREATE: libc::c_long = 33;
const TRACE_ITER: u32 = 28;
/// BPF_NOEXIST
const NO_REPLACEMENT: u64 = 1;
const MEMBARRIER_GLOBAL: libc::c_long = 1;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_long = 8;
/// PERF_EVENT_IOC_SET_BPF, PERF_EVENT_IOC_ENABLE
const PERF_SET_BPF: libc::Ioctl = 0x4004_2408;
const PERF_ENABLE: libc::Ioctl = 0x2400;
const FSOPEN_CLOEXEC: libc::c_long = 1;
const FSMOUNT_CLOEXEC: libc::c_long = 1;
const FSCONFIG_CREATE: libc::c_long = 6;

/// `union bpf_attr` for MAP_UPDATE_ELEM.
#[repr(C)]
struct UpdateElement {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for the batch commands.
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// `union bpf_attr` for LINK_CREATE; `info` is an iterator's.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_length: u32,
    reserved: u32,
}

/// `union bpf_attr` for OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct ObjectInfo {
    object: u32,
    info_length: u32,
    info: u64,
}

/// `union bpf_attr` for ITER_CREATE.
#[repr(C)]
struct IteratorCreate {
    link: u32,
    flags: u32,
}

/// The beginning of `union bpf_attr` for PROG_TEST_RUN; the rest is zero.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    returned: u32,
    input_length: u32,
    output_length: u32,
    input: u64,
    output: u64,
    repeat: u32,
    duration: u32,
}

/// Calls bpf(2). `attributes` must be the variant that `command` reads, and what it points to must
/// be as large as the map says.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes at `attributes`, which is borrowed
    // for the call; the callers below answer for the pointers in it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Adds an entry unless it is there. Key and value must have the map's sizes.
pub(super) fn add(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(
        MAP_UPDATE_ELEM,
        &mut UpdateElement {
            map: number(map),
            reserved: 0,
            key: key.as_ptr().addr() as u64,
            value: value.as_ptr().addr() as u64,
            flags: NO_REPLACEMENT,
        },
    )
    .map(drop)
}

/// Removes entries and returns how many now lie, one after another, in `keys` and `values`, and
/// whether these were the last. `keys` and `values` must hold `count` of the map's keys and values.
pub(super) fn take_batch(
    map: BorrowedFd<'_>,
    keys: &mut [u8],
    values: &mut [u8],
    count: usize,
) -> io::Result<(usize, bool)> {
    // Where the next batch would start. We always begin at the start: what is read is gone.
    let mut position = 0_u64;
    let mut batch = Batch {
        from: 0,
        to: std::ptr::from_mut(&mut position).addr() as u64,
        keys: keys.as_mut_ptr().addr() as u64,
        values: values.as_mut_ptr().addr() as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    match bpf(MAP_LOOKUP_AND_DELETE_BATCH, &mut batch) {
        Ok(_) => Ok((batch.count as usize, false)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Ok((batch.count as usize, true))
        }
        Err(error) => Err(error),
    }
}

/// Opens a pass of an iterator: over the sockets in a socket-storage map, or without one over what
/// the calling thread's network namespace has.
pub(super) fn open_iterator(
    program: BorrowedFd<'_>,
    map: Option<BorrowedFd<'_>>,
) -> io::Result<File> {
    // `union bpf_iter_link_info`, whose first member is the map.
    let info = map.map(|map| [number(map), 0, 0, 0]);
    let link = bpf(
        LINK_CREATE,
        &mut LinkCreate {
            program: number(program),
            target: 0,
            attach_type: TRACE_ITER,
            flags: 0,
            info: (info.as_ref()).map_or(0, |info| info.as_ptr().addr() as u64),
            info_length: info.as_ref().map_or(0, |info| size_of_val(info) as u32),
            reserved: 0,
        },
    )?;
    // SAFETY: the kernel has just made this descriptor for us.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let iterator = bpf(
        ITER_CREATE,
        &mut IteratorCreate {
            link: link.as_raw_fd().cast_unsigned(),
            flags: 0,
        },
    )?;
    // SAFETY: as above. The pass keeps the link alive.
    Ok(unsafe { File::from_raw_fd(iterator) })
}

/// `struct perf_event_attr`, as far as its first version goes.
#[repr(C)]
#[derive(Default)]
struct PerfEvent {
    kind: u32,
    size: u32,
    event: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// Runs `program` at a tracepoint, given by its number, until the result is closed.
pub(super) fn attach_to_event(program: BorrowedFd<'_>, event: u64) -> io::Result<OwnedFd> {
    let attributes = PerfEvent {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEvent>() as u32,
        event,
        ..PerfEvent::default()
    };
    // All processes; the processor does not matter, since programs run on every one.
    // SAFETY: the kernel reads `size` bytes at `attributes`, which is borrowed for the call.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(&attributes),
            -1,
            0,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let event = descriptor(event)?;
    // SAFETY: both requests take an integer.
    let result = unsafe {
        match libc::ioctl(event.as_raw_fd(), PERF_SET_BPF, program.as_raw_fd()) {
            0 => libc::ioctl(event.as_raw_fd(), PERF_ENABLE, 0),
            failed => failed,
        }
    };
    match result {
        0 => Ok(event),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The root of a file system that nobody else sees, and that goes when the result is closed.
pub(super) fn open_file_system(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: takes a string that ends with a zero, and an integer.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    let context = descriptor(context)?;
    let none = std::ptr::null::<u8>();
    // SAFETY: this command takes neither a key nor a value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CREATE,
            none,
            none,
            0,
        )
    };
    if created != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes three integers.
    let root = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) };
    descriptor(root)
}

/// What a system call returned that makes a descriptor.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Attaches to an interface of the calling thread's namespace, for as long as the link is open.
pub(super) fn attach_to_interface(
    program: BorrowedFd<'_>,
    interface: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let link = bpf(
        LINK_CREATE,
        &mut LinkCreate {
            program: number(program),
            target: interface,
            attach_type,
            flags,
            info: 0,
            info_length: 0,
            reserved: 0,
        },
    )?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// The number of the interface that a link is on; zero once that is gone.
pub(super) fn linked_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    // `struct bpf_link_info`: type, number, program, padding, then what the type says.
    object_info::<u32, 32>(link).map(|info| info[4])
}

/// What the kernel counts of a program: nanoseconds and runs while it measures, and runs that it
/// left out because the program was running on that CPU already.
pub(super) fn program_counts(program: BorrowedFd<'_>) -> io::Result<[u64; 3]> {
    // `struct bpf_prog_info`; older kernels leave the end as it is.
    object_info::<u64, 27>(program).map(|info| [info[24], info[25], info[26]])
}

/// As much of what the kernel tells of a link or a program; zeros where it tells less.
fn object_info<T: Copy + Default, const N: usize>(object: BorrowedFd<'_>) -> io::Result<[T; N]> {
    let mut info = [T::default(); N];
    bpf(
        OBJECT_INFO,
        &mut ObjectInfo {
            object: number(object),
            info_length: size_of_val(&info) as u32,
            info: info.as_mut_ptr().addr() as u64,
        },
    )?;
    Ok(info)
}

/// Runs a program on packets `times` times, on a packet of zeros that goes nowhere. Returns what the
/// last run returned.
pub(super) fn run_program(program: BorrowedFd<'_>, times: u32) -> io::Result<u32> {
    let packet = [0_u8; 64];
    let mut run = TestRun {
        program: number(program),
        input_length: size_of_val(&packet) as u32,
        input: packet.as_ptr().addr() as u64,
        repeat: times,
        ..TestRun::default()
    };
    bpf(PROG_TEST_RUN, &mut run)?;
    Ok(run.returned)
}

/// Returns once every BPF program that runs now has ended: they run inside RCU read sections, and
/// this command waits for those.
pub fn wait_for_programs() {
    // SAFETY: takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
    if result != 0 {
        // Not there on kernels with nohz_full. No program runs for nearly as long as this.
        thread::sleep(Duration::from_millis(50));
    }
}

/// How long one tick of the kernel's clock (a jiffy) lasts.
pub fn tick_nanoseconds() -> u64 {
    // The coarse clocks advance once per tick.
    let resolution = clock(libc::clock_getres, libc::CLOCK_MONOTONIC_COARSE);
    resolution.filter(|&tick| tick > 0).unwrap_or(4_000_000)
}

/// The time that programs get from bpf_ktime_get_ns().
pub fn monotonic_nanoseconds() -> u64 {
    clock(libc::clock_gettime, libc::CLOCK_MONOTONIC).unwrap_or(0)
}

fn clock(
    call: unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int,
    id: libc::clockid_t,
) -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both calls write one timespec, which is borrowed for the call.
    let result = unsafe { call(id, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u64::try_from(time.tv_nsec).ok()?;
    (result == 0).then(|| seconds * 1_000_000_000 + nanoseconds)
}

/// `struct __user_cap_header_struct` and two of `struct __user_cap_data_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// Zero is the calling thread.
    thread: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION: u32 = 0x2008_0522;
const HIGHEST_CAPABILITY: u32 = 63;

/// Leaves the calling thread, of the capabilities that it has, only those in `mask`, and no way to
/// others: not by starting another program either.
pub fn keep_capabilities(mask: u64) -> io::Result<()> {
    // SAFETY: prctl(2) takes integers here.
    let control = |option, argument: u32| unsafe { libc::prctl(option, argument, 0, 0, 0) };
    for bit in 0..=HIGHEST_CAPABILITY {
        if mask & (1 << bit) == 0 {
            // Refused without CAP_SETPCAP, and for numbers this kernel does not know.
            control(libc::PR_CAPBSET_DROP, bit);
        }
    }
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned();
    control(libc::PR_CAP_AMBIENT, clear);
    if control(libc::PR_SET_NO_NEW_PRIVS, 1) != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        thread: 0,
    };
    let mut halves = [CapabilityHalf::default(); 2];
    capabilities(libc::SYS_capget, &mut header, &mut halves)?;
    for (half, kept) in halves.iter_mut().zip([mask as u32, (mask >> 32) as u32]) {
        half.permitted &= kept;
        half.effective = half.permitted;
        half.inheritable = 0;
    }
    capabilities(libc::SYS_capset, &mut header, &mut halves)
}

fn capabilities(
    call: libc::c_long,
    header: &mut CapabilityHeader,
    halves: &mut [CapabilityHalf; 2],
) -> io::Result<()> {
    // SAFETY: with this version, both calls read the header and read or write two halves.
    let result =
        unsafe { libc::syscall(call, std::ptr::from_mut(header), std::ptr::from_mut(halves)) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets all threads allocate from one heap: with one each, what comes and goes leaves holes in every one of them, and
/// threads that hardly allocate at the same time gain nothing by that. To be called before there are threads.
pub fn share_one_heap() {
    // SAFETY: takes two integers; what it cannot do it leaves as it was.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives freed memory back to the kernel: loading programs needs some thirty megabytes for a moment,
/// and series come and go.
pub fn release_memory() {
    // SAFETY: takes an integer, and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

//! Thin, safe covers over the system calls that std does not offer. Each does one call and knows nothing of the engine.

#![expect(unsafe_code, reason = "system calls that std does not offer; every call is covered by a safe function here")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Connections that wait to be accepted before the kernel turns new ones away.
const LISTEN_BACKLOG: libc::c_int = 1_024;

/// The error of the call that just returned `result`, or `result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that std and the C library wrap nothing around.
fn check_call(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Nanoseconds of one of the system's clocks.
pub(crate) fn clock_nanos(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec during the call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "the standard clocks can always be read");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Fills `bytes` from the kernel's generator.
pub(crate) fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        // SAFETY: `rest` is writable memory of the given length during the call.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => done += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// A new event counter, blocking when read at zero, as a ring's read wants it.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an event counter. Can fail only when the counter is about to overflow, which still wakes the reader.
pub(crate) fn eventfd_signal(fd: &OwnedFd) {
    // SAFETY: takes no pointers; the descriptor is open because it is borrowed.
    let _ = unsafe { libc::eventfd_write(fd.as_raw_fd(), 1) };
}

/// CPUs that the calling thread may run on, in order.
pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: `set` is a valid place for one set of the given size; pid 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) })?;
    // SAFETY: a set is plain bits, all of which were zeroed and then written by the kernel.
    let set = unsafe { set.assume_init() };
    let limit = usize::try_from(libc::CPU_SETSIZE).expect("the size of a CPU set is positive");
    // SAFETY: every index is below the size of the set.
    Ok((0..limit).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Restricts the calling thread to `cpus`.
pub(crate) fn set_affinity(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a set is plain bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the index was just checked to be below the size of the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is a valid set of the given size; pid 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

/// The CPU that the calling thread runs on at this moment.
pub(crate) fn current_cpu() -> io::Result<usize> {
    // SAFETY: takes no pointers.
    let cpu = check(unsafe { libc::sched_getcpu() })?;
    Ok(usize::try_from(cpu).expect("a successful answer is not negative"))
}

/// Lowers the calling thread's share of the CPU; 0 is normal, 19 the least. On Linux this is a matter of the thread.
pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes no pointers; 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// Asks the scheduler to give the calling thread its share of the CPU in slices of so many nanoseconds. Threads that it
/// starts later inherit that. Kernels before 6.12 take no notice.
pub(crate) fn set_slice(nanos: u64) -> io::Result<()> {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: `attributes` is a valid place of the given size; 0 is the calling thread.
    check_call(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    attributes.sched_runtime = nanos;
    attributes.sched_flags = 0;
    // SAFETY: as above; the kernel reads as many bytes as the structure says that it has.
    check_call(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// The slice that was asked for, or the kernel's own, nanoseconds; 0 where the kernel has none to tell.
#[cfg(test)]
pub(crate) fn slice() -> io::Result<u64> {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: `attributes` is a valid place of the given size; 0 is the calling thread.
    check_call(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    Ok(attributes.sched_runtime)
}

/// The niceness of the calling thread.
#[cfg(test)]
pub(crate) fn nice() -> i32 {
    // SAFETY: takes no pointers; 0 is the calling thread.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// A limit of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Bytes of locked memory.
    LockedMemory,
    /// Descriptors.
    OpenFiles,
}

impl Limit {
    fn resource(self) -> libc::__rlimit_resource_t {
        match self {
            Limit::LockedMemory => libc::RLIMIT_MEMLOCK,
            Limit::OpenFiles => libc::RLIMIT_NOFILE,
        }
    }

    /// What it is now, and to what it may be raised. `u64::MAX` is no limit.
    pub(crate) fn get(self) -> io::Result<(u64, u64)> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid place for one limit during the call.
        check(unsafe { libc::getrlimit(self.resource(), &raw mut limit) })?;
        Ok((limit.rlim_cur, limit.rlim_max))
    }

    /// Sets both.
    pub(crate) fn set(self, now: u64, most: u64) -> io::Result<()> {
        let limit = libc::rlimit { rlim_cur: now, rlim_max: most };
        // SAFETY: `limit` is a valid limit during the call.
        check(unsafe { libc::setrlimit(self.resource(), &raw const limit) }).map(drop)
    }
}

/// Bytes of the file system that holds `path`: free for this user, and all.
pub(crate) fn space(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends with a zero byte and `found` is a valid place for one answer during the call.
    check(unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) })?;
    // SAFETY: the answer is plain numbers, all of which were zeroed and then written by the kernel.
    let found = unsafe { found.assume_init() };
    Ok((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
}

/// Whether the kernel believes that the wall clock is kept by somebody, and the greatest error it may have, microseconds.
pub(crate) fn clock_sync() -> io::Result<(bool, i64)> {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid place during the call; with no mode set the call only reads.
    check(unsafe { libc::adjtimex(&raw mut state) })?;
    Ok((state.status & libc::STA_UNSYNC == 0, state.maxerror))
}

/// Whether this process runs as root, to which the limit of locked memory does not apply.
pub(crate) fn is_root() -> bool {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Writes as much of `bytes` as the device takes, durable with the length of the file on return (`RWF_DSYNC`).
pub(crate) fn write_durable_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let offset = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `part` describes readable memory during the call, and the call only reads it.
    let wrote = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, offset, libc::RWF_DSYNC) };
    usize::try_from(wrote).map_err(|_| io::Error::last_os_error())
}

/// Takes over a socket that an accept has just made.
pub(crate) fn accepted(fd: RawFd) -> TcpStream {
    assert!(fd >= 0, "an accept that succeeded brings a descriptor");
    // SAFETY: the kernel made this descriptor for the accept that completed; nobody else knows its number.
    unsafe { TcpStream::from_raw_fd(fd) }
}

/// A listening socket. With `share_port` several of them, one per shard, may take the same address and the kernel
/// spreads connections over them.
pub(crate) fn listen(address: SocketAddr, share_port: bool) -> io::Result<TcpListener> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_flag(&socket, libc::SO_REUSEADDR)?;
    if share_port {
        set_flag(&socket, libc::SO_REUSEPORT)?;
    }
    bind(&socket, address)?;
    // SAFETY: takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), LISTEN_BACKLOG) })?;
    Ok(TcpListener::from(socket))
}

/// Switches a socket-level option on.
fn set_flag(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `on` is readable memory of the given size during the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const on).cast(), size) })
        .map(drop)
}

/// Gives a socket its address.
fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            // SAFETY: `raw` is an address of the given size during the call.
            check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size) }).map(drop)
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            let size = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            // SAFETY: `raw` is an address of the given size during the call.
            check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), size) }).map(drop)
        }
    }
}

/// The kernel's number of the calling thread.
pub(crate) fn thread_number() -> libc::pid_t {
    // SAFETY: takes no pointers.
    unsafe { libc::gettid() }
}

/// Sends a signal to a thread of this process.
pub(crate) fn signal_thread(thread: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    let process = i64::from(std::process::id());
    // SAFETY: takes no pointers; a number that is no thread of this process is refused.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, i64::from(thread), i64::from(signal)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets what the calling thread's last failed call has left, for a signal handler to put back.
pub(crate) fn set_last_error(code: libc::c_int) {
    // SAFETY: takes no pointers.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the place is of this thread and lives as long as it.
    unsafe { *place = code };
}

/// Ends the process at once: nothing is flushed or dropped.
pub(crate) fn exit_now(status: libc::c_int) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(status) }
}

//! Which version of Linux runs: some of what it does differs, and is asked for in no other way.

use std::fs;

/// As `uname -r`, such as `6.12.117+deb12-cloud-amd64`; empty where it is not told.
pub fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The first two numbers of a [`release`].
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[test]
fn versions_are_read() {
    assert_eq!(version("6.18.44-fc-v509"), Some((6, 18)));
    assert_eq!(version("5.15.0"), Some((5, 15)));
    assert_eq!(version("unknown"), None);
}

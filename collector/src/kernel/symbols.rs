//! Which function an instruction address of the kernel lies in, for a few functions of interest:
//! all of them would be megabytes.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::OnceLock;

static OPENED: OnceLock<File> = OnceLock::new();

/// Opens the kernel's list of its functions. Whether it shows addresses depends on the rights of
/// who opens it, so this comes before they are given up.
pub fn open() {
    if let Ok(file) = File::open(PATH) {
        let _ = OPENED.set(file);
    }
}

const PATH: &str = "/proc/kallsyms";

fn read() -> io::Result<Vec<u8>> {
    let mut file = match OPENED.get() {
        Some(file) => file.try_clone()?,
        None => File::open(PATH)?,
    };
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Where some functions of the kernel and its modules start and end.
#[derive(Debug, Default)]
pub struct Symbols(Vec<(u64, u64, &'static str)>);

impl Symbols {
    /// Empty if the kernel hides its addresses.
    pub fn read(wanted: &[&'static str]) -> Self {
        let kallsyms = read().unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&kallsyms), wanted)
    }

    pub fn parse(kallsyms: &str, wanted: &[&'static str]) -> Self {
        let functions = || {
            kallsyms.lines().filter_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                let address = u64::from_str_radix(fields.next()?, 16).ok()?;
                let code = matches!(fields.next()?, "t" | "T" | "w" | "W");
                (code && address != 0).then_some((address, fields.next()?))
            })
        };
        let mut starts: Vec<u64> = functions().map(|(start, _)| start).collect();
        starts.sort_unstable();
        let ranges = functions().filter_map(|(start, name)| {
            // The compiler splits functions: `ip_rcv_core.isra.0`, `tcp_v4_rcv.cold`.
            let name = name.split('.').next()?;
            let name = wanted.iter().find(|wanted| **wanted == name)?;
            let next = starts.partition_point(|other| *other <= start);
            Some((start, starts.get(next).copied().unwrap_or(u64::MAX), *name))
        });
        Self(ranges.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn function_at(&self, address: u64) -> Option<&'static str> {
        self.0
            .iter()
            .find(|(start, end, _)| (*start..*end).contains(&address))
            .map(|(_, _, name)| *name)
    }
}

#[test]
fn an_address_belongs_to_the_function_that_starts_before_it() {
    let symbols = Symbols::parse(
        "ffffffff81000010 t second.isra.0\nffffffff81000000 T first\nffffffff81000018 d data\nbroken",
        &["first", "second"],
    );
    assert_eq!(symbols.function_at(0xffff_ffff_8100_000f), Some("first"));
    assert_eq!(symbols.function_at(0xffff_ffff_8100_0020), Some("second"));
    assert_eq!(symbols.function_at(0x10), None);
}

#[test]
fn hidden_addresses_give_no_symbols() {
    let symbols = Symbols::parse("0000000000000000 T first\n", &["first"]);
    assert_eq!(symbols.function_at(0x1000), None);
}

//! Which function an instruction address of the kernel lies in, for a few functions of interest:
//! all of them would be megabytes.

use std::fs::{self, File};
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
pub struct Symbols {
    functions: Vec<(u64, u64, &'static str)>,
    /// That there were when the functions were listed, as far as known.
    modules: Option<Vec<String>>,
}

impl Symbols {
    /// Empty if the kernel hides its addresses.
    pub fn read(wanted: &[&'static str]) -> Self {
        // Before: a module that comes meanwhile is one that came later.
        let modules = modules();
        let kallsyms = read().unwrap_or_default();
        let symbols = Self::parse(&String::from_utf8_lossy(&kallsyms), wanted);
        Self { modules, ..symbols }
    }

    /// Whether modules came or went since they were read: then there are other functions.
    pub fn are_old(&self) -> bool {
        self.are_of_others(modules())
    }

    fn are_of_others(&self, modules: Option<Vec<String>>) -> bool {
        modules.is_some() && modules != self.modules
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
        Self {
            functions: ranges.collect(),
            modules: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    pub fn function_at(&self, address: u64) -> Option<&'static str> {
        self.functions
            .iter()
            .find(|(start, end, _)| (*start..*end).contains(&address))
            .map(|(_, _, name)| *name)
    }
}

/// Their names, in order. `None` where the kernel tells none.
fn modules() -> Option<Vec<String>> {
    let text = fs::read_to_string("/proc/modules").ok()?;
    Some(module_names(&text))
}

/// Without who uses them, which changes all the time.
fn module_names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| Some(line.split_ascii_whitespace().next()?.to_owned()))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn only_a_module_that_came_or_went_is_a_change() {
    let before = "nf_tables 356352 1 nft_compat, Live 0x0\nnft_compat 20480 0 - Live 0x0\n";
    let used = "nft_compat 20480 9 - Live 0x0\nnf_tables 356352 3 nft_compat, Live 0x0\n";
    let more = format!("bridge 405504 0 - Live 0x0\n{before}");
    let symbols = Symbols {
        modules: Some(module_names(before)),
        ..Symbols::default()
    };
    assert!(!symbols.are_of_others(Some(module_names(used))));
    assert!(symbols.are_of_others(Some(module_names(&more))));
    assert!(symbols.are_of_others(Some(Vec::new())));
    assert!(!symbols.are_of_others(None), "nobody knows");
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

//! DNS names: from the wire to text, and to the domain that somebody registered.

/// Second-level labels under which countries let others register, as in `co.uk`.
const COUNTRY_SECOND_LEVELS: [&str; 24] = [
    "ac", "asn", "biz", "co", "com", "edu", "firm", "gen", "go", "gob", "gov", "govt", "id",
    "info", "ltd", "mil", "ne", "net", "nhs", "nom", "or", "org", "plc", "sch",
];

/// The name at the start of `bytes`, in lower case. `None` if it is none.
pub(super) fn from_wire(bytes: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut rest = bytes;
    loop {
        let (&length, after) = rest.split_first()?;
        if length == 0 {
            break;
        }
        let label = after.get(..length.into())?;
        if length > 63 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for &byte in label {
            push(&mut name, byte);
        }
        rest = &after[label.len()..];
    }
    if name.is_empty() {
        name.push('.');
    }
    Some(name)
}

/// As zone files write it.
fn push(name: &mut String, byte: u8) {
    match byte {
        b'.' | b'\\' => {
            name.push('\\');
            name.push(byte.into());
        }
        b'!'..=b'~' => name.push(byte.to_ascii_lowercase().into()),
        _ => name.push_str(&format!("\\{byte:03}")),
    }
}

/// The name without its first label.
pub(super) fn parent(name: &str) -> &str {
    let mut escaped = false;
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'.' => return &name[at + 1..],
            _ => {}
        }
    }
    ""
}

/// What names of one owner have in common: `example.com`, `example.co.uk`, a Kubernetes namespace
/// such as `shop.svc.cluster.local`, `in-addr.arpa`. A rule and not a list of all public suffixes.
pub(super) fn registered(name: &str) -> &str {
    let labels: Vec<&str> = name.split('.').collect();
    let last = |count: usize| {
        let skipped = labels.len().saturating_sub(count);
        let at: usize = labels[..skipped].iter().map(|label| label.len() + 1).sum();
        &name[at..]
    };
    // Names that were expanded by a search list end in the namespace too.
    if let Some(at) = (labels.iter()).rposition(|label| *label == "svc" || *label == "pod")
        && at > 0
        && at + 2 < labels.len()
    {
        return last(labels.len() - at + 1);
    }
    match labels.as_slice() {
        [.., second, country] if country.len() == 2 && COUNTRY_SECOND_LEVELS.contains(second) => {
            last(3)
        }
        _ => last(2),
    }
}

#[test]
fn names_are_written_as_in_zone_files() {
    let check = |wire: &[u8], expected| assert_eq!(from_wire(wire).as_deref(), expected);
    check(b"\x03WwW\x07Example\0rest", Some("www.example"));
    check(b"\0", Some("."));
    check(b"\x04a.b\xff\x01\\\0", Some(r"a\.b\255.\\"));
    check(b"\x05shor", None);
    check(b"\xc0\x0c", None);
    check(b"", None);
    let mut long = Vec::new();
    for _ in 0..3 {
        long.push(63);
        long.extend([b'x'; 63]);
    }
    long.extend([61]);
    long.extend([b'y'; 61]);
    long.push(0);
    assert_eq!(long.len(), 255);
    assert_eq!(from_wire(&long).unwrap().len(), 253);
}

#[test]
fn a_domain_is_what_somebody_registered() {
    for (name, expected) in [
        ("x1.example.com", "example.com"),
        ("a.b.c.example.test", "example.test"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("www.example.com.au", "example.com.au"),
        ("co.uk", "co.uk"),
        ("de", "de"),
        ("web.shop.svc.cluster.local", "shop.svc.cluster.local"),
        (
            "api.example.com.shop.svc.cluster.local",
            "shop.svc.cluster.local",
        ),
        ("10-0-0-7.shop.pod.cluster.local", "shop.pod.cluster.local"),
        ("7.0.0.10.in-addr.arpa", "in-addr.arpa"),
        ("svc.example.com", "example.com"),
    ] {
        assert_eq!(registered(name), expected, "{name}");
    }
    assert_eq!(parent(r"a\.b.c.d"), "c.d");
    assert_eq!(parent("local"), "");
}

//! Names of the running kernel's enum values. Their numbers differ between kernels, so names are
//! all that leaves this program.

use std::collections::HashMap;
use std::fs;
use std::io;

const MAGIC: u16 = 0xeb9f;

/// Kinds of BTF types, with the size of what follows each of `count` members.
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNCTION_PROTOTYPE: u32 = 13;
const KIND_VARIABLE: u32 = 14;
const KIND_DATA_SECTION: u32 = 15;
const KIND_DECLARATION_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// The values of the enums in `wanted`, by enum name, lower case and without their common prefix.
pub fn enum_names(
    wanted: &[(&'static str, &str)],
) -> io::Result<HashMap<&'static str, HashMap<u32, String>>> {
    let btf = fs::read("/sys/kernel/btf/vmlinux")?;
    Ok(parse_enums(&btf, wanted))
}

/// As [`enum_names`], of BTF data. What cannot be read is not in the result.
pub fn parse_enums(
    btf: &[u8],
    wanted: &[(&'static str, &str)],
) -> HashMap<&'static str, HashMap<u32, String>> {
    let mut found = HashMap::new();
    // The end of the data, or something that is no BTF.
    let _ = visit_enums(btf, &mut |name, values| {
        let Some(&(name, prefix)) = wanted.iter().find(|(wanted, _)| *wanted == name) else {
            return;
        };
        let names = values
            .iter()
            .map(|(number, value)| {
                let short = value.strip_prefix(prefix).unwrap_or(value);
                (*number, short.to_ascii_lowercase())
            })
            .collect();
        found.insert(name, names);
    });
    found
}

fn visit_enums(btf: &[u8], visit: &mut impl FnMut(&str, &[(u32, &str)])) -> Option<()> {
    if u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?) != MAGIC {
        return None;
    }
    let header = usize::try_from(word(btf, 4)?).ok()?;
    let section = |at| -> Option<&[u8]> {
        let start = header.checked_add(word(btf, at)? as usize)?;
        btf.get(start..start.checked_add(word(btf, at + 4)? as usize)?)
    };
    let (types, strings) = (section(8)?, section(16)?);

    let mut at = 0;
    while at < types.len() {
        let (name, info) = (word(types, at)?, word(types, at + 4)?);
        let count = (info & 0xffff) as usize;
        at += 12;
        let size = match (info >> 24) & 0x1f {
            KIND_INT | KIND_VARIABLE | KIND_DECLARATION_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATA_SECTION | KIND_ENUM64 => count * 12,
            KIND_ENUM => {
                let mut values = Vec::with_capacity(count);
                for member in 0..count {
                    let value = string(strings, word(types, at + member * 8)?)?;
                    values.push((word(types, at + member * 8 + 4)?, value));
                }
                visit(string(strings, name)?, &values);
                count * 8
            }
            KIND_FUNCTION_PROTOTYPE => count * 8,
            // Pointers, typedefs, qualifiers, functions: the record is all.
            _ => 0,
        };
        at += size;
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn string(strings: &[u8], offset: u32) -> Option<&str> {
    let rest = strings.get(offset as usize..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &[(&str, &str)] = &[("skb_drop_reason", "SKB_DROP_REASON_")];

    /// An enum of two values behind an integer type.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0skb_drop_reason\0SKB_CONSUMED\0SKB_DROP_REASON_NO_SOCKET\0";
        let mut types: Vec<u32> = vec![1, KIND_INT << 24, 4, 32];
        types.extend([5, KIND_ENUM << 24 | 2, 4, 21, 1, 34, 3]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let lengths = [types.len(), strings.len()].map(|length| u32::try_from(length).unwrap());
        let mut btf = MAGIC.to_ne_bytes().to_vec();
        btf.extend([1, 0]);
        for word in [24, 0, lengths[0], lengths[0], lengths[1]] {
            btf.extend(word.to_ne_bytes());
        }
        [btf, types, strings.to_vec()].concat()
    }

    #[test]
    fn names_lose_their_prefix_and_their_capitals() {
        let names = &parse_enums(&sample(), WANTED)["skb_drop_reason"];
        assert_eq!(names[&1], "skb_consumed");
        assert_eq!(names[&3], "no_socket");
    }

    #[test]
    fn data_cut_anywhere_is_no_panic() {
        let sample = sample();
        for length in 0..sample.len() {
            parse_enums(&sample[..length], WANTED);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_no_panic(mut bytes: Vec<u8>) {
            parse_enums(&bytes, WANTED);
            bytes.splice(0..0, MAGIC.to_ne_bytes());
            parse_enums(&bytes, WANTED);
        }
    }
}

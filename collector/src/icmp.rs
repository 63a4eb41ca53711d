//! Names of ICMP and ICMPv6 types and codes, as RFC 792, 1812, 4443 and their kin have them.

/// The IP protocol number of ICMP; that of ICMPv6.
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// "other" for types that nobody uses.
pub fn type_name(family: Family, kind: u8) -> &'static str {
    match (family, kind) {
        (Family::V4, 0) | (Family::V6, 129) => "echo_reply",
        (Family::V4, 3) | (Family::V6, 1) => "dest_unreachable",
        (Family::V4, 4) => "source_quench",
        (Family::V4, 5) | (Family::V6, 137) => "redirect",
        (Family::V4, 8) | (Family::V6, 128) => "echo_request",
        (Family::V4, 9) | (Family::V6, 134) => "router_advertisement",
        (Family::V4, 10) | (Family::V6, 133) => "router_solicitation",
        (Family::V4, 11) | (Family::V6, 3) => "time_exceeded",
        (Family::V4, 12) | (Family::V6, 4) => "parameter_problem",
        (Family::V4, 13) => "timestamp_request",
        (Family::V4, 14) => "timestamp_reply",
        (Family::V4, 17) => "address_mask_request",
        (Family::V4, 18) => "address_mask_reply",
        (Family::V6, 2) => "packet_too_big",
        (Family::V6, 130) => "multicast_listener_query",
        (Family::V6, 131 | 143) => "multicast_listener_report",
        (Family::V6, 132) => "multicast_listener_done",
        (Family::V6, 135) => "neighbour_solicitation",
        (Family::V6, 136) => "neighbour_advertisement",
        _ => "other",
    }
}

/// "other" for codes without a name; "none" for types that have but one.
pub fn code_name(family: Family, kind: u8, code: u8) -> &'static str {
    match (type_name(family, kind), family) {
        ("dest_unreachable", Family::V4) => unreachable_v4(code),
        ("dest_unreachable", Family::V6) => unreachable_v6(code),
        ("time_exceeded", _) => match code {
            0 => "hop_limit",
            1 => "reassembly",
            _ => "other",
        },
        ("redirect", Family::V4) => match code {
            0 => "network",
            1 => "host",
            2 => "network_for_service",
            3 => "host_for_service",
            _ => "other",
        },
        ("parameter_problem", Family::V4) => match code {
            0 => "pointer",
            1 => "missing_option",
            2 => "bad_length",
            _ => "other",
        },
        ("parameter_problem", Family::V6) => match code {
            0 => "header_field",
            1 => "next_header",
            2 => "option",
            _ => "other",
        },
        _ if code == 0 => "none",
        _ => "other",
    }
}

fn unreachable_v4(code: u8) -> &'static str {
    match code {
        0 => "network",
        1 => "host",
        2 => "protocol",
        3 => "port",
        4 => "fragmentation_needed",
        5 => "source_route_failed",
        6 => "network_unknown",
        7 => "host_unknown",
        8 => "host_isolated",
        9 => "network_prohibited",
        10 => "host_prohibited",
        11 => "network_for_service",
        12 => "host_for_service",
        13 => "administratively_prohibited",
        14 => "host_precedence",
        15 => "precedence_cutoff",
        _ => "other",
    }
}

fn unreachable_v6(code: u8) -> &'static str {
    match code {
        0 => "no_route",
        1 => "administratively_prohibited",
        2 => "beyond_scope",
        3 => "address",
        4 => "port",
        5 => "policy",
        6 => "reject_route",
        _ => "other",
    }
}

#[test]
fn both_families_have_one_name_for_one_thing() {
    let name = |family, kind, code| (type_name(family, kind), code_name(family, kind, code));
    assert_eq!(name(Family::V4, 3, 3), ("dest_unreachable", "port"));
    assert_eq!(name(Family::V6, 1, 4), ("dest_unreachable", "port"));
    assert_eq!(name(Family::V4, 8, 0), ("echo_request", "none"));
    assert_eq!(name(Family::V6, 3, 0), ("time_exceeded", "hop_limit"));
    assert_eq!(name(Family::V4, 200, 1), ("other", "other"));
}

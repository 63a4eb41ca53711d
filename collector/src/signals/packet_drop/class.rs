//! What a drop means to a person: policy, congestion, an error, a closed port, the MTU, or nothing.

use std::net::IpAddr;

/// Functions whose name says why a packet went. Other places are "other".
pub(super) const SITES: [&str; 60] = [
    "__dev_forward_skb2",
    "__dev_queue_xmit",
    "__dev_xmit_skb",
    "__ip6_local_out",
    "__ip_finish_output",
    "__ip_local_out",
    "__netif_receive_skb_core",
    "__udp4_lib_rcv",
    "__udp6_lib_rcv",
    "bpf_prog_run_generic_xdp",
    "br_dev_queue_push_xmit",
    "br_forward_finish",
    "br_handle_frame",
    "br_handle_frame_finish",
    "br_nf_pre_routing",
    "dev_hard_start_xmit",
    "do_xdp_generic",
    "dst_discard",
    "dst_discard_out",
    "enqueue_to_backlog",
    "icmp_rcv",
    "icmpv6_rcv",
    "inet_frag_destroy",
    "ip6_finish_output",
    "ip6_forward",
    "ip6_fragment",
    "ip6_input_finish",
    "ip6_mc_input",
    "ip6_pkt_discard",
    "ip6_pkt_discard_out",
    "ip6_pkt_drop",
    "ip6_pkt_prohibit",
    "ip6_pkt_prohibit_out",
    "ip6_rcv_core",
    "ip6t_do_table",
    "ip_do_fragment",
    "ip_error",
    "ip_finish_output2",
    "ip_forward",
    "ip_fragment",
    "ip_local_deliver_finish",
    "ip_mc_output",
    "ip_rcv_core",
    "ip_rcv_finish_core",
    "ip_route_input_slow",
    "ipt_do_table",
    "neigh_invalidate",
    "netem_enqueue",
    "netif_receive_generic_xdp",
    "nf_hook_slow",
    "nft_do_chain",
    "sch_handle_egress",
    "sk_stream_kill_queues",
    "tcf_action_exec",
    "tcp_v4_rcv",
    "tcp_v6_rcv",
    "tun_net_xmit",
    "udp_queue_rcv_one_skb",
    "udpv6_queue_rcv_one_skb",
    "veth_xdp_rcv_skb",
];

/// What runs XDP programs on packets that are socket buffers, and throws away what they drop without a reason (net/core/dev.c,
/// drivers/net/veth.c as of Linux 6.18).
const XDP: [&str; 4] = [
    "bpf_prog_run_generic_xdp",
    "do_xdp_generic",
    "netif_receive_generic_xdp",
    "veth_xdp_rcv_skb",
];

/// Where firewall rules drop, on older kernels others too.
pub(super) fn is_rule(site: &str) -> bool {
    matches!(
        site,
        "nft_do_chain" | "ipt_do_table" | "ip6t_do_table" | "netfilter"
    )
}

/// The kernel's reason, or where it gives none what the function says.
pub(super) fn reason<'a>(given: &'a str, site: &str) -> &'a str {
    match given {
        "not_specified" | "unknown" if XDP.contains(&site) => "xdp",
        _ => given,
    }
}

/// Of reasons, as the kernel's BTF names them. The site decides where the kernel gives no reason.
pub(super) fn of(reason: &str, site: &str, destination: IpAddr) -> &'static str {
    // What is sent to all is not meant for each. Neighbour discovery and multicast membership on a
    // link that has just come up find neither route nor address.
    let to_all = match destination {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    };
    match reason {
        "ip_innoroutes"
        | "ip_outnoroutes"
        | "ip_inaddrerrors"
        | "ipv6disabled"
        | "ipv6_ndisc_bad_options"
        | "invalid_proto"
        | "no_socket"
            if to_all =>
        {
            "benign"
        }
        "netfilter_drop" | "xfrm_policy" | "tc_ingress" | "tc_egress" | "xdp" | "socket_filter"
        | "bpf_cgroup_egress" | "security_hook" | "tap_filter" | "tap_txfilter" | "ip_rpfilter"
        | "arp_pvlan_disable" | "openvswitch" => "policy",
        "qdisc_drop"
        | "qdisc_overlimit"
        | "qdisc_congested"
        | "cake_flood"
        | "fq_band_limit"
        | "fq_horizon_limit"
        | "fq_flow_limit"
        | "cpu_backlog"
        | "socket_rcvbuff"
        | "socket_backlog"
        | "proto_mem"
        | "full_ring"
        | "nomem"
        | "tcp_listen_overflow"
        | "neigh_queuefull"
        | "dualpi2_step_drop"
        | "tcp_ofo_queue_prune"
        | "tcp_ofo_drop"
        | "tcp_zerowindow"
        | "tcp_overwindow" => "congestion",
        "no_socket" => "no_socket",
        "pkt_too_big" => "mtu",
        // What every healthy host does when connections close or segments cross.
        "queue_purge"
        | "socket_close"
        | "tcp_old_data"
        | "tcp_old_sequence"
        | "tcp_ofomerge"
        | "tcp_old_ack"
        | "tcp_too_old_ack"
        | "tcp_rfc7323_paws_ack"
        | "tcp_rfc7323_tw_paws"
        | "otherhost"
        | "unicast_in_l2_multicast"
        | "skb_consumed"
        | "not_dropped_yet"
        | "skb_not_dropped_yet"
        | "unhandled_proto"
        | "local_mac"
        | "packet_sock_error"
        | "bridge_ingress_stp_state"
        | "mac_ieee_mac_control"
        | "tcp_close"
        | "tcp_abort_on_data"
        | "tcp_reset"
        | "tcp_fastopen"
        | "dup_frag" => "benign",
        "not_specified" | "unknown" if to_all => "benign",
        "not_specified" | "unknown" => of_site(site),
        _ => "error",
    }
}

fn of_site(site: &str) -> &'static str {
    match site {
        "nft_do_chain" | "ipt_do_table" | "ip6t_do_table" | "nf_hook_slow" => "policy",
        "__dev_forward_skb2"
        // A bridge passes on nothing that is longer than its port takes.
        | "br_dev_queue_push_xmit"
        | "ip_fragment"
        | "ip_do_fragment"
        | "ip6_fragment"
        | "__ip_finish_output" => "mtu",
        "__dev_queue_xmit" | "__dev_xmit_skb" | "enqueue_to_backlog" | "netem_enqueue"
        | "tun_net_xmit" => "congestion",
        "ip_error"
        | "ip_forward"
        | "ip6_forward"
        | "ip6_pkt_drop"
        | "br_handle_frame_finish"
        | "br_forward_finish"
        | "neigh_invalidate"
        | "ip_rcv_finish_core"
        | "ip_route_input_slow"
        | "inet_frag_destroy"
        | "dev_hard_start_xmit" => "error",
        // The rest is sockets that throw away what they need no more.
        _ => "benign",
    }
}

#[test]
fn sites_are_in_order_and_there_once() {
    assert!(
        SITES.is_sorted_by(|a, b| a < b) || {
            let mut sorted = SITES;
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        }
    );
}

#[test]
fn what_an_xdp_program_drops_is_told_although_the_kernel_gives_no_reason() {
    assert_eq!(reason("not_specified", "do_xdp_generic"), "xdp");
    assert_eq!(reason("not_specified", "tcp_v4_rcv"), "not_specified");
    assert_eq!(reason("tcp_csum", "do_xdp_generic"), "tcp_csum");
    assert!(XDP.iter().all(|site| SITES.contains(site)));
}

#[test]
fn a_firewall_is_policy_and_a_purged_queue_is_nothing() {
    let someone = IpAddr::from([10, 0, 0, 1]);
    let of = |reason, site| of(reason, site, someone);
    assert_eq!(of("netfilter_drop", "nft_do_chain"), "policy");
    assert_eq!(of("queue_purge", "other"), "benign");
    assert_eq!(of("not_specified", "__dev_forward_skb2"), "mtu");
    assert_eq!(of("not_specified", "br_dev_queue_push_xmit"), "mtu");
    assert_eq!(of("not_specified", "tcp_v4_rcv"), "benign");
    assert_eq!(of("ip_innoroutes", "ip_error"), "error");
}

#[test]
fn what_is_sent_to_all_is_no_error_where_nobody_wants_it() {
    let group: IpAddr = "ff02::16".parse().unwrap();
    assert_eq!(of("ip_innoroutes", "ip6_pkt_drop", group), "benign");
    assert_eq!(of("not_specified", "ip6_pkt_drop", group), "benign");
    assert_eq!(of("netfilter_drop", "nft_do_chain", group), "policy");
    assert_eq!(of("qdisc_drop", "__dev_queue_xmit", group), "congestion");
}

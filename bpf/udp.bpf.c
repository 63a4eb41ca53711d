/* SPDX-License-Identifier: GPL-2.0 */
/*
 * UDP datagrams and payload, per socket and peer, at both ends.
 *
 * The programs sit on the root cgroup and run for every packet of every socket of the host; those
 * of TCP leave after a few loads. A buffer that offload made of several datagrams counts as those.
 * What the receive buffer has no room for has passed by here already, and is taken back.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "abi.h"
#include "count.bpf.h"
#include "kernel.h"
#include "packet.bpf.h"
#include "socket.bpf.h"

struct udp_flows {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct udp_flow_key);
	__type(value, struct udp_flow);
};
struct udp_flows udp_flows_0 SEC(".maps");
struct udp_flows udp_flows_1 SEC(".maps");

/* Takes what the flows have no room for, without its ports: a client that uses ever new ones
 * still has its right numbers. */
struct udp_edges {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct udp_flow_key);
	__type(value, struct udp_flow);
};
struct udp_edges udp_edges_0 SEC(".maps");
struct udp_edges udp_edges_1 SEC(".maps");

struct udp_drops {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct udp_owner_key);
	__type(value, __u64);
};
struct udp_drops udp_drops_0 SEC(".maps");
struct udp_drops udp_drops_1 SEC(".maps");

/* The datagram that this CPU counted last as received. Whether its socket has room is found out
 * next, in the same softirq. */
struct arrival {
	struct udp_flow_key flow;
	struct udp_flow_key edge;
	__u64 bytes;
	__u32 datagrams;
	/* Which of each pair of maps it was counted in. User space waits for this softirq before it
	 * reads them. */
	__u32 second;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrival);
} last_arrival SEC(".maps");

static const struct udp_flow_key overflow_edge;
static const struct udp_owner_key overflow_owner;
static const __u64 no_count;

enum {
	UDP_HEADER = 8,
};

struct udp_ports {
	__be16 source;
	__be16 destination;
};

/* The flow, made if need be; in a full map, its edge. `edge` needs its addresses only then. */
static __always_inline struct udp_flow *flow_of(struct __sk_buff *skb, void *flows, void *edges,
						const struct udp_flow_key *key,
						struct udp_flow_key *edge)
{
	struct udp_flow *flow = bpf_map_lookup_elem(flows, key);
	struct udp_flow fresh = {};

	if (flow)
		return flow;
	/* The context is the kernel's own sk_buff; reading it this way needs CAP_PERFMON. */
	fresh.netns = BPF_CORE_READ((struct sk_buff *)skb, sk, __sk_common.skc_net.net, net_cookie);
	fresh.cgroup = bpf_skb_cgroup_id(skb);
	fresh.first_ns = bpf_ktime_get_coarse_ns();
	bpf_map_update_elem(flows, key, &fresh, BPF_NOEXIST);
	/* Also after a failure: another CPU may have made the entry in between. */
	flow = bpf_map_lookup_elem(flows, key);
	if (flow)
		return flow;
	count_insert_failure();

	edge->socket = fresh.cgroup;
	edge->netns = fresh.netns;
	__builtin_memcpy(edge->local, key->local, 16);
	__builtin_memcpy(edge->peer, key->peer, 16);
	return entry(edges, edge, &overflow_edge, &fresh);
}

/* Addresses as the socket knows them, if it is connected: its packets may be translated on their
 * way. */
static __always_inline void read_ends(struct __sk_buff *skb, const struct socket_packet *packet,
				      const struct udp_ports *ports, bool outgoing,
				      struct udp_flow_key *key)
{
	/* The upper half of the word, in network order. Zero for a socket that is not connected. */
	__u32 peer_port = bpf_ntohl(skb->remote_port);

	__builtin_memcpy(key->local, outgoing ? packet->source : packet->destination, 16);
	key->local_port = skb->local_port;
	if (!peer_port) {
		__builtin_memcpy(key->peer, outgoing ? packet->destination : packet->source, 16);
		key->peer_port = bpf_ntohs(outgoing ? ports->destination : ports->source);
		return;
	}
	key->peer_port = peer_port;
	if (skb->family == AF_INET) {
		map_ipv4(key->local, skb->local_ip4);
		map_ipv4(key->peer, skb->remote_ip4);
	} else {
		__be32 *local = (__be32 *)key->local;
		__be32 *peer = (__be32 *)key->peer;

		local[0] = skb->local_ip6[0];
		local[1] = skb->local_ip6[1];
		local[2] = skb->local_ip6[2];
		local[3] = skb->local_ip6[3];
		peer[0] = skb->remote_ip6[0];
		peer[1] = skb->remote_ip6[1];
		peer[2] = skb->remote_ip6[2];
		peer[3] = skb->remote_ip6[3];
	}
}

static __always_inline void count(struct __sk_buff *skb, bool outgoing)
{
	struct socket_packet packet = {};
	struct udp_flow_key edge_key = {};
	struct udp_flow_key key = {};
	struct bpf_sock *sk = skb->sk;
	struct udp_flow *flow;
	struct udp_ports ports;
	__u32 datagrams;
	__u32 second;
	__u64 bytes;

	if (is_tcp(skb) || !sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_UDP)
		return;
	if (!read_socket_packet(skb, &packet) || packet.protocol != IPPROTO_UDP)
		return;
	if (bpf_skb_load_bytes(skb, packet.transport, &ports, sizeof(ports)))
		return;
	if (skb->len < packet.transport + UDP_HEADER)
		return;
	bytes = skb->len - packet.transport - UDP_HEADER;
	datagrams = skb->gso_segs ? skb->gso_segs : 1;

	key.socket = bpf_get_socket_cookie(skb);
	read_ends(skb, &packet, &ports, outgoing, &key);
	second = second_is_active();
	if (second)
		flow = flow_of(skb, &udp_flows_1, &udp_edges_1, &key, &edge_key);
	else
		flow = flow_of(skb, &udp_flows_0, &udp_edges_0, &key, &edge_key);
	if (!flow)
		return;
	if (!flow->datagrams_sent && !flow->datagrams_received)
		flow->sent_first = outgoing;
	flow->last_ns = bpf_ktime_get_coarse_ns();
	if (outgoing) {
		__sync_fetch_and_add(&flow->datagrams_sent, datagrams);
		__sync_fetch_and_add(&flow->bytes_sent, bytes);
	} else {
		__u32 zero = 0;
		struct arrival *arrival = bpf_map_lookup_elem(&last_arrival, &zero);

		__sync_fetch_and_add(&flow->datagrams_received, datagrams);
		__sync_fetch_and_add(&flow->bytes_received, bytes);
		if (!arrival)
			return;
		arrival->flow = key;
		arrival->edge = edge_key;
		arrival->bytes = bytes;
		arrival->datagrams = datagrams;
		arrival->second = second;
	}
}

SEC("cgroup_skb/egress")
int udp_egress(struct __sk_buff *skb)
{
	count(skb, true);
	return 1;
}

SEC("cgroup_skb/ingress")
int udp_ingress(struct __sk_buff *skb)
{
	count(skb, false);
	return 1;
}

static __always_inline struct udp_flow *counted_in(void *flows, void *edges,
						   const struct arrival *arrival)
{
	struct udp_flow *flow = bpf_map_lookup_elem(flows, &arrival->flow);

	if (flow)
		return flow;
	flow = bpf_map_lookup_elem(edges, &arrival->edge);
	return flow ? flow : bpf_map_lookup_elem(edges, &overflow_edge);
}

static __always_inline void take_back(struct sock *sk)
{
	__u32 zero = 0;
	struct arrival *arrival = bpf_map_lookup_elem(&last_arrival, &zero);
	struct udp_flow *flow;

	/* Another one only where a softirq can be preempted. */
	if (!arrival || arrival->flow.socket != bpf_get_socket_cookie(sk))
		return;
	if (arrival->second)
		flow = counted_in(&udp_flows_1, &udp_edges_1, arrival);
	else
		flow = counted_in(&udp_flows_0, &udp_edges_0, arrival);
	if (!flow)
		return;
	__sync_fetch_and_add(&flow->datagrams_received, -(__u64)arrival->datagrams);
	__sync_fetch_and_add(&flow->bytes_received, -arrival->bytes);
}

SEC("tp_btf/udp_fail_queue_rcv_skb")
int BPF_PROG(udp_no_room, int error, struct sock *sk)
{
	struct udp_owner_key key = {};
	__u64 *drops;

	if (!sk)
		return 0;
	take_back(sk);
	/* The other error is that all sockets of the host together have too much. */
	if (error != -ENOMEM)
		return 0;
	key.cgroup = socket_cgroup(sk);
	key.netns = socket_netns(sk);
	if (second_is_active())
		drops = entry(&udp_drops_1, &key, &overflow_owner, &no_count);
	else
		drops = entry(&udp_drops_0, &key, &overflow_owner, &no_count);
	if (drops)
		__sync_fetch_and_add(drops, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";

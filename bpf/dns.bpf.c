/* SPDX-License-Identifier: GPL-2.0 */
/*
 * DNS queries and answers on port 53, UDP and TCP, at the client's socket.
 *
 * The programs sit on the root cgroup and so run for every packet of every socket of the host; all
 * connected ones leave after one load, unless their peer's port is 53.
 *
 * Only the client's side is counted: queries that leave for port 53, answers that come from it.
 * A query asked again under its id counts as a query. Each answer settles one query; the latency is
 * that of the first answer since the first query, which is what the client waited for. So
 * queries = answers + time-outs + those in flight.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "count.bpf.h"
#include "histogram.bpf.h"
#include "kernel.h"
#include "packet.bpf.h"
#include "socket.bpf.h"

struct dns_edges {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct dns_edge_key);
	__type(value, struct dns_edge);
};
struct dns_edges dns_edges_0 SEC(".maps");
struct dns_edges dns_edges_1 SEC(".maps");

/* User space removes what stays unanswered. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct dns_pending_key);
	__type(value, struct dns_pending);
} dns_pending SEC(".maps");

const volatile __u64 dns_query_bounds[HISTOGRAM_BOUNDS] = {};

static const struct dns_edge no_edge;

enum {
	DNS_PORT = 53,
	DNS_HEADER = 12,
	MAX_LABELS = 40,
	DNS_FLAG_RESPONSE = 0x80,
	DNS_FLAG_TRUNCATED = 0x02,
	QTYPE_UNREADABLE = 0,
};

/* The wire formats of the two transports, up to where we look. */
struct ports {
	__be16 source;
	__be16 destination;
};

struct dns_header {
	__be16 id;
	__u8 flags;
	__u8 rcode;
	__be16 questions;
	__be16 answers;
	__be16 authorities;
	__be16 additionals;
};

static __always_inline struct dns_edge *edge_of(const struct dns_edge_key *key)
{
	struct dns_edge_key overflow = {};

	overflow.protocol = key->protocol;
	if (second_is_active())
		return entry(&dns_edges_1, key, &overflow, &no_edge);
	return entry(&dns_edges_0, key, &overflow, &no_edge);
}

/* Walks the labels of the first question to the type behind them. */
static __always_inline __u16 read_qtype(struct __sk_buff *skb, __u32 offset)
{
	for (int i = 0; i < MAX_LABELS; i++) {
		__be16 qtype;
		__u8 length;

		if (bpf_skb_load_bytes(skb, offset, &length, 1))
			return QTYPE_UNREADABLE;
		offset += 1;
		if (length == 0) {
			if (bpf_skb_load_bytes(skb, offset, &qtype, 2))
				return QTYPE_UNREADABLE;
			return bpf_ntohs(qtype);
		}
		/* Compression has nothing to point to in the first question. */
		if (length > 63)
			return QTYPE_UNREADABLE;
		offset += length;
	}
	return QTYPE_UNREADABLE;
}

static __always_inline __u32 rcode_of(__u8 rcode)
{
	switch (rcode & 15) {
	case 0:
		return DNS_NOERROR;
	case 1:
		return DNS_FORMERR;
	case 2:
		return DNS_SERVFAIL;
	case 3:
		return DNS_NXDOMAIN;
	case 4:
		return DNS_NOTIMP;
	case 5:
		return DNS_REFUSED;
	default:
		return DNS_OTHER;
	}
}

static __always_inline void query(struct __sk_buff *skb, struct dns_edge_key *edge_key,
				  struct dns_pending_key *pending_key, __u32 question)
{
	__u64 now = bpf_ktime_get_ns();
	struct dns_pending *pending;
	struct dns_edge *edge;

	edge_key->cgroup = bpf_skb_cgroup_id(skb);
	/* The context is the kernel's own sk_buff; reading it this way needs CAP_PERFMON. */
	edge_key->netns =
		BPF_CORE_READ((struct sk_buff *)skb, sk, __sk_common.skc_net.net, net_cookie);
	edge_key->qtype = read_qtype(skb, question);

	edge = edge_of(edge_key);
	if (edge)
		__sync_fetch_and_add(&edge->queries, 1);

	pending = bpf_map_lookup_elem(&dns_pending, pending_key);
	/* An answered entry whose id comes up again is a new question. */
	if (pending && pending->unanswered && !pending->answers) {
		pending->last_ns = now;
		__sync_fetch_and_add(&pending->unanswered, 1);
		return;
	}
	struct dns_pending fresh = {
		.edge = *edge_key,
		.first_ns = now,
		.last_ns = now,
		.unanswered = 1,
	};
	if (bpf_map_update_elem(&dns_pending, pending_key, &fresh, BPF_ANY))
		count_insert_failure();
}

static __always_inline void answer(const struct dns_header *header,
				   const struct dns_pending_key *pending_key)
{
	struct dns_pending *pending = bpf_map_lookup_elem(&dns_pending, pending_key);
	struct dns_edge *edge;
	__u64 latency;
	__u32 slot;

	if (!pending || !pending->unanswered)
		return;
	edge = edge_of(&pending->edge);
	if (edge) {
		__sync_fetch_and_add(&edge->responses[rcode_of(header->rcode) & 7], 1);
		if (header->flags & DNS_FLAG_TRUNCATED)
			__sync_fetch_and_add(&edge->truncated, 1);
		if (!pending->answers) {
			latency = bpf_ktime_get_ns() - pending->first_ns;
			slot = histogram_slot(latency, dns_query_bounds, DNS_SLOTS);
			__sync_fetch_and_add(&edge->latency_slots[slot & 31], 1);
			__sync_fetch_and_add(&edge->latency_ns, latency);
		}
	}
	pending->answers += 1;
	if (__sync_fetch_and_add(&pending->unanswered, -1) == 1)
		bpf_map_delete_elem(&dns_pending, pending_key);
}

static __always_inline void message(struct __sk_buff *skb, struct dns_edge_key *edge_key,
				    __u32 payload, bool outgoing)
{
	struct dns_pending_key pending_key = {};
	struct dns_header header;
	__be16 length;

	if (edge_key->protocol == IPPROTO_TCP) {
		/* A segment that does not begin with a message is the rest of a longer one. */
		if (bpf_skb_load_bytes(skb, payload, &length, 2))
			return;
		if (bpf_ntohs(length) < DNS_HEADER)
			return;
		payload += 2;
	}
	if (bpf_skb_load_bytes(skb, payload, &header, sizeof(header)))
		return;
	if (header.questions != bpf_htons(1) && outgoing)
		return;
	if (!!(header.flags & DNS_FLAG_RESPONSE) == outgoing)
		return;

	pending_key.cookie = bpf_get_socket_cookie(skb);
	pending_key.id = header.id;
	pending_key.protocol = edge_key->protocol;
	if (outgoing)
		query(skb, edge_key, &pending_key, payload + DNS_HEADER);
	else
		answer(&header, &pending_key);
}

static __always_inline void packet(struct __sk_buff *skb, bool outgoing)
{
	struct dns_edge_key edge_key = {};
	struct ipv4_header ip4;
	struct ipv6_header ip6;
	struct ports ports;
	__u32 transport;
	__u8 offset;
	/* The upper half of the word, in network order. Zero for a socket that is not connected. */
	__u32 peer_port = bpf_ntohl(skb->remote_port);

	if (peer_port && peer_port != DNS_PORT)
		return;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, 0, &ip4, sizeof(ip4)))
			return;
		edge_key.protocol = ip4.protocol;
		transport = (ip4.version_length & 15) * 4;
		if (ip4.fragment & bpf_htons(IP_FRAGMENT_OFFSET))
			return;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, 0, &ip6, sizeof(ip6)))
			return;
		edge_key.protocol = ip6.next_header;
		transport = sizeof(ip6);
	} else {
		return;
	}
	if (edge_key.protocol != IPPROTO_UDP && edge_key.protocol != IPPROTO_TCP)
		return;
	if (bpf_skb_load_bytes(skb, transport, &ports, sizeof(ports)))
		return;
	/* Where the address is translated, so may be the port: then the socket knows better. */
	if (!peer_port && (outgoing ? ports.destination : ports.source) != bpf_htons(DNS_PORT))
		return;

	if (outgoing && skb->protocol == bpf_htons(ETH_P_IP)) {
		map_ipv4(edge_key.client, ip4.source);
		map_ipv4(edge_key.server, ip4.destination);
	} else if (outgoing) {
		__builtin_memcpy(edge_key.client, ip6.source, 16);
		__builtin_memcpy(edge_key.server, ip6.destination, 16);
	}
	if (edge_key.protocol == IPPROTO_UDP) {
		message(skb, &edge_key, transport + 8, outgoing);
	} else {
		if (bpf_skb_load_bytes(skb, transport + 12, &offset, 1))
			return;
		message(skb, &edge_key, transport + (offset >> 4) * 4, outgoing);
	}
}

SEC("cgroup_skb/egress")
int dns_egress(struct __sk_buff *skb)
{
	packet(skb, true);
	return 1;
}

SEC("cgroup_skb/ingress")
int dns_ingress(struct __sk_buff *skb)
{
	packet(skb, false);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Refused attempts after which the same program connects over the other family of addresses, as
 * RFC 8305 (Happy Eyeballs) and a loop over the results of getaddrinfo() do: nobody misses them.
 *
 * A connection is such a fallback if its process had an attempt to the same port refused over the
 * other family, and the two are no further apart than the delay between attempts that the RFC
 * recommends. Each refusal is used once. That both addresses are of one host is not known here: the
 * connection counts for the host that it reached.
 */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"

enum { FALLBACK_NS = 250 * 1000 * 1000 };

struct refusal_key {
	__u32 process;
	__u16 port;
	/** One for IPv6. */
	__u16 is_v6;
};

struct refusals {
	/** When the last one was. */
	__u64 at_ns;
	/** Those that no connection has followed. */
	__u64 left;
};

/* Programs that are refused right now. What falls out of it stays a failure. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct refusal_key);
	__type(value, struct refusals);
} refusals SEC(".maps");

/* Spares connections the look into the map while nobody is refused. */
__u64 last_refusal_ns;

static __always_inline bool speaks_ipv6(const struct sock_common *common)
{
	const __be32 *words = common->skc_v6_daddr.in6_u.u6_addr32;

	return common->skc_family == AF_INET6 &&
	       !(words[0] == 0 && words[1] == 0 && words[2] == bpf_htonl(0xffff));
}

static __always_inline void remember_refusal(const struct sock *sk, __u32 process, __u64 now)
{
	struct refusals first = {.at_ns = now, .left = 1};
	struct refusal_key key = {};
	struct refusals *past;

	key.process = process;
	key.port = sk->__sk_common.skc_dport;
	key.is_v6 = speaks_ipv6(&sk->__sk_common);
	last_refusal_ns = now;
	past = bpf_map_lookup_elem(&refusals, &key);
	if (!past || now - past->at_ns > FALLBACK_NS) {
		bpf_map_update_elem(&refusals, &key, &first, BPF_ANY);
		return;
	}
	past->at_ns = now;
	__sync_fetch_and_add(&past->left, 1);
}

/* To be asked once for each connection that opens. */
static __always_inline bool is_fallback(const struct sock *sk, __u32 process, __u64 connect_ns)
{
	struct refusal_key key = {};
	struct refusals *past;

	if (connect_ns > last_refusal_ns + FALLBACK_NS)
		return false;
	key.process = process;
	key.port = sk->__sk_common.skc_dport;
	key.is_v6 = !speaks_ipv6(&sk->__sk_common);
	past = bpf_map_lookup_elem(&refusals, &key);
	if (!past || (__s64)past->left <= 0 || connect_ns > past->at_ns + FALLBACK_NS ||
	    connect_ns + FALLBACK_NS < past->at_ns)
		return false;
	__sync_fetch_and_add(&past->left, -1);
	return true;
}

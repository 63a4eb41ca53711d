/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whom a socket belongs to, and the addresses of its two ends.
 *
 * Always from the socket, never from bpf_get_current_*(): most hooks run in softirq context, where
 * the current task is whatever the interrupt landed on.
 */
#pragma once

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"

/* The low half of the namespace's cookie. Cookies are given out one after the other and only once,
 * so that a number that comes up later cannot mean another namespace, as that of an inode can. */
static __always_inline __u32 socket_netns(const struct sock *sk)
{
	return sk->__sk_common.skc_net.net->net_cookie;
}

/* Only for full sockets: see is_full_socket(). */
static __always_inline __u64 socket_cgroup(const struct sock *sk)
{
	return sk->sk_cgrp_data.cgroup->kn->id;
}

/* Request and time-wait sockets share only `struct sock_common` with a socket. */
static __always_inline bool is_full_socket(const struct sock *sk)
{
	__u8 state = sk->__sk_common.skc_state;

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

static __always_inline void map_ipv4(__u8 *to, __be32 address)
{
	__be32 *words = (__be32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = address;
}

static __always_inline void copy_ipv6(__u8 *to, const struct in6_addr *from)
{
	__be32 *words = (__be32 *)to;

	words[0] = from->in6_u.u6_addr32[0];
	words[1] = from->in6_u.u6_addr32[1];
	words[2] = from->in6_u.u6_addr32[2];
	words[3] = from->in6_u.u6_addr32[3];
}

static __always_inline void socket_addresses(const struct sock_common *common, __u8 *local,
					     __u8 *peer)
{
	if (common->skc_family == AF_INET6) {
		copy_ipv6(local, &common->skc_v6_rcv_saddr);
		copy_ipv6(peer, &common->skc_v6_daddr);
	} else {
		map_ipv4(local, common->skc_rcv_saddr);
		map_ipv4(peer, common->skc_daddr);
	}
}

/* SPDX-License-Identifier: GPL-2.0 */
/* What bpf/udp.bpf.c counts. Part of abi.h. */
#pragma once

#include <linux/types.h>

/** One socket and one of its peers. */
struct udp_flow_key {
	/** The socket's cookie; in `udp_edges`, the owner's cgroup. */
	__u64 socket;
	__u8 local[16];
	__u8 peer[16];
	/** Both zero in `udp_edges`. */
	__u16 local_port;
	__u16 peer_port;
	/** Zero in `udp_flows`, where the socket says enough. */
	__u32 netns;
};
_Static_assert(sizeof(struct udp_flow_key) == 48, "padding in a map key");

/** What went to and fro since the last collection. */
struct udp_flow {
	__u64 cgroup;
	__u64 first_ns;
	__u64 last_ns;
	/** Payload. */
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 datagrams_sent;
	/** Without those that the receive buffer had no room for. */
	__u64 datagrams_received;
	__u32 netns;
	/** One if the first datagram since the last collection went out. */
	__u32 sent_first;
};
_Static_assert(sizeof(struct udp_flow) == 64, "padding in a map value");

/** Whose sockets had no room in their receive buffers. */
struct udp_owner_key {
	__u64 cgroup;
	__u32 netns;
	__u32 reserved;
};
_Static_assert(sizeof(struct udp_owner_key) == 16, "padding in a map key");

/* SPDX-License-Identifier: GPL-2.0 */
/* What bpf/probe.bpf.c counts. Part of abi.h. */
#pragma once

#include <linux/types.h>

/** What a packet that came to nothing looked like. */
enum probe_kind {
	/** SYN to a closed port, or stopped on its way. */
	PROBE_SYN,
	/** The flags of no connection: what scanners send past simple filters. */
	PROBE_NULL,
	PROBE_FIN,
	PROBE_XMAS,
	PROBE_SYN_FIN,
	PROBE_OTHER,
	/** SYN-ACK sent again, since the peer did not complete the handshake. */
	PROBE_HALF_OPEN,
	/** UDP datagram to a port that nobody has. */
	PROBE_DATAGRAM,
	PROBE_KINDS,
};

struct probe_key {
	/** Where it was seen. Zero if neither a device nor a socket told. */
	__u32 netns;
	/** enum probe_kind */
	__u16 kind;
	/** At the destination. */
	__u16 port;
	__u8 source[16];
	__u8 destination[16];
};
_Static_assert(sizeof(struct probe_key) == 40, "padding in a map key");

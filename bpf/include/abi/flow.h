/* SPDX-License-Identifier: GPL-2.0 */
/* What a connection tells the flow table. */
#pragma once

#include <linux/types.h>

/** Where a connection was when a record of it was written. */
enum flow_phase {
	/** It was not closed: from the iterator. */
	FLOW_LIVE,
	/** It has ended after it was established. */
	FLOW_CLOSED,
	/** It was never established. */
	FLOW_FAILED,
};

/** One end of a TCP connection, with totals over the life of its socket. */
struct flow_record {
	__u64 cookie;
	__u64 cgroup;
	/** Of connect(), or of the third packet at a server. Zero: before the programs ran. */
	__u64 started_ns;
	/** Zero: not yet, or before the programs ran. */
	__u64 established_ns;
	/** Of this record. */
	__u64 now_ns;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u32 segments_sent;
	__u32 segments_received;
	/** Ticks since data last went either way. */
	__u32 idle;
	__u32 netns;
	__u8 local[16];
	__u8 peer[16];
	__u16 local_port;
	__u16 peer_port;
	/** enum tcp_role */
	__u8 role;
	/** enum flow_phase */
	__u8 phase;
	/** The kernel's TCP state number, of a live one. */
	__u8 state;
	/** enum tcp_end of a closed one, enum tcp_failure of a failed one. */
	__u8 reason;
};
_Static_assert(sizeof(struct flow_record) == 112, "padding in a record");

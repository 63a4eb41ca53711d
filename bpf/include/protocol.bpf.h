/* SPDX-License-Identifier: GPL-2.0 */
/* Sends first bytes of streams to user space; counts what the ring has no room for. */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

#include "abi.h"

enum {
	/* User space looks ten times a second; it is woken only before the ring is full. */
	WAKE_ABOVE = 1 << 20,
	MAX_LARGEST = 16,
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} segments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost_segments SEC(".maps");

/* Clients that asked a DNS server before. One that falls out is counted again, so it is large. */
struct query_key {
	__u32 client;
	__u32 server;
	__u16 client_port;
	__u16 server_port;
	__u32 role;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct query_key);
	__type(value, __u8);
} queries SEC(".maps");

static __always_inline __u32 fold(const __u8 *address)
{
	const __u32 *words = (const __u32 *)address;

	return words[0] * 31 ^ words[1] * 37 ^ words[2] * 41 ^ words[3];
}

static __always_inline bool is_known_query(const struct stream_segment *record)
{
	struct query_key key = {};
	__u8 one = 1;

	key.client = fold(record->local);
	key.server = fold(record->peer);
	key.client_port = record->local_port;
	key.server_port = record->peer_port;
	key.role = record->role;
	if (bpf_map_lookup_elem(&queries, &key))
		return true;
	bpf_map_update_elem(&queries, &key, &one, BPF_ANY);
	return false;
}

static __always_inline void count_lost_segment(void)
{
	__u32 zero = 0;
	__u64 *lost = bpf_map_lookup_elem(&lost_segments, &zero);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

static __always_inline __u64 wake_up(void)
{
	if (bpf_ringbuf_query(&segments, BPF_RB_AVAIL_DATA) > WAKE_ABOVE)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

struct small_record {
	struct stream_segment header;
	__u8 bytes[STREAM_SMALL];
};

struct medium_record {
	struct stream_segment header;
	__u8 bytes[STREAM_MEDIUM];
};

struct large_record {
	struct stream_segment header;
	__u8 bytes[STREAM_LARGE];
};

struct largest_record {
	struct stream_segment header;
	__u8 bytes[STREAM_LARGEST];
};

/* Bytes go from the packet straight into the ring: a buffer of the CPU would be shared with the
 * packet that interrupts this one. The size of a record must be a constant, hence four. */
#define SEND(type, capacity)                                                                       \
	do {                                                                                       \
		struct type *to = bpf_ringbuf_reserve(&segments, sizeof(struct type), 0);          \
		__u32 n = length;                                                                  \
                                                                                                   \
		if (!to) {                                                                         \
			count_lost_segment();                                                      \
			return false;                                                              \
		}                                                                                  \
		to->header = *record;                                                              \
		if ((int)n > 0) {                                                                  \
			if (n > (capacity))                                                        \
				n = (capacity);                                                    \
			/* Linux 6.1 does not learn from the test above that n is not 0. */        \
			n -= 1;                                                                    \
			asm volatile("" : "+r"(n));                                                \
			n &= (capacity) - 1;                                                       \
			n += 1;                                                                    \
			if (bpf_skb_load_bytes(skb, from, to->bytes, n)) {                         \
				bpf_ringbuf_discard(to, BPF_RB_NO_WAKEUP);                         \
				count_lost_segment();                                              \
				return false;                                                      \
			}                                                                          \
			to->header.length = n;                                                     \
		}                                                                                  \
		bpf_ringbuf_submit(to, wake_up());                                                 \
	} while (0)

/* False if user space will not see all of it. */
static __always_inline bool send_bytes(struct __sk_buff *skb, struct stream_segment *record,
				       __u32 from, __u32 length)
{
	if (length <= STREAM_SMALL) {
		SEND(small_record, STREAM_SMALL);
		return true;
	}
	if (length <= STREAM_MEDIUM) {
		SEND(medium_record, STREAM_MEDIUM);
		return true;
	}
	if (length <= STREAM_LARGE) {
		SEND(large_record, STREAM_LARGE);
		return true;
	}
	for (int i = 0; i < MAX_LARGEST; i++) {
		SEND(largest_record, STREAM_LARGEST);
		if (length <= STREAM_LARGEST)
			return true;
		length -= STREAM_LARGEST;
		from += STREAM_LARGEST;
		record->sequence += STREAM_LARGEST;
	}
	count_lost_segment();
	return false;
}

/* SPDX-License-Identifier: GPL-2.0 */
/* Sends first bytes of streams to user space; counts what the ring has no room for. */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

#include "abi.h"

enum {
	/*
	 * User space looks five times a second or more; it is woken only before the ring is full,
	 * and not by every record that comes until it looks: the interrupt that wakes it costs more
	 * than all else that is done for a record. Several CPUs may jump over the mark together.
	 */
	WAKE_ABOVE = 1 << 20,
	WAKE_RANGE = 1 << 14,
	MAX_LARGEST = 16,
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} segments SEC(".maps");

/* A record that takes a page of the ring, with its header. */
struct blank {
	__u8 bytes[4096 - 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct blank);
} blanks SEC(".maps");

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
	__u64 waiting = bpf_ringbuf_query(&segments, BPF_RB_AVAIL_DATA);

	if (waiting - WAKE_ABOVE < WAKE_RANGE)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

/*
 * Bytes go from the packet straight into the ring: a buffer of the CPU would be shared with the
 * packet that interrupts this one. The size of a record must be a constant, hence four.
 *
 * A global function is verified once, by itself. As a part of what calls it, it would be verified
 * for every way there, which Linux 6.1 does not finish in minutes. Not zero if user space will not
 * see the bytes.
 */
#define DEFINE_SEND(name, capacity)                                                                \
	struct name##_record {                                                                     \
		struct stream_segment header;                                                      \
		__u8 bytes[capacity];                                                              \
	};                                                                                         \
                                                                                                   \
	__noinline int send_##name(struct __sk_buff *skb, const struct stream_segment *record,     \
				   __u32 from, __u32 length)                                       \
	{                                                                                          \
		struct name##_record *to;                                                          \
                                                                                                   \
		/* The verifier does not take the callers' word for it. */                         \
		if (!record)                                                                       \
			return 1;                                                                  \
		to = bpf_ringbuf_reserve(&segments, sizeof(*to), 0);                               \
		if (!to) {                                                                         \
			count_lost_segment();                                                      \
			return 1;                                                                  \
		}                                                                                  \
		to->header = *record;                                                              \
		if ((int)length > 0) {                                                             \
			if (length > (capacity))                                                   \
				length = (capacity);                                               \
			/* Linux 6.1 does not learn from the test above that it is not 0. */       \
			length -= 1;                                                               \
			asm volatile("" : "+r"(length));                                           \
			length &= (capacity) - 1;                                                  \
			length += 1;                                                               \
			if (bpf_skb_load_bytes(skb, from, to->bytes, length)) {                    \
				bpf_ringbuf_discard(to, BPF_RB_NO_WAKEUP);                         \
				count_lost_segment();                                              \
				return 1;                                                          \
			}                                                                          \
			to->header.length = length;                                                \
		}                                                                                  \
		bpf_ringbuf_submit(to, wake_up());                                                 \
		return 0;                                                                          \
	}

DEFINE_SEND(small, STREAM_SMALL)
DEFINE_SEND(medium, STREAM_MEDIUM)
DEFINE_SEND(large, STREAM_LARGE)
DEFINE_SEND(largest, STREAM_LARGEST)

/* False if user space will not see all of it. */
static __always_inline bool send_bytes(struct __sk_buff *skb, struct stream_segment *record,
				       __u32 from, __u32 length)
{
	if (length <= STREAM_SMALL)
		return !send_small(skb, record, from, length);
	if (length <= STREAM_MEDIUM)
		return !send_medium(skb, record, from, length);
	if (length <= STREAM_LARGE)
		return !send_large(skb, record, from, length);
	for (int i = 0; i < MAX_LARGEST; i++) {
		if (send_largest(skb, record, from, length))
			return false;
		if (length <= STREAM_LARGEST)
			return true;
		length -= STREAM_LARGEST;
		from += STREAM_LARGEST;
		record->sequence += STREAM_LARGEST;
	}
	count_lost_segment();
	return false;
}

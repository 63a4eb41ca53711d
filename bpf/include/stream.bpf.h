/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Connections that speak TLS or HTTP/2: how much of their segments is of interest. Follows the
 * records of TLS by their headers and reads nothing else of them.
 */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>

#include "abi.h"

enum {
	MAX_RECORDS = 8,
	RECORD_HEADER = 5,
	RECORD_HANDSHAKE = 0x16,
	RECORD_PROTECTED = 0x17,
	CLIENT_HELLO = 1,
	SERVER_HELLO = 2,
};

enum stream_kind {
	KIND_TLS,
	KIND_HTTP2,
};

enum stream_phase {
	PHASE_HANDSHAKE,
	/* Both sides have sent encrypted records. */
	PHASE_PROTECTED,
	/* The server's next record was seen; how the connection goes on tells whether it was an
	   alert. */
	PHASE_AFTER,
	PHASE_DONE,
};

/* Of connections that speak TLS or HTTP/2; others have none. Members by enum stream_direction. */
struct stream {
	/* Where the next TLS record begins, if `followed`. */
	__u32 next[STREAM_DIRECTIONS];
	__u8 followed[STREAM_DIRECTIONS];
	__u8 is_protected[STREAM_DIRECTIONS];
	__u8 kind;
	__u8 phase;
	/* The direction of the client hello. */
	__u8 client;
	/* User space does not have all that it should. */
	__u8 is_lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct stream);
} streams SEC(".maps");

struct segment {
	__u32 transport;
	__u32 payload;
	__u32 length;
	__u32 sequence;
	__u32 acknowledgment;
	__u8 flags;
};

static __always_inline bool is_record(const __u8 *header)
{
	return header[0] >= 0x14 && header[0] <= RECORD_PROTECTED && header[1] == 3 &&
	       header[2] <= 4;
}

/* Whether a stream, or a new chapter of one, begins with a hello. A few bytes may be all we get. */
static __always_inline bool is_hello(const __u8 *bytes, __u32 length, bool at_start)
{
	if (bytes[0] != RECORD_HANDSHAKE)
		return false;
	if (length < 6)
		return at_start && (length < 2 || bytes[1] == 3);
	return bytes[1] == 3 && bytes[2] <= 4 &&
	       (bytes[5] == CLIENT_HELLO || bytes[5] == SERVER_HELLO);
}

/*
 * How much of the segment is of interest. Follows the records; where their headers are cut in two
 * or segments come out of order, it loses track, and all is taken until a segment begins with a
 * record.
 */
static __always_inline __u32 interesting(struct __sk_buff *skb, struct stream *stream,
					 const struct segment *segment, __u32 direction,
					 __u8 *flags)
{
	__u32 at = stream->next[direction & 1] - segment->sequence;
	__u8 header[RECORD_HEADER] = {};

	if (!stream->followed[direction & 1]) {
		if (bpf_skb_load_bytes(skb, segment->payload, header, 3) || !is_record(header))
			return segment->length;
		at = 0;
		stream->followed[direction & 1] = 1;
		*flags |= STREAM_TLS_RECORD;
	}
	/* What lies between was lost, or is still to come. */
	if ((__s32)at < 0) {
		stream->followed[direction & 1] = 0;
		return segment->length;
	}
	for (int i = 0; i < MAX_RECORDS; i++) {
		if (at >= segment->length)
			break;
		if (at + RECORD_HEADER > segment->length ||
		    bpf_skb_load_bytes(skb, segment->payload + at, header, RECORD_HEADER) ||
		    !is_record(header)) {
			stream->followed[direction & 1] = 0;
			return segment->length;
		}
		at += RECORD_HEADER;
		if (header[0] == RECORD_PROTECTED) {
			stream->is_protected[direction & 1] = 1;
			return at;
		}
		at += header[3] << 8 | header[4];
	}
	stream->next[direction & 1] = segment->sequence + at;
	return segment->length;
}

/* Behind the handshake: the header of the server's next record, and how the connection goes on. */
static __always_inline __u32 after_handshake(struct __sk_buff *skb, struct stream *stream,
					     const struct segment *segment, __u32 direction,
					     __u8 *flags)
{
	__u8 header[RECORD_HEADER];

	if (!segment->length || direction == stream->client)
		return 0;
	if (stream->phase == PHASE_PROTECTED &&
	    !bpf_skb_load_bytes(skb, segment->payload, header, RECORD_HEADER) &&
	    is_record(header)) {
		stream->phase = PHASE_AFTER;
		*flags |= STREAM_TLS_AFTER;
		return RECORD_HEADER;
	}
	stream->phase = PHASE_DONE;
	return 0;
}

static __always_inline struct stream *begin_stream(struct __sk_buff *skb, struct bpf_sock *sk,
						   const struct segment *segment, __u32 direction,
						   bool at_start)
{
	struct stream *stream;
	__u8 bytes[6] = {};
	__u8 kind;

	if (segment->length >= 6) {
		if (bpf_skb_load_bytes(skb, segment->payload, bytes, 6))
			return NULL;
	} else if (segment->length == 0 ||
		   bpf_skb_load_bytes(skb, segment->payload, bytes, segment->length == 1 ? 1 : 2)) {
		return NULL;
	}
	if (is_hello(bytes, segment->length, at_start))
		kind = KIND_TLS;
	else if (bytes[0] == 'P' && bytes[1] == 'R' && bytes[2] == 'I' && bytes[3] == ' ')
		kind = KIND_HTTP2;
	else
		return NULL;
	stream = bpf_sk_storage_get(&streams, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!stream) {
		count_lost_segment();
		return NULL;
	}
	stream->kind = kind;
	stream->client = bytes[5] == SERVER_HELLO ? 1 - direction : direction;
	return stream;
}

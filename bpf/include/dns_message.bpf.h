/* SPDX-License-Identifier: GPL-2.0 */
/* DNS messages: out of datagrams and out of TCP streams, and the question that they hold. */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "count.bpf.h"

enum {
	/* A message's length goes in front of it, over TCP. */
	DNS_LENGTH = 2,
	DNS_HEADER = 12,
	DNS_QUESTION = DNS_LENGTH + DNS_HEADER,
	/* Length, header, the longest name, type. What follows is of no interest. */
	DNS_WANTED = DNS_QUESTION + DNS_NAME + 2,
	/* Of an answer the header is enough. */
	DNS_ANSWER_WANTED = DNS_QUESTION,
	DNS_MAX_LABEL = 63,
	/* Of a header's third byte: what is asked for, and the last such thing that there is. */
	DNS_FLAG_RESPONSE = 0x80,
	DNS_OPERATION = 0x78,
	DNS_LAST_OPERATION = 6 << 3,
	/* Of its fourth: never set. */
	DNS_RESERVED = 0x40,
	DNS_QTYPE_UNREADABLE = 0,
	/* Messages in one buffer of a stream. What the kernel sends at once is at most 64 KiB. */
	DNS_MESSAGES = 48,
};

/* The wire format. */
struct dns_header {
	__be16 id;
	__u8 flags;
	__u8 rcode;
	__be16 questions;
	__be16 answers;
	__be16 authorities;
	__be16 additionals;
};

/* The beginning of a message. */
struct dns_message {
	/* The verifier does not see that a message continues where it ended: hence twice. */
	__u8 bytes[2 * DNS_WANTED];
	__u32 length;
	__u32 qtype;
	struct dns_name_key name;
	/* Between whom it goes. */
	struct dns_edge_key edge;
	/* While the name is read: bytes left of the label, and labels begun. Here and not in
	 * registers, where the verifier would follow every value. */
	volatile __u32 left;
	volatile __u32 labels;
};

/* Whether it is known where the messages of a stream begin. */
enum dns_place {
	DNS_PLACE_LOST,
	/* A segment was missed, or all before it: this one is taken to begin with a message. */
	DNS_PLACE_GUESSED,
	DNS_PLACE_KNOWN,
};

/* How far one direction of a connection was read. */
struct dns_stream {
	/* Sequence number that comes next. */
	__u32 next;
	/* Of the current message: bytes that are still of no interest, and bytes that we have. */
	__u32 skip;
	__u32 have;
	/* enum dns_place */
	__u32 place;
};

struct dns_answers_read {
	struct dns_stream stream;
	__u8 bytes[2 * DNS_ANSWER_WANTED];
};

/* What we keep of a client's TCP socket. The kernel frees it with the socket. */
struct dns_connection {
	struct dns_stream out;
	struct dns_answers_read in;
	/* How far `in` was read before a segment that overtook another. */
	struct dns_answers_read late;
	struct dns_message query;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct dns_connection);
} dns_connections SEC(".maps");

/* For datagrams. A program may be interrupted by another one, so each takes one that is free. */
struct dns_scratch {
	struct dns_message message;
	__u32 taken;
	__u32 reserved;
};

enum { DNS_SCRATCHES = 4 };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DNS_SCRATCHES);
	__type(key, __u32);
	__type(value, struct dns_scratch);
} dns_scratches SEC(".maps");

static __always_inline struct dns_scratch *take_scratch(__u32 *which)
{
	for (__u32 i = 0; i < DNS_SCRATCHES; i++) {
		struct dns_scratch *scratch;

		*which = i;
		scratch = bpf_map_lookup_elem(&dns_scratches, which);
		if (scratch && !__sync_val_compare_and_swap(&scratch->taken, 0, 1))
			return scratch;
	}
	count_insert_failure();
	return NULL;
}

static __always_inline void give_back(struct dns_scratch *scratch)
{
	__sync_val_compare_and_swap(&scratch->taken, 1, 0);
}

/* The message in a scratch; with DNS_SCRATCHES, that of the packet's connection. */
static __always_inline struct dns_message *find_message(struct __sk_buff *skb, __u32 which)
{
	struct dns_connection *connection;
	struct bpf_sock *sk = skb->sk;

	if (which < DNS_SCRATCHES) {
		struct dns_scratch *scratch = bpf_map_lookup_elem(&dns_scratches, &which);

		return scratch ? &scratch->message : NULL;
	}
	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NULL;
	connection = bpf_sk_storage_get(&dns_connections, sk, 0, 0);
	return connection ? &connection->query : NULL;
}

/* FNV-1a. */
static const __u64 DNS_HASH = 0xcbf29ce484222325;
static const __u64 DNS_HASH_FACTOR = 0x100000001b3;

/*
 * The first question: the hashes of its name, and its type. Names in any mixture of cases are one
 * name. A function of its own, so that the verifier walks the loop once.
 */
__noinline int read_question(struct dns_message *message)
{
	__u64 whole = DNS_HASH, parent = DNS_HASH;

	if (!message)
		return 0;
	message->qtype = DNS_QTYPE_UNREADABLE;
	message->name.whole = 0;
	message->left = 0;
	message->labels = 0;
	for (__u32 i = 0; i < DNS_NAME; i++) {
		__u8 byte = message->bytes[DNS_QUESTION + i];

		if (DNS_QUESTION + i + 3 > message->length)
			return 0;
		if (message->left) {
			message->left--;
			/* Only letters have another case. */
			if (byte >= 'A' && byte <= 'Z')
				byte += 'a' - 'A';
		} else if (byte > DNS_MAX_LABEL) {
			/* Compression has nothing to point to in the first question. */
			return 0;
		} else {
			if (message->labels <= 1)
				message->name.first = whole;
			if (byte == 0) {
				message->name.whole = whole;
				message->name.parent = parent;
				message->qtype = message->bytes[DNS_QUESTION + i + 1] << 8 |
						 message->bytes[DNS_QUESTION + i + 2];
				return 0;
			}
			message->left = byte;
			message->labels++;
		}
		whole = (whole ^ byte) * DNS_HASH_FACTOR;
		if (message->labels > 1)
			parent = (parent ^ byte) * DNS_HASH_FACTOR;
	}
	return 0;
}

/* As much of `wanted` as there is between `offset` and `end`; returns how much that is. */
static __always_inline __u32 load_some(struct __sk_buff *skb, __u32 offset, __u32 end, void *to,
				       __u32 wanted, __u32 most)
{
	__u32 length = end - offset;

	if (offset >= end)
		return 0;
	if (length > wanted)
		length = wanted;
	/* So that also the verifier of 6.1 sees that it lies between 1 and `most`. */
	length -= 1;
	asm volatile("" : "+r"(length));
	if (length >= most)
		return 0;
	length += 1;
	return bpf_skb_load_bytes(skb, offset, to, length) ? 0 : length;
}

/* Moves `stream` to this segment. Returns how much of the segment was there before, or a number
 * beyond its end. */
static __always_inline __u32 synchronize(struct dns_stream *stream, __u32 sequence, __u32 length)
{
	__s32 ahead = sequence - stream->next;

	if (stream->place != DNS_PLACE_LOST && ahead < 0) {
		if ((__u32)-ahead >= length)
			return length;
		stream->next = sequence + length;
		return -ahead;
	}
	if (stream->place == DNS_PLACE_KNOWN && ahead > 0 && stream->skip >= (__u32)ahead) {
		/* What is missing is of no interest. */
		stream->skip -= ahead;
	} else if (stream->place == DNS_PLACE_LOST || ahead > 0) {
		stream->place = DNS_PLACE_GUESSED;
		stream->have = 0;
		stream->skip = 0;
	}
	stream->next = sequence + length;
	return 0;
}

static __always_inline void swap_answers(struct dns_connection *connection)
{
	struct dns_answers_read late = connection->late;

	connection->late = connection->in;
	connection->in = late;
}

/* Segments come in any order. Where one overtakes another, `late` stays behind and waits for the
 * other: true if this is it, and `in` is where that is to be read on. To be swapped back. */
static __always_inline bool is_overtaken(struct dns_connection *connection, struct bpf_sock *sk,
					 __u32 sequence, __u32 length)
{
	struct dns_stream *in = &connection->in.stream;
	const struct dns_stream *late = &connection->late.stream;

	if (in->place == DNS_PLACE_LOST) {
		struct bpf_tcp_sock *tp = bpf_tcp_sock(sk);

		/* The very first one may be overtaken too. */
		if (tp && !tp->bytes_received) {
			in->next = tp->rcv_nxt;
			in->place = DNS_PLACE_GUESSED;
		}
	}
	if (in->place != DNS_PLACE_LOST && (__s32)(sequence - in->next) > 0) {
		connection->late = connection->in;
		return false;
	}
	if (late->place == DNS_PLACE_LOST || late->next - sequence >= length)
		return false;
	swap_answers(connection);
	return true;
}

/* Whether this may be the header of a query, or of an answer: hardly any piece from the middle of a
 * message may. `response` is the flag that it must have. */
static __always_inline bool is_header(const struct dns_header *header, __u8 response)
{
	return (header->flags & DNS_FLAG_RESPONSE) == response &&
	       (header->flags & DNS_OPERATION) <= DNS_LAST_OPERATION &&
	       !(header->rcode & DNS_RESERVED) &&
	       (header->questions == bpf_htons(1) || (response && !header->questions));
}

/*
 * Reads on in a stream, at most to the end of the beginning of a message. Returns how much was
 * read, and in `complete` the length of that beginning once it is there. `response` as above.
 */
static __always_inline __u32 read_stream(struct __sk_buff *skb, struct dns_stream *stream,
					 __u8 *bytes, __u32 wanted, __u8 response, __u32 offset,
					 __u32 end, __u32 *complete)
{
	__u32 have = stream->have;
	__u32 message, loaded;

	*complete = 0;
	if (stream->skip) {
		__u32 skipped = end - offset < stream->skip ? end - offset : stream->skip;

		stream->skip -= skipped;
		return skipped;
	}
	if (have >= wanted)
		have = 0;
	loaded = load_some(skb, offset, end, bytes + have, wanted - have, wanted);
	if (!loaded)
		return end - offset;
	if (have + loaded < DNS_LENGTH) {
		stream->have = have + loaded;
		return loaded;
	}
	message = DNS_LENGTH + (bytes[0] << 8 | bytes[1]);
	if (message < DNS_QUESTION) {
		/* No message: the rest of one whose beginning we missed. */
		stream->have = 0;
		return end - offset;
	}
	if (have + loaded < message && have + loaded < wanted) {
		stream->have = have + loaded;
		return loaded;
	}
	if (stream->place != DNS_PLACE_KNOWN) {
		if (!is_header((void *)(bytes + DNS_LENGTH), response)) {
			stream->have = 0;
			return end - offset;
		}
		stream->place = DNS_PLACE_KNOWN;
	}
	*complete = message < wanted ? message : wanted;
	stream->have = 0;
	stream->skip = message - *complete;
	return *complete - have;
}

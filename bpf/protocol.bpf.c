/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The first bytes of each side of a TCP connection, for user space to tell the protocol by, and the
 * plain part of TLS handshakes. Of UDP, what has the shape of a DNS query.
 *
 * The programs sit on the root cgroup and so run for every packet of every socket of the host.
 * Where a segment lies in its stream follows from the socket's own counters, so that a packet of a
 * stream past its beginning leaves without a map lookup, after a few nanoseconds.
 *
 * User space parses. Here we only look for where TLS records begin and end: nothing behind the
 * header of an encrypted record is copied, and nothing at all once both sides have sent one.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "kernel.h"
#include "packet.bpf.h"
#include "protocol.bpf.h"
#include "socket.bpf.h"
#include "stream.bpf.h"

enum {
	/* What lies deeper in a stream is not looked at. */
	DEEPEST = 48 * 1024,
	/* Where a program may change to TLS or HTTP/2 on an open connection. */
	LATEST_START = 2048,
	/* Of HTTP/2, as far as its first requests: they tell gRPC. */
	HTTP2_BYTES = 1024,
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
	DNS_SHORTEST = 17,
	DNS_LONGEST = 600,
};

/* A segment near the beginning of its stream. */
static __always_inline void near_start(struct __sk_buff *skb, struct bpf_sock *sk,
				       const struct segment *segment, struct stream_segment *record,
				       __u32 offset)
{
	__u32 direction = record->direction;
	struct stream *stream = bpf_sk_storage_get(&streams, sk, 0, 0);
	__u32 wanted = segment->length;

	if (!stream && offset < LATEST_START)
		stream = begin_stream(skb, sk, segment, direction, offset == 0);
	/* Only of handshakes somebody wants to know how long they took. The exact clock is dear. */
	record->time_ns = stream ? bpf_ktime_get_ns() : bpf_ktime_get_coarse_ns();
	if (!stream) {
		if (offset >= STREAM_SMALL || wanted == 0)
			return;
		if (wanted > STREAM_SMALL - offset)
			wanted = STREAM_SMALL - offset;
	} else if (stream->kind == KIND_HTTP2) {
		if (offset >= HTTP2_BYTES || wanted == 0)
			return;
		if (wanted > HTTP2_BYTES - offset)
			wanted = HTTP2_BYTES - offset;
	} else {
		if (stream->phase == PHASE_DONE)
			return;
		record->flags |= STREAM_TLS;
		if (stream->is_lost) {
			record->flags |= STREAM_LOST;
			wanted = 0;
		} else if (stream->phase != PHASE_HANDSHAKE) {
			wanted = after_handshake(skb, stream, segment, direction, &record->flags);
		} else if (stream->is_protected[direction & 1]) {
			wanted = 0;
		} else if (wanted) {
			wanted = interesting(skb, stream, segment, direction, &record->flags);
			if (stream->is_protected[0] && stream->is_protected[1])
				stream->phase = PHASE_PROTECTED;
		}
		if (wanted == 0 && !(record->flags & (STREAM_FIN | STREAM_RST | STREAM_LOST)))
			return;
	}
	if (!send_bytes(skb, record, segment->payload, wanted)) {
		if (stream)
			stream->is_lost = 1;
	} else if (stream && (record->flags & STREAM_LOST)) {
		stream->phase = PHASE_DONE;
	}
}

/* Where the stream begins each way, and which end this is. */
static __always_inline bool place_in_stream(struct bpf_sock *sk, const struct segment *segment,
					    struct stream_segment *record)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	__u32 acknowledged;

	if (!tp)
		return false;
	record->netns = socket_netns(&tp->inet_conn.icsk_inet.sk);
	record->cgroup = socket_cgroup(&tp->inet_conn.icsk_inet.sk);
	/* The last segment of the handshake and the first data may be one and the same. */
	if (tp->inet_conn.icsk_inet.sk.__sk_common.skc_state == TCP_LISTEN) {
		record->sent_start = segment->acknowledgment;
		record->received_start = segment->sequence;
		record->role = TCP_ROLE_SERVER;
		return true;
	}
	socket_addresses(&tp->inet_conn.icsk_inet.sk.__sk_common, record->local, record->peer);
	record->local_port = tp->inet_conn.icsk_inet.sk.__sk_common.skc_num;
	record->peer_port = bpf_ntohs(tp->inet_conn.icsk_inet.sk.__sk_common.skc_dport);
	/* Nothing was acknowledged yet that the counters could be compared with. */
	if (record->flags & STREAM_SYN) {
		record->sent_start = segment->sequence;
		record->role = TCP_ROLE_CLIENT;
		return true;
	}
	record->received_start = tp->rcv_nxt - (__u32)tp->bytes_received;
	record->sent_start = tp->snd_una - (__u32)tp->bytes_acked;

	/* `bytes_acked` counts the SYN, which only the client has sent. What else it counts is what
	 * was sent and is not on its way; a new segment is in `bytes_sent` before it is in
	 * `snd_nxt`. */
	acknowledged = tp->bytes_sent - tp->bytes_retrans - (tp->snd_nxt - tp->snd_una);
	if (record->direction == STREAM_SENT && segment->sequence == tp->snd_nxt)
		acknowledged -= segment->length;
	if ((__u32)tp->bytes_acked - acknowledged == 1) {
		record->role = TCP_ROLE_CLIENT;
		record->sent_start += 1;
	} else if ((__u32)tp->bytes_acked == acknowledged) {
		record->role = TCP_ROLE_SERVER;
	}
	if (record->direction == STREAM_SENT ? tp->bytes_received > 0
					     : tp->bytes_sent > tp->bytes_retrans)
		record->flags |= STREAM_ANSWERS;
	return true;
}

static __always_inline void addresses_of_packet(struct __sk_buff *skb, bool ip4, bool outgoing,
						struct stream_segment *record)
{
	__u8 *source = outgoing ? record->local : record->peer;
	__u8 *destination = outgoing ? record->peer : record->local;
	struct ipv4_header four;
	struct ipv6_header six;

	if (ip4) {
		if (bpf_skb_load_bytes(skb, 0, &four, sizeof(four)))
			return;
		map_ipv4(source, four.source);
		map_ipv4(destination, four.destination);
	} else {
		if (bpf_skb_load_bytes(skb, 0, &six, sizeof(six)))
			return;
		__builtin_memcpy(source, six.source, 16);
		__builtin_memcpy(destination, six.destination, 16);
	}
}

static __always_inline void ports_of_packet(struct __sk_buff *skb, __u32 transport, bool outgoing,
					    struct stream_segment *record)
{
	__be16 ports[2] = {};

	bpf_skb_load_bytes(skb, transport, ports, sizeof(ports));
	if (outgoing) {
		record->local_port = bpf_ntohs(ports[0]);
		record->peer_port = bpf_ntohs(ports[1]);
	} else {
		record->local_port = bpf_ntohs(ports[1]);
		record->peer_port = bpf_ntohs(ports[0]);
	}
}

/* One question, no answer, a known operation: the first 12 bytes of a DNS query. */
static __always_inline bool is_query(const __u8 *header)
{
	return !(header[2] & 0xf8) && !(header[3] & 0x4f) && !header[4] && header[5] == 1 &&
	       !header[6] && !header[7] && !header[8] && !header[9] && !header[10] &&
	       header[11] <= 2;
}

static __noinline int datagram(struct __sk_buff *skb, __u32 transport, __u32 direction)
{
	bool outgoing = direction == STREAM_SENT;
	bool ip4 = skb->protocol == bpf_htons(ETH_P_IP);
	struct stream_segment record = {};
	__u32 length = skb->len - transport - 8;

	if (length < DNS_SHORTEST || length > DNS_LONGEST)
		return 0;
	record.transport = IPPROTO_UDP;
	record.direction = direction;
	record.role = outgoing ? TCP_ROLE_CLIENT : TCP_ROLE_SERVER;
	addresses_of_packet(skb, ip4, outgoing, &record);
	ports_of_packet(skb, transport, outgoing, &record);
	if (is_known_query(&record))
		return 0;
	record.time_ns = bpf_ktime_get_coarse_ns();
	record.cgroup = bpf_skb_cgroup_id(skb);
	record.netns =
		BPF_CORE_READ((struct sk_buff *)skb, sk, __sk_common.skc_net.net, net_cookie);
	send_bytes(skb, &record, transport + 8, length < STREAM_SMALL ? length : STREAM_SMALL);
	return 0;
}

/* A segment with payload, or the last one, at the beginning of a connection. */
static __noinline int segment_near_start(struct __sk_buff *skb, __u32 transport, __u32 direction)
{
	bool outgoing = direction == STREAM_SENT;
	bool ip4 = skb->protocol == bpf_htons(ETH_P_IP);
	struct stream_segment record = {};
	struct segment segment = {};
	struct bpf_sock *sk = skb->sk;
	__u8 header[20], first[6];
	__u32 offset;

	if (!sk || bpf_skb_load_bytes(skb, transport, header, sizeof(header)))
		return 0;
	segment.payload = transport + (header[12] >> 4) * 4;
	segment.length = skb->len - segment.payload;
	segment.flags = header[13];
	segment.sequence = bpf_ntohl(*(__be32 *)(header + 4));
	segment.acknowledgment = bpf_ntohl(*(__be32 *)(header + 8));
	/* Data may come with the SYN of a client that was here before. A SYN takes a number too. */
	if (segment.flags & TCP_SYN) {
		segment.sequence += 1;
		if (!(segment.flags & TCP_ACK))
			record.flags |= STREAM_SYN;
	}
	record.direction = direction;
	record.sequence = segment.sequence;
	if (!place_in_stream(sk, &segment, &record))
		return 0;
	offset = segment.sequence - (outgoing ? record.sent_start : record.received_start);
	if (offset > DEEPEST)
		return 0;
	record.transport = IPPROTO_TCP;
	if (segment.flags & TCP_FIN)
		record.flags |= STREAM_FIN;
	if (segment.flags & TCP_RST)
		record.flags |= STREAM_RST;
	if (sk->state != TCP_LISTEN) {
		near_start(skb, sk, &segment, &record, offset);
		return 0;
	}
	/* A listener's storage is no place for the state of one connection. */
	record.time_ns = bpf_ktime_get_ns();
	/* Nor could a hello be followed that goes on in another segment. */
	if (segment.length >= sizeof(first) && segment.length <= STREAM_LARGEST &&
	    !bpf_skb_load_bytes(skb, segment.payload, first, sizeof(first)) &&
	    is_hello(first, sizeof(first), true) &&
	    RECORD_HEADER + (__u32)(first[3] << 8 | first[4]) <= segment.length)
		record.flags |= STREAM_TLS;
	addresses_of_packet(skb, ip4, outgoing, &record);
	ports_of_packet(skb, transport, outgoing, &record);
	send_bytes(skb, &record, segment.payload,
		   segment.length < STREAM_LARGEST ? segment.length : STREAM_LARGEST);
	return 0;
}

/* A status line of HTTP/1 that answers what the peer has sent. */
static __always_inline bool is_http_answer(struct __sk_buff *skb, __u32 payload, bool answers)
{
	__u8 word[8];

	return answers && !bpf_skb_load_bytes(skb, payload, word, sizeof(word)) && word[0] == 'H' &&
	       word[1] == 'T' && word[2] == 'T' && word[3] == 'P' && word[4] == '/' &&
	       word[5] == '1' && word[6] == '.';
}

/* Every packet comes here, so there are no calls before it is known to be of interest, but for one.
 */
static __always_inline void packet(struct __sk_buff *skb, __u32 direction)
{
	bool outgoing = direction == STREAM_SENT;
	void *end = (void *)(long)skb->data_end;
	__u8 *ip = (void *)(long)skb->data;
	bool ip4 = skb->protocol == bpf_htons(ETH_P_IP);
	struct bpf_tcp_sock *tp;
	struct bpf_sock *sk;
	__u32 transport;
	__u32 payload;
	__u64 passed;
	__u8 protocol;
	__u8 *header;

	if ((void *)(ip + 20) > end)
		return;
	if (ip4) {
		protocol = ip[9];
		transport = (ip[0] & 15) * 4;
	} else {
		protocol = ip[6];
		transport = sizeof(struct ipv6_header);
	}
	header = ip + transport;
	if ((void *)(header + 20) > end)
		return;
	if (protocol == IPPROTO_UDP) {
		if (is_query(header + 8))
			datagram(skb, transport, direction);
		return;
	}
	if (protocol != IPPROTO_TCP)
		return;
	payload = transport + (header[12] >> 4) * 4;
	if (skb->len <= payload && !(header[13] & (TCP_FIN | TCP_RST)))
		return;
	sk = skb->sk;
	if (!sk)
		return;
	tp = bpf_tcp_sock(sk);
	if (!tp)
		return;
	passed = outgoing ? tp->bytes_acked : tp->bytes_received;
	if (passed > DEEPEST)
		return;
	/* How a connection ends, how it goes on, and how HTTP/1 is answered (the request tells)
	 * matters only if it speaks TLS or HTTP/2. */
	if ((skb->len <= payload || passed > LATEST_START ||
	     is_http_answer(skb, payload, outgoing ? tp->bytes_received : tp->data_segs_out)) &&
	    !bpf_sk_storage_get(&streams, sk, 0, 0))
		return;
	segment_near_start(skb, transport, direction);
}

SEC("cgroup_skb/egress")
int protocol_egress(struct __sk_buff *skb)
{
	packet(skb, STREAM_SENT);
	return 1;
}

SEC("cgroup_skb/ingress")
int protocol_ingress(struct __sk_buff *skb)
{
	packet(skb, STREAM_RECEIVED);
	return 1;
}

/*
 * Attached to nothing: user space runs it to write zeros over what it has read from the ring, which
 * it may not write to. 0 if there was no room.
 */
SEC("cgroup_skb/egress")
int protocol_erase(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct blank *blank = bpf_map_lookup_elem(&blanks, &zero);
	struct blank *to = bpf_ringbuf_reserve(&segments, sizeof(*to), 0);

	if (!to)
		return 0;
	if (blank)
		bpf_probe_read_kernel(to, sizeof(*to), blank);
	bpf_ringbuf_discard(to, BPF_RB_NO_WAKEUP);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";

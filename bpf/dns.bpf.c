/* SPDX-License-Identifier: GPL-2.0 */
/*
 * DNS queries and answers on port 53, UDP and TCP, at the client's socket.
 *
 * The programs sit on the root cgroup and so run for every packet of every socket of the host; all
 * connected ones leave after one load, unless their peer's port is 53.
 *
 * Only the client's side is counted: queries that leave for port 53, answers that come from it.
 * A query asked again under its id counts as a query. Each answer settles one query; the latency is
 * that of the first answer since the first query, which is what the client waited for. So
 * queries = answers + time-outs + those in flight.
 *
 * Names are counted by their hashes; what a hash stands for is kept once for each name.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "count.bpf.h"
#include "dns_address.bpf.h"
#include "dns_message.bpf.h"
#include "dns_question.bpf.h"
#include "histogram.bpf.h"
#include "kernel.h"
#include "packet.bpf.h"
#include "socket.bpf.h"

struct dns_edges {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct dns_edge_key);
	__type(value, struct dns_edge);
};
struct dns_edges dns_edges_0 SEC(".maps");
struct dns_edges dns_edges_1 SEC(".maps");

/* User space removes what stays unanswered. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct dns_pending_key);
	__type(value, struct dns_pending);
} dns_pending SEC(".maps");

struct dns_answers {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct dns_answer_key);
	__type(value, __u64);
};
struct dns_answers dns_answers_0 SEC(".maps");
struct dns_answers dns_answers_1 SEC(".maps");

/* By the hash of the whole name. User space remembers the names that are forgotten here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct dns_name);
} dns_names SEC(".maps");

const volatile __u64 dns_query_bounds[HISTOGRAM_BOUNDS] = {};

static const struct dns_edge no_edge;
static const __u64 no_count;

enum {
	DNS_PORT = 53,
	DNS_FLAG_TRUNCATED = 0x02,
	UDP_HEADER = 8,
	TCP_SEQUENCE_OFFSET = 4,
	TCP_DATA_OFFSET = 12,
	/* DNS_MESSAGES, and what lies between them. */
	STREAM_STEPS = 2 * DNS_MESSAGES,
};

struct ports {
	__be16 source;
	__be16 destination;
};

static __always_inline struct dns_edge *edge_of(const struct dns_edge_key *key)
{
	struct dns_edge_key overflow = {};

	overflow.protocol = key->protocol;
	if (second_is_active())
		return entry(&dns_edges_1, key, &overflow, &no_edge);
	return entry(&dns_edges_0, key, &overflow, &no_edge);
}

static __always_inline void count_answer(const struct dns_name_key *name, __u32 rcode)
{
	struct dns_answer_key key = {
		.name = name->whole,
		.parent = name->parent,
		.rcode = rcode,
	};
	struct dns_answer_key overflow = {.rcode = rcode};
	__u64 *answers;

	if (second_is_active())
		answers = entry(&dns_answers_1, &key, &overflow, &no_count);
	else
		answers = entry(&dns_answers_0, &key, &overflow, &no_count);
	if (answers)
		__sync_fetch_and_add(answers, 1);
}

static __always_inline __u32 rcode_of(__u8 rcode)
{
	switch (rcode & 15) {
	case 0:
		return DNS_NOERROR;
	case 1:
		return DNS_FORMERR;
	case 2:
		return DNS_SERVFAIL;
	case 3:
		return DNS_NXDOMAIN;
	case 4:
		return DNS_NOTIMP;
	case 5:
		return DNS_REFUSED;
	default:
		return DNS_OTHER;
	}
}

/* The unanswered entry of this question, or NULL if `key` is free. Two questions may be open under
 * one id. */
static __always_inline struct dns_pending *find_open(struct dns_pending_key *key,
						     const struct dns_pending *question)
{
	struct dns_pending *pending;

	for (int i = 0; i < 2; i++) {
		key->second = i;
		pending = bpf_map_lookup_elem(&dns_pending, key);
		/* An answered entry whose id comes up again is a new question. */
		if (!pending || !pending->unanswered || pending->answers)
			return NULL;
		if (pending->name.whole == question->name.whole &&
		    pending->edge.qtype == question->edge.qtype)
			return pending;
	}
	return pending;
}

/* Counts the message that find_message() gives. This and answer() are functions of their own, so
 * that the verifier walks them once and not for each message of a segment. */
__noinline int query(struct __sk_buff *skb, __u32 which)
{
	struct dns_message *message = find_message(skb, which);
	const struct dns_header *header;
	struct dns_pending_key key = {};
	struct dns_pending fresh = {};
	struct dns_pending *pending;
	struct dns_edge *edge;

	if (!message)
		return 0;
	header = (const void *)(message->bytes + DNS_LENGTH);
	if (header->questions != bpf_htons(1) || header->flags & DNS_FLAG_RESPONSE)
		return 0;
	read_question(message);
	fresh.edge = message->edge;
	fresh.edge.cgroup = bpf_skb_cgroup_id(skb);
	/* The context is the kernel's own sk_buff; reading it this way needs CAP_PERFMON. */
	fresh.edge.netns =
		BPF_CORE_READ((struct sk_buff *)skb, sk, __sk_common.skc_net.net, net_cookie);
	fresh.edge.qtype = message->qtype;
	fresh.name = message->name;
	fresh.server = server_number(skb, fresh.edge.server);
	fresh.first_ns = fresh.last_ns = bpf_ktime_get_ns();
	fresh.unanswered = 1;

	edge = edge_of(&fresh.edge);
	if (edge)
		__sync_fetch_and_add(&edge->queries, 1);
	if (fresh.name.whole) {
		if (!bpf_map_lookup_elem(&dns_names, &fresh.name.whole))
			bpf_map_update_elem(&dns_names, &fresh.name.whole,
					    message->bytes + DNS_QUESTION, BPF_NOEXIST);
		if (is_repeated(&fresh, header->id) && edge)
			__sync_fetch_and_add(&edge->repeated, 1);
		if (is_searched(&fresh) && edge)
			__sync_fetch_and_add(&edge->searched, 1);
	}

	key.cookie = bpf_get_socket_cookie(skb);
	key.id = header->id;
	key.protocol = fresh.edge.protocol;
	pending = find_open(&key, &fresh);
	if (pending) {
		pending->last_ns = fresh.last_ns;
		__sync_fetch_and_add(&pending->unanswered, 1);
	} else if (bpf_map_update_elem(&dns_pending, &key, &fresh, BPF_ANY)) {
		count_insert_failure();
	}
	return 0;
}

__noinline int answer(struct __sk_buff *skb, struct dns_header *header, __u32 protocol)
{
	struct dns_pending_key key = {};
	struct dns_pending *pending;
	struct dns_edge *edge;
	__u32 rcode, slot;
	__u64 latency, now;

	if (!header || !(header->flags & DNS_FLAG_RESPONSE))
		return 0;
	rcode = rcode_of(header->rcode) & 7;
	key.cookie = bpf_get_socket_cookie(skb);
	key.id = header->id;
	key.protocol = protocol;
	pending = bpf_map_lookup_elem(&dns_pending, &key);
	if (!pending || !pending->unanswered) {
		key.second = 1;
		pending = bpf_map_lookup_elem(&dns_pending, &key);
	}
	if (!pending || !pending->unanswered)
		return 0;
	now = bpf_ktime_get_ns();
	edge = edge_of(&pending->edge);
	if (edge) {
		__sync_fetch_and_add(&edge->responses[rcode], 1);
		if (header->flags & DNS_FLAG_TRUNCATED)
			__sync_fetch_and_add(&edge->truncated, 1);
		if (!pending->answers) {
			latency = now - pending->first_ns;
			slot = histogram_slot(latency, dns_query_bounds, DNS_SLOTS);
			__sync_fetch_and_add(&edge->latency_slots[slot & 31], 1);
			__sync_fetch_and_add(&edge->latency_ns, latency);
		}
	}
	if (pending->name.whole) {
		count_answer(&pending->name, rcode);
		note_answer(pending, header->id, rcode, now);
	}
	pending->answers += 1;
	if (__sync_fetch_and_add(&pending->unanswered, -1) == 1)
		bpf_map_delete_elem(&dns_pending, &key);
	return 0;
}

/* To be called before answer(), which forgets the question. */
__noinline int learn(struct __sk_buff *skb, __u32 offset)
{
	struct dns_pending_key key = {.protocol = IPPROTO_UDP};
	struct dns_pending *pending;
	struct dns_name_key name;
	struct dns_header header;

	if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
		return 0;
	if (!(header.flags & DNS_FLAG_RESPONSE) || !header.answers)
		return 0;
	key.cookie = bpf_get_socket_cookie(skb);
	key.id = header.id;
	pending = bpf_map_lookup_elem(&dns_pending, &key);
	if (!pending || !pending->unanswered) {
		key.second = 1;
		pending = bpf_map_lookup_elem(&dns_pending, &key);
	}
	if (!pending || !pending->unanswered || !pending->name.whole)
		return 0;
	name = pending->name;
	learn_addresses(skb, offset, &header, &name, pending->edge.netns);
	return 0;
}

static __always_inline void datagram(struct __sk_buff *skb, const struct dns_edge_key *edge_key,
				     __u32 offset, bool outgoing)
{
	struct dns_scratch *scratch;
	struct dns_message *message;
	struct dns_header header;
	__u32 length, which;

	if (!outgoing) {
		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return;
		if (learns_addresses())
			learn(skb, offset);
		answer(skb, &header, IPPROTO_UDP);
		return;
	}
	scratch = take_scratch(&which);
	if (!scratch)
		return;
	message = &scratch->message;
	length = load_some(skb, offset, skb->len, message->bytes + DNS_LENGTH,
			   DNS_WANTED - DNS_LENGTH, DNS_WANTED - DNS_LENGTH);
	if (length >= DNS_HEADER) {
		message->length = DNS_LENGTH + length;
		message->edge = *edge_key;
		query(skb, which);
	}
	give_back(scratch);
}

/* Messages may be split over segments, and a segment may hold several. */
static __always_inline void segment(struct __sk_buff *skb, const struct dns_edge_key *edge_key,
				    __u32 transport, bool outgoing)
{
	struct dns_connection *connection;
	struct bpf_sock *sk = skb->sk;
	__u32 offset, end = skb->len;
	struct dns_stream *stream;
	__u32 complete, sequence;
	bool overtaken = false;
	__u8 tcp[2];

	if (bpf_skb_load_bytes(skb, transport + TCP_SEQUENCE_OFFSET, &sequence, sizeof(sequence)) ||
	    bpf_skb_load_bytes(skb, transport + TCP_DATA_OFFSET, tcp, sizeof(tcp)))
		return;
	offset = transport + (tcp[0] >> 4) * 4;
	if (offset >= end || !sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	connection = bpf_sk_storage_get(&dns_connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!connection) {
		count_insert_failure();
		return;
	}
	stream = outgoing ? &connection->out : &connection->in.stream;
	/* A SYN takes a number too, and may bring data. */
	sequence = bpf_ntohl(sequence) + !!(tcp[1] & TCP_FLAG_SYN);
	if (!outgoing)
		overtaken = is_overtaken(connection, sk, sequence, end - offset);
	offset += synchronize(stream, sequence, end - offset);
	for (int i = 0; i < STREAM_STEPS && offset < end; i++) {
		if (outgoing) {
			offset += read_stream(skb, stream, connection->query.bytes, DNS_WANTED, 0,
					      offset, end, &complete);
			if (!complete)
				continue;
			connection->query.length = complete;
			connection->query.edge = *edge_key;
			query(skb, DNS_SCRATCHES);
		} else {
			offset += read_stream(skb, stream, connection->in.bytes, DNS_ANSWER_WANTED,
					      DNS_FLAG_RESPONSE, offset, end, &complete);
			if (complete)
				answer(skb, (void *)(connection->in.bytes + DNS_LENGTH),
				       IPPROTO_TCP);
		}
	}
	if (offset < end) {
		/* More messages than we read at once. */
		stream->place = DNS_PLACE_LOST;
		count_insert_failure();
	}
	if (overtaken)
		swap_answers(connection);
}

static __always_inline void packet(struct __sk_buff *skb, bool outgoing)
{
	struct dns_edge_key edge_key = {};
	struct socket_packet packet = {};
	struct ports ports;
	/* The upper half of the word, in network order. Zero for a socket that is not connected. */
	__u32 peer_port = bpf_ntohl(skb->remote_port);

	if (peer_port && peer_port != DNS_PORT)
		return;
	if (!read_socket_packet(skb, &packet))
		return;
	if (packet.protocol != IPPROTO_UDP && packet.protocol != IPPROTO_TCP)
		return;
	if (bpf_skb_load_bytes(skb, packet.transport, &ports, sizeof(ports)))
		return;
	/* Where the address is translated, so may be the port: then the socket knows better. */
	if (!peer_port && (outgoing ? ports.destination : ports.source) != bpf_htons(DNS_PORT))
		return;
	edge_key.protocol = packet.protocol;
	__builtin_memcpy(edge_key.client, packet.source, 16);
	__builtin_memcpy(edge_key.server, packet.destination, 16);
	if (packet.protocol == IPPROTO_UDP)
		datagram(skb, &edge_key, packet.transport + UDP_HEADER, outgoing);
	else
		segment(skb, &edge_key, packet.transport, outgoing);
}

SEC("cgroup_skb/egress")
int dns_egress(struct __sk_buff *skb)
{
	packet(skb, true);
	return 1;
}

SEC("cgroup_skb/ingress")
int dns_ingress(struct __sk_buff *skb)
{
	packet(skb, false);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";

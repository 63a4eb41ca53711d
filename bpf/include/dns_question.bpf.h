/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Questions that a client asked lately, to tell two kinds of further ones: the same again because
 * no usable answer came, and the same name under the next suffix of a search list.
 *
 * What is forgotten because too many names are asked for is only not recognized.
 */
#pragma once

#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "kernel.h"

enum {
	/* No resolver waits longer before it asks again. */
	DNS_REPEAT_SECONDS = 30,
	/* A resolver asks for the next name of its list at once. */
	DNS_SEARCH_SECONDS = 1,
	/* Longer than the lists that there are: beyond, these are names that only look like one. */
	DNS_SEARCH_LIST = 8,
	SECOND_NS = 1000000000,
};

struct dns_question_key {
	__u64 cgroup;
	/* Hash of the name; in `dns_searches`, of its first label. */
	__u64 name;
	__u32 netns;
	__u32 qtype;
};

enum dns_question_state {
	DNS_QUESTION_OPEN,
	DNS_QUESTION_FAILED,
	DNS_QUESTION_SETTLED,
};

struct dns_asked {
	__u64 server;
	__u64 asked_ns;
	__u32 id;
	/* enum dns_question_state */
	__u32 state;
};

/* A client may be two: a program, and a forwarder that asks somebody else with an id of its own. A
 * program that asks the next server, on the other hand, keeps the id. */
struct dns_question {
	struct dns_asked asked[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct dns_question_key);
	__type(value, struct dns_question);
} dns_questions SEC(".maps");

/* The last name that begins with a label. */
struct dns_search {
	__u64 name;
	__u64 answered_ns;
	__u32 exists;
	/* How many names in a row were others of the list. */
	__u32 steps;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct dns_question_key);
	__type(value, struct dns_search);
} dns_searches SEC(".maps");

/* The server's address as the socket knows it, since NAT may send each query elsewhere. */
static __always_inline __u64 server_number(struct __sk_buff *skb, const __u8 *server)
{
	const __u64 *halves = (const __u64 *)server;

	if (!skb->remote_port)
		return halves[0] * 31 + halves[1];
	if (skb->family == AF_INET)
		return skb->remote_ip4;
	return ((__u64)skb->remote_ip6[0] << 32 | skb->remote_ip6[1]) * 31 +
	       ((__u64)skb->remote_ip6[2] << 32 | skb->remote_ip6[3]);
}

static __always_inline void question_key(const struct dns_edge_key *edge, __u64 name,
					 struct dns_question_key *key)
{
	key->cgroup = edge->cgroup;
	key->name = name;
	key->netns = edge->netns;
	key->qtype = edge->qtype;
}

static __always_inline struct dns_asked *find_asked(struct dns_question *question, __u64 server,
						    __u32 id)
{
	if (question->asked[0].id == id || question->asked[0].server == server)
		return &question->asked[0];
	if (question->asked[1].id == id || question->asked[1].server == server)
		return &question->asked[1];
	return NULL;
}

/* Notes that a client asks; true if it had asked that before and got nothing of use. */
static __always_inline bool is_repeated(const struct dns_pending *pending, __u32 id)
{
	struct dns_asked now = {
		.server = pending->server,
		.asked_ns = pending->last_ns,
		.id = id,
	};
	struct dns_question_key key = {};
	struct dns_question *question;
	struct dns_asked *asked;
	bool repeated;

	question_key(&pending->edge, pending->name.whole, &key);
	question = bpf_map_lookup_elem(&dns_questions, &key);
	if (!question) {
		struct dns_question fresh = {.asked = {now, now}};

		bpf_map_update_elem(&dns_questions, &key, &fresh, BPF_ANY);
		return false;
	}
	asked = find_asked(question, now.server, id);
	if (!asked) {
		question->asked[1] = question->asked[0];
		question->asked[0] = now;
		return false;
	}
	repeated = asked->state != DNS_QUESTION_SETTLED &&
		   now.asked_ns - asked->asked_ns < DNS_REPEAT_SECONDS * (__u64)SECOND_NS;
	*asked = now;
	return repeated;
}

/* Notes that a client asks; true if a name that begins alike was just said not to exist. */
static __always_inline bool is_searched(const struct dns_pending *pending)
{
	struct dns_search fresh = {.name = pending->name.whole, .exists = 1};
	struct dns_question_key key = {};
	struct dns_search *search;
	bool next;

	question_key(&pending->edge, pending->name.first, &key);
	search = bpf_map_lookup_elem(&dns_searches, &key);
	if (!search) {
		bpf_map_update_elem(&dns_searches, &key, &fresh, BPF_ANY);
		return false;
	}
	if (search->name == fresh.name)
		return false;
	next = !search->exists &&
	       pending->last_ns - search->answered_ns < DNS_SEARCH_SECONDS * (__u64)SECOND_NS;
	search->name = fresh.name;
	search->exists = 1;
	search->steps = next ? search->steps + 1 : 0;
	return next && search->steps <= DNS_SEARCH_LIST;
}

static __always_inline void note_answer(const struct dns_pending *pending, __u32 id, __u32 rcode,
					__u64 now)
{
	struct dns_question_key key = {};
	struct dns_question *question;
	struct dns_search *search;

	question_key(&pending->edge, pending->name.whole, &key);
	question = bpf_map_lookup_elem(&dns_questions, &key);
	if (question) {
		struct dns_asked *asked = find_asked(question, pending->server, id);

		bool settled = rcode == DNS_NOERROR || rcode == DNS_NXDOMAIN;

		if (asked)
			asked->state = settled ? DNS_QUESTION_SETTLED : DNS_QUESTION_FAILED;
	}
	key.name = pending->name.first;
	search = bpf_map_lookup_elem(&dns_searches, &key);
	if (search && search->name == pending->name.whole) {
		search->exists = rcode != DNS_NXDOMAIN;
		search->answered_ns = now;
	}
}

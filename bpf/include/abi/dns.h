/* SPDX-License-Identifier: GPL-2.0 */
/* What bpf/dns.bpf.c counts and remembers. Part of abi.h. */
#pragma once

#include <linux/types.h>

enum dns_rcode {
	DNS_NOERROR,
	DNS_FORMERR,
	DNS_SERVFAIL,
	DNS_NXDOMAIN,
	DNS_NOTIMP,
	DNS_REFUSED,
	DNS_OTHER,
	DNS_RCODES,
};

enum dns_slots {
	/** +Inf included. */
	DNS_SLOTS = 17,
};

/** Queries of one client's sockets to one server. */
struct dns_edge_key {
	__u64 cgroup;
	__u32 netns;
	__u16 qtype;
	/** IP protocol number. */
	__u8 protocol;
	__u8 reserved;
	__u8 client[16];
	__u8 server[16];
};
_Static_assert(sizeof(struct dns_edge_key) == 48, "padding in a map key");

struct dns_edge {
	__u64 latency_ns;
	__u32 queries;
	__u32 responses[DNS_RCODES];
	__u32 truncated;
	/** Queries for what had been asked before without a usable answer. */
	__u32 repeated;
	/** Queries for a name that did not exist under another search suffix. */
	__u32 searched;
	__u32 latency_slots[DNS_SLOTS];
};
_Static_assert(sizeof(struct dns_edge) == 120, "padding in a map value");

/** A query and its answer pass the same socket of the client, whatever NAT does to addresses. */
struct dns_pending_key {
	__u64 cookie;
	__u16 id;
	__u8 protocol;
	/** One for a second question that is open under the same id. */
	__u8 second;
	__u8 reserved[4];
};
_Static_assert(sizeof(struct dns_pending_key) == 16, "padding in a map key");

/** Hashes of a name in lower case: of the whole, of its first label, of what follows that. */
struct dns_name_key {
	__u64 whole;
	__u64 first;
	__u64 parent;
};

struct dns_pending {
	struct dns_edge_key edge;
	struct dns_name_key name;
	/** Whom the client asked, as a number: see dns_question.bpf.h. */
	__u64 server;
	/** When the client began to wait, and when it last asked. */
	__u64 first_ns;
	__u64 last_ns;
	/** Queries under this id that have no answer. */
	__u32 unanswered;
	/** Answers so far; the latency is that of the first. */
	__u32 answers;
};
_Static_assert(sizeof(struct dns_pending) == 104, "padding in a map value");

/** Answers to queries for one name. */
struct dns_answer_key {
	__u64 name;
	/** The name without its first label. */
	__u64 parent;
	/** enum dns_rcode */
	__u64 rcode;
};
_Static_assert(sizeof(struct dns_answer_key) == 24, "padding in a map key");

enum dns_limits {
	/** Of a name in a message, its last zero included. */
	DNS_NAME = 256,
};

/** A name as it was asked for; what follows its last label means nothing. */
struct dns_name {
	__u8 labels[DNS_NAME];
};

/** An address that an answer gave to a namespace. */
struct dns_address_key {
	__u32 netns;
	__u8 address[16];
};
_Static_assert(sizeof(struct dns_address_key) == 20, "padding in a map key");

/** The hashes of the name that was asked for, and of what follows its first label. */
struct dns_address {
	__u64 name;
	__u64 parent;
};

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What kernel and user space exchange: map keys, map values, iterator records. build.rs makes the
 * Rust types from this file, comments included.
 *
 * Fixed-width members in an order that needs no padding: a hash takes padding for data. Addresses
 * are 16 bytes, IPv4 as ::ffff:a.b.c.d; ports in host order; times in nanoseconds.
 */
#pragma once

#include <linux/types.h>

#include "abi/capture.h"
#include "abi/dns.h"
#include "abi/icmp.h"
#include "abi/neighbour.h"
#include "abi/flow.h"
#include "abi/protocol.h"
#include "abi/probe.h"
#include "abi/udp.h"

/** Which end of a connection a socket is. */
enum tcp_role {
	/** A listener: neither. */
	TCP_ROLE_NONE,
	/** It called connect(). */
	TCP_ROLE_CLIENT,
	/** It was returned by accept(). */
	TCP_ROLE_SERVER,
	TCP_ROLES,
};

/** Why a connection was not made: the socket's error when SYN_SENT ended in CLOSE. */
enum tcp_failure {
	/** No error: the program gave up waiting and closed the socket. */
	TCP_FAILURE_ABORTED,
	TCP_FAILURE_REFUSED,
	TCP_FAILURE_RESET,
	TCP_FAILURE_TIMEOUT,
	TCP_FAILURE_HOST_UNREACHABLE,
	TCP_FAILURE_NETWORK_UNREACHABLE,
	TCP_FAILURE_PROHIBITED,
	/** No local port was free: connect() itself failed. */
	TCP_FAILURE_NO_LOCAL_PORT,
	/** The host has no address to connect from. */
	TCP_FAILURE_NO_LOCAL_ADDRESS,
	/** The route is one that drops, or needs what the caller did not say. */
	TCP_FAILURE_INVALID_ROUTE,
	TCP_FAILURE_OTHER,
	TCP_FAILURES,
};

/** How an established connection ended: `sk_err` when it reached CLOSE. */
enum tcp_end {
	TCP_END_NONE,
	/** A reset that its program reads of. */
	TCP_END_RESET,
	TCP_END_TIMEOUT,
	TCP_END_OTHER,
	/** A reset that came when its program had closed it, and nobody reads of. */
	TCP_END_LATE_RESET,
	TCP_ENDS,
};

/** The most slots that a histogram may have, the one for +Inf included. */
enum tcp_slots {
	TCP_CONNECT_SLOTS = 19,
	TCP_LIFETIME_SLOTS = 13,
	TCP_RTT_SLOTS = 18,
};

/** Sockets of one owner that talk to one address. */
struct tcp_edge_key {
	/** Inode of the socket's cgroup. */
	__u64 cgroup;
	/** Of the socket's network namespace: the low half of its cookie. */
	__u32 netns;
	/** enum tcp_role */
	__u32 role;
	__u8 local[16];
	__u8 peer[16];
};
_Static_assert(sizeof(struct tcp_edge_key) == 48, "padding in a map key");

/** What happened on one edge since the last collection. */
struct tcp_edge {
	__u64 connect_ns;
	__u64 lifetime_ns;
	__u64 rtt_us;
	__u64 min_rtt_us;
	__u64 bytes_sent;
	__u64 bytes_received;
	/** Ticks of the kernel's clock (jiffies), as are the two below. */
	__u64 busy;
	__u64 receive_window_limited;
	__u64 send_buffer_limited;
	__u32 segments_sent;
	__u32 segments_received;
	/** Of those above, the ones with payload. */
	__u32 data_segments_sent;
	__u32 data_segments_received;
	/** Duplicates that the peer reported, and data that arrived there out of order. */
	__u32 dsacks;
	__u32 reorderings;
	__u32 attempts;
	__u32 opened;
	/** Of those, the ones that a program fell back to: see `fallback.bpf.h`. */
	__u32 fallbacks;
	__u32 failures[TCP_FAILURES];
	__u32 closed[TCP_ENDS];
	__u32 connect_slots[TCP_CONNECT_SLOTS];
	__u32 lifetime_slots[TCP_LIFETIME_SLOTS];
	__u32 rtt_slots[TCP_RTT_SLOTS];
	__u32 min_rtt_slots[TCP_RTT_SLOTS];
	__u32 reserved;
};
_Static_assert(sizeof(struct tcp_edge) % 8 == 0, "padding in a map value");

/** Sockets of one owner in one state. */
struct tcp_state_key {
	__u64 cgroup;
	__u32 netns;
	/** The kernel's TCP state number, or the one below. */
	__u32 state;
};

/** Closed, and smaller than a socket: ss shows FIN-WAIT-2, the kernel counts TIME_WAIT. */
#define TCP_STATE_SHRUNK_FIN_WAIT2 100

_Static_assert(sizeof(struct tcp_state_key) == 16, "padding in a map key");

/** What those sockets add up to now. */
struct tcp_state_total {
	__u64 sockets;
	/** Payload received that the program has not read. */
	__u64 unread_bytes;
	/** Of listeners: handshakes that are not complete. */
	__u64 half_open;
};
_Static_assert(sizeof(struct tcp_state_total) == 24, "padding in a map value");

/** connect() calls of one owner to one address that failed before a SYN was sent. */
struct tcp_connect_key {
	__u64 cgroup;
	__u32 netns;
	/** enum tcp_failure */
	__u32 failure;
	__u8 peer[16];
};
_Static_assert(sizeof(struct tcp_connect_key) == 32, "padding in a map key");

enum retransmit_kind {
	RETRANSMIT_SYN,
	RETRANSMIT_SYNACK,
	/** The receiver told of a gap: fast retransmit, and the rest of the recovery. */
	RETRANSMIT_FAST,
	/** Nothing was heard for about two round trips: the last segment once more (RFC 8985). */
	RETRANSMIT_TAIL_LOSS_PROBE,
	/** The retransmission timer ran out, and what is sent again after that. */
	RETRANSMIT_TIMEOUT,
	/** Among those after a time-out, the ones of full size: counted a second time. */
	RETRANSMIT_FULL_SIZED,
	RETRANSMIT_KINDS,
};

struct tcp_retransmit_key {
	__u64 cgroup;
	__u32 netns;
	/** enum retransmit_kind */
	__u32 kind;
	__u8 local[16];
	__u8 peer[16];
};
_Static_assert(sizeof(struct tcp_retransmit_key) == 48, "padding in a map key");

enum reset_direction {
	RESET_SENT,
	RESET_RECEIVED,
	RESET_DIRECTIONS,
};

/** The kernel did not say why. */
#define RESET_REASON_UNKNOWN 0xffffffff

/** What a reset that was received met. */
enum reset_met {
	RESET_MET_CONNECT,
	RESET_MET_CONNECTION,
	/** The peer's FIN was here already. */
	RESET_MET_CLOSED_PEER,
	/** Our program had closed it. */
	RESET_MET_CLOSED,
	/** An open connection on which we had the last word, all of it sent. */
	RESET_MET_ANSWERED,
	/** An open connection on which nobody had said anything. */
	RESET_MET_UNUSED,
	/** An open connection on which we had the last word, and more of it to send. */
	RESET_MET_ANSWERING,
};

struct tcp_reset_key {
	/** Zero where no socket was involved. */
	__u64 cgroup;
	__u32 netns;
	/** enum reset_direction */
	__u32 direction;
	/** Sent: enum sk_rst_reason of the running kernel, or RESET_REASON_UNKNOWN. Received: enum
	 * reset_met. */
	__u32 reason;
	__u32 reserved;
	__u8 local[16];
	__u8 peer[16];
};
_Static_assert(sizeof(struct tcp_reset_key) == 56, "padding in a map key");

/** What carried a packet that is told by the addresses inside. */
enum tunnel {
	NO_TUNNEL = 0,
	TUNNEL_VXLAN = 1,
	TUNNEL_GENEVE = 2,
	/** IPv4 or IPv6 in either of them. */
	TUNNEL_IP = 3,
	TUNNEL_GRE = 4,
};

struct packet_drop_key {
	/** Instruction address that dropped the packet. */
	__u64 location;
	/** Zero where no socket was involved. */
	__u64 cgroup;
	/** Zero if neither a device nor a socket told. */
	__u32 netns;
	/** enum skb_drop_reason of the running kernel. */
	__u32 reason;
	__u8 source[16];
	__u8 destination[16];
	/** IP protocol number. */
	__u8 protocol;
	/** One for TCP with SYN set. */
	__u8 syn;
	/** enum tunnel */
	__u8 tunnel;
	__u8 reserved[5];
	/** Name of the device, ended by a zero; empty where the packet was on none. */
	__u8 interface[16];
};
_Static_assert(sizeof(struct packet_drop_key) == 80, "padding in a map key");

struct packet_drop_total {
	__u64 packets;
	/** Without the header of the link. */
	__u64 bytes;
	/** Source and destination of the first packet and the latest with ports, big-endian. */
	__u16 first_ports[2];
	__u16 latest_ports[2];
};
_Static_assert(sizeof(struct packet_drop_total) == 24, "padding in a map value");

/** A listening socket, as the iterator finds it. */
struct listener {
	__u64 cgroup;
	__u64 cookie;
	__u32 netns;
	__u32 length;
	__u32 limit;
	/** Connection requests dropped since the socket was made. */
	__u32 drops;
	/** Handshakes that are not complete. */
	__u32 half_open;
	__u16 port;
	/** One for IPv6; its address may take IPv4 too. */
	__u16 is_v6;
	__u8 address[16];
};
_Static_assert(sizeof(struct listener) == 56, "padding in a record");

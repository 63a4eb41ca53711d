/* SPDX-License-Identifier: GPL-2.0 */
/* What bpf/protocol.bpf.c sends to user space: the first bytes of a stream, a segment at a time. */
#pragma once

#include <linux/types.h>

enum stream_direction {
	STREAM_SENT,
	STREAM_RECEIVED,
	STREAM_DIRECTIONS,
};

enum stream_flag {
	/** The sender closes or resets the connection with this segment. */
	STREAM_FIN = 1,
	STREAM_RST = 2,
	/** The connection speaks TLS, or looks so. */
	STREAM_TLS = 4,
	/** The bytes begin with the header of a TLS record. */
	STREAM_TLS_RECORD = 8,
	/** A record after the handshake, of which nothing but the header follows. */
	STREAM_TLS_AFTER = 16,
	/** The other side has sent something before. */
	STREAM_ANSWERS = 32,
	/** The ring had no room for a piece of this stream: how it goes on cannot be told. */
	STREAM_LOST = 64,
	/** Data in a SYN: where the server's stream begins is not known yet. */
	STREAM_SYN = 128,
};

/** Sizes of the byte arrays that follow the header; `length` of them are meant. */
enum stream_sizes {
	STREAM_SMALL = 64,
	STREAM_MEDIUM = 256,
	/* Most client hellos. */
	STREAM_LARGE = 1024,
	STREAM_LARGEST = 2048,
};

/** The header of a record; the bytes follow. */
struct stream_segment {
	__u64 time_ns;
	/** Inode of the socket's cgroup. */
	__u64 cgroup;
	/** Of the socket's network namespace: the low half of its cookie. */
	__u32 netns;
	/** Sequence number of the first byte that follows. */
	__u32 sequence;
	/** Sequence numbers of the first bytes each way. */
	__u32 sent_start;
	__u32 received_start;
	/** Bytes that follow. */
	__u32 length;
	__u16 local_port;
	__u16 peer_port;
	__u8 local[16];
	__u8 peer[16];
	/** enum stream_direction */
	__u8 direction;
	/** enum tcp_role */
	__u8 role;
	/** IP protocol number. */
	__u8 transport;
	/** enum stream_flag */
	__u8 flags;
	__u32 reserved;
};
_Static_assert(sizeof(struct stream_segment) == 80, "padding in a record");

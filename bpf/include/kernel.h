/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel fields that we read, and no others. preserve_access_index lets CO-RE find where each
 * lies in the running kernel, so their order and neighbours do not matter here.
 */
#pragma once

#include <linux/types.h>

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	PF_KTHREAD = 0x00200000,
};

enum {
	IPPROTO_HOPOPTS = 0,
	IPPROTO_ICMP = 1,
	IPPROTO_IPIP = 4,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_IPV6 = 41,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_GRE = 47,
	IPPROTO_AH = 51,
	IPPROTO_ICMPV6 = 58,
	IPPROTO_DSTOPTS = 60,
};

enum {
	NUD_FAILED = 0x20,
};

/** Who an error in a socket's queue is from. */
enum {
	SO_EE_ORIGIN_ICMP = 2,
	SO_EE_ORIGIN_ICMP6 = 3,
};

enum {
	ETH_P_IP = 0x0800,
	ETH_P_ARP = 0x0806,
	ETH_P_8021Q = 0x8100,
	ETH_P_IPV6 = 0x86DD,
	ETH_P_8021AD = 0x88A8,
};

enum {
	SKB_GSO_TCPV4 = 1 << 0,
	SKB_GSO_TCPV6 = 1 << 4,
	/** In place of a size: each segment has its own. */
	GSO_BY_FRAGS = 0xffff,
};

enum {
	/** On every architecture that we build for. */
	CACHE_LINE = 64,
};

enum {
	EPERM = 1,
	EAGAIN = 11,
	ENOMEM = 12,
	EACCES = 13,
	EBUSY = 16,
	EINVAL = 22,
	EPIPE = 32,
	EADDRNOTAVAIL = 99,
	ENETUNREACH = 101,
	ECONNRESET = 104,
	ETIMEDOUT = 110,
	ECONNREFUSED = 111,
	EHOSTUNREACH = 113,
	ENETDOWN = 100,
	ENOBUFS = 105,
	EHOSTDOWN = 112,
};

enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	/** A request socket: not a full `struct sock`. */
	TCP_NEW_SYN_RECV,
};

enum {
	TCP_CA_Loss = 4,
};

/** Bit of `skc_flags`: the peer's FIN was received. */
enum {
	SOCK_DONE = 1,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct net_device;

struct net {
	__u64 net_cookie;
	struct net_device *loopback_dev;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned long skc_flags;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *prev;
};

struct sock {
	struct sock_common __sk_common;
	atomic_t sk_drops;
	__u16 sk_protocol;
	/** Messages that came about what the socket sent. */
	struct sk_buff_head sk_error_queue;
	int sk_err;
	/** What ICMP said, of a kind that the kernel does not give up for. */
	int sk_err_soft;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	struct sock_cgroup_data sk_cgrp_data;
	/** NULL once no program has it any more, and before one accepts it. */
	struct socket *sk_socket;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct request_sock_queue {
	atomic_t qlen;
};

struct tcp_options_received {
	__u16 mss_clamp;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct request_sock_queue icsk_accept_queue;
	/** Which of its timers is set. */
	__u8 icsk_pending;
	__u8 icsk_ca_state : 5;
	struct {
		__u32 lrcvtime;
	} icsk_ack;
};

struct minmax_sample {
	__u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 segs_out;
	__u32 segs_in;
	__u32 data_segs_out;
	__u32 data_segs_in;
	__u32 dsack_dups;
	__u32 reord_seen;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 mss_cache;
	struct tcp_options_received rx_opt;
	__u32 lsndtime;
	__u32 srtt_us;
	__u32 snd_una;
	__u32 snd_nxt;
	__u64 bytes_sent;
	__u64 bytes_acked;
	__u64 bytes_retrans;
	__u64 bytes_received;
	/** Also a bit field, in kernels before 6.9. */
	__u8 chrono_type : 2;
	__u32 chrono_start;
	__u32 chrono_stat[3];
	struct minmax rtt_min;
};

struct request_sock {
	struct sock_common __req_common;
	struct sock *sk;
};

struct inet_timewait_sock {
	volatile unsigned char tw_substate;
};

/* What a tracepoint records, for the arguments that it has. */
struct trace_event_raw_tcp_retransmit_skb {
	int err;
};

struct tcp_skb_cb {
	__u16 tcp_gso_segs;
	__u8 sacked;
};

struct net_device {
	possible_net_t nd_net;
	char name[16];
};

struct neighbour {
	__u8 nud_state;
	struct net_device *dev;
};

struct skb_shared_info {
	unsigned short gso_size;
	unsigned short gso_segs;
	unsigned int gso_type;
};

struct xdp_rxq_info {
	struct net_device *dev;
};

struct xdp_buff {
	void *data_hard_start;
	struct xdp_rxq_info *rxq;
	__u32 frame_sz;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	char cb[48];
	__be16 protocol;
	unsigned int len;
	__u8 encapsulation : 1;
	__u16 inner_transport_header;
	__u16 mac_header;
	__u16 network_header;
	__u16 transport_header;
	unsigned int end;
	unsigned char *head;
	unsigned char *data;
};

struct sock_extended_err {
	__u32 ee_errno;
	__u8 ee_origin;
};

/** Lies in `cb` of a buffer in a socket's error queue. */
struct sock_exterr_skb {
	struct sock_extended_err ee;
};

struct inode {
	unsigned short i_mode;
};

struct file {
	void *private_data;
	struct inode *f_inode;
};

struct socket {
	short type;
	struct sock *sk;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	struct files_struct *files;
};

/** Registers of a system call. */
struct pt_regs___x86 {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
};

struct pt_regs___arm64 {
	__u64 regs[31];
	__u64 orig_x0;
};

struct bpf_map;

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

enum sk_rst_reason {
	SK_RST_REASON_NO_SOCKET,
};

enum skb_drop_reason {
	SKB_DROP_REASON_NO_SOCKET,
};

#pragma clang attribute pop

// What the rig's BPF programs and their loaders share. Plain C, so that both sides include it.
#ifndef SLUICE_BENCHMARKS_RIG_RIG_ABI_H_
#define SLUICE_BENCHMARKS_RIG_RIG_ABI_H_

#include <linux/types.h>

// The generator's list of destinations holds at most this many.
#define RIG_MAX_TARGETS 131072u

// The first byte of an IPv4 UDP datagram that is meant for a program behind the sink: the frame is
// counted like others, but not dropped. The generator's datagrams begin with 0.
#define RIG_MARK 'P'

// One frame to send, with its checksums, in network order and computed by the loader, so that the
// program only copies.
struct rig_target {
  __u8 address[16];  // the destination; IPv4 uses the first four bytes
  __u8 source[16];
  __u16 source_port;
  __u16 destination_port;
  __u16 ip_checksum;
  __u16 udp_checksum;
};

// What the sink saw. `forwarded` frames have the TTL or hop limit that one router leaves (63).
struct rig_sink_count {
  __u64 forwarded;  // TTL 63
  __u64 untouched;  // TTL 64: passed on by something that is no router
  __u64 other;      // anything else: ARP, ND, errors, another TTL
  __u64 translated; // of the forwarded ones: IPv4 from the address that NAT gives them
  __u64 bytes;
};

#endif  // SLUICE_BENCHMARKS_RIG_RIG_ABI_H_

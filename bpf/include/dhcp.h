/* Whether a frame is a DHCP server's answer to a client on this machine (RFC 2131): a packet socket
 * waits for it, which the kernel's prerouting rules do not come before, so early rules do not either.
 * The worker gives it to the kernel by the same test (stages/route), and takes no counts of early
 * rules back that were never made: what is one here must be one there.
 */
#ifndef SLUICE_BPF_INCLUDE_DHCP_H_
#define SLUICE_BPF_INCLUDE_DHCP_H_

#include "parse.h"

enum {
  SLUICE_DHCP_SERVER_PORT = 67,
  SLUICE_DHCP_CLIENT_PORT = 68,
  SLUICE_DHCP_PACKET_SIZE = 20 + 8 + 44, /* IP, UDP, and BOOTP up to the end of chaddr */
};

/* `c` covers the frame from its Ethernet header; `own_mac` as in sluice_xdp_config. */
SLUICE_INLINE int sluice_is_dhcp_reply(struct sluice_cursor c, __u64 own_mac) {
  const __u8* ip = sluice_take(&c, SLUICE_ETHERNET_SIZE + SLUICE_DHCP_PACKET_SIZE);
  const __u8* bootp;
  if (!ip) return 0;
  ip += SLUICE_ETHERNET_SIZE;
  bootp = ip + 28;
  if (ip[0] != 0x45 || ip[9] != SLUICE_PROTOCOL_UDP || sluice_be16(ip + 6) & 0x3fff) return 0;
  if (sluice_be16(ip + 2) < SLUICE_DHCP_PACKET_SIZE) return 0;
  if (sluice_be16(ip + 20) != SLUICE_DHCP_SERVER_PORT) return 0;
  if (sluice_be16(ip + 22) != SLUICE_DHCP_CLIENT_PORT) return 0;
  /* A reply, over Ethernet, with an address of six bytes. */
  return bootp[0] == 2 && bootp[1] == 1 && bootp[2] == 6 && sluice_mac(bootp + 28) == own_mac;
}

#endif /* SLUICE_BPF_INCLUDE_DHCP_H_ */

// Whether frames can be redirected into a device from XDP, and if not, what to do about it.
//
// A driver needs ndo_xdp_xmit for it. That of veth drops every frame (ENXIO, which nobody sees) as
// long as the other end has no NAPI, which it has with an XDP program or with GRO; and the other
// end is usually in another network namespace. How it is found out:
//
// - Linux 6.3 and later keep the answer as one of the device's XDP features, also as the other end
//   changes, and tell it by netlink ("netdev", dev-get). Nothing is sent. Cost: 30 microseconds.
// - Before, for veth, one frame is redirected into it (BPF_PROG_TEST_RUN with live frames), and the
//   device's own statistics tell whether the other end has taken it: xdp_xmit counts what it took,
//   xdp_xmit_errors what did not fit its ring. The frame has the EtherType for local experiments
//   and our own address as source and destination, so that a host throws it away, and a bridge does
//   not send it on, as it came from where it is to go. Cost: 300 microseconds.
// - Before, for other drivers, nothing is sent: a list says which ones have ndo_xdp_xmit.
//
// It is about this moment: ask again every few seconds. The interface must have the XDP program
// already that it will have, since with some cards that makes the difference.
//
// Thread: control, in the interface's network namespace. Needs CAP_NET_ADMIN and CAP_BPF
// before 6.3.
#ifndef SLUICE_IO_AF_XDP_REDIRECT_PROBE_H_
#define SLUICE_IO_AF_XDP_REDIRECT_PROBE_H_

#include <cstdint>
#include <string>

#include "io/af_xdp/interface_probe.h"

namespace sluice::io::af_xdp {

enum class RedirectTarget : uint8_t {
  kYes,
  kNoPeerNapi,   // veth whose other end drops what is redirected
  kUnsupported,  // the driver cannot, or not with its present settings
  kUnknown,      // the link is down, or the kernel does not say
};

struct RedirectAnswer {
  RedirectTarget target = RedirectTarget::kUnknown;
  std::string advice;  // one sentence, unless kYes
};

// By what to find out: tests ask each way.
enum class RedirectMethod : uint8_t { kBest, kFeatures, kFrame };

// `info` is as of now: its carrier counts.
RedirectAnswer ProbeRedirect(const InterfaceInfo& info,
                             RedirectMethod method = RedirectMethod::kBest);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_REDIRECT_PROBE_H_

#ifndef SLUICE_IO_AF_XDP_REDIRECT_PROBE_H_
#define SLUICE_IO_AF_XDP_REDIRECT_PROBE_H_
#include <string>
#include "io/af_xdp/interface_probe.h"
namespace sluice::io::af_xdp {
enum class RedirectSupport { kYes, kNoPeerNapi, kUnsupported, kUnknown };
struct RedirectVerdict { RedirectSupport support = RedirectSupport::kYes; std::string advice; };
inline RedirectVerdict ProbeRedirect(const InterfaceInfo&) { return {}; }
}
#endif

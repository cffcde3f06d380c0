// AF_XDP constants that Debian 12's <linux/if_xdp.h> (6.1) lacks. Kernels that do not know them say
// so when they are used (EINVAL, ENOPROTOOPT), which the callers handle.
#ifndef SLUICE_IO_AF_XDP_UAPI_H_
#define SLUICE_IO_AF_XDP_UAPI_H_

#include <cstdint>

namespace sluice::io::af_xdp {

inline constexpr uint16_t kBindUseSg = 1 << 4;      // XDP_USE_SG, 6.6
inline constexpr uint32_t kDescContinues = 1 << 0;  // XDP_PKT_CONTD: more buffers follow
inline constexpr int kSockOptMaxTxSkbBudget = 9;    // XDP_MAX_TX_SKB_BUDGET, 6.18

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_UAPI_H_

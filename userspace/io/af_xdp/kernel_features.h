// What the running kernel can do, as far as it must be known before trying.
//
// Only the version is asked for: the features themselves are tried where they are used, and done
// without when the kernel refuses.
#ifndef SLUICE_IO_AF_XDP_KERNEL_FEATURES_H_
#define SLUICE_IO_AF_XDP_KERNEL_FEATURES_H_

#include <compare>
#include <string>

namespace sluice::io::af_xdp {

struct KernelVersion {
  int major = 0;
  int minor = 0;
  constexpr auto operator<=>(const KernelVersion&) const = default;
};

// "6.1.0-13-amd64" -> {6, 1}; {0, 0} when it is not of that form.
KernelVersion ParseKernelVersion(const char* release);
KernelVersion RunningKernel();

// Frames in several buffers (XDP_USE_SG) came with 6.6. Before, an XDP program that takes such
// frames would see them accepted by the socket and lost.
inline bool HasMultiBuffer(const KernelVersion& v) { return v >= KernelVersion{6, 6}; }

// Whether zero-copy may be tried with this driver, if the user did not decide. A list of what is
// known to work, since a driver that claims it and does it badly corrupts memory or goes silent:
// igc and ixgbe since 6.1, i40e since 6.1, mlx5 since 6.5 (before, its queue numbers were off).
// Left out on purpose: ice (memory corruption reported, no fixed version known to us), ena.
bool ZeroCopyTrusted(const std::string& driver, const KernelVersion& v);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_KERNEL_FEATURES_H_

// Counts the frames that XDP has redirected and that the output device then has not taken, and closes
// an output that takes none: bpf/redirect_loss.bpf.c. Without it they vanish uncounted.
//
// It needs the kernel's type information (CONFIG_DEBUG_INFO_BTF) and CAP_PERFMON besides CAP_BPF; where
// Attach fails, the flow tier works without it. Counts are in OffloadMemory (tables/offload.h).
//
// Thread: control, in the interfaces' network namespace. Detached by the destructor or the end of the
// process.
#ifndef SLUICE_IO_AF_XDP_REDIRECT_LOSS_H_
#define SLUICE_IO_AF_XDP_REDIRECT_LOSS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "io/af_xdp/offload_maps.h"

struct sluice_redirect_loss;

namespace sluice::io::af_xdp {

class RedirectLoss {
 public:
  static absl::StatusOr<std::unique_ptr<RedirectLoss>> Attach(const OffloadMaps::Fds& maps);
  ~RedirectLoss();
  RedirectLoss(const RedirectLoss&) = delete;
  RedirectLoss& operator=(const RedirectLoss&) = delete;

  // An interface that frames come from or go to.
  absl::Status Add(IfaceSlot slot, IfIndex index);
  void Remove(IfIndex index);

 private:
  explicit RedirectLoss(sluice_redirect_loss* skeleton) : skeleton_(skeleton) {}

  sluice_redirect_loss* const skeleton_;
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_REDIRECT_LOSS_H_

#include "io/af_xdp/redirect_loss.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "sluice_bpf/redirect_loss.skel.h"

namespace sluice::io::af_xdp {
namespace {

absl::Status Failed(const char* what, int error) {
  return absl::FailedPreconditionError(
      absl::StrCat("frames that devices do not take from XDP cannot be counted: ", what, ": ",
                   std::strerror(error),
                   "; the kernel must have type information (/sys/kernel/btf/vmlinux) and the "
                   "process CAP_BPF and CAP_PERFMON"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedirectLoss>> RedirectLoss::Attach(const OffloadMaps::Fds& maps) {
  struct stat ns {};
  if (stat("/proc/thread-self/ns/net", &ns) != 0) return Failed("the network namespace", errno);
  sluice_redirect_loss* const skeleton = sluice_redirect_loss__open();
  if (skeleton == nullptr) return Failed("opening", errno);
  std::unique_ptr<RedirectLoss> loss(new RedirectLoss(skeleton));
  skeleton->rodata->netns = static_cast<uint32_t>(ns.st_ino);
  const int devmaps[] = {maps.devices, maps.devices_f};
  for (size_t i = 0; i < std::size(devmaps); ++i) {
    bpf_map_info info{};
    uint32_t length = sizeof info;
    if (bpf_obj_get_info_by_fd(devmaps[i], &info, &length) != 0) {
      return Failed("the tier's devices", errno);
    }
    skeleton->rodata->devmaps[i] = info.id;
  }
  if (const int error = bpf_map__reuse_fd(skeleton->maps.offload_state, maps.state); error != 0) {
    return Failed("the tier's state", -error);
  }
  if (const int error = sluice_redirect_loss__load(skeleton); error != 0) {
    return Failed("loading", -error);
  }
  if (const int error = sluice_redirect_loss__attach(skeleton); error != 0) {
    return Failed("attaching", -error);
  }
  return loss;
}

RedirectLoss::~RedirectLoss() { sluice_redirect_loss__destroy(skeleton_); }

absl::Status RedirectLoss::Add(IfaceSlot slot, IfIndex index) {
  const uint32_t value = slot.value;
  const int error = -bpf_map_update_elem(bpf_map__fd(skeleton_->maps.loss_slots), &index.value,
                                         &value, BPF_ANY);
  return error == 0 ? absl::OkStatus() : Failed("adding an interface", error);
}

void RedirectLoss::Remove(IfIndex index) {
  static_cast<void>(
      bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.loss_slots), &index.value));
}

}  // namespace sluice::io::af_xdp

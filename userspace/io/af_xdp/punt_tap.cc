#include "io/af_xdp/punt_tap.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/byte_order.h"
#include "sluice_bpf/punt.skel.h"

namespace sluice::io::af_xdp {
namespace {

constexpr int kMtu = 65535 - 14;  // the largest that a TAP device can have

absl::Status Failed(const std::string& name, const char* what, int error) {
  std::string advice;
  if (error == EPERM || error == EACCES) advice = "; run as root or grant CAP_NET_ADMIN";
  if (error == EBUSY || error == EEXIST) {
    advice = "; a device of this name exists: is another sluice running?";
  }
  if (error == ENOENT || error == ENODEV) advice = "; is /dev/net/tun there, and the tun module?";
  return absl::FailedPreconditionError(
      absl::StrCat("punt device ", name, ": ", what, ": ", std::strerror(error), advice));
}

// The device has nothing to say on its own. Where /proc/sys cannot be written, what it says goes
// into a queue that nobody reads; no harm is done.
void SilenceIpv6(const std::string& name) {
  const std::string path = absl::StrCat("/proc/sys/net/ipv6/conf/", name, "/disable_ipv6");
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  static_cast<void>(!write(fd, "1", 1));
  close(fd);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PuntTap>> PuntTap::Open(IfIndex target, uint16_t workers,
                                                       uint64_t cookie) {
  std::unique_ptr<PuntTap> tap(new PuntTap);
  tap->name_ = absl::StrCat("slu", target.value);
  if (cookie != 0) {
    tap->marks_ = true;
    StoreBe16(tap->mark_.ether_type, SLUICE_PUNT_ETHERTYPE);
    std::memcpy(tap->mark_.cookie, &cookie, sizeof cookie);
  }
  if (absl::Status s = tap->CreateDevice(workers); !s.ok()) return s;
  if (absl::Status s = tap->AttachRedirect(target); !s.ok()) return s;
  if (absl::Status s = tap->ConfigureDevice(); !s.ok()) return s;
  return tap;
}

PuntTap::~PuntTap() {
  for (const int fd : fds_) close(fd);  // with the last one the device goes, and its program
  if (skeleton_ != nullptr) sluice_punt::destroy(skeleton_);
}

absl::Status PuntTap::CreateDevice(uint16_t workers) {
  for (uint16_t i = 0; i < workers; ++i) {
    const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return Failed(name_, "/dev/net/tun cannot be opened", errno);
    fds_.push_back(fd);
    ifreq ifr{};
    std::memcpy(ifr.ifr_name, name_.data(), name_.size());
    ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE;
    // The first queue makes the device, and must not join one that is there.
    if (i == 0) ifr.ifr_flags = static_cast<short>(ifr.ifr_flags | IFF_TUN_EXCL);
    if (ioctl(fd, TUNSETIFF, &ifr) != 0) return Failed(name_, "cannot be created", errno);
  }
  return absl::OkStatus();
}

absl::Status PuntTap::AttachRedirect(IfIndex target) {
  skeleton_ = sluice_punt::open();
  if (skeleton_ == nullptr) return Failed(name_, "its program cannot be opened", errno);
  skeleton_->rodata->target_ifindex = target.value;
  if (const int error = sluice_punt::load(skeleton_); error != 0) {
    return Failed(name_, "its program cannot be loaded", -error);
  }
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = static_cast<int>(if_nametoindex(name_.c_str()));
  hook.attach_point = BPF_TC_INGRESS;
  if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST) {
    return Failed(name_, "the ingress hook (clsact) cannot be made", -error);
  }
  bpf_tc_opts opts{};
  opts.sz = sizeof opts;
  opts.prog_fd = bpf_program__fd(skeleton_->progs.punt);
  if (const int error = bpf_tc_attach(&hook, &opts); error != 0) {
    return Failed(name_, "its program cannot be attached", -error);
  }
  return absl::OkStatus();
}

absl::Status PuntTap::ConfigureDevice() {
  SilenceIpv6(name_);
  const int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (s < 0) return Failed(name_, "no socket to configure it with", errno);
  ifreq ifr{};
  std::memcpy(ifr.ifr_name, name_.data(), name_.size());
  ifr.ifr_mtu = kMtu;
  const char* what = "its MTU cannot be set";
  bool ok = ioctl(s, SIOCSIFMTU, &ifr) == 0;
  if (ok) {
    what = "it cannot be brought up";
    ifr.ifr_flags = IFF_UP | IFF_NOARP;
    ok = ioctl(s, SIOCSIFFLAGS, &ifr) == 0;
  }
  const int error = errno;
  close(s);
  return ok ? absl::OkStatus() : Failed(name_, what, error);
}

bool PuntTap::Write(WorkerId worker, const packet::FrameArena& arena, const packet::Packet& p) {
  if (p.segment_count > packet::kMaxSegments) return false;
  std::array<iovec, packet::kMaxSegments + 1> pieces;
  size_t count = 0;
  size_t bytes = p.length;
  if (marks_) {
    pieces[count++] = {&mark_, sizeof mark_};
    bytes += sizeof mark_;
  }
  packet::ForEachSegment(arena, p, 0, [&](std::span<uint8_t> piece) {
    pieces[count++] = {piece.data(), piece.size()};
  });
  return writev(fds_[worker.value], pieces.data(), static_cast<int>(count)) ==
         static_cast<ssize_t>(bytes);
}

}  // namespace sluice::io::af_xdp

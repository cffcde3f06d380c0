#include "io/af_xdp/redirect_probe.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpf/include/abi.h"
#include "io/af_xdp/netdev_features.h"

namespace sluice::io::af_xdp {
namespace {

RedirectAnswer NoPeerNapi(const InterfaceInfo& info) {
  return {RedirectTarget::kNoPeerNapi,
          absl::StrCat("interface ", info.name,
                       ": the other end of the veth pair has no NAPI and would drop what XDP sends "
                       "there: turn GRO on at that end with `ethtool -K IF gro on`, or attach an "
                       "XDP program there")};
}
RedirectAnswer Unsupported(const InterfaceInfo& info) {
  return {RedirectTarget::kUnsupported,
          absl::StrCat("interface ", info.name, ": its driver",
                       info.driver.empty() ? "" : absl::StrCat(" (", info.driver, ")"),
                       " does not let XDP send frames, or not with its present settings")};
}
RedirectAnswer Unknown(const InterfaceInfo& info, const char* why) {
  return {RedirectTarget::kUnknown,
          absl::StrCat("interface ", info.name,
                       ": whether XDP can send frames there is not known: ", why)};
}

std::optional<RedirectAnswer> ByFeatures(const InterfaceInfo& info) {
  const std::optional<uint64_t> features = ReadXdpFeatures(info.index);
  if (!features) return {};
  if ((*features & kXdpFeatureTarget) != 0) return RedirectAnswer{RedirectTarget::kYes, ""};
  // Without any feature, veth has fewer receive queues than the other end has transmit queues.
  return info.driver == "veth" && (*features & kXdpFeatureBasic) != 0 ? NoPeerNapi(info)
                                                                      : Unsupported(info);
}

// The drivers that have had ndo_xdp_xmit in Linux 6.1, by the names that ethtool knows.
bool IsKnownTarget(std::string_view driver) {
  static constexpr std::string_view kDrivers[] = {
      "bnxt_en", "ena",       "fsl_dpaa2_eth", "hv_netvsc", "i40e",    "ice", "igb",       "igc",
      "ixgbe",   "mlx5_core", "qede",          "sfc",       "st_gmac", "tun", "virtio_net"};
  return std::find(std::begin(kDrivers), std::end(kDrivers), driver) != std::end(kDrivers);
}

// How many frames veth's other end has been offered by XDP: taken, or refused for its ring was
// full. Both say that it has NAPI.
class OfferedFrames {
 public:
  explicit OfferedFrames(const std::string& name)
      : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), name_(name) {}
  ~OfferedFrames() {
    if (fd_ >= 0) close(fd_);
  }
  OfferedFrames(const OfferedFrames&) = delete;
  OfferedFrames& operator=(const OfferedFrames&) = delete;

  std::optional<uint64_t> Read() const {
    ethtool_drvinfo info{};
    info.cmd = ETHTOOL_GDRVINFO;
    if (!Ethtool(&info)) return {};
    const size_t count = info.n_stats;
    std::vector<uint64_t> names((sizeof(ethtool_gstrings) + count * ETH_GSTRING_LEN + 7) / 8);
    auto* const strings = reinterpret_cast<ethtool_gstrings*>(names.data());
    strings->cmd = ETHTOOL_GSTRINGS;
    strings->string_set = ETH_SS_STATS;
    strings->len = info.n_stats;
    std::vector<uint64_t> values(sizeof(ethtool_stats) / 8 + count);
    auto* const stats = reinterpret_cast<ethtool_stats*>(values.data());
    stats->cmd = ETHTOOL_GSTATS;
    stats->n_stats = info.n_stats;
    // The queues' number may have changed since; then the kernel says another count.
    if (!Ethtool(strings) || strings->len != count) return {};
    if (!Ethtool(stats) || stats->n_stats != count) return {};
    uint64_t sum = 0;
    bool seen = false;
    for (size_t i = 0; i < count; ++i) {
      const char* const text = reinterpret_cast<const char*>(strings->data) + i * ETH_GSTRING_LEN;
      const std::string_view name(text, strnlen(text, ETH_GSTRING_LEN));
      if (!name.starts_with("tx_queue_")) continue;
      if (!name.ends_with("_xdp_xmit") && !name.ends_with("_xdp_xmit_errors")) continue;
      sum += stats->data[i];
      seen = true;
    }
    if (!seen) return {};
    return sum;
  }

 private:
  bool Ethtool(void* command) const {
    ifreq ifr{};
    std::memcpy(ifr.ifr_name, name_.data(), std::min(name_.size(), sizeof ifr.ifr_name - 1));
    ifr.ifr_data = static_cast<char*>(command);
    return ioctl(fd_, SIOCETHTOOL, &ifr) == 0;
  }

  const int fd_;
  const std::string name_;
};

// return bpf_redirect(index, 0);
int LoadRedirect(IfIndex index) {
  const auto set = [](uint8_t to, uint32_t value) {
    return bpf_insn{.code = BPF_ALU64 | BPF_MOV | BPF_K,
                    .dst_reg = to,
                    .src_reg = 0,
                    .off = 0,
                    .imm = static_cast<int32_t>(value)};
  };
  const std::array<bpf_insn, 4> program = {
      set(BPF_REG_1, index.value), set(BPF_REG_2, 0),
      bpf_insn{.code = BPF_JMP | BPF_CALL,
               .dst_reg = 0,
               .src_reg = 0,
               .off = 0,
               .imm = BPF_FUNC_redirect},
      bpf_insn{.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  return bpf_prog_load(BPF_PROG_TYPE_XDP, "redirect_probe", "Dual BSD/GPL", program.data(),
                       program.size(), nullptr);
}

bool SendFrame(const InterfaceInfo& info) {
  std::array<uint8_t, 60> frame{};
  info.mac.ToWire(frame.data());
  info.mac.ToWire(frame.data() + 6);
  frame[12] = SLUICE_PUNT_ETHERTYPE >> 8;
  frame[13] = SLUICE_PUNT_ETHERTYPE & 0xff;
  const int fd = LoadRedirect(info.index);
  if (fd < 0) return false;
  bpf_test_run_opts opts{};
  opts.sz = sizeof opts;
  opts.data_in = frame.data();
  opts.data_size_in = frame.size();
  opts.repeat = 1;
  opts.batch_size = 1;
  opts.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
  const int error = bpf_prog_test_run_opts(fd, &opts);
  close(fd);
  return error == 0;
}

RedirectAnswer ByFrame(const InterfaceInfo& info) {
  const OfferedFrames offered(info.name);
  const std::optional<uint64_t> before = offered.Read();
  if (!before) return Unknown(info, "its driver has no statistics of it");
  if (!SendFrame(info)) return Unknown(info, "the kernel has refused to try");
  // The frame has been sent, or not, when the call returns.
  const std::optional<uint64_t> after = offered.Read();
  if (!after) return Unknown(info, "its statistics have changed meanwhile");
  return *after != *before ? RedirectAnswer{RedirectTarget::kYes, ""} : NoPeerNapi(info);
}

}  // namespace

RedirectAnswer ProbeRedirect(const InterfaceInfo& info, RedirectMethod method) {
  if (!info.up || !info.carrier) return Unknown(info, "the link is down");
  if (method != RedirectMethod::kFrame) {
    if (const auto answer = ByFeatures(info)) return *answer;
    if (method == RedirectMethod::kFeatures) return Unknown(info, "the kernel is older than 6.3");
  }
  if (info.driver == "veth") return ByFrame(info);
  if (IsKnownTarget(info.driver)) return {RedirectTarget::kYes, ""};
  return Unknown(info, "the kernel is older than 6.3, and the driver not known to Sluice");
}

}  // namespace sluice::io::af_xdp

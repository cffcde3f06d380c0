// The XDP program of one interface: loaded, attached, told our MAC, given the sockets, counted.
//
// The attachment is a bpf_link, so the kernel takes the program off when this process ends, however
// it ends, and forwards by itself. A program of somebody else is never replaced.
//
// Thread: control.
#ifndef SLUICE_IO_AF_XDP_XDP_PROGRAM_H_
#define SLUICE_IO_AF_XDP_XDP_PROGRAM_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/ids.h"
#include "bpf/include/abi.h"
#include "io/af_xdp/early_filter.h"
#include "io/af_xdp/early_limits.h"
#include "io/af_xdp/interface_probe.h"
#include "io/af_xdp/offload_maps.h"

struct bpf_link;
struct sluice_xdp_ingress;

namespace sluice::io::af_xdp {

enum class XdpMode : uint8_t { kAuto, kNative, kGeneric };

// One row of sluice_xdp_packets_total.
struct XdpReasonText {
  std::string_view action;
  std::string_view reason;
  std::string_view text;
};
inline constexpr XdpReasonText kXdpReasons[] = {
#define SLUICE_XDP_ROW(name, action, label, text) {action, label, text},
    SLUICE_XDP_REASONS(SLUICE_XDP_ROW)
#undef SLUICE_XDP_ROW
};
inline constexpr size_t kXdpReasonCount = SLUICE_XDP_REASON_COUNT;
using XdpCounts = std::array<uint64_t, kXdpReasonCount>;

class XdpProgram {
 public:
  struct Options {
    XdpMode mode = XdpMode::kAuto;
    bool multi_buffer = false;             // take frames in several buffers: the sockets can
    EarlyLimits* early_limits = nullptr;   // for the early filter; null: there is none
    const OffloadMaps* offload = nullptr;  // for the flow tier; null: there is none
  };

  // Loads and attaches; passes everything to the kernel until SetEnabled(true).
  static absl::StatusOr<std::unique_ptr<XdpProgram>> Attach(const InterfaceInfo& info,
                                                            const Options& options);
  ~XdpProgram();
  XdpProgram(const XdpProgram&) = delete;
  XdpProgram& operator=(const XdpProgram&) = delete;

  XdpMode mode() const { return mode_; }  // kNative or kGeneric
  bool multi_buffer() const { return multi_buffer_; }
  uint32_t program_id() const { return program_id_; }
  // Why native mode was refused when `mode` was kAuto and generic was taken; empty otherwise.
  const std::string& native_refusal() const { return native_refusal_; }
  // What frames that are given back must carry in front (generic mode); 0 when nothing.
  uint64_t punt_cookie() const;

  void SetEnabled(bool enabled);
  void SetOwnMac(const Mac& mac);
  // In generic mode segments that the sender has left to its "network card" arrive in one piece, as
  // from the other end of a veth pair. Only the kernel can cut them up, so it gets them.
  void SetMtu(uint32_t mtu);
  // What the flow tier does with the frames that come in here: SLUICE_OFFLOAD_WORD. Nothing at
  // first, and always without Options::offload or in generic mode: there, a frame that is sent on
  // keeps the kernel's notes on its checksum, which would be wrong then. Whether it is in force.
  bool SetOffload(uint32_t word);
  absl::Status SetSocket(QueueId queue, int socket_fd);
  absl::Status ClearSocket(QueueId queue);
  // Groups whose UDP datagrams go to the sockets: these and no others. Returns those for which there was
  // no place (SLUICE_MAX_GROUPS), which the kernel alone gets, with the reason.
  using GroupProblems = std::vector<std::pair<IpAddress, absl::Status>>;
  GroupProblems SetGroups(std::span<const IpAddress> groups);
  size_t groups() const { return groups_.size(); }
  absl::StatusOr<XdpCounts> ReadCounts() const;
  // What it drops before a worker sees it; null without Options::early_limits.
  EarlyFilter* early_filter() { return early_filter_.get(); }
  const EarlyFilter* early_filter() const { return early_filter_.get(); }

 private:
  XdpProgram() = default;
  absl::Status Load(const InterfaceInfo& info, const Options& options);
  absl::Status TryAttach(const InterfaceInfo& info, XdpMode mode, bool multi_buffer);

  sluice_xdp_ingress* skeleton_ = nullptr;
  int link_fd_ = -1;
  XdpMode mode_ = XdpMode::kAuto;
  bool multi_buffer_ = false;
  bool may_offload_ = false;
  uint32_t program_id_ = 0;
  std::string native_refusal_;
  std::vector<IpAddress> groups_;  // in the map
  std::unique_ptr<EarlyFilter> early_filter_;
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_XDP_PROGRAM_H_

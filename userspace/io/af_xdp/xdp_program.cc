#include "io/af_xdp/xdp_program.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sluice_bpf/xdp_ingress.skel.h"

namespace sluice::io::af_xdp {
namespace {

constexpr char kOwnName[] = "xdp_ingress";  // how the kernel calls our program, cut to 15 letters

struct ForeignProgram {
  uint32_t id = 0;
  std::string name;
};

// The XDP program that the interface has now, in whatever mode.
ForeignProgram CurrentProgram(IfIndex index) {
  bpf_xdp_query_opts opts{};
  opts.sz = sizeof opts;
  ForeignProgram found;
  if (bpf_xdp_query(static_cast<int>(index.value), 0, &opts) != 0) return found;
  for (const uint32_t id : {opts.prog_id, opts.drv_prog_id, opts.skb_prog_id, opts.hw_prog_id}) {
    if (id != 0) found.id = id;
  }
  if (found.id == 0) return found;
  const int fd = bpf_prog_get_fd_by_id(found.id);
  if (fd < 0) return found;
  bpf_prog_info info{};
  uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(fd, &info, &size) == 0) found.name = info.name;
  close(fd);
  return found;
}

// The program of a Sluice that has just been killed goes within half a second: give it that time.
// Its name is known only to CAP_SYS_ADMIN, which the systemd unit does not have.
ForeignProgram WaitForForeignProgram(IfIndex index) {
  const auto may_go = [](const ForeignProgram& program) {
    return program.id != 0 && (program.name.empty() || program.name.rfind(kOwnName, 0) == 0);
  };
  ForeignProgram found = CurrentProgram(index);
  for (int i = 0; i < 20 && may_go(found); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    found = CurrentProgram(index);
  }
  return found;
}

absl::Status ForeignError(const InterfaceInfo& info, const ForeignProgram& foreign) {
  const bool ours = foreign.name.rfind(kOwnName, 0) == 0;
  const std::string advice =
      ours ? std::string("is another sluice running? stop it first")
           : absl::StrCat(
                 "it is not replaced: stop the program that owns it, or remove it with "
                 "`ip link set dev ",
                 info.name, " xdp off`");
  return absl::AlreadyExistsError(
      absl::StrCat("interface ", info.name, ": has an XDP program already (id ", foreign.id,
                   foreign.name.empty() ? "" : ", ", foreign.name, "): ", advice));
}

uint64_t PackMac(const Mac& mac) {
  uint8_t bytes[8] = {};
  mac.ToWire(bytes);
  uint64_t packed;
  std::memcpy(&packed, bytes, sizeof packed);
  return packed;
}

// The program uses these maps; 0 or a negative errno.
int Lend(const OffloadMaps& offload, const decltype(sluice_xdp_ingress::maps)& maps) {
  const OffloadMaps::Fds& fds = offload.fds();
  const std::pair<bpf_map*, int> lent[] = {
      {maps.offload_flows4, fds.flows4},      {maps.offload_flows6, fds.flows6},
      {maps.offload_cells, fds.cells},        {maps.offload_splices, fds.splices},
      {maps.offload_state, fds.state},        {maps.offload_devices, fds.devices},
      {maps.offload_devices_f, fds.devices_f}};
  for (const auto& [map, fd] : lent) {
    if (const int error = bpf_map__reuse_fd(map, fd); error != 0) return error;
  }
  return 0;
}

sluice_group KeyOf(const IpAddress& group) {
  sluice_group key{};
  if (group.is_v4()) {
    key.address[10] = key.address[11] = 0xff;
    group.v4().ToWire(key.address + 12);
  } else {
    group.v6().ToWire(key.address);
  }
  return key;
}

const char* ModeName(XdpMode mode) { return mode == XdpMode::kNative ? "native" : "generic"; }

// What the errno of an attachment means, and what to do.
std::string AttachAdvice(int error, const InterfaceInfo& info, bool multi_buffer) {
  switch (error) {
    case EPERM:
      return "the process lacks CAP_NET_ADMIN or CAP_BPF: run as root or grant them";
    case ERANGE:
      return absl::StrCat("the MTU (", info.mtu, ", or that of the other end) is too large for XDP",
                          multi_buffer ? "" : " in one buffer",
                          ": lower it, or use `mode: generic`");
    case EOPNOTSUPP:
      return absl::StrCat(
          "the driver has no native XDP, or not with its present offloads: use "
          "`mode: generic`, or switch LRO off with `ethtool -K ",
          info.name, " lro off`");
    case ENOSPC:
      return "fewer receive queues than the other end has transmit queues: make them equal with "
             "`ethtool -L`";
    case EINVAL:
      return "the driver refuses with its present settings (MTU, offloads, queues)";
    case ENODEV:
      return "the interface has gone";
    default:
      return "see the kernel log (`dmesg`)";
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<XdpProgram>> XdpProgram::Attach(const InterfaceInfo& info,
                                                               const Options& options) {
  // Its messages would go to stderr; ours say what matters.
  libbpf_set_print(nullptr);
  std::unique_ptr<XdpProgram> program(new XdpProgram);
  if (absl::Status s = program->Load(info, options); !s.ok()) return s;
  program->SetOwnMac(info.mac);

  if (const ForeignProgram foreign = WaitForForeignProgram(info.index); foreign.id != 0) {
    return ForeignError(info, foreign);
  }
  std::vector<std::pair<XdpMode, bool>> attempts;
  for (const XdpMode mode : {XdpMode::kNative, XdpMode::kGeneric}) {
    if (options.mode != XdpMode::kAuto && options.mode != mode) continue;
    if (options.multi_buffer) attempts.push_back({mode, true});
    attempts.push_back({mode, false});
  }
  absl::Status status;
  for (const auto& [mode, multi_buffer] : attempts) {
    status = program->TryAttach(info, mode, multi_buffer);
    if (status.ok()) {
      program->SetMtu(info.mtu);
      return program;
    }
    if (status.code() == absl::StatusCode::kAlreadyExists) return status;
    if (mode == XdpMode::kNative && options.mode == XdpMode::kAuto) {
      program->native_refusal_ = std::string(status.message());
    }
  }
  return status;
}

absl::Status XdpProgram::Load(const InterfaceInfo& info, const Options& options) {
  skeleton_ = sluice_xdp_ingress::open();
  int error = skeleton_ == nullptr ? errno : 0;
  if (error == 0 && options.early_limits != nullptr) {
    error = -bpf_map__reuse_fd(skeleton_->maps.early_buckets, options.early_limits->buckets_fd());
    if (error == 0) {
      error = -bpf_map__reuse_fd(skeleton_->maps.early_sources, options.early_limits->sources_fd());
    }
  }
  if (error == 0 && options.offload != nullptr) error = -Lend(*options.offload, skeleton_->maps);
  if (error == 0) error = -sluice_xdp_ingress::load(skeleton_);
  if (error != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "interface ", info.name, ": the XDP program cannot be loaded: ", std::strerror(error),
        error == EPERM ? "; the process lacks CAP_BPF: run as root or grant it"
                       : "; the kernel must be 6.1 or newer, with BPF and AF_XDP"));
  }
  may_offload_ = options.offload != nullptr;
  if (options.early_limits == nullptr) return absl::OkStatus();
  const EarlyFilter::Maps maps = {.cores = bpf_map__fd(skeleton_->maps.early_cores),
                                  .pages = bpf_map__fd(skeleton_->maps.early_pages),
                                  .tries = bpf_map__fd(skeleton_->maps.early_tries),
                                  .stats = bpf_map__fd(skeleton_->maps.stats),
                                  .word = &skeleton_->bss->config.early};
  absl::StatusOr<std::unique_ptr<EarlyFilter>> filter =
      EarlyFilter::Create(maps, *options.early_limits);
  if (!filter.ok()) return filter.status();
  early_filter_ = *std::move(filter);
  return absl::OkStatus();
}

absl::Status XdpProgram::TryAttach(const InterfaceInfo& info, XdpMode mode, bool multi_buffer) {
  uint64_t cookie = 0;
  while (mode == XdpMode::kGeneric && cookie == 0) {
    if (getrandom(&cookie, sizeof cookie, 0) != sizeof cookie) {
      return absl::InternalError("no random bytes from the kernel");
    }
  }
  skeleton_->bss->config.punt_cookie = cookie;
  const bpf_program* program =
      multi_buffer ? skeleton_->progs.xdp_ingress_frags : skeleton_->progs.xdp_ingress;
  bpf_link_create_opts opts{};
  opts.sz = sizeof opts;
  opts.flags = mode == XdpMode::kNative ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  const int fd =
      bpf_link_create(bpf_program__fd(program), static_cast<int>(info.index.value), BPF_XDP, &opts);
  if (fd < 0) {
    const int error = -fd;
    if (error == EBUSY || error == EEXIST) {
      return ForeignError(info, CurrentProgram(info.index));
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "interface ", info.name, ": XDP cannot be attached in ", ModeName(mode),
        " mode: ", std::strerror(error), ": ", AttachAdvice(error, info, multi_buffer)));
  }
  link_fd_ = fd;
  mode_ = mode;
  multi_buffer_ = multi_buffer;
  bpf_prog_info prog_info{};
  uint32_t size = sizeof prog_info;
  if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &prog_info, &size) == 0) {
    program_id_ = prog_info.id;
  }
  return absl::OkStatus();
}

XdpProgram::~XdpProgram() {
  if (link_fd_ >= 0) close(link_fd_);
  early_filter_.reset();
  if (skeleton_ != nullptr) sluice_xdp_ingress::destroy(skeleton_);
}

uint64_t XdpProgram::punt_cookie() const { return skeleton_->bss->config.punt_cookie; }

void XdpProgram::SetEnabled(bool enabled) {
  __atomic_store_n(&skeleton_->bss->config.enabled, enabled ? 1u : 0u, __ATOMIC_RELEASE);
}

void XdpProgram::SetOwnMac(const Mac& mac) {
  const uint64_t packed = PackMac(mac);
  auto* own_mac = reinterpret_cast<volatile uint64_t*>(&skeleton_->bss->config.own_mac);
  __atomic_store_n(own_mac, packed, __ATOMIC_RELEASE);
}

void XdpProgram::SetMtu(uint32_t mtu) {
  const uint32_t largest = mode_ == XdpMode::kGeneric ? mtu + ETH_HLEN : 0;
  __atomic_store_n(&skeleton_->bss->config.largest_frame, largest, __ATOMIC_RELEASE);
}

bool XdpProgram::SetOffload(uint32_t word) {
  if (!may_offload_ || mode_ != XdpMode::kNative) word = 0;
  __atomic_store_n(&skeleton_->bss->config.offload, word, __ATOMIC_RELEASE);
  return word != 0;
}

absl::Status XdpProgram::SetSocket(QueueId queue, int socket_fd) {
  const uint32_t key = queue.value;
  const int error = bpf_map_update_elem(bpf_map__fd(skeleton_->maps.xsks), &key, &socket_fd, 0);
  if (error == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("receive queue ", queue.value,
                   ": cannot be directed to its socket: ", std::strerror(-error)));
}

absl::Status XdpProgram::ClearSocket(QueueId queue) {
  const uint32_t key = queue.value;
  const int error = bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.xsks), &key);
  // The kernel takes a socket out by itself when the interface goes.
  if (error == 0 || error == -ENOENT) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "receive queue ", queue.value, ": cannot be taken from its socket: ", std::strerror(-error)));
}

XdpProgram::GroupProblems XdpProgram::SetGroups(std::span<const IpAddress> groups) {
  const auto has = [](std::span<const IpAddress> list, const IpAddress& group) {
    return std::find(list.begin(), list.end(), group) != list.end();
  };
  const int map = bpf_map__fd(skeleton_->maps.groups);
  GroupProblems problems;
  // First what goes, so that there is room.
  std::erase_if(groups_, [&](const IpAddress& group) {
    if (has(groups, group)) return false;
    const sluice_group key = KeyOf(group);
    const int error = bpf_map_delete_elem(map, &key);
    return error == 0 || error == -ENOENT;
  });
  for (const IpAddress& group : groups) {
    if (has(groups_, group)) continue;
    const sluice_group key = KeyOf(group);
    const uint8_t value = 1;
    const int error = bpf_map_update_elem(map, &key, &value, BPF_ANY);
    if (error == 0) {
      groups_.push_back(group);
    } else if (error == -E2BIG) {
      problems.emplace_back(group, absl::ResourceExhaustedError(absl::StrCat(
                                       "XDP has no place for more than ", SLUICE_MAX_GROUPS)));
    } else {
      problems.emplace_back(group, absl::ErrnoToStatus(-error, "XDP does not take it"));
    }
  }
  return problems;
}

absl::StatusOr<XdpCounts> XdpProgram::ReadCounts() const {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus < 0) return absl::InternalError("the number of CPUs is unknown");
  std::vector<sluice_xdp_stats> cells(static_cast<size_t>(cpus));
  const uint32_t key = 0;
  const int error = bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.stats), &key, cells.data());
  if (error != 0) {
    return absl::InternalError(
        absl::StrCat("XDP counters cannot be read: ", std::strerror(-error)));
  }
  XdpCounts counts{};
  for (const sluice_xdp_stats& cell : cells) {
    for (size_t i = 0; i < kXdpReasonCount; ++i) counts[i] += cell.packets[i];
  }
  return counts;
}

}  // namespace sluice::io::af_xdp

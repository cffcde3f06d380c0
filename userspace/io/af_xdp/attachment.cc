#include "io/af_xdp/attachment.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "io/af_xdp/kernel_features.h"

namespace sluice::io::af_xdp {
namespace {

constexpr uint32_t kEthernetAndVlan = 18;

// What a socket can be, from the best to the plainest. The next one is tried when the kernel or the
// driver says that it cannot.
struct Plan {
  bool zero_copy;
  bool multi_buffer;
};

std::vector<Plan> Plans(const InterfaceAttachment::Options& options, const InterfaceInfo& info,
                        const KernelVersion& kernel, bool fits_one_chunk) {
  const bool multi_buffer = HasMultiBuffer(kernel);
  std::vector<Plan> plans;
  const bool may_zero_copy =
      options.mode != XdpMode::kGeneric &&
      (options.zero_copy == Choice::kOn ||
       (options.zero_copy == Choice::kAuto && ZeroCopyTrusted(info.driver, kernel)));
  if (may_zero_copy) {
    // Several buffers cost a NIC something, so only if the MTU asks for it.
    if (!fits_one_chunk && multi_buffer) plans.push_back({true, true});
    if (fits_one_chunk) plans.push_back({true, false});
  }
  if (options.zero_copy == Choice::kOn) return plans;
  // In copy mode they cost nothing, and let the MTU grow later.
  if (multi_buffer) plans.push_back({false, true});
  if (fits_one_chunk) plans.push_back({false, false});
  return plans;
}

// Why there is no plan at all.
absl::Status NoPlanError(const InterfaceAttachment::Options& options, const InterfaceInfo& info,
                         uint32_t chunk_size) {
  if (options.zero_copy == Choice::kOn && options.mode == XdpMode::kGeneric) {
    return absl::InvalidArgumentError(
        absl::StrCat("interface ", info.name,
                     ": zero-copy needs native XDP: leave out `mode: generic` or `zero_copy: on`"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "interface ", info.name, ": its MTU of ", info.mtu, " does not fit one buffer (at most ",
      chunk_size - packet::kHeadroom - kEthernetAndVlan,
      "), and frames in several need kernel 6.6: lower the MTU"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<InterfaceAttachment>> InterfaceAttachment::Open(
    const Options& options, const packet::FrameArena& arena, packet::FramePool& pool) {
  absl::StatusOr<InterfaceInfo> info = ProbeInterface(options.name);
  if (!info.ok()) return info.status();
  if (options.queues != 0 && options.queues != info->receive_queues) {
    if (absl::Status s = SetQueues(*info, options.queues); !s.ok()) return s;
    info = ProbeInterface(options.name);
    if (!info.ok()) return info.status();
  }
  if (info->receive_queues > SLUICE_MAX_QUEUES) {
    return absl::FailedPreconditionError(absl::StrCat(
        "interface ", options.name, ": has ", info->receive_queues, " receive queues, and ",
        SLUICE_MAX_QUEUES, " can be served: set `queues` to a lower number"));
  }

  std::unique_ptr<InterfaceAttachment> a(new InterfaceAttachment);
  a->slot_ = options.slot;
  a->interface_ = *info;
  a->chunk_size_ = arena.chunk_size();
  if (info->vlan_offload && SetVlanOffload(*info, false).ok()) a->restore_vlan_offload_ = true;

  const bool fits = info->mtu + kEthernetAndVlan + packet::kHeadroom <= arena.chunk_size();
  const std::vector<Plan> plans = Plans(options, *info, RunningKernel(), fits);
  absl::Status status = NoPlanError(options, *info, arena.chunk_size());
  for (const Plan& plan : plans) {
    status = a->OpenWith(options, arena, pool, plan.zero_copy, plan.multi_buffer);
    if (status.ok()) break;
    a->CloseSockets(pool);
    if (!absl::IsUnimplemented(status)) return status;
  }
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<PuntTap>> punt =
      PuntTap::Open(info->index, options.workers, a->program_->punt_cookie());
  if (!punt.ok()) {
    a->CloseSockets(pool);
    return absl::Status(punt.status().code(),
                        absl::StrCat("interface ", options.name, ": ", punt.status().message()));
  }
  a->punt_ = *std::move(punt);
  return a;
}

absl::Status InterfaceAttachment::OpenWith(const Options& options, const packet::FrameArena& arena,
                                           packet::FramePool& pool, bool zero_copy,
                                           bool multi_buffer) {
  absl::StatusOr<std::unique_ptr<XdpProgram>> program =
      XdpProgram::Attach(interface_, {.mode = options.mode,
                                      .multi_buffer = multi_buffer,
                                      .early_limits = options.early_limits,
                                      .offload = options.offload});
  if (!program.ok()) return program.status();
  program_ = *std::move(program);
  if (zero_copy && program_->mode() == XdpMode::kGeneric) {
    return absl::UnimplementedError(absl::StrCat(
        "interface ", options.name,
        ": zero-copy needs native XDP, which it has not: ", program_->native_refusal()));
  }
  // Without native multi-buffer XDP the kernel still hands over whole frames, which the socket
  // cuts.
  for (uint16_t q = 0; q < interface_.receive_queues; ++q) {
    AfXdpPort::Options port;
    port.slot = options.slot;
    port.socket = {.interface = options.name,
                   .queue = QueueId{q},
                   .rings = options.rings,
                   .zero_copy = zero_copy,
                   .multi_buffer = multi_buffer};
    port.fill_target = options.fill_target;
    port.busy_poll = options.busy_poll == Choice::kOn ||
                     (options.busy_poll == Choice::kAuto && !interface_.is_virtual);
    const uint32_t target = options.fill_target == 0
                                ? options.rings.fill
                                : std::min(options.fill_target, options.rings.fill);
    std::vector<packet::FrameIndex> frames;
    while (frames.size() < target && pool.size() > 0) frames.push_back(pool.Alloc());
    absl::StatusOr<std::unique_ptr<AfXdpPort>> opened = AfXdpPort::Open(port, arena, frames);
    if (!opened.ok()) {
      for (const packet::FrameIndex frame : frames) pool.Free(frame);
      return opened.status();
    }
    ports_.push_back(*std::move(opened));
    if (absl::Status s = program_->SetSocket(QueueId{q}, ports_.back()->fd()); !s.ok()) {
      return absl::Status(s.code(), absl::StrCat("interface ", options.name, ": ", s.message()));
    }
  }
  return absl::OkStatus();
}

// No frame is redirected any more, then the program goes, then the sockets.
void InterfaceAttachment::CloseSockets(packet::FramePool& pool) {
  if (program_ != nullptr) {
    program_->SetEnabled(false);
    for (const auto& port : ports_) {
      // When this fails the socket's end takes it out of the map.
      static_cast<void>(program_->ClearSocket(port->queue()));
    }
    program_.reset();
  }
  std::vector<packet::FrameIndex> frames;
  for (const auto& port : ports_) {
    port->Close(frames);
    frames_lost_ += port->frames_lost();
  }
  ports_.clear();
  for (const packet::FrameIndex frame : frames) pool.Free(frame);
}

void InterfaceAttachment::Close(packet::FramePool& pool) {
  punt_.reset();
  CloseSockets(pool);
}

InterfaceAttachment::~InterfaceAttachment() {
  if (restore_vlan_offload_) {
    // The interface may have gone, which is no loss.
    static_cast<void>(SetVlanOffload(interface_, true));
  }
}

bool InterfaceAttachment::dead() const {
  return std::any_of(ports_.begin(), ports_.end(), [](const auto& port) { return port->dead(); });
}

AttachmentDescription InterfaceAttachment::Describe() const {
  AttachmentDescription d;
  d.interface = interface_;
  d.chunk_size = chunk_size_;
  if (program_ != nullptr) {
    d.mode = program_->mode() == XdpMode::kNative ? "native" : "generic";
    d.native_refusal = program_->native_refusal();
    d.program_id = program_->program_id();
  }
  if (punt_ != nullptr) d.punt_device = punt_->name();
  d.queues = static_cast<uint16_t>(ports_.size());
  for (const auto& port : ports_) {
    d.zero_copy = port->zero_copy();
    d.multi_buffer = port->multi_buffer();
    d.busy_polling = d.busy_polling || port->busy_polling();
    const absl::StatusOr<SocketStatistics> s = port->ReadStatistics();
    if (!s.ok()) continue;  // a dead one: nothing more is counted
    d.statistics.rx_dropped += s->rx_dropped;
    d.statistics.rx_invalid += s->rx_invalid;
    d.statistics.tx_invalid += s->tx_invalid;
    d.statistics.rx_ring_full += s->rx_ring_full;
    d.statistics.fill_ring_empty += s->fill_ring_empty;
    d.statistics.tx_ring_empty += s->tx_ring_empty;
  }
  return d;
}

}  // namespace sluice::io::af_xdp

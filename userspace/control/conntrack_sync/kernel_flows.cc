#include "control/conntrack_sync/kernel_flows.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "control/conntrack_sync/flow_message.h"
#include "control/netlink/attributes.h"

namespace sluice::control {

using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;

namespace {

constexpr size_t kBatch = 256;      // messages of some 250 bytes in one datagram
constexpr size_t kReadBudget = 16;  // datagrams between two looks at the clock
constexpr int kAnswerTimeoutMs = 10'000;

// Nothing below may make the kernel load its connection tracking.
bool KernelTracks() { return access("/proc/sys/net/netfilter/nf_conntrack_max", F_OK) == 0; }

absl::StatusOr<NetlinkSocket> OpenSocket() {
  return NetlinkSocket::Open({.protocol = NETLINK_NETFILTER, .strict_check = false});
}

absl::Status AwaitReadable(const NetlinkSocket& socket) {
  pollfd polled{socket.fd(), POLLIN, 0};
  for (;;) {
    const int n = poll(&polled, 1, kAnswerTimeoutMs);
    if (n > 0) return absl::OkStatus();
    if (n == 0) return absl::DeadlineExceededError("the kernel's conntrack does not answer");
    if (errno != EINTR) return absl::ErrnoToStatus(errno, "poll");
  }
}

absl::Status SendAll(const NetlinkSocket& socket, absl::Span<const uint8_t> messages) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  for (;;) {
    if (sendto(socket.fd(), messages.data(), messages.size(), 0,
               reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel) >= 0) {
      return absl::OkStatus();
    }
    if (errno != EINTR) return absl::ErrnoToStatus(errno, "ctnetlink request");
  }
}

// Reads answers until `done` says so of a message.
absl::Status ReadUntil(NetlinkSocket& socket,
                       absl::FunctionRef<bool(const nlmsghdr& message)> done) {
  bool finished = false;
  while (!finished) {
    const auto result = socket.Read(kReadBudget, [&](const nlmsghdr& message) {
      if (!finished) finished = done(message);
    });
    if (!result.ok()) return result.status();
    if (*result == NetlinkSocket::ReadResult::kOverflow) {
      return absl::DataLossError("answers of the kernel's conntrack were lost");
    }
    if (*result == NetlinkSocket::ReadResult::kDrained && !finished) {
      if (const auto status = AwaitReadable(socket); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// 0 for an acknowledgement, else a positive errno; nullopt for other messages.
std::optional<int> ErrorOf(const nlmsghdr& message) {
  if (message.nlmsg_type != NLMSG_ERROR && message.nlmsg_type != NLMSG_DONE) return std::nullopt;
  const auto* code = BodyOf<int>(message);
  return code == nullptr ? EBADMSG : -*code;
}

// Several requests in one datagram; the kernel answers those that fail, and the last one.
class Batch {
 public:
  // Room for one more message, whose number it returns; `append(out, sequence)` makes it.
  template <class F>
  size_t Add(const F& append) {
    last_ = messages_.size();
    append(messages_, static_cast<uint32_t>(count_ + 1));
    return count_++;
  }
  bool empty() const { return count_ == 0; }

  // Calls `answered(number, error, message)` for each failure and for other answers (error 0).
  absl::Status Run(NetlinkSocket& socket,
                   absl::FunctionRef<void(size_t number, int error, const nlmsghdr&)> answered) {
    if (empty()) return absl::OkStatus();
    AskForAck(messages_, last_);
    if (const auto status = SendAll(socket, messages_); !status.ok()) return status;
    return ReadUntil(socket, [&](const nlmsghdr& message) {
      const uint32_t sequence = message.nlmsg_seq;
      if (sequence == 0 || sequence > count_) return false;
      const std::optional<int> error = ErrorOf(message);
      if (!error) {
        answered(sequence - 1, 0, message);
        return false;
      }
      if (*error != 0) answered(sequence - 1, *error, message);
      return sequence == count_;
    });
  }

 private:
  std::vector<uint8_t> messages_;
  size_t count_ = 0;
  size_t last_ = 0;
};

IpAddress AddressOf(Family family, const Ipv6& bits) {
  IpAddress address;
  address.family = family;
  address.bits = bits;
  return address;
}

}  // namespace

absl::StatusOr<size_t> ReadKernelFlows(Nanos now, absl::FunctionRef<void(const Flow&)> visit) {
  if (!KernelTracks()) return 0;
  auto socket = OpenSocket();
  if (!socket.ok()) return socket.status();
  std::vector<uint8_t> request;
  AppendDump(request, 1);
  if (const auto status = SendAll(*socket, request); !status.ok()) return status;
  size_t count = 0;
  int error = 0;
  const auto status = ReadUntil(*socket, [&](const nlmsghdr& message) {
    if (const auto end = ErrorOf(message)) {
      error = *end;
      return true;
    }
    if (!IsFlowMessage(message)) return false;
    ++count;
    if (const auto flow = ParseFlowMessage(message, now)) visit(*flow);
    return false;
  });
  if (!status.ok()) return status;
  // A kernel whose conntrack cannot be asked (CONFIG_NF_CT_NETLINK).
  if (error == EINVAL && count == 0) return 0;
  if (error != 0) return absl::ErrnoToStatus(error, "dump of the kernel's conntrack table");
  return count;
}

bool IsForwarded(const Flow& flow, absl::FunctionRef<bool(const IpAddress&)> is_own) {
  const FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  const FlowTuple& reply = flow.tuple(FlowDirection::kReply);
  return !is_own(AddressOf(original.family, original.source)) &&
         !is_own(AddressOf(reply.family, reply.source));
}

absl::StatusOr<KernelFlowWriter> KernelFlowWriter::Open() {
  if (!KernelTracks()) return KernelFlowWriter(std::nullopt);
  auto socket = OpenSocket();
  if (!socket.ok()) return socket.status();
  return KernelFlowWriter(*std::move(socket));
}

absl::Status KernelFlowWriter::Add(const Flow& flow, Nanos now) {
  if (!socket_ || flow.expires <= now || !flow.Has(tables::kFlowConfirmed) ||
      flow.Has(tables::kFlowDying | tables::kFlowKernel)) {
    ++result_.skipped;
    return absl::OkStatus();
  }
  now_ = now;
  pending_.push_back(flow);
  return pending_.size() < kBatch ? absl::OkStatus() : Flush();
}

absl::StatusOr<KernelFlowWriter::Result> KernelFlowWriter::Finish() {
  if (const auto status = Flush(); !status.ok()) return status;
  return result_;
}

absl::Status KernelFlowWriter::Flush() {
  std::vector<Flow> flows;
  flows.swap(pending_);
  std::vector<Flow> existing;
  if (const auto status = Create(flows, existing); !status.ok()) return status;
  if (existing.empty()) return absl::OkStatus();
  if (const auto status = ClearTheWay(existing); !status.ok()) return status;
  const size_t before = result_.written;
  std::vector<Flow> still;
  if (const auto status = Create(existing, still); !status.ok()) return status;
  result_.replaced += result_.written - before;
  result_.clashed += still.size();
  return absl::OkStatus();
}

absl::Status KernelFlowWriter::Create(absl::Span<const Flow> flows, std::vector<Flow>& existing) {
  Batch batch;
  for (const Flow& flow : flows) {
    batch.Add([&](std::vector<uint8_t>& out, uint32_t sequence) {
      AppendCreate(out, sequence, flow, now_);
    });
  }
  size_t refused = 0;
  const auto status = batch.Run(*socket_, [&](size_t number, int error, const nlmsghdr&) {
    if (error == 0) return;
    ++refused;
    if (error == EEXIST) {
      existing.push_back(flows[number]);
      return;
    }
    ++result_.failed;
    if (result_.first_failure.ok()) {
      result_.first_failure = absl::ErrnoToStatus(error, "flow for the kernel's conntrack table");
    }
  });
  result_.written += flows.size() - refused;
  return status;
}

absl::Status KernelFlowWriter::ClearTheWay(std::vector<Flow>& flows) {
  // Who holds the tuples? Numbers: two questions per flow.
  Batch questions;
  for (const Flow& flow : flows) {
    for (const FlowTuple& tuple : flow.tuples) {
      questions.Add(
          [&](std::vector<uint8_t>& out, uint32_t sequence) { AppendGet(out, sequence, tuple); });
    }
  }
  Batch removals;
  std::vector<bool> blocked(flows.size());
  auto status = questions.Run(*socket_, [&](size_t number, int error, const nlmsghdr& message) {
    if (error != 0 || !IsFlowMessage(message)) return;
    const auto holder = ParseFlowMessage(message, now_);
    if (!holder) return;
    const bool same = holder->tuples[0] == flows[number / 2].tuples[0];
    if (!same && !holder->Has(tables::kFlowNatMask)) {
      blocked[number / 2] = true;
      return;
    }
    removals.Add([&](std::vector<uint8_t>& out, uint32_t sequence) {
      AppendDelete(out, sequence, holder->tuples[0]);
    });
  });
  if (!status.ok()) return status;
  // One that is gone meanwhile (or held both tuples) is not there to be removed: ENOENT.
  status = removals.Run(*socket_, [](size_t, int, const nlmsghdr&) {});
  size_t kept = 0;
  for (size_t i = 0; i < flows.size(); ++i) {
    if (blocked[i]) {
      ++result_.clashed;
    } else {
      flows[kept++] = flows[i];
    }
  }
  flows.erase(flows.begin() + static_cast<ptrdiff_t>(kept), flows.end());
  return status;
}

absl::StatusOr<KernelFlowWriter::Result> WriteKernelFlows(absl::Span<const Flow> flows, Nanos now) {
  auto writer = KernelFlowWriter::Open();
  if (!writer.ok()) return writer.status();
  for (const Flow& flow : flows) {
    if (const auto status = writer->Add(flow, now); !status.ok()) return status;
  }
  return writer->Finish();
}

absl::StatusOr<size_t> RemoveKernelFlows(absl::Span<const FlowTuple> tuples) {
  if (!KernelTracks() || tuples.empty()) return 0;
  auto socket = OpenSocket();
  if (!socket.ok()) return socket.status();
  size_t removed = 0;
  while (!tuples.empty()) {
    const auto some = tuples.first(std::min(tuples.size(), kBatch));
    tuples.remove_prefix(some.size());
    Batch batch;
    for (const FlowTuple& tuple : some) {
      batch.Add([&](std::vector<uint8_t>& out, uint32_t sequence) {
        AppendDelete(out, sequence, tuple);
      });
    }
    size_t refused = 0;
    absl::Status failure;
    const auto status = batch.Run(*socket, [&](size_t, int error, const nlmsghdr&) {
      ++refused;
      if (error != ENOENT && failure.ok()) {
        failure = absl::ErrnoToStatus(error, "deletion in the kernel's conntrack table");
      }
    });
    if (!status.ok()) return status;
    if (!failure.ok()) return failure;
    removed += some.size() - refused;
  }
  return removed;
}

}  // namespace sluice::control

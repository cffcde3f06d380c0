// The worker's transport stack, and what it wants of IP (transport/common/ip_layer.h): routes, source
// addresses, and which worker will see the answers.
//
// Without a stack (nothing is configured to use sockets) there is nothing here but a null pointer;
// the pipeline asks active() where it has found a packet to be for this machine, and nowhere else.
//
// Which packets. TCP and UDP to an address of ours, and ICMP errors about what sockets have sent;
// neither to nor from link-local addresses, since no table says by which link they are. Datagrams to
// groups go to sockets that have joined them, and to the kernel as well, which has the groups' state and
// may have members too; who wants a group joins it on each worker, and has the control thread join it in
// the kernel and tell XDP, which passes all other groups to the kernel (app/group_control.h).
// All of them go to the worker that tables::OwnerOf names, where the connection is or would be made;
// what no socket there wants is the kernel's, as if there were none.
//
// Ports of connections from here are those of limits.socket_ports, which the kernel is kept off. They
// are not NAT's (limits.nat_ports): so that a translated connection never takes the port of a socket's.
// One that keeps its own port meets the socket's in the table of connections, as with the kernel.
//
// Thread: the owning worker; Install: in a command.
#ifndef SLUICE_DATAPLANE_LOCAL_SOCKETS_H_
#define SLUICE_DATAPLANE_LOCAL_SOCKETS_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

#include "base/ids.h"
#include "base/time.h"
#include "dataplane/way.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/route/route.h"
#include "tables/flow.h"
#include "tables/snapshot.h"
#include "transport/transport.h"
#include "wire/protocol.h"

namespace sluice::dataplane {

// What runs on a worker's sockets.
class SocketProgram {
 public:
  virtual ~SocketProgram() = default;
  virtual void OnTimer(Nanos now) = 0;
  virtual Nanos NextDeadline() const = 0;
};

class LocalSockets final : public transport::IpLayer {
 public:
  // The way out of the machine: rules, neighbours, the outbox.
  class Exit {
   public:
    virtual ~Exit() = default;
    // Takes the packet. p.out is none when there is no way to its destination. `relayed`: it may be too
    // large for its way, and others like it may be carried by XDP; null: neither.
    virtual void FromSocket(packet::Packet& p, const IpAddress& next_hop,
                            const transport::Relayed* relayed, Nanos now) = 0;
    virtual void TellRelayed(transport::RelayHandle& handle, Nanos now) = 0;
    virtual void EndRelayed(transport::RelayHandle& handle, Nanos now) = 0;
  };

  LocalSockets(WorkerId worker, uint32_t worker_count, const stages::RoutingTables& tables,
               Exit& exit)
      : worker_(worker), worker_count_(worker_count), tables_(tables), exit_(exit) {}

  // The stack, which has been made with this object as its IP layer, and what runs on it. Once.
  void Install(std::unique_ptr<transport::Transport> stack, std::unique_ptr<SocketProgram> program) {
    stack_ = std::move(stack);
    program_ = std::move(program);
  }
  bool active() const { return stack_ != nullptr; }
  transport::Transport* stack() { return stack_.get(); }
  const transport::Transport* stack() const { return stack_.get(); }
  SocketProgram* program() { return program_.get(); }

  // The one that holds for everything until the next call.
  void Use(const tables::Snapshot& snapshot) { snapshot_ = &snapshot; }
  const tables::Snapshot& snapshot() const { return *snapshot_; }

  // Of a packet for an address of ours: whether it is of a kind that sockets have to do with at all.
  bool MayConcern(const packet::Packet& p) const;
  // Whether a socket would take it; MayConcern has said yes.
  bool Claims(const packet::Packet& p) const;
  // Whether a socket sends packets of this tuple.
  bool Claims(const tables::FlowTuple& sent) const;
  bool IsClaimed(const packet::Packet& p) const { return active() && MayConcern(p) && Claims(p); }
  // The same of a TCP or UDP packet as if it were for this address and port.
  bool IsClaimed(const packet::Packet& p, const IpAddress& address, uint16_t port) const;
  // Of a packet for a group: whether sockets of this worker have joined any, so that it must be asked.
  bool MayBeMembers(const packet::Packet& p) const {
    return stack_->udp().has_members() && p.l4_protocol == wire::kProtocolUdp && MayConcern(p);
  }
  // Of a packet for whatever address: whether it is for a group that sockets of this worker have joined,
  // so that its fragments are to be put together.
  bool HaveJoined(const packet::Packet& p) const;
  // The worker whose sockets the packet is for.
  WorkerId OwnerOf(const packet::Packet& p) const;
  // transport::Transport::Receive.
  packet::Verdict Receive(packet::Packet& p, Nanos now) { return stack_->Receive(p, now); }
  // Of a segment that is not received: transport::Transport::OnSevered. `answers`: the tuple of what its
  // socket, if there is one, sends.
  void Sever(const packet::Packet& segment, const tables::FlowTuple& answers, Nanos now);

  // Rules have rejected what a socket sends, or (`mtu`, else 0) led it where it is too large: it is told
  // before the worker's next turn, since its stack is in the middle of sending.
  void Refuse(const packet::Packet& p, uint32_t mtu);

  // Around the packets of a burst, so that a connection answers several at once.
  void BeginBurst() {
    if (active()) [[unlikely]] stack_->BeginBurst();
  }
  void EndBurst(Nanos now) {
    if (!active()) [[likely]] return;
    stack_->EndBurst(now);
    if (refused_count_ > 0) TellRefused(now);
  }

  void OnTimer(Nanos now) {
    if (refused_count_ > 0) TellRefused(now);
    stack_->OnTimer(now);
    if (program_ != nullptr) program_->OnTimer(now);
  }
  Nanos NextDeadline() const {
    if (!active()) [[likely]] return Nanos::Max();
    if (refused_count_ > 0) return Nanos();
    const Nanos next = stack_->NextDeadline();
    return program_ == nullptr ? next : std::min(next, program_->NextDeadline());
  }

  // transport::IpLayer.
  void Output(packet::Packet& p, Nanos now) override { Send(p, nullptr, now); }
  void OutputRelayed(packet::Packet& p, const transport::Relayed& relayed, Nanos now) override {
    Send(p, &relayed, now);
  }
  void TellRelayed(transport::RelayHandle& handle, Nanos now) override {
    exit_.TellRelayed(handle, now);
  }
  void EndRelayed(transport::RelayHandle& handle, Nanos now) override {
    exit_.EndRelayed(handle, now);
  }
  bool FindPath(const IpAddress& remote, Path& path) override;
  bool ArrivesHere(const transport::Tuple& tuple) override;

 private:
  struct Refusal {
    transport::Tuple tuple;
    uint32_t sequence = 0;
    uint8_t protocol = 0;
    uint32_t mtu = 0;
  };
  // Of one turn; who comes later is not told, and tries again.
  static constexpr size_t kRefusals = 64;

  void TellRefused(Nanos now);
  void Send(packet::Packet& p, const transport::Relayed* relayed, Nanos now);

  const WorkerId worker_;
  const uint32_t worker_count_;
  const stages::RoutingTables tables_;
  Exit& exit_;
  const tables::Snapshot* snapshot_ = nullptr;
  std::unique_ptr<transport::Transport> stack_;
  std::unique_ptr<SocketProgram> program_;  // uses the stack: ends first
  std::array<Refusal, kRefusals> refused_;
  size_t refused_count_ = 0;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_LOCAL_SOCKETS_H_

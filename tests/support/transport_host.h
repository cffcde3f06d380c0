// A host of the simulated Internet: the shipped transport stack with frames of its own, over a link
// that is a function of the test's.
//
// What the stack sends goes as bytes (from the IP header on) to `on_output`; what a test wants it to
// receive goes in by Deliver. The IP header's checks, which are the pipeline's, are done here. Frames
// are accounted for: FramesBalance() says whether all that are not in the pool are where the stack
// says they are.
#ifndef SLUICE_TESTS_SUPPORT_TRANSPORT_HOST_H_
#define SLUICE_TESTS_SUPPORT_TRANSPORT_HOST_H_

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "base/reason.h"
#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "packet/outbox.h"
#include "transport/transport.h"

namespace sluice::test {

class TransportHost : public transport::IpLayer {
 public:
  using Bytes = std::vector<uint8_t>;

  struct Options {
    IpAddress address;
    IpAddress address6;
    uint32_t mtu = 1500;
    uint32_t frames = 8192;
    uint32_t chunk_size = 2048;
    transport::TransportConfig config;
    uint64_t seed = 1;
    // After so many packets of a relay's direction, further plain ones do not come up to the stack, as
    // if XDP carried them. 0: all do.
    uint32_t carry_after = 0;
    Nanos tell_every = Millis(100);  // what it has carried, unasked
  };

  explicit TransportHost(const Options& options);

  // The packet is one of ours from now on: true unless no socket claimed it.
  bool Deliver(const Bytes& packet, Nanos now);

  std::function<void(Bytes, Nanos)> on_output;
  // Of relays, for a test that plays the layer below.
  std::function<void(const transport::Relayed&)> on_relayed;
  std::function<void(transport::RelayHandle&, Nanos)> on_end_relayed;

  transport::Transport& stack() { return *stack_; }
  transport::Tcp& tcp() { return stack_->tcp(); }
  transport::Udp& udp() { return stack_->udp(); }
  packet::FramePool& pool() { return pool_; }
  uint64_t dropped(DropReason r) const { return dropped_[static_cast<size_t>(r)]; }
  uint64_t unclaimed() const { return unclaimed_; }
  uint64_t carried() const { return carried_; }
  // Its entries are not in force any more: everything comes up again.
  void StopCarrying() { carrying_ = false; }
  void set_mtu(uint32_t mtu) { options_.mtu = mtu; }
  void set_routes(bool there) { routes_ = there; }

  bool FramesBalance() const;

  // transport::IpLayer.
  void Output(packet::Packet& p, Nanos now) override;
  void OutputRelayed(packet::Packet& p, const transport::Relayed& relayed, Nanos now) override;
  void TellRelayed(transport::RelayHandle& handle, Nanos now) override;
  void EndRelayed(transport::RelayHandle& handle, Nanos now) override;
  bool FindPath(const IpAddress& remote, Path& path) override;

 private:
  struct Carrier {
    transport::Relayed relayed;
    transport::Carried carried;
    Nanos told;
  };
  // Whether it was carried out below the stack.
  bool Carry(packet::Packet& p, Nanos now);
  void Tell(Carrier& c, Nanos now);

  Options options_;
  std::unique_ptr<packet::FrameArena> arena_;
  packet::FramePool pool_;
  std::unique_ptr<packet::Outbox> outbox_;  // where fragments are made
  std::unique_ptr<transport::Transport> stack_;
  std::array<uint64_t, kDropReasonCount> dropped_{};
  uint64_t unclaimed_ = 0;
  uint64_t carried_ = 0;
  bool carrying_ = true;
  std::list<Carrier> carriers_;
  std::vector<std::pair<transport::Tuple, uint32_t>> too_large_;  // segments of splices
  bool routes_ = true;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_TRANSPORT_HOST_H_

// How workers, and the control thread, talk to a worker: rings with one writer and one reader each.
//
// A worker never waits for another. What does not fit a ring is the sender's to drop and to name.
// A sleeping worker is woken through its Waker; nobody makes a system call for one that is awake.
#ifndef SLUICE_DATAPLANE_MAILBOX_H_
#define SLUICE_DATAPLANE_MAILBOX_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/ids.h"
#include "base/spsc_ring.h"
#include "packet/packet.h"
#include "stages/neighbor/neighbors.h"
#include "tables/flow_alias.h"

namespace sluice::dataplane {

// Ends a worker's sleep. The AF_XDP host writes to an eventfd; simulated hosts have no sleep.
class Waker {
 public:
  virtual ~Waker() = default;
  virtual void Wake() = 0;
};

// From worker to worker.
struct Handoff {
  enum class Kind : uint8_t {
    kTransmit,       // send `packet` by packet.out: the receiver owns that output queue
    kFrame,          // a free frame, in return for one that came with a packet
    kNeighborEvent,  // what an ARP or ND message taught the sender
    kReceived,       // judge `packet`: the receiver has its connection
    kFlowAlias,      // `alias`: the sender has the connection of such packets
  };
  Kind kind = Kind::kTransmit;
  packet::Packet packet;
  stages::NeighborEvent neighbor;
  tables::FlowAlias alias;
};

// From the control thread: code to run between two bursts. The control thread owns it and polls
// `done`; Run must not allocate, lock or block.
class Command {
 public:
  virtual ~Command() = default;
  virtual void Run() = 0;

  void RunAndMark() {
    Run();
    done_.store(true, std::memory_order_release);  // from here on the control thread may free it
  }
  bool done() const { return done_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> done_{false};
};

// One worker's incoming side.
class Mailbox {
 public:
  static constexpr size_t kHandoffs = 512;
  static constexpr size_t kCommands = 64;

  explicit Mailbox(size_t worker_count) : commands_(kCommands) {
    for (size_t i = 0; i < worker_count; ++i) {
      from_.push_back(std::make_unique<SpscRing<Handoff>>(kHandoffs));
    }
  }

  // Senders.
  bool Send(WorkerId from, Handoff&& message) {
    return from_[from.value]->TryPush(std::move(message));
  }
  bool Post(Command* command) { return commands_.TryPush(std::move(command)); }
  // After one or more of the above.
  void Ring() {
    // Pairs with the fence in GoingToSleep: either this sees `asleep_`, or the worker sees the push.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_relaxed) && waker_ != nullptr) waker_->Wake();
  }
  void set_waker(Waker* waker) { waker_ = waker; }

  // The owning worker.
  bool Receive(WorkerId from, Handoff& message) { return from_[from.value]->TryPop(message); }
  bool TakeCommand(Command*& command) { return commands_.TryPop(command); }
  // True when it may sleep: nothing waits. Awake() afterwards in either case.
  bool GoingToSleep() {
    asleep_.store(true, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return IsEmpty();
  }
  void Awake() { asleep_.store(false, std::memory_order_relaxed); }
  bool IsEmpty() const {
    if (!commands_.empty()) return false;
    for (const auto& ring : from_) {
      if (!ring->empty()) return false;
    }
    return true;
  }

 private:
  std::vector<std::unique_ptr<SpscRing<Handoff>>> from_;  // by sending worker
  SpscRing<Command*> commands_;
  std::atomic<bool> asleep_{false};
  Waker* waker_ = nullptr;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_MAILBOX_H_

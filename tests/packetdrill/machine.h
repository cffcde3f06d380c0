// The stack on packetdrill's clock: packets in and out, time, and who waits for what.
//
// Time is virtual. It moves when packetdrill asks for it (a microsecond each time, since packetdrill
// spins on the clock), sleeps, or waits for a packet; the stack's timers fire in their order on the way,
// and what they send carries the time at which they fired.
//
// Threads: packetdrill's own, and one more for each call that blocks. All of this is under one lock,
// which the caller holds (Lock()). When something happens that a waiting thread waits for, time stands
// still until that thread has looked at the clock, since packetdrill takes that for the time at which
// the call came back.
#ifndef SLUICE_TESTS_PACKETDRILL_MACHINE_H_
#define SLUICE_TESTS_PACKETDRILL_MACHINE_H_

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "packetdrill/tunables.h"
#include "support/transport_host.h"

namespace sluice::test {

class Machine {
 public:
  // "local=ADDRESS,local6=ADDRESS,mtu=N", each of which may be missing.
  explicit Machine(const std::string& flags);

  std::unique_lock<std::mutex> Lock() { return std::unique_lock(mutex_); }
  using Held = std::unique_lock<std::mutex>&;

  // The stack, which is made at the first call: scripts set its options before.
  TransportHost& host();
  transport::Tcp& tcp() { return host().tcp(); }
  const Tunables& tunables() {
    host();
    return tunables_;
  }
  Nanos now() const { return now_; }

  // The network.
  void Deliver(Held lock, std::span<const uint8_t> packet);
  // The next packet that is sent; false when none will be.
  bool NextPacket(Held lock, std::vector<uint8_t>& packet, Nanos& sent);

  // The clock.
  void Sleep(Held lock, Nanos time);
  Nanos ReadClock(Held lock);

  // Until `done`, or for `time` (Max: for ever). False when the time is over. On packetdrill's own
  // thread nobody else could make it come true, so time passes instead; if that cannot help, false.
  bool WaitFor(Held lock, const std::function<bool()>& done, Nanos time);

 private:
  struct Waiter {
    const std::function<bool()>* done;
    Nanos deadline;
    bool released = false;
  };

  void AwaitReleased(Held lock);
  // Lets those go whose condition holds.
  void Release();
  // To the next thing that happens by itself, or to `end` if that is sooner; false: there is none.
  bool Step(Nanos end);
  Nanos NextEvent();
  void ResetUnclaimed(std::span<const uint8_t> packet);

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::thread::id main_ = std::this_thread::get_id();
  std::list<Waiter> waiters_;
  std::set<std::thread::id> released_;  // have not looked at the clock yet
  int releasing_ = 0;                   // released, and not running yet
  bool returning_ = false;              // a call that blocked is on its way back into packetdrill

  IpAddress local_;
  IpAddress local6_;
  uint32_t mtu_ = 1500;
  Tunables tunables_;
  std::unique_ptr<TransportHost> host_;
  std::deque<std::pair<Nanos, std::vector<uint8_t>>> sent_;
  Nanos now_ = Seconds(10'000);
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_PACKETDRILL_MACHINE_H_

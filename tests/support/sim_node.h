// What takes part in a simulated network: something with numbered ports that frames come to and go
// from, and a time at which it wants to be stepped. It reads no clock and starts no thread.
#ifndef SLUICE_TESTS_SUPPORT_SIM_NODE_H_
#define SLUICE_TESTS_SUPPORT_SIM_NODE_H_

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "base/time.h"
#include "support/packet_builder.h"

namespace sluice::test {

class SimNode {
 public:
  // Takes a frame that leaves by `port`.
  using Transmit = std::function<void(size_t port, Bytes frame)>;

  explicit SimNode(std::string name) : name_(std::move(name)) {}
  virtual ~SimNode() = default;
  SimNode(const SimNode&) = delete;
  SimNode& operator=(const SimNode&) = delete;

  const std::string& name() const { return name_; }
  void set_transmit(Transmit transmit) { transmit_ = std::move(transmit); }

  // A frame has arrived; it is looked at in Step.
  virtual void Deliver(size_t port, Bytes frame) = 0;
  // Does all there is to do at `now`.
  virtual void Step(Nanos now) = 0;
  virtual Nanos NextDeadline() const = 0;
  // What is wrong with it, between two steps; empty when nothing is.
  virtual std::string CheckInvariants() const { return {}; }

 protected:
  void Send(size_t port, Bytes frame) {
    if (transmit_) transmit_(port, std::move(frame));
  }

 private:
  const std::string name_;
  Transmit transmit_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SIM_NODE_H_

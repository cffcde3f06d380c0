// A network of simulated routers and hosts under a fake clock, repeatable by its seed.
//
//   SimNetwork net(seed);
//   SimRouter& r = net.AddRouter("r");
//   r.AddInterface("lan", "02:00:00:00:00:01", {"10.0.0.1/24"}).AddInterface(...).Publish();
//   SimHost& a = net.AddHost("a", "02:00:00:00:0a:01", {"10.0.0.2/24"}, {"10.0.0.1"});
//   SimLink& link = net.Connect(a, 0, r, r.PortOf("lan"), {.latency = Micros(50)});
//   a.Send(PacketBuilder().Ipv4("10.0.0.2", "10.1.0.2").Udp(1, 2).Build());
//   net.Run(Seconds(1));
//
// Time jumps to the next arrival on a link or deadline of a node. After each jump every node's
// invariants are checked; the first violation is kept with its time, and ends the run. Links may
// lose, duplicate, delay, reorder and corrupt frames, and count what they did.
#ifndef SLUICE_TESTS_SUPPORT_SIM_NETWORK_H_
#define SLUICE_TESTS_SUPPORT_SIM_NETWORK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "base/time.h"
#include "support/packet_builder.h"
#include "support/sim_host.h"
#include "support/sim_node.h"
#include "support/sim_router.h"

namespace sluice::test {

struct SimLinkOptions {
  Nanos latency = Micros(10);
  Nanos jitter;     // up to this much more; order is kept
  double loss = 0;  // probabilities, per frame
  double duplicate = 0;
  double reorder = 0;  // a frame held back by `reorder_delay`, so that others overtake it
  double corrupt = 0;  // one bit of the frame
  Nanos reorder_delay = Millis(1);
  uint32_t mtu = 65535;  // IP packets beyond it are lost
  bool down = false;
};

struct SimLinkStats {
  uint64_t offered = 0;
  uint64_t lost = 0;  // by chance, by being down or too big
  uint64_t duplicated = 0;
  uint64_t reordered = 0;
  uint64_t corrupted = 0;
  uint64_t delivered = 0;
  uint64_t in_flight() const { return offered - lost + duplicated - delivered; }
};

class SimLink {
 public:
  struct End {
    SimNode* node;
    size_t port;
  };
  SimLink(End a, End b, SimLinkOptions link_options) : options(link_options), ends_{a, b} {}

  SimLinkOptions options;  // may change while the network runs
  // Which frames the link refuses, for a test that loses particular ones; none when empty.
  std::function<bool(const Bytes&)> lose_if;

  // Direction 0 is from the first end to the second.
  const SimLinkStats& stats(int direction) const { return stats_[direction]; }
  const End& end(int i) const { return ends_[i]; }

 private:
  friend class SimNetwork;
  End ends_[2];
  SimLinkStats stats_[2];
  Nanos last_arrival_[2];
};

class SimNetwork {
 public:
  explicit SimNetwork(uint64_t seed = 1) : seed_(seed), rng_(seed) {}

  SimRouter& AddRouter(std::string name, SimRouter::Options options = {});
  SimHost& AddHost(std::string name, MacArg mac, const std::vector<std::string>& addresses,
                   const std::vector<std::string>& gateways);
  // One that the test has made.
  SimNode& Add(std::unique_ptr<SimNode> node);
  // Port 0 of a host; SimRouter::PortOf of a router.
  SimLink& Connect(SimNode& a, size_t port_a, SimNode& b, size_t port_b,
                   SimLinkOptions options = {});

  Nanos now() const { return now_; }
  Rng& rng() { return rng_; }
  uint64_t seed() const { return seed_; }
  void After(Nanos delay, std::function<void()> action);
  // Lets `duration` pass. Also takes up what tests have given to the nodes.
  void Run(Nanos duration);

  // The first thing that was wrong, with its time and seed; empty when nothing was.
  const std::string& violation() const { return violation_; }
  // Of every frame that was delivered, with time and place.
  uint64_t digest() const { return digest_; }
  // Frames on their way.
  size_t in_flight() const { return in_flight_; }

 private:
  using Key = std::pair<Nanos, uint64_t>;  // time, order of making

  void Transmit(SimLink& link, int direction, Bytes frame);
  void Arrive(SimLink& link, int direction, Bytes frame);
  // Those that something has come to, or whose time has come; all of them after a test's action.
  void StepNodes();
  void Schedule(Nanos at, std::function<void()> action);

  const uint64_t seed_;
  Rng rng_;
  Nanos now_ = Seconds(1000);
  uint64_t sequence_ = 0;
  std::map<Key, std::function<void()>> events_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<std::unique_ptr<SimLink>> links_;
  std::string violation_;
  uint64_t digest_ = 0xcbf29ce484222325ull;
  size_t in_flight_ = 0;
  bool step_all_ = true;
  std::set<const SimNode*> touched_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SIM_NETWORK_H_

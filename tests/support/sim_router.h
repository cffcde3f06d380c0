// A router made of the shipped data plane: Worker<SimPort>, tables, snapshot, mailboxes; only the
// NICs, the kernel's mirror and the clock are replaced. Workers are stepped in turn on one thread.
//
// Set-up is fluent: AddInterface() also makes the connected and local routes that a kernel would
// have; nothing about interfaces is seen by the workers until Publish(). Routes take effect at
// once. A frame that arrives at an interface with several queues goes to one of them by a hash of
// its flow, as RSS does. Queue q belongs to worker q modulo the number of workers.
//
// A mistake in a test (a name that is not there, text that does not parse) aborts.
#ifndef SLUICE_TESTS_SUPPORT_SIM_ROUTER_H_
#define SLUICE_TESTS_SUPPORT_SIM_ROUTER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/reason.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "dataplane/mailbox.h"
#include "dataplane/worker.h"
#include "io/sim/sim_port.h"
#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "support/sim_node.h"
#include "tables/epoch.h"
#include "tables/fib.h"
#include "tables/route_table.h"
#include "tables/snapshot.h"

namespace sluice::test {

class SimRouter final : public SimNode {
 public:
  using Worker = dataplane::Worker<io::SimPort>;

  struct Options {
    uint32_t workers = 1;
    uint32_t frames = 2048;  // per worker
    uint32_t chunk_size = 2048;
    uint32_t neighbor_limit = 512;
    uint32_t flows_per_source = 0;
    uint64_t seed = 1;
    Nanos start = Seconds(1000);
    io::SimPort::Options port;
  };
  // Either may be left out: a gateway alone finds its interface by the connected routes.
  struct PathSpec {
    std::string via;
    std::string interface;
    uint32_t weight = 1;
  };

  SimRouter(std::string name, const Options& options);
  ~SimRouter() override;

  // --- Set-up ---
  // `queues` 0: one per worker. A link-local IPv6 address is added to those given.
  SimRouter& AddInterface(const std::string& name, MacArg mac,
                          const std::vector<std::string>& addresses, uint32_t mtu = 1500,
                          uint32_t queues = 0);
  SimRouter& AddRoute(const std::string& prefix, const std::string& via,
                      const std::string& interface = "", uint32_t mtu = 0);
  SimRouter& AddMultipath(const std::string& prefix, const std::vector<PathSpec>& paths);
  SimRouter& AddRoute(const std::string& prefix, tables::RouteType type);
  SimRouter& RemoveRoute(const std::string& prefix);
  SimRouter& Publish();
  // To be changed before Publish().
  tables::Snapshot& config() { return config_; }
  tables::Interface& interface(const std::string& name) {
    return config_.interfaces[SlotOf(name).value];
  }
  SimRouter& SetUp(const std::string& name, bool up);  // publishes
  // From now on each worker has a transport stack.
  SimRouter& AddSockets(transport::TransportConfig config = {});

  // --- As a node ---
  size_t PortOf(const std::string& name) const { return SlotOf(name).value; }
  void Deliver(size_t port, Bytes frame) override;
  void Step(Nanos now) override;
  Nanos NextDeadline() const override;
  std::string CheckInvariants() const override;

  // Runs code on each worker, between two of its bursts, as the control thread does.
  void OnWorkers(const std::function<void(Worker&)>& code);

  // --- What has happened ---
  size_t worker_count() const { return workers_.size(); }
  Worker& worker(size_t i) { return *workers_[i]; }
  io::SimPort& port(const std::string& name, size_t queue = 0) {
    return *interfaces_[SlotOf(name).value].ports[queue];
  }
  io::SimPuntDevice& punt_device(const std::string& name) {
    return *interfaces_[SlotOf(name).value].punt;
  }
  IfaceSlot SlotOf(const std::string& name) const;
  // Over all workers; of one interface, or of all when `name` is empty.
  uint64_t Sum(const std::function<uint64_t(const InterfaceCounters&)>& value,
               const std::string& name = "") const;
  uint64_t SumWorkers(const std::function<uint64_t(const WorkerCounters&)>& value) const;
  uint64_t Received(const std::string& name = "") const;
  uint64_t Forwarded(const std::string& name = "") const;
  uint64_t Held(const std::string& name = "") const;
  uint64_t Dropped(DropReason reason, const std::string& name = "") const;
  uint64_t Dropped() const;  // for whatever reason
  uint64_t Punted(PuntReason reason) const;
  uint64_t Generated(GeneratedKind kind) const;
  uint32_t FreeFrames() const;  // in all pools
  uint32_t TotalFrames() const { return arena_->frame_count(); }
  uint64_t LostForWantOfFrames() const;
  std::vector<stages::NeighborInfo> Neighbors(size_t worker = 0) const;
  std::vector<Bytes> punted;  // what the kernel has got

 private:
  struct Wire {
    std::vector<std::unique_ptr<io::SimPort>> ports;  // by queue
    std::unique_ptr<io::SimPuntDevice> punt = std::make_unique<io::SimPuntDevice>();
    uint64_t sent = 0;                                // packets that left
  };
  template <class Fib>
  void Install(Fib& fib, const typename Fib::Prefix& prefix, tables::Route&& route);
  void Install(const std::string& prefix, tables::Route&& route);
  tables::Path MakePath(const PathSpec& spec) const;
  IfaceSlot FindConnected(const IpAddress& address) const;
  void CollectOutput();
  std::string CheckFrames() const;
  std::string CheckCounters() const;
  std::string CheckNeighbors() const;

  const Options options_;
  tables::EpochDomain epochs_;
  tables::RouteTable routes_;
  tables::Fib4 fib4_;
  tables::Fib6 fib6_;
  std::unique_ptr<packet::FrameArena> arena_;
  std::vector<std::unique_ptr<packet::FramePool>> pools_;
  std::vector<std::unique_ptr<dataplane::Mailbox>> mailboxes_;
  tables::Snapshot config_;
  std::unique_ptr<const tables::Snapshot> published_;
  std::atomic<const tables::Snapshot*> snapshot_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Wire> interfaces_;  // by slot; those of config_ that are valid
  std::vector<std::unique_ptr<dataplane::Command>> commands_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SIM_ROUTER_H_

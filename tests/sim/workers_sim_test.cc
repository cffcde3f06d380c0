// Several workers on interfaces with different numbers of queues: packets are handed to the worker
// that owns the output queue, frames are repaid, and what one learns all know.
#include <algorithm>
#include <map>

#include "sim/sim_fixture.h"

namespace sluice::test {
namespace {

struct Queues {
  uint32_t workers;
  uint32_t left;
  uint32_t right;
};

class WorkersSimTest : public SimTest, public testing::WithParamInterface<Queues> {
 protected:
  WorkersSimTest() {
    SimRouter::Options options;
    options.workers = GetParam().workers;
    options.frames = 1024;
    r = &net.AddRouter("r", options);
    r->AddInterface("left", "02:00:00:00:00:01", {"10.0.0.1/24", "2001:db8::1/64"}, 1500,
                    GetParam().left);
    r->AddInterface("right", "02:00:00:00:00:02", {"10.0.1.1/24", "2001:db8:0:1::1/64"}, 1500,
                    GetParam().right);
    r->Publish();
    a = &net.AddHost("a", "02:00:00:00:0a:00", {"10.0.0.2/24", "2001:db8::2/64"},
                     {"10.0.0.1", "2001:db8::1"});
    b = &net.AddHost("b", "02:00:00:00:0b:00", {"10.0.1.2/24", "2001:db8:0:1::2/64"},
                     {"10.0.1.1", "2001:db8:0:1::1"});
    net.Connect(*a, 0, *r, r->PortOf("left"));
    net.Connect(*b, 0, *r, r->PortOf("right"));
  }

  // What a worker has: in its pool and in its ports' rings.
  uint32_t FramesOf(size_t worker) {
    uint32_t n = r->worker(worker).pool().size();
    for (const io::SimPort* port : r->worker(worker).ports()) {
      n += port->frames_in_fill() + port->frames_in_tx();
    }
    return n;
  }
  uint64_t HandedOver() const {
    return r->SumWorkers([](const WorkerCounters& c) { return c.frames_handed_over.Read(); });
  }

  SimRouter* r;
  SimHost* a;
  SimHost* b;
};

TEST_P(WorkersSimTest, EachFlowInOrderEachFrameRepaid) {
  constexpr uint32_t kFlows = 60;
  constexpr uint32_t kPackets = 100;
  for (uint32_t n = 0; n < kPackets; ++n) {
    for (uint32_t flow = 0; flow < kFlows; ++flow) {
      const bool v6 = flow % 2 == 1;
      net.After(Micros(200) * n, [this, v6, n, flow] {
        const auto port = static_cast<uint16_t>(1000 + flow);
        a->Send(Numbered(v6 ? "2001:db8::2" : "10.0.0.2", v6 ? "2001:db8:0:1::2" : "10.0.1.2",
                         flow * kPackets + n, 80, port));
        b->Send(Numbered(v6 ? "2001:db8:0:1::2" : "10.0.1.2", v6 ? "2001:db8::2" : "10.0.0.2",
                         flow * kPackets + n, 80, port));
      });
    }
  }
  net.Run(Seconds(2));
  for (SimHost* host : {a, b}) {
    std::map<uint32_t, uint32_t> next;  // by flow
    for (const uint32_t number : NumbersOf(host->received)) {
      ASSERT_EQ(number % kPackets, next[number / kPackets]++) << "flow " << number / kPackets;
    }
    EXPECT_EQ(next.size(), kFlows);
    for (const auto& [flow, count] : next) EXPECT_EQ(count, kPackets) << "flow " << flow;
  }
  EXPECT_GT(HandedOver(), 0u);
  EXPECT_EQ(r->Dropped(), 0u);
  EXPECT_EQ(r->Held(), 0u);
  for (size_t w = 0; w < r->worker_count(); ++w) EXPECT_EQ(FramesOf(w), 1024u) << "worker " << w;
}

// The answer comes to one worker; packets wait at others.
TEST_P(WorkersSimTest, WhatOneWorkerLearnsReleasesThePacketsOfAll) {
  b->IgnoreSolicitations(std::min(GetParam().workers, GetParam().left));  // the first of each
  for (uint32_t flow = 0; flow < 40; ++flow) {
    a->Send(Numbered("10.0.0.2", "10.0.1.2", flow, 80, static_cast<uint16_t>(1000 + flow)));
  }
  net.Run(Millis(900));
  EXPECT_EQ(r->Held("left"), 40u);
  size_t waiting = 0;
  for (size_t w = 0; w < r->worker_count(); ++w) {
    for (const auto& info : r->Neighbors(w)) waiting += info.held > 0;
  }
  EXPECT_EQ(waiting, std::min(GetParam().workers, GetParam().left));
  net.Run(Millis(200));
  auto numbers = NumbersOf(b->received);
  std::sort(numbers.begin(), numbers.end());
  EXPECT_EQ(numbers, UpTo(40));
  for (size_t w = 0; w < r->worker_count(); ++w) {
    const auto neighbors = r->Neighbors(w);
    const auto it = std::find_if(neighbors.begin(), neighbors.end(), [](const auto& info) {
      return info.address == IpAddress(Ipv4(10, 0, 1, 2));
    });
    if (waiting <= w) continue;  // nobody asked that worker
    ASSERT_NE(it, neighbors.end());
    EXPECT_EQ(it->state, stages::NeighborState::kReachable) << "worker " << w;
    EXPECT_EQ(it->mac, b->mac());
  }
}

// The only output queue does not move: what its owner cannot send is counted where it arrived.
TEST_P(WorkersSimTest, BlockedOutputOfAnotherWorkerLosesNoFrame) {
  for (uint16_t i = 0; i < 50; ++i) {  // so that every worker knows b
    a->Send(Numbered("10.0.0.2", "10.0.1.2", 0, 80, static_cast<uint16_t>(1000 + i)));
  }
  net.Run(Millis(100));
  for (uint32_t q = 0; q < GetParam().right; ++q) r->port("right", q).set_tx_blocked(true);
  for (uint32_t i = 0; i < 2000; ++i) {
    net.After(Micros(20) * i, [this, i] {
      a->Send(Numbered("10.0.0.2", "10.0.1.2", i, 80, static_cast<uint16_t>(1000 + i % 50)));
    });
  }
  net.Run(Millis(100));
  EXPECT_GT(r->Dropped(DropReason::kTxRingFull, "left"), 1000u);
  for (uint32_t q = 0; q < GetParam().right; ++q) r->port("right", q).set_tx_blocked(false);
  net.Run(Millis(100));
  for (size_t w = 0; w < r->worker_count(); ++w) EXPECT_EQ(FramesOf(w), 1024u) << "worker " << w;
}

// With sockets on the workers each asks the one that would have the connection, which may have no
// queue of the interface; what is no socket's is the kernel's, once each.
TEST_P(WorkersSimTest, WhatIsTheKernelsReachesItFromEveryWorker) {
  r->AddSockets();
  for (uint16_t port = 1000; port < 1040; ++port) {
    a->Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Tcp(port, 22, 0x02));
    b->Send(PacketBuilder().Ipv6("2001:db8:0:1::2", "2001:db8:0:1::1").Udp(port, 53));
  }
  net.Run(Millis(100));
  EXPECT_EQ(std::count_if(r->punted.begin(), r->punted.end(),
                          [](const Bytes& f) { return f[14 + 9] == 6 || f[14 + 6] == 17; }),
            80);
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 80u);
  EXPECT_EQ(r->Dropped(), 0u);
  EXPECT_GT(HandedOver(), 0u);
  for (size_t w = 0; w < r->worker_count(); ++w) {
    const WorkerCounters& c = r->worker(w).counters();
    EXPECT_GT(c.of(r->SlotOf("left")).punted_packets.Read(), 0u) << "worker " << w;
    EXPECT_GT(c.of(r->SlotOf("right")).punted_packets.Read(), 0u) << "worker " << w;
    EXPECT_EQ(FramesOf(w), 1024u) << "worker " << w;
  }
}

// An interface goes away while other workers hand packets over to its owner.
TEST_P(WorkersSimTest, InterfaceWithoutQueuesTakesNothing) {
  a->Send(Numbered("10.0.0.2", "10.0.1.2", 0));
  net.Run(Millis(100));
  const IfaceSlot right = r->SlotOf("right");
  r->OnWorkers([this, right](SimRouter::Worker& worker) {
    for (uint32_t q = 0; q < GetParam().right; ++q) worker.RemovePort(&r->port("right", q));
    worker.ClearOutputOwner(right);
    worker.ClearPuntDevice(right);
    worker.ForgetInterface(right);
  });
  b->received.clear();
  for (uint32_t i = 0; i < 100; ++i) {
    a->Send(Numbered("10.0.0.2", "10.0.1.2", i, 80, static_cast<uint16_t>(1000 + i)));
  }
  net.Run(Seconds(4));
  EXPECT_TRUE(b->received.empty());
  EXPECT_EQ(r->Held(), 0u);
  EXPECT_EQ(r->Dropped(), 100u);
}

INSTANTIATE_TEST_SUITE_P(Queues, WorkersSimTest,
                         testing::Values(Queues{2, 2, 1}, Queues{3, 3, 1}, Queues{3, 3, 2},
                                         Queues{2, 1, 2}),
                         [](const auto& param_info) {
                           const Queues& q = param_info.param;
                           return std::to_string(q.workers) + "Workers" + std::to_string(q.left) +
                                  "And" + std::to_string(q.right) + "Queues";
                         });

}  // namespace
}  // namespace sluice::test

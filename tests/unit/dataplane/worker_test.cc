#include "dataplane/worker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "io/sim/sim_port.h"
#include "support/packet_builder.h"
#include "support/router_world.h"
#include "transport/transport.h"

namespace sluice::dataplane {
namespace {

using io::SimPort;
using test::A4;
using test::Bytes;
using test::FromHost;
using test::FromPeer;
using test::kHostMac;
using test::kLan;
using test::kPeerMac;
using test::kWan;
using test::kWanIndex;
using test::kWanMac;
using test::PacketBuilder;
using test::Via;

using SimWorker = Worker<SimPort>;

class CountingWaker : public Waker {
 public:
  void Wake() override { ++count; }
  int count = 0;
};

// Worker 0 has queues of both interfaces; worker 1 has one of the LAN only.
class WorkerTest : public testing::Test {
 protected:
  static constexpr uint32_t kFrames = 1024;  // each worker's

  void SetUp() override {
    world.Unicast("203.0.113.0/24", {Via(kWan, kWanIndex, "192.0.2.254")});
    snapshot = &world.snapshot;
    for (int i = 0; i < 2; ++i) mailboxes.push_back(std::make_unique<Mailbox>(2));
    for (uint8_t id = 0; id < 2; ++id) {
      mailboxes[id]->set_waker(&wakers[id]);
      pools[id] = std::make_unique<packet::FramePool>(*world.arena);
      for (uint32_t n = 0; n < kFrames; ++n) pools[id]->Free(world.pool.Alloc());
      workers[id] = std::make_unique<SimWorker>(
          WorkerId{id}, Shared{snapshot, world.epochs, mailboxes},
          PipelineConfig{
              .tables = world.routing(), .start = now, .firewall = {.worker_count = 2}},
          *pools[id]);
      workers[id]->pipeline().ApplyKernelNeighbor(kWan, A4("192.0.2.254"), kPeerMac, 2,
                                                  world.snapshot, now);
      workers[id]->pipeline().ApplyKernelNeighbor(kLan, A4("10.0.0.2"), kHostMac, 2, world.snapshot,
                                                  now);
      world.epochs.Online(WorkerId{id});
    }
    workers[0]->AddPort(&lan0);
    workers[0]->AddPort(&wan0);
    workers[1]->AddPort(&lan1);
    workers[1]->SetOutputOwner(kWan, WorkerId{0});
    for (const auto& worker : workers) {
      worker->SetPuntDevice(kLan, &lan_kernel);
      worker->SetPuntDevice(kWan, &wan_kernel);
    }
    Tick(0);
    Tick(1);
  }
  void TearDown() override {
    // Of both interfaces, over both workers.
    for (const IfaceSlot slot : {kLan, kWan}) {
      uint64_t received = 0;
      uint64_t ended = 0;
      for (const auto& worker : workers) {
        const InterfaceCounters& c = worker->counters().of(slot);
        received += c.received_packets.Read();
        ended += c.forwarded_packets.Read() + c.local_packets.Read() + c.punted_packets.Read() +
                 c.held_packets.Read() + c.merged_packets.Read();
        for (const Counter& reason : c.dropped_packets) ended += reason.Read();
      }
      EXPECT_EQ(received, ended);
    }
    EXPECT_EQ(Frames(), 2 * kFrames);
    for (uint8_t id = 0; id < 2; ++id) world.epochs.Offline(WorkerId{id});
  }

  // From now on what is for this machine is asked of the worker that would have its connection.
  void AddSockets() {
    for (uint8_t id = 0; id < 2; ++id) {
      LocalSockets& sockets = workers[id]->pipeline().sockets();
      sockets.Install(std::make_unique<transport::Transport>(
                          transport::TransportConfig{.start = now}, *pools[id], sockets),
                      nullptr);
    }
  }
  size_t Tick(int id) { return workers[id]->Tick(now); }
  // All frames of both workers: free, in rings, in the mailboxes (drained by ticks before).
  uint32_t Frames() const {
    uint32_t n = pools[0]->size() + pools[1]->size();
    for (const SimPort* port : {&lan0, &wan0, &lan1})
      n += port->frames_in_fill() + port->frames_in_tx();
    return n;
  }
  uint64_t Dropped(int id, DropReason reason) const {
    return workers[id]->counters().of(kLan).dropped_packets[static_cast<size_t>(reason)].Read();
  }
  uint64_t PuntedOfWan(int id) const {
    return workers[id]->counters().of(kWan).punted_packets.Read();
  }
  static Bytes Transit(uint16_t port = 1) {
    return FromHost().Ipv4("10.0.0.2", "203.0.113.1").Udp(port, 2).Payload(20).Build();
  }
  static Bytes Left(uint16_t port = 1) {
    return PacketBuilder()
        .Ethernet(kWanMac, kPeerMac)
        .Ipv4("10.0.0.2", "203.0.113.1")
        .Ttl(63)
        .Udp(port, 2)
        .Payload(20)
        .Build();
  }

  test::RouterWorld world;
  Nanos now = Seconds(1000);
  std::atomic<const tables::Snapshot*> snapshot{nullptr};
  std::vector<std::unique_ptr<Mailbox>> mailboxes;
  CountingWaker wakers[2];
  std::unique_ptr<packet::FramePool> pools[2];
  std::unique_ptr<SimWorker> workers[2];
  io::SimPuntDevice lan_kernel;
  io::SimPuntDevice wan_kernel;
  SimPort lan0{kLan, {}};
  SimPort wan0{kWan, {}};
  SimPort lan1{kLan, {}};
};

TEST_F(WorkerTest, ForwardsFromPortToPort) {
  EXPECT_EQ(Tick(0), 0u) << "idle";
  lan0.Deliver(Transit(1));
  lan0.Deliver(Transit(2));
  EXPECT_EQ(Tick(0), 2u);
  EXPECT_EQ(wan0.TakeSent(), (std::vector<Bytes>{Left(1), Left(2)}));
  const WorkerCounters& c = workers[0]->counters();
  EXPECT_EQ(c.of(kLan).received_packets.Read(), 2u);
  EXPECT_EQ(c.of(kLan).received_bytes.Read(), 2 * Transit().size());
  EXPECT_EQ(c.of(kLan).forwarded_packets.Read(), 2u);
  EXPECT_EQ(c.of(kWan).transmitted_packets.Read(), 2u);
  EXPECT_EQ(c.of(kWan).transmitted_bytes.Read(), 2 * Left().size());
}

TEST_F(WorkerTest, PuntsGoToTheInterfaceTheyCameBy) {
  const Bytes ssh = FromHost().Ipv4("10.0.0.2", "192.0.2.1").Tcp(1, 22).Build();
  lan0.Deliver(ssh);
  Tick(0);
  EXPECT_EQ(lan_kernel.TakeWritten(), std::vector<Bytes>{ssh});
  EXPECT_EQ(workers[0]->counters().of(kLan).punted_packets.Read(), 1u);
  EXPECT_EQ(workers[0]->counters().of(kLan).punts[static_cast<size_t>(PuntReason::kLocal)].Read(),
            1u);
  lan_kernel.set_blocked(true);
  lan0.Deliver(ssh);
  Tick(0);
  EXPECT_EQ(Dropped(0, DropReason::kPuntFailed), 1u);
}

// What has come to worker 0, the only one with a queue of the WAN, and is worker 1's to decide about.
TEST_F(WorkerTest, PuntsByAnInterfaceOfWhichItHasNoQueue) {
  AddSockets();
  std::vector<Bytes> sent;
  const auto deliver = [&](uint16_t source) {
    sent.push_back(FromPeer().Ipv4("192.0.2.254", "192.0.2.1").Tcp(source, 22).Build());
    wan0.Deliver(sent.back());
  };
  for (uint16_t source = 1000; source < 1020; ++source) deliver(source);
  Tick(0);
  Tick(1);
  std::vector<Bytes> punted = wan_kernel.TakeWritten();
  std::sort(punted.begin(), punted.end());
  EXPECT_EQ(punted, sent);
  EXPECT_TRUE(lan_kernel.TakeWritten().empty());
  EXPECT_GT(PuntedOfWan(0), 0u);
  EXPECT_GT(PuntedOfWan(1), 0u);
  EXPECT_EQ(PuntedOfWan(0) + PuntedOfWan(1), 20u);
  // When the interface has gone there is no way any more.
  const uint64_t of_one = PuntedOfWan(1);
  workers[1]->ClearPuntDevice(kWan);
  for (uint16_t source = 1000; source < 1020; ++source) deliver(source);
  Tick(0);
  Tick(1);
  EXPECT_EQ(wan_kernel.TakeWritten().size(), 20u - of_one);
  EXPECT_EQ(workers[1]->counters()
                .of(kWan)
                .dropped_packets[static_cast<size_t>(DropReason::kPuntFailed)]
                .Read(),
            of_one);
  Tick(0);  // takes its frames back
}

TEST_F(WorkerTest, CopiesForTheKernelAreNoOutcome) {
  const Bytes reply = FromHost().ArpReply(kHostMac, "10.0.0.2", test::kLanMac, "10.0.0.1").Build();
  lan0.Deliver(reply);
  Tick(0);
  EXPECT_EQ(lan_kernel.TakeWritten(), std::vector<Bytes>{reply});
  const InterfaceCounters& c = workers[0]->counters().of(kLan);
  EXPECT_EQ(c.local_packets.Read(), 1u);
  EXPECT_EQ(c.punt_copies.Read(), 1u);
  EXPECT_EQ(c.punted_packets.Read(), 0u);
}

TEST_F(WorkerTest, AFullOutputRing) {
  wan0.set_tx_blocked(true);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 40; ++i) lan0.Deliver(Transit());
    Tick(0);
  }
  EXPECT_EQ(workers[0]->counters().of(kLan).forwarded_packets.Read(), 64u);
  EXPECT_EQ(Dropped(0, DropReason::kTxRingFull), 16u);
  wan0.set_tx_blocked(false);
  Tick(0);
  EXPECT_EQ(wan0.TakeSent().size(), 64u);
}

TEST_F(WorkerTest, HandsOverToTheOwnerOfTheOutput) {
  const uint32_t before[] = {pools[0]->size() + lan0.frames_in_fill() + wan0.frames_in_fill(),
                             pools[1]->size() + lan1.frames_in_fill()};
  for (uint16_t i = 0; i < 50; ++i) lan1.Deliver(Transit(i));
  Tick(1);
  EXPECT_EQ(workers[1]->counters().frames_handed_over.Read(), 50u);
  EXPECT_EQ(workers[1]->counters().of(kLan).held_packets.Read(), 50u) << "under way";
  EXPECT_TRUE(wan0.TakeSent().empty());
  EXPECT_EQ(Tick(0), 50u);
  const auto sent = wan0.TakeSent();
  ASSERT_EQ(sent.size(), 50u);
  EXPECT_EQ(sent[49], Left(49));
  EXPECT_EQ(workers[0]->counters().of(kLan).forwarded_packets.Read(), 50u);
  // And gets as many frames back.
  Tick(1);
  EXPECT_EQ(pools[0]->size() + lan0.frames_in_fill() + wan0.frames_in_fill(), before[0]);
  EXPECT_EQ(pools[1]->size() + lan1.frames_in_fill(), before[1]);
}

TEST_F(WorkerTest, WakesWhoeverHasSomethingToDo) {
  ASSERT_TRUE(workers[0]->BeforeSleep());
  lan1.Deliver(Transit());
  Tick(1);
  EXPECT_EQ(wakers[0].count, 1);
  workers[0]->AfterSleep();
  // The frames that come back may be all that a worker without any waits for.
  ASSERT_TRUE(workers[1]->BeforeSleep());
  Tick(0);
  EXPECT_EQ(wakers[1].count, 1);
  EXPECT_FALSE(workers[1]->BeforeSleep()) << "they wait for it";
  workers[1]->AfterSleep();
  Tick(1);
  Tick(0);
  EXPECT_EQ(wakers[1].count, 1) << "nothing is owed any longer";
}

TEST_F(WorkerTest, AFullHandoffRing) {
  uint64_t delivered = 0;
  while (workers[1]->counters().frames_handed_over.Read() == delivered) {
    lan1.Deliver(Transit());
    ++delivered;
    Tick(1);
    ASSERT_LE(delivered, Mailbox::kHandoffs + 1);
  }
  EXPECT_EQ(delivered, Mailbox::kHandoffs + 1);
  EXPECT_EQ(Dropped(1, DropReason::kHandoffFull), 1u);
  for (int i = 0; i < 20; ++i) Tick(0), Tick(1);
  EXPECT_EQ(wan0.TakeSent().size(), Mailbox::kHandoffs);
}

TEST_F(WorkerTest, AnOutputThatNobodyOwns) {
  workers[1]->ClearOutputOwner(kWan);
  lan1.Deliver(Transit());
  Tick(1);
  EXPECT_EQ(Dropped(1, DropReason::kInterfaceDown), 1u);
  workers[1]->SetOutputOwner(kWan, WorkerId{1});  // a mistake must not send it round
  lan1.Deliver(Transit());
  Tick(1);
  EXPECT_EQ(Dropped(1, DropReason::kInterfaceDown), 2u);
}

TEST_F(WorkerTest, RemovedPorts) {
  SimPort wan_too{kWan, {.fill_depth = 0}};
  workers[0]->AddPort(&wan_too);
  lan0.Deliver(Transit(1));
  Tick(0);
  EXPECT_EQ(wan0.TakeSent().size(), 1u) << "the first added is the one to send by";
  workers[0]->RemovePort(&wan0);
  lan0.Deliver(Transit(2));
  Tick(0);
  EXPECT_EQ(wan_too.TakeSent(), std::vector<Bytes>{Left(2)});
  workers[0]->RemovePort(&wan_too);
  lan0.Deliver(Transit(3));
  Tick(0);
  EXPECT_EQ(Dropped(0, DropReason::kInterfaceDown), 1u);
  workers[0]->RemovePort(&lan0);
  lan0.Deliver(Transit(4));
  EXPECT_EQ(Tick(0), 0u);
  EXPECT_TRUE(workers[0]->ports().empty());
}

TEST_F(WorkerTest, WhatOneWorkerLearnsTheOtherKnows) {
  const auto to = [] { return FromHost().Ipv4("10.0.0.2", "192.0.2.77").Udp(1, 2).Build(); };
  lan1.Deliver(to());
  Tick(1);
  EXPECT_EQ(workers[1]->counters().of(kLan).held_packets.Read(), 1u);
  Tick(0);  // its ARP request leaves by the owner of the output
  ASSERT_EQ(wan0.TakeSent().size(), 1u);
  // The answer comes in where the packet does not wait.
  wan0.Deliver(PacketBuilder()
                   .Ethernet(kPeerMac, kWanMac)
                   .ArpReply(kPeerMac, "192.0.2.77", kWanMac, "192.0.2.1")
                   .Build());
  Tick(0);
  Tick(1);
  Tick(0);
  EXPECT_EQ(wan0.TakeSent().size(), 1u);
  Tick(1);
}

TEST_F(WorkerTest, CommandsRunWithinATick) {
  struct Forget : Command {
    void Run() override {
      seen = worker->snapshot().generation;
      at = worker->now();
      worker->ForgetInterface(kWan);
    }
    SimWorker* worker = nullptr;
    uint64_t seen = 0;
    Nanos at;
  };
  lan0.Deliver(FromHost().Ipv4("10.0.0.2", "192.0.2.77").Udp(1, 2).Build());
  Tick(0);
  Forget forget;
  forget.worker = workers[0].get();
  ASSERT_TRUE(workers[0]->mailbox().Post(&forget));
  EXPECT_FALSE(workers[0]->BeforeSleep());
  workers[0]->AfterSleep();
  now += Millis(1);
  EXPECT_EQ(Tick(0), 1u);
  EXPECT_TRUE(forget.done());
  EXPECT_EQ(forget.seen, world.snapshot.generation);
  EXPECT_EQ(forget.at, now);
  EXPECT_EQ(Dropped(0, DropReason::kInterfaceDown), 1u);
}

TEST_F(WorkerTest, ASleeperHoldsNoMemoryUp) {
  int freed = 0;
  const auto retire = [&] {
    world.epochs.Retire([](void* count, uint64_t) { ++*static_cast<int*>(count); }, &freed);
    const int before = freed;
    world.epochs.Reclaim();
    EXPECT_EQ(freed, before) << "worker 1 may still read it";
    Tick(1);
    world.epochs.Reclaim();
  };
  ASSERT_TRUE(workers[0]->BeforeSleep());
  retire();
  EXPECT_EQ(freed, 1);
  workers[0]->AfterSleep();
  retire();
  EXPECT_EQ(freed, 1) << "awake, and not yet through a tick";
  Tick(0);
  world.epochs.Reclaim();
  EXPECT_EQ(freed, 2);
}

TEST_F(WorkerTest, TimersRunWhenTheyAreDue) {
  lan0.Deliver(FromHost().Ipv4("10.0.0.2", "192.0.2.77").Udp(1, 2).Build());
  Tick(0);
  EXPECT_EQ(wan0.TakeSent().size(), 1u);
  const Nanos due = workers[0]->NextDeadline();
  EXPECT_GT(due, now);
  now = due - Nanos(1);
  Tick(0);
  EXPECT_TRUE(wan0.TakeSent().empty());
  for (int i = 0; i < 10 && workers[0]->counters().of(kLan).held_packets.Read() > 0; ++i) {
    now = workers[0]->NextDeadline();
    Tick(0);
  }
  EXPECT_EQ(wan0.TakeSent().size(), 2u) << "two more questions";
  EXPECT_EQ(lan0.TakeSent().size(), 1u) << "host unreachable";
  EXPECT_EQ(Dropped(0, DropReason::kNeighborFailed), 1u);
}

}  // namespace
}  // namespace sluice::dataplane

// Next hops that answer late, never, or from elsewhere.
#include "sim/sim_fixture.h"

namespace sluice::test {
namespace {

class NeighborSimTest : public SimTest, public testing::WithParamInterface<bool> {
 protected:
  bool v6() const { return GetParam(); }
  // An address on b's link that nobody has.
  std::string Nobody() const { return v6() ? "2001:db8:0:1::99" : "10.0.1.99"; }
};

// Both ends cold: the first packet waits for two resolutions and is not lost.
TEST_P(NeighborSimTest, TheFirstPacketArrivesOnceBothNeighborsAreKnown) {
  Row row(net, 1);
  row.a->Send(Numbered(row.from(v6()), row.to(v6()), 0));
  net.Run(Millis(10));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(1));
  EXPECT_EQ(row.b->solicited.size(), 1u);
  const auto kind = v6() ? GeneratedKind::kNeighborSolicitation : GeneratedKind::kArpRequest;
  EXPECT_EQ(row.first().Generated(kind), 1u);
}

TEST_P(NeighborSimTest, AsksAgainEachSecondAndKeepsTheOrderOfWhatWaits) {
  Row row(net, 1);
  row.b->IgnoreSolicitations(2);
  const Nanos start = net.now();
  for (uint32_t i = 0; i < 50; ++i) {
    net.After(Millis(40) * i,
              [&row, i, this] { row.a->Send(Numbered(row.from(v6()), row.to(v6()), i)); });
  }
  net.Run(Millis(1900));
  EXPECT_TRUE(row.b->received.empty());
  EXPECT_GT(row.first().Held("left"), 40u);
  net.Run(Seconds(2));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(50));
  ASSERT_EQ(row.b->solicited.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const Nanos wait = row.b->solicited[static_cast<size_t>(i)] - start;
    EXPECT_GE(wait, Seconds(i));
    EXPECT_LE(wait, Seconds(i) + Millis(30));
  }
  EXPECT_EQ(row.first().Held(), 0u);
}

TEST_P(NeighborSimTest, SendersOfWhatWaitedInVainAreTold) {
  Row row(net, 1);
  row.Warm(net);
  for (uint32_t i = 0; i < 4; ++i) row.a->Send(Numbered(row.from(v6()), Nobody(), i));
  net.Run(Millis(2900));
  EXPECT_EQ(row.first().Held("left"), 4u);
  EXPECT_TRUE(row.a->received.empty());
  net.Run(Millis(200));
  const std::vector<Bytes> errors = IcmpOf(row.a->received);
  ASSERT_EQ(errors.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) {
    const PacketReader error{errors[i]};
    EXPECT_TRUE(error.checksums_right());
    EXPECT_EQ(error.icmp_type(), v6() ? wire::kIcmpv6Unreachable : wire::kIcmpUnreachable);
    EXPECT_EQ(error.icmp_code(),
              v6() ? wire::kIcmpv6AddressUnreachable : wire::kIcmpHostUnreachable);
    const Bytes quote = error.icmp_quote();
    EXPECT_EQ(LoadBe32(quote.data() + quote.size() - 4), i) << "in the order they were sent";
  }
  EXPECT_EQ(row.first().Dropped(DropReason::kNeighborFailed, "left"), 4u);
  EXPECT_EQ(row.first().Held(), 0u);
}

TEST_P(NeighborSimTest, AnnouncedMacChangeTakesEffectAtOnce) {
  Row row(net, 1);
  row.Warm(net);
  net.Run(Seconds(2));  // ARP believes no other MAC address for the first second
  row.b->ChangeMac("02:00:00:00:0b:02", true);
  net.Run(Millis(1));
  row.a->Send(Numbered(row.from(v6()), row.to(v6()), 0));
  net.Run(Millis(10));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(1));
}

// Nobody says so: the old MAC address is used until probes to it stay unanswered.
TEST_P(NeighborSimTest, UnannouncedMacChangeIsFoundOutByProbing) {
  Row row(net, 1);
  row.Warm(net);
  row.b->ChangeMac("02:00:00:00:0b:02", false);
  for (uint32_t i = 0; i < 80; ++i) {
    net.After(Seconds(i),
              [&row, i, this] { row.a->Send(Numbered(row.from(v6()), row.to(v6()), i)); });
  }
  net.Run(Seconds(81));
  const auto numbers = NumbersOf(row.b->received);
  ASSERT_FALSE(numbers.empty());
  EXPECT_EQ(numbers.back(), 79u);
  EXPECT_GT(numbers.front(), 5u);
  EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end()));
}

TEST_P(NeighborSimTest, InterfaceDownEndsTheWait) {
  Row row(net, 1);
  row.Warm(net);
  for (uint32_t i = 0; i < 10; ++i) row.a->Send(Numbered(row.from(v6()), Nobody(), i));
  net.Run(Millis(100));
  ASSERT_EQ(row.first().Held("left"), 10u);
  row.first().SetUp("right", false);
  net.Run(Seconds(1));
  EXPECT_EQ(row.first().Held("left"), 0u);
  EXPECT_EQ(row.first().Dropped(DropReason::kInterfaceDown, "left"), 10u);
  // Up again, neighbours are asked for anew and traffic goes on.
  row.first().SetUp("right", true);
  row.b->solicited.clear();
  row.a->Send(Numbered(row.from(v6()), row.to(v6()), 7));
  net.Run(Millis(100));
  EXPECT_EQ(NumbersOf(row.b->received), std::vector<uint32_t>{7});
  EXPECT_EQ(row.b->solicited.size(), 1u);
}

// What the control thread does when an interface is taken away.
TEST_P(NeighborSimTest, ForgottenInterfaceHoldsNothing) {
  Row row(net, 1);
  row.Warm(net);
  for (uint32_t i = 0; i < 10; ++i) row.a->Send(Numbered(row.from(v6()), Nobody(), i));
  net.Run(Millis(100));
  const IfaceSlot right = row.first().SlotOf("right");
  row.first().OnWorkers([right](SimRouter::Worker& worker) { worker.ForgetInterface(right); });
  net.Run(Nanos(0));
  EXPECT_EQ(row.first().Held("left"), 0u);
  EXPECT_EQ(row.first().Dropped(DropReason::kInterfaceDown, "left"), 10u);
}

// The kernel's table has it already, so nobody is asked.
TEST_P(NeighborSimTest, EntriesOfTheKernelAreUsed) {
  Row row(net, 1);
  const IfaceSlot right = row.first().SlotOf("right");
  const IpAddress address = *ParseIpAddress(row.to(v6()));
  const Mac mac = row.b->mac();
  row.first().OnWorkers([=](SimRouter::Worker& worker) {
    worker.pipeline().ApplyKernelNeighbor(right, address, mac, stages::kNudPermanent,
                                          worker.snapshot(), worker.now());
  });
  row.a->Send(Numbered(row.from(v6()), row.to(v6()), 0));
  net.Run(Millis(10));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(1));
  EXPECT_TRUE(row.b->solicited.empty());
}

INSTANTIATE_TEST_SUITE_P(Families, NeighborSimTest, testing::Bool(),
                         [](const auto& param_info) { return param_info.param ? "Ipv6" : "Ipv4"; });

}  // namespace
}  // namespace sluice::test

#include "control/mirror/snapshot_builder.h"

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_addr.h>

#include "unit/control/mirror/mirror_fixture.h"

namespace sluice::control {
namespace {

Link MakeLink(uint32_t ifindex, const char* name) {
  Link link;
  link.ifindex = IfIndex{ifindex};
  link.name = name;
  link.mac = Mac{{2, 0, 0, 0, 0, static_cast<uint8_t>(ifindex)}};
  link.mtu = 1400;
  link.flags = IFF_UP;
  link.carrier = true;
  return link;
}

TEST(SnapshotBuilder, TakesWhatIsServed) {
  KernelState state;
  state.links[3] = MakeLink(3, "lan0");
  state.links[4] = MakeLink(4, "wan0");
  state.links[5] = MakeLink(5, "other");
  AddressMessage a;
  a.ifindex = IfIndex{3};
  a.address = Ipv4(10, 0, 0, 1);
  a.prefix_length = 24;
  state.addresses4[3] = {a};
  a.address = Ipv4(10, 0, 0, 2);
  a.flags = IFA_F_SECONDARY;
  a.scope = 253;
  state.addresses4[3].push_back(a);
  a.address = Ipv4(192, 0, 2, 1);
  state.addresses4[5] = {a};
  AddressMessage b;
  b.prefix_length = 64;
  for (const uint32_t flags : {IFA_F_PERMANENT, IFA_F_TENTATIVE, IFA_F_TENTATIVE | IFA_F_OPTIMISTIC,
                               IFA_F_DADFAILED, IFA_F_DEPRECATED}) {
    b.address = Ipv6(0x2001'0db8'0000'0000, flags);
    b.flags = flags;
    state.addresses6[4].push_back(b);
  }
  Sysctls sysctls;
  sysctls.interfaces["lan0"].rp_filter = 2;
  sysctls.interfaces["lan0"].mtu6 = 1280;
  sysctls.default_ttl = 99;
  sysctls.icmp.msgs_burst = 7;
  sysctls.defrag.timeout6 = Seconds(11);
  FirewallPresence firewall;
  firewall.forward6 = true;

  const ServedInterface served[] = {
      {IfaceSlot{0}, "lan0", tables::ChecksumMode::kComplete, true},
      {IfaceSlot{2}, "wan0", tables::ChecksumMode::kTrust, false},
      {IfaceSlot{5}, "missing", tables::ChecksumMode::kTrust, true},
  };
  const tables::Snapshot s = BuildSnapshot(state, sysctls, served, firewall, 42);
  EXPECT_EQ(s.generation, 42u);
  const tables::Interface& lan = s.interfaces[0];
  EXPECT_EQ(lan.slot, IfaceSlot{0});
  EXPECT_EQ(lan.ifindex, IfIndex{3});
  EXPECT_EQ(lan.mac, state.links[3].mac);
  EXPECT_EQ(lan.mtu, 1400u);
  EXPECT_TRUE(lan.up);
  EXPECT_EQ(lan.checksum, tables::ChecksumMode::kComplete);
  EXPECT_EQ(lan.rp_filter, 2);
  EXPECT_EQ(lan.mtu6, 1280u);
  ASSERT_EQ(lan.addresses4.size(), 2u);
  EXPECT_FALSE(lan.addresses4[0].secondary);
  EXPECT_TRUE(lan.addresses4[1].secondary);
  EXPECT_EQ(lan.addresses4[1].scope, 253);
  const tables::Interface& wan = s.interfaces[2];
  EXPECT_TRUE(wan.slot.valid());
  EXPECT_FALSE(wan.up) << "its sockets are not bound";
  ASSERT_EQ(wan.addresses6.size(), 5u);
  const bool tentative[] = {false, true, false, true, false};
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(wan.addresses6[i].tentative, tentative[i]) << i;
  EXPECT_TRUE(wan.addresses6[4].deprecated);
  EXPECT_FALSE(s.interfaces[5].slot.valid());
  EXPECT_FALSE(s.interfaces[1].slot.valid());
  EXPECT_TRUE(s.own4.Contains(Ipv4(10, 0, 0, 2)));
  EXPECT_TRUE(s.own4.Contains(Ipv4(192, 0, 2, 1))) << "of an interface that is not served";
  EXPECT_FALSE(s.own4.Contains(Ipv4(10, 0, 0, 3)));
  EXPECT_EQ(s.default_ttl, 99);
  EXPECT_EQ(s.icmp.msgs_burst, 7u);
  EXPECT_EQ(s.defrag.timeout6, Seconds(11));
  EXPECT_TRUE(s.firewall6);
  EXPECT_FALSE(s.firewall4);
  EXPECT_TRUE(s.policy_routing4) << "no rules at all are not the default ones";
}

TEST_F(MirrorTest, SnapshotOfARealNamespace) {
  test::NetworkNamespace::Ip(SetUpLinks(1));
  Start();
  ASSERT_TRUE(Eventually([&] { return mirror_->state().FindLink("d0")->carrier; }));
  const Sysctls sysctls = SysctlReader().Read({"d0"});
  const ServedInterface served[] = {{IfaceSlot{7}, "d0", tables::ChecksumMode::kComplete, true}};
  const tables::Snapshot s = BuildSnapshot(mirror_->state(), sysctls, served, {}, 1);
  const tables::Interface& d0 = s.interfaces[7];
  EXPECT_TRUE(d0.up);
  ASSERT_EQ(d0.addresses4.size(), 1u);
  EXPECT_EQ(d0.addresses4[0].address, Ipv4(10, 0, 0, 1));
  EXPECT_GE(d0.addresses6.size(), 1u);
  EXPECT_TRUE(d0.ipv6_enabled);
  EXPECT_FALSE(s.policy_routing4);
  EXPECT_FALSE(s.policy_routing6);
  EXPECT_TRUE(s.own4.Contains(Ipv4(10, 0, 0, 1)));
}

}  // namespace
}  // namespace sluice::control

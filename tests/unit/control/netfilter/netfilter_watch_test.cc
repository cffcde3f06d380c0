#include "control/netfilter/netfilter_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/network_namespace.h"

namespace sluice::control {
namespace {

using test::NetworkNamespace;
using testing::HasSubstr;

TEST(NetfilterWatchTest, IpsecPoliciesAreTheKernels) {
  const NetworkNamespace inside;
  Nanos now = Seconds(1000);
  const std::unique_ptr<NetfilterWatch> watch = NetfilterWatch::Open(now);
  EXPECT_EQ(watch->presence(), FirewallPresence{});
  const std::string policy =
      "xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd "
      "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel\n";
  NetworkNamespace::Ip(policy);
  EXPECT_FALSE(watch->Run(now)) << "not looked at yet";
  now = watch->NextDeadline();
  EXPECT_TRUE(watch->Run(now));
  EXPECT_TRUE(watch->presence().forward4);
  ASSERT_EQ(watch->presence().reasons.size(), 1u);
  EXPECT_THAT(watch->presence().reasons[0], HasSubstr("IPsec"));
}

TEST(NetfilterWatchTest, NftablesIsNotItsBusiness) {
  const NetworkNamespace inside;
  NetworkNamespace::Nft(
      "table ip t {\n chain c {\n  type filter hook forward priority 0; policy drop;\n }\n}\n");
  EXPECT_EQ(NetfilterWatch::Open(Seconds(1))->presence(), FirewallPresence{});
}

}  // namespace
}  // namespace sluice::control

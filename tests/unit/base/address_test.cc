#include "base/address.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace sluice {
namespace {

TEST(MacTest, TextForms) {
  const auto mac = ParseMac("02:00:5E:10:fe:ff");
  ASSERT_TRUE(mac);
  EXPECT_EQ(ToString(*mac), "02:00:5e:10:fe:ff");
  for (const char* bad : {"", "02:00:5e:10:fe", "02:00:5e:10:fe:f", "02:00:5e:10:fe:fff",
                          "02-00-5e-10-fe-ff", "g2:00:5e:10:fe:ff", "02:00:5e:10:fe:-1"}) {
    EXPECT_FALSE(ParseMac(bad)) << bad;
  }
}

TEST(MacTest, Kinds) {
  EXPECT_TRUE(Mac::Broadcast().IsMulticast());
  EXPECT_TRUE(ParseMac("33:33:00:00:00:01")->IsMulticast());
  EXPECT_FALSE(ParseMac("02:00:00:00:00:01")->IsMulticast());
  EXPECT_TRUE(Mac{}.IsZero());
}

TEST(Ipv4Test, TextForms) {
  EXPECT_EQ(ToString(Ipv4(10, 0, 0, 1)), "10.0.0.1");
  EXPECT_EQ(ParseIpv4("255.255.255.255")->value, 0xffff'ffffu);
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4 ", "a.b.c.d", "::1"}) {
    EXPECT_FALSE(ParseIpv4(bad)) << bad;
  }
}

TEST(Ipv4Test, Kinds) {
  EXPECT_TRUE(Ipv4(127, 1, 2, 3).IsLoopback());
  EXPECT_TRUE(Ipv4(224, 0, 0, 1).IsMulticast());
  EXPECT_TRUE(Ipv4(239, 255, 255, 255).IsMulticast());
  EXPECT_FALSE(Ipv4(240, 0, 0, 0).IsMulticast());
  EXPECT_TRUE(Ipv4(169, 254, 1, 1).IsLinkLocal());
  EXPECT_TRUE(Ipv4(255, 255, 255, 255).IsLimitedBroadcast());
  EXPECT_TRUE(Ipv4().IsUnspecified());
  EXPECT_LT(Ipv4(9, 255, 255, 255), Ipv4(10, 0, 0, 0)) << "compares as a number";
}

// RFC 5952: the shortest form, in lower case.
TEST(Ipv6Test, TextForms) {
  for (const char* text : {"::", "::1", "fe80::1", "2001:db8::1:0:0:1", "2001:db8:1:2:3:4:5:6",
                           "ff02::1:ff00:1", "::ffff:10.0.0.1"}) {
    const auto address = ParseIpv6(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(ToString(*address), text);
  }
  EXPECT_EQ(ToString(*ParseIpv6("2001:0DB8:0:0:0:0:0:1")), "2001:db8::1");
  for (const char* bad :
       {"", ":", ":::", "1::2::3", "12345::", "fe80::1%eth0", "10.0.0.1", "::g"}) {
    EXPECT_FALSE(ParseIpv6(bad)) << bad;
  }
}

TEST(Ipv6Test, Kinds) {
  EXPECT_TRUE(ParseIpv6("::1")->IsLoopback());
  EXPECT_TRUE(ParseIpv6("::")->IsUnspecified());
  EXPECT_TRUE(ParseIpv6("ff05::1")->IsMulticast());
  EXPECT_TRUE(ParseIpv6("fe80::1")->IsLinkLocal());
  EXPECT_TRUE(ParseIpv6("febf::1")->IsLinkLocal());
  EXPECT_FALSE(ParseIpv6("fec0::1")->IsLinkLocal());
  EXPECT_EQ(ToString(ParseIpv6("2001:db8::1234:5678")->SolicitedNode()), "ff02::1:ff34:5678");
}

TEST(AddressTest, WireAndTextRoundTrips) {
  Rng rng(1);
  for (int i = 0; i < 10'000; ++i) {
    uint8_t wire[16];
    const Ipv4 v4(static_cast<uint32_t>(rng.Next()));
    v4.ToWire(wire);
    ASSERT_EQ(Ipv4::FromWire(wire), v4);
    ASSERT_EQ(wire[0], v4.value >> 24);
    ASSERT_EQ(ParseIpv4(ToString(v4)), v4);
    const Ipv6 v6(rng.Chance(1, 2) ? rng.Next() : rng.Below(65'536), rng.Next());
    v6.ToWire(wire);
    ASSERT_EQ(Ipv6::FromWire(wire), v6);
    ASSERT_EQ(wire[15], v6.lo & 0xff);
    ASSERT_EQ(ParseIpv6(ToString(v6)), v6);
    Mac mac;
    StoreBe32(mac.bytes.data(), v4.value);
    mac.ToWire(wire);
    ASSERT_EQ(Mac::FromWire(wire), mac);
    ASSERT_EQ(ParseMac(ToString(mac)), mac);
  }
}

TEST(AddressTest, EitherFamily) {
  EXPECT_TRUE(ParseIpAddress("10.0.0.1")->is_v4());
  EXPECT_FALSE(ParseIpAddress("::1")->is_v4());
  EXPECT_EQ(ParseIpAddress("10.0.0.1")->v4(), Ipv4(10, 0, 0, 1));
  EXPECT_EQ(ToString(*ParseIpAddress("fe80::1")), "fe80::1");
  EXPECT_NE(IpAddress(Ipv4(0, 0, 0, 1)), IpAddress(Ipv6(0, 1)));
  EXPECT_FALSE(ParseIpAddress("host"));
}

TEST(PrefixTest, TextForms) {
  EXPECT_EQ(ToString(*ParseIpv4Prefix("10.1.2.3/8")), "10.1.2.3/8");
  EXPECT_EQ(ToString(ParseIpv4Prefix("10.1.2.3/8")->Canonical()), "10.0.0.0/8");
  EXPECT_EQ(ParseIpv4Prefix("10.0.0.1")->length, 32);
  EXPECT_EQ(ParseIpv6Prefix("fe80::1")->length, 128);
  EXPECT_EQ(ToString(ParseIpv6Prefix("2001:db8:ffff::1/33")->Canonical()), "2001:db8:8000::/33");
  for (const char* bad : {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x", "/8", "::/0"}) {
    EXPECT_FALSE(ParseIpv4Prefix(bad)) << bad;
  }
  for (const char* bad : {"::/129", "::/", "10.0.0.0/8", "::/ 1"}) {
    EXPECT_FALSE(ParseIpv6Prefix(bad)) << bad;
  }
}

// Against bit-by-bit comparison.
TEST(PrefixTest, ContainsMatchesANaiveModel) {
  Rng rng(2);
  const auto bit = [](const Ipv6& a, unsigned i) {
    return (i < 64 ? a.hi >> (63 - i) : a.lo >> (127 - i)) & 1;
  };
  for (int i = 0; i < 20'000; ++i) {
    const Ipv6Prefix prefix{Ipv6(rng.Next(), rng.Next()), static_cast<uint8_t>(rng.Below(129))};
    Ipv6 address = prefix.address;  // equal up to a random bit
    const uint64_t flip = rng.Below(129);
    if (flip < 64) address.hi ^= uint64_t{1} << (63 - flip);
    if (flip >= 64 && flip < 128) address.lo ^= uint64_t{1} << (127 - flip);
    bool expected = true;
    for (unsigned b = 0; b < prefix.length; ++b) {
      expected = expected && bit(address, b) == bit(prefix.address, b);
    }
    ASSERT_EQ(prefix.Contains(address), expected) << ToString(prefix) << " " << ToString(address);
    ASSERT_TRUE(prefix.Canonical().Contains(prefix.address));

    const Ipv4Prefix small{Ipv4(static_cast<uint32_t>(prefix.address.hi)),
                           static_cast<uint8_t>(rng.Below(33))};
    const uint64_t flip4 = rng.Below(33);
    const Ipv4 other(small.address.value ^
                     (flip4 < 32 ? uint32_t{1} << (31 - flip4) : uint32_t{0}));
    ASSERT_EQ(small.Contains(other), flip4 >= small.length) << ToString(small);
  }
}

TEST(PrefixTest, WholeRange) {
  EXPECT_TRUE(ParseIpv4Prefix("0.0.0.0/0")->Contains(Ipv4(255, 1, 2, 3)));
  EXPECT_TRUE(ParseIpv6Prefix("::/0")->Contains(Ipv6(~uint64_t{0}, 1)));
  EXPECT_FALSE(ParseIpv4Prefix("10.0.0.1/32")->Contains(Ipv4(10, 0, 0, 2)));
}

}  // namespace
}  // namespace sluice

// For simulation tests: a network whose invariants are looked at when a test ends, a row of routers
// between two hosts, and readers for what hosts receive.
#ifndef SLUICE_TESTS_SIM_SIM_FIXTURE_H_
#define SLUICE_TESTS_SIM_SIM_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "support/packet_builder.h"
#include "support/sim_network.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"

namespace sluice::test {

// A packet as a host has received it.
struct PacketReader {
  const Bytes& p;

  bool v4() const { return p[0] >> 4 == 4; }
  uint8_t ttl() const { return v4() ? p[8] : p[7]; }
  uint8_t protocol() const { return v4() ? p[9] : p[6]; }
  size_t l4() const { return v4() ? (p[0] & 0xf) * 4u : 40u; }
  bool is_udp() const { return protocol() == 17; }
  bool is_icmp() const { return protocol() == (v4() ? 1 : 58); }
  uint8_t icmp_type() const { return p[l4()]; }
  uint8_t icmp_code() const { return p[l4() + 1]; }
  uint32_t icmp_rest() const { return LoadBe32(p.data() + l4() + 4); }
  Bytes icmp_quote() const { return Bytes(p.begin() + static_cast<long>(l4()) + 8, p.end()); }
  std::string source() const {
    return v4() ? ToString(Ipv4::FromWire(p.data() + 12)) : ToString(Ipv6::FromWire(p.data() + 8));
  }
  // The number that Numbered() put at its end.
  uint32_t number() const { return LoadBe32(p.data() + p.size() - 4); }
  // Of ICMP and UDP, computed the slow way over the whole packet.
  bool checksums_right() const {
    if (v4() && NaiveSum({p.data(), l4()}) != 0xffff) return false;
    Bytes all;
    if (!v4()) {
      all = PseudoHeader(Ipv6::FromWire(p.data() + 8), Ipv6::FromWire(p.data() + 24), p[6],
                         p.size() - 40);
    } else if (is_udp()) {
      all = PseudoHeader(Ipv4::FromWire(p.data() + 12), Ipv4::FromWire(p.data() + 16), 17,
                         p.size() - l4());
    }
    all.insert(all.end(), p.begin() + static_cast<long>(l4()), p.end());
    return NaiveSum(all) == 0xffff;
  }
};

// A UDP packet that ends in `number`; IPv4 or IPv6 as the addresses are.
inline PacketBuilder Numbered(const std::string& from, const std::string& to, uint32_t number,
                              size_t size = 64, uint16_t source_port = 1000) {
  PacketBuilder b;
  const bool v4 = ParseIpv4(from).has_value();
  if (v4) {
    b.Ipv4(from, to);
  } else {
    b.Ipv6(from, to);
  }
  const size_t headers = (v4 ? 20 : 40) + 8 + 4;
  Bytes tail(4);
  StoreBe32(tail.data(), number);
  return b.Udp(source_port, 2000).Payload(size > headers ? size - headers : 0).Payload(tail);
}

inline std::vector<uint32_t> NumbersOf(const std::vector<SimHost::Received>& received) {
  std::vector<uint32_t> numbers;
  for (const auto& r : received) {
    if (PacketReader{r.packet}.is_udp()) numbers.push_back(PacketReader{r.packet}.number());
  }
  return numbers;
}

inline std::vector<uint32_t> UpTo(uint32_t count) {
  std::vector<uint32_t> numbers(count);
  for (uint32_t i = 0; i < count; ++i) numbers[i] = i;
  return numbers;
}

// ICMP messages among what a host has received.
inline std::vector<Bytes> IcmpOf(const std::vector<SimHost::Received>& received) {
  std::vector<Bytes> all;
  for (const auto& r : received) {
    if (PacketReader{r.packet}.is_icmp()) all.push_back(r.packet);
  }
  return all;
}

class SimTest : public testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(net.violation(), ""); }

  SimNetwork net{1};
};

// Host a, routers in a row, host b. Link i is 10.0.i.0/24 and 2001:db8:0:i::/64; the node on its
// left is .1, the one on its right .2. Router i has interfaces "left" (link i) and "right".
struct Row {
  Row(SimNetwork& net, size_t count, const SimRouter::Options& options = {},
      const SimLinkOptions& link = {}, const std::vector<uint32_t>& mtus = {}) {
    const auto v4 = [](size_t i, int end) {
      return "10.0." + std::to_string(i) + "." + std::to_string(end);
    };
    const auto v6 = [](size_t i, int end) {
      return "2001:db8:0:" + std::to_string(i) + "::" + std::to_string(end);
    };
    const auto mac = [](size_t i, int end) {
      Mac m{{2, 0, 0, 0, static_cast<uint8_t>(i), static_cast<uint8_t>(end)}};
      return m;
    };
    const auto mtu = [&](size_t i) { return i < mtus.size() ? mtus[i] : 1500u; };
    a = &net.AddHost("a", mac(0, 1), {v4(0, 1) + "/24", v6(0, 1) + "/64"}, {v4(0, 2), v6(0, 2)});
    for (size_t i = 0; i < count; ++i) {
      SimRouter& r = net.AddRouter("r" + std::to_string(i + 1), options);
      r.AddInterface("left", mac(i, 2), {v4(i, 2) + "/24", v6(i, 2) + "/64"}, mtu(i));
      r.AddInterface("right", mac(i + 1, 1), {v4(i + 1, 1) + "/24", v6(i + 1, 1) + "/64"},
                     mtu(i + 1));
      if (i > 0) {
        r.AddRoute("10.0.0.0/24", v4(i, 1)).AddRoute("2001:db8::/64", v6(i, 1));
      }
      if (i + 1 < count) {
        r.AddRoute(v4(count, 0) + "/24", v4(i + 1, 2));
        r.AddRoute("2001:db8:0:" + std::to_string(count) + "::/64", v6(i + 1, 2));
      }
      r.Publish();
      routers.push_back(&r);
    }
    b = &net.AddHost("b", mac(count, 2), {v4(count, 2) + "/24", v6(count, 2) + "/64"},
                     {v4(count, 1), v6(count, 1)});
    for (size_t i = 0; i <= count; ++i) {
      SimNode& from = i == 0 ? static_cast<SimNode&>(*a) : *routers[i - 1];
      SimNode& to = i == count ? static_cast<SimNode&>(*b) : *routers[i];
      SimLinkOptions o = link;
      links.push_back(&net.Connect(from, i == 0 ? 0 : 1, to, 0, o));
    }
    a4 = v4(0, 1);
    b4 = v4(count, 2);
    a6 = v6(0, 1);
    b6 = v6(count, 2);
  }

  SimRouter& first() { return *routers.front(); }
  const std::string& from(bool v6) const { return v6 ? a6 : a4; }
  const std::string& to(bool v6) const { return v6 ? b6 : b4; }

  // Lets both ends and all routers learn their neighbours, and clears what the hosts have received.
  void Warm(SimNetwork& net) {
    for (const bool v6 : {false, true}) {
      a->Send(Numbered(from(v6), to(v6), 0));
      net.Run(Millis(100));
      b->Send(Numbered(to(v6), from(v6), 0));
      net.Run(Millis(100));
    }
    a->received.clear();
    b->received.clear();
  }

  SimHost* a;
  SimHost* b;
  std::vector<SimRouter*> routers;
  std::vector<SimLink*> links;  // direction 0 is towards b
  std::string a4, b4, a6, b6;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SIM_SIM_FIXTURE_H_

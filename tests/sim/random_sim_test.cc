// Anything may happen: random topologies, traffic, faults and changes. Whatever it was, no frame is
// lost or used twice, every packet has one fate (SimRouter::CheckInvariants after every step), and
// when the noise has ended the routers come to rest and still forward.
#include <array>
#include <cstdlib>

#include "sim/sim_fixture.h"
#include "support/random_packets.h"

namespace sluice::test {
namespace {

// One router per subnet 10.0.i.0/24 with a host; links between routers are 10.1.j.0/24.
class Chaos {
 public:
  explicit Chaos(uint64_t seed) : net(seed), rng_(seed * 977 + 1) {
    const size_t count = 2 + rng_.Below(3);
    for (size_t i = 0; i < count; ++i) AddSite(i);
    for (size_t i = 1; i < count; ++i) Join(rng_.Below(i), i);
    if (count > 2) Join(0, count - 1);
    for (SimRouter* r : routers) r->Publish();
    for (size_t i = 0; i < count; ++i) {
      for (size_t to = 0; to < count; ++to) {
        if (to != i) SetRoute(i, to, false);
      }
    }
    addresses_.insert(addresses_.end(),
                      {"8.8.8.8", "224.0.0.5", "255.255.255.255", "127.0.0.1", "0.0.0.0",
                       "2001:db8:ffff::1", "ff02::1", "fe80::1", "::1", "::"});
  }

  void MakeNoise(Nanos duration) {
    for (Nanos at; at < duration; at += Micros(static_cast<int64_t>(rng_.Below(6000)))) {
      net.After(at, [this] { rng_.Chance(1, 25) ? Change() : SendSomething(); });
    }
    net.Run(duration);
  }

  void Calm() {
    for (SimLink* link : links) {
      link->options = {};
    }
    for (size_t i = 0; i < routers.size(); ++i) {
      SimRouter& r = *routers[i];
      for (const std::string& name : names[i]) {
        ForEachQueue(i, name, [](io::SimPort& port) { port.set_tx_blocked(false); });
        r.punt_device(name).set_blocked(false);
        r.interface(name).up = true;
        r.interface(name).mtu = r.interface(name).mtu6 = 1500;
      }
      r.Publish();
      hosts[i]->IgnoreSolicitations(0);
      for (size_t to = 0; to < routers.size(); ++to) {
        if (to != i) SetRoute(i, to, false);
      }
    }
    net.Run(Seconds(90));  // wrong MAC addresses have been found out and asked for again
  }

  SimNetwork net;
  std::vector<SimRouter*> routers;
  std::vector<SimHost*> hosts;
  std::vector<SimLink*> links;
  std::vector<std::vector<std::string>> names;  // interfaces by router

  static std::string Host(size_t i, bool v6) {
    return v6 ? "2001:db8:0:" + std::to_string(i) + "::2" : "10.0." + std::to_string(i) + ".2";
  }

 private:
  static std::string Net(const char* v4, const char* v6, bool is_v6, size_t i, int end) {
    return is_v6 ? v6 + std::to_string(i) + "::" + std::to_string(end)
                 : v4 + std::to_string(i) + "." + std::to_string(end);
  }
  Mac NextMac() {
    ++macs_;
    return Mac{{2, 0, 0, 0, static_cast<uint8_t>(macs_ >> 8), static_cast<uint8_t>(macs_)}};
  }

  void AddSite(size_t i) {
    SimRouter::Options options;
    options.workers = static_cast<uint32_t>(1 + rng_.Below(3));
    options.frames = static_cast<uint32_t>(300 + rng_.Below(700));
    options.neighbor_limit = static_cast<uint32_t>(8 + rng_.Below(60));
    options.port.fill_depth = static_cast<uint32_t>(16 + rng_.Below(40));
    options.port.tx_depth = static_cast<uint32_t>(8 + rng_.Below(64));
    options.port.segment_bytes =
        rng_.Chance(1, 2) ? static_cast<uint32_t>(128 + rng_.Below(600)) : 0;
    options.seed = rng_.Next();
    SimRouter& r = net.AddRouter("r" + std::to_string(i), options);
    workers_.push_back(options.workers);
    routers.push_back(&r);
    names.emplace_back();
    queues_.emplace_back();
    AddPort(i, "host", NextMac(),
            {Net("10.0.", "2001:db8:0:", false, i, 1) + "/24",
             Net("10.0.", "2001:db8:0:", true, i, 1) + "/64"});
    hosts.push_back(&net.AddHost(
        "h" + std::to_string(i), NextMac(), {Host(i, false) + "/24", Host(i, true) + "/64"},
        {Net("10.0.", "2001:db8:0:", false, i, 1), Net("10.0.", "2001:db8:0:", true, i, 1)}));
    links.push_back(&net.Connect(*hosts[i], 0, r, r.PortOf("host"), RandomLink()));
    for (const bool v6 : {false, true}) {
      for (const int end : {1, 2, 77}) {
        addresses_.push_back(Net("10.0.", "2001:db8:0:", v6, i, end));
      }
    }
  }

  void AddPort(size_t i, const std::string& name, const Mac& mac,
               const std::vector<std::string>& with) {
    const auto queues = static_cast<uint32_t>(1 + rng_.Below(workers_[i]));
    routers[i]->AddInterface(name, mac, with, 1500, queues);
    names[i].push_back(name);
    queues_[i].push_back(queues);
  }

  SimLinkOptions RandomLink() {
    SimLinkOptions o;
    o.latency = Micros(static_cast<int64_t>(rng_.Below(3000)));
    o.jitter = Micros(static_cast<int64_t>(rng_.Below(500)));
    if (rng_.Chance(1, 2)) o.loss = o.duplicate = o.reorder = o.corrupt = 0.03;
    return o;
  }

  void Join(size_t a, size_t b) {
    const size_t n = joins_++;
    const std::string name = "link" + std::to_string(n);
    for (const size_t i : {a, b}) {
      const int end = i == a ? 1 : 2;
      AddPort(i, name, NextMac(),
              {Net("10.1.", "2001:db8:1:", false, n, end) + "/24",
               Net("10.1.", "2001:db8:1:", true, n, end) + "/64"});
    }
    peers_.push_back({a, b});
    links.push_back(&net.Connect(*routers[a], routers[a]->PortOf(name), *routers[b],
                                 routers[b]->PortOf(name), RandomLink()));
  }

  // Router i's route to the subnet of `to`: by a link that leads there, or (wild) anything.
  void SetRoute(size_t i, size_t to, bool wild) {
    for (const bool v6 : {false, true}) {
      const std::string prefix = v6 ? "2001:db8:0:" + std::to_string(to) + "::/64"
                                    : "10.0." + std::to_string(to) + ".0/24";
      std::vector<SimRouter::PathSpec> paths;
      for (size_t n = 0; n < peers_.size(); ++n) {
        const auto [a, b] = peers_[n];
        if (a != i && b != i) continue;
        const SimRouter::PathSpec path{Net("10.1.", "2001:db8:1:", v6, n, a == i ? 2 : 1), "",
                                       static_cast<uint32_t>(1 + rng_.Below(3))};
        const size_t other = a == i ? b : a;
        if (wild || other == to) {
          paths.push_back(path);
        } else if (paths.empty() && LeadsTo(other, to, i)) {
          paths.push_back(path);
        }
      }
      using tables::RouteType;
      static constexpr RouteType kTypes[] = {RouteType::kBlackhole, RouteType::kUnreachable,
                                             RouteType::kProhibit,  RouteType::kPunt,
                                             RouteType::kLocal,     RouteType::kBroadcast};
      if (wild && rng_.Chance(1, 3)) {
        routers[i]->AddRoute(prefix, kTypes[rng_.Below(std::size(kTypes))]);
      } else if (wild && rng_.Chance(1, 4)) {
        routers[i]->RemoveRoute(prefix);
      } else {
        if (!wild && paths.size() > 1) paths.erase(paths.begin(), paths.end() - 1);
        routers[i]->AddMultipath(prefix, paths);
      }
    }
  }
  // Whether `from` has a link to `to` that is not by way of `without`; topologies are so small
  // that a path has at most three links.
  bool LeadsTo(size_t from, size_t to, size_t without, int depth = 3) const {
    if (from == to) return true;
    if (depth == 0) return false;
    for (const auto& [a, b] : peers_) {
      if (a != from && b != from) continue;
      const size_t other = a == from ? b : a;
      if (other != without && LeadsTo(other, to, from, depth - 1)) return true;
    }
    return false;
  }

  template <class Code>
  void ForEachQueue(size_t i, const std::string& name, Code&& code) {
    for (size_t k = 0; k < names[i].size(); ++k) {
      if (names[i][k] != name) continue;
      for (uint32_t q = 0; q < queues_[i][k]; ++q) code(routers[i]->port(name, q));
    }
  }

  void SendSomething() {
    const size_t i = rng_.Below(hosts.size());
    const bool v6 = rng_.Chance(1, 2);
    if (rng_.Chance(1, 8)) {
      const Mac router = routers[i]->interface("host").mac;
      const Mac from = rng_.Chance(1, 2) ? hosts[i]->mac() : NextMac();
      return hosts[i]->SendFrame(RandomNeighborFrame(rng_, from, router, addresses_));
    }
    std::string to;
    do {
      to = addresses_[rng_.Below(addresses_.size())];
    } while (ParseIpv4(to).has_value() == v6);
    // Straight to the router's MAC address: malformed packets have no destination to go by.
    const Mac router = routers[i]->interface("host").mac;
    const size_t burst = rng_.Chance(1, 10) ? 1 + rng_.Below(100) : 1;
    for (size_t n = 0; n < burst; ++n) {
      Bytes frame =
          PacketBuilder().Ethernet(hosts[i]->mac(), router).EtherType(v6 ? 0x86dd : 0x0800).Build();
      const std::string from =
          rng_.Chance(1, 10) ? AnyAddress(v6) : Host(rng_.Below(hosts.size()), v6);
      const Bytes packet = RandomPacket(rng_, from, to, 1600);
      frame.insert(frame.end(), packet.begin(), packet.end());
      hosts[i]->SendFrame(std::move(frame));
    }
  }

  std::string AnyAddress(bool v6) {
    for (;;) {
      const std::string& a = addresses_[rng_.Below(addresses_.size())];
      if (ParseIpv4(a).has_value() != v6) return a;
    }
  }

  void Change() {
    const size_t i = rng_.Below(routers.size());
    SimRouter& r = *routers[i];
    const std::string name = names[i][rng_.Below(names[i].size())];
    const IfaceSlot slot = r.SlotOf(name);
    switch (rng_.Below(12)) {
      case 0:
        return static_cast<void>(r.SetUp(name, rng_.Chance(1, 2)));
      case 1:
        r.interface(name).mtu = r.interface(name).mtu6 =
            static_cast<uint32_t>(60 + rng_.Below(1600));
        return static_cast<void>(r.Publish());
      case 2:
        return ForEachQueue(i, name, [&](io::SimPort& p) { p.set_tx_blocked(rng_.Chance(1, 2)); });
      case 3:
        return r.punt_device(name).set_blocked(rng_.Chance(1, 2));
      case 4:
        return hosts[i]->ChangeMac(NextMac(), rng_.Chance(1, 2));
      case 5:
        return hosts[i]->IgnoreSolicitations(static_cast<uint32_t>(rng_.Below(8)));
      case 6:
        return r.OnWorkers([slot](SimRouter::Worker& w) { w.ForgetInterface(slot); });
      case 7: {
        const IpAddress address = *ParseIpAddress(Host(i, rng_.Chance(1, 2)));
        static constexpr uint16_t kStates[] = {stages::kNudStale, stages::kNudReachable,
                                               stages::kNudFailed};
        const uint16_t state = kStates[rng_.Below(3)];
        const Mac mac = hosts[i]->mac();
        return r.OnWorkers([=](SimRouter::Worker& w) {
          w.pipeline().ApplyKernelNeighbor(slot, address, mac, state, w.snapshot(), w.now());
        });
      }
      case 8: {
        const IpAddress address = *ParseIpAddress(Host(i, rng_.Chance(1, 2)));
        return r.OnWorkers([=](SimRouter::Worker& w) {
          w.pipeline().RemoveKernelNeighbor(slot, address, w.now());
        });
      }
      case 9:
        links[rng_.Below(links.size())]->options.down = rng_.Chance(1, 2);
        return;
      default: {
        const size_t to = rng_.Below(routers.size());
        if (to != i) SetRoute(i, to, true);
      }
    }
  }

  Rng rng_;
  uint32_t macs_ = 0;
  size_t joins_ = 0;
  std::vector<std::pair<size_t, size_t>> peers_;
  std::vector<uint32_t> workers_;
  std::vector<std::vector<uint32_t>> queues_;
  std::vector<std::string> addresses_;
};

// SLUICE_SIM_SEED=n runs that seed alone; SLUICE_SIM_SEEDS=n that many.
uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(RandomSimTest, InvariantsHoldWhateverHappens) {
  const uint64_t only = FromEnvironment("SLUICE_SIM_SEED", 0);
  const uint64_t count = FromEnvironment("SLUICE_SIM_SEEDS", 16);
  for (uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : count); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Chaos chaos(seed);
    chaos.MakeNoise(Seconds(5));
    ASSERT_EQ(chaos.net.violation(), "");
    chaos.Calm();
    ASSERT_EQ(chaos.net.violation(), "");
    for (SimRouter* r : chaos.routers) EXPECT_EQ(r->Held(), 0u) << r->name();
  }
}

}  // namespace
}  // namespace sluice::test

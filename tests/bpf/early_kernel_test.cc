// The early filter against the kernel: random rules are loaded with nft, read back as byte code,
// compiled for XDP, and the same frames go through both; then every counter must be the same.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "control/early/early_compiler.h"
#include "control/nft/ruleset_reader.h"
#include "io/af_xdp/early_filter.h"
#include "io/af_xdp/early_limits.h"
#include "sluice_bpf/xdp_ingress.skel.h"
#include "support/early_random.h"
#include "support/net_sandbox.h"
#include "support/network_namespace.h"

namespace sluice {
namespace {

using io::af_xdp::EarlyFilter;
using io::af_xdp::EarlyLimits;
using test::Bytes;

struct Counter {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  bool operator==(const Counter&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Counter& c) {
  return out << c.packets << " packets, " << c.bytes << " bytes";
}
using Counters = std::map<tables::EarlyRuleKey, Counter>;

template <typename T>
T Pick(Rng& rng, std::initializer_list<T> of) {
  return *(of.begin() + rng.Below(of.size()));
}

std::string Address4(Rng& rng) { return ToString(test::RandomAddress4(rng)); }
std::string Prefix4(Rng& rng) {
  return ToString(
      Ipv4Prefix{test::RandomAddress4(rng), static_cast<uint8_t>(8 + rng.Below(25))}.Canonical());
}
std::string Range4(Rng& rng) {
  const Ipv4 a = test::RandomAddress4(rng);
  const Ipv4 b = test::RandomAddress4(rng);
  if (a == b) return ToString(a);
  return ToString(std::min(a, b)) + "-" + ToString(std::max(a, b));
}
std::string Address6(Rng& rng) { return ToString(test::RandomAddress6(rng)); }
std::string Prefix6(Rng& rng) {
  return ToString(
      Ipv6Prefix{test::RandomAddress6(rng), static_cast<uint8_t>(16 + rng.Below(113))}.Canonical());
}
std::string Port(Rng& rng) { return std::to_string(Pick(rng, {53, 80, 443, 8080})); }

std::string Match4(Rng& rng) {
  const std::string field = Pick(rng, {"ip saddr ", "ip daddr "});
  const std::string op = rng.Chance(1, 4) ? "!= " : "";
  switch (rng.Below(9)) {
    case 0:
      return field + op + Address4(rng);
    case 1:
      return field + op + Prefix4(rng);
    case 2:
      return field + op + Range4(rng);
    case 3:
      return field + op + "{ " + Address4(rng) + ", " + Address4(rng) + ", 10.0.0.77 }";
    case 4:
      return field + op + "@addresses4";
    case 5:
      return field + Pick(rng, {"< ", ">= ", "> ", "<= "}) + Address4(rng);
    case 6:
      return "ip saddr " + Address4(rng) + " ip daddr " + Address4(rng);
    case 7:
      return Pick(rng, {"ip frag-off & 0x1fff != 0", "ip frag-off & 0x3fff != 0",
                        "ip frag-off & 0x4000 == 0"});
    default:
      return Pick(rng, {"ip protocol udp", "ip protocol != tcp", "icmp type echo-request"});
  }
}

std::string Match6(Rng& rng) {
  const std::string field = Pick(rng, {"ip6 saddr ", "ip6 daddr "});
  const std::string op = rng.Chance(1, 4) ? "!= " : "";
  switch (rng.Below(6)) {
    case 0:
      return field + op + Address6(rng);
    case 1:
      return field + op + Prefix6(rng);
    case 2:
      return field + op + "{ " + Address6(rng) + ", fe80::77 }";
    case 3:
      return field + op + "@addresses6";
    case 4:
      return "ip6 nexthdr { 6, 17 }";
    default:
      return Pick(rng, {"icmpv6 type echo-request", "ip6 nexthdr != 58"});
  }
}

std::string MatchL4(Rng& rng) {
  switch (rng.Below(10)) {
    case 0:
      return "tcp dport " + Port(rng);
    case 1:
      return "udp sport != " + Port(rng);
    case 2:
      return "udp dport { 53, 443, " + Port(rng) + "-9000 }";
    case 3:
      return "tcp dport 50-100";
    case 4:
      return Pick(rng, {"tcp flags syn", "tcp flags & (syn|ack) == syn",
                        "tcp flags & (fin|rst) != 0", "tcp flags != 0"});
    case 5:
      return "meta l4proto { tcp, udp }";
    case 6:
      return "th dport " + Port(rng);
    case 7:
      return "th sport < " + Port(rng);
    case 8:
      return "tcp sport " + Port(rng) + " tcp dport " + Port(rng);
    default:
      return "meta l4proto != udp";
  }
}

std::string RandomRule(Rng& rng, const std::string& family, int number) {
  std::string rule;
  const bool v4 = family == "ip" || (family != "ip6" && rng.Chance(1, 2));
  if (rng.Chance(1, 6))
    rule +=
        Pick(rng, {"iifname \"near\" ", "iifname \"ne*\" ", "iifname \"other\" ", "iif \"near\" "});
  // nft refuses a rule that names two protocols.
  bool protocol = false;
  const auto add = [&](const std::string& match) {
    const bool names =
        match.find("icmp") != std::string::npos || match.find("proto") != std::string::npos ||
        match.find("nexthdr") != std::string::npos || match.find("dp ") != std::string::npos ||
        match.find("tcp ") != std::string::npos;
    if (names && protocol) return;
    protocol = protocol || names;
    rule += match + " ";
  };
  if (rng.Chance(2, 3)) add(v4 ? Match4(rng) : Match6(rng));
  if (rng.Chance(1, 4)) add(v4 ? Match4(rng) : Match6(rng));
  if (rng.Chance(1, 2)) add(MatchL4(rng));
  if (rule.empty()) rule += v4 ? "meta protocol ip " : "meta protocol ip6 ";
  std::string limit;
  if (rng.Chance(1, 6)) {
    limit = Pick(rng,
                 {"limit rate 3/hour burst 2 packets ", "limit rate over 2/hour burst 4 packets "});
  } else if (rng.Chance(1, 8)) {
    limit = "update @meter" + std::to_string(number) + (v4 ? " { ip saddr " : " { ip6 saddr ") +
            "limit rate over 2/hour burst 1 packets } ";
  }
  rule += rng.Chance(1, 3) ? "counter " + limit : limit + "counter ";
  return rule + Pick(rng, {"drop", "drop", "accept", "return", ""});
}

// A chain with its sets; every rule has a counter.
std::string RandomRuleset(Rng& rng, bool ingress) {
  std::string text;
  for (int t = 0; t < 2; ++t) {
    const std::string family =
        ingress ? Pick(rng, {"netdev", "netdev", "inet"}) : Pick(rng, {"ip", "ip6", "inet"});
    std::string sets = "set addresses4 { type ipv4_addr; flags interval; auto-merge; elements = { ";
    for (int i = 0; i < 8; ++i) sets += Pick(rng, {Prefix4(rng), Range4(rng)}) + ", ";
    sets +=
        "9.9.9.9 } }\nset addresses6 { type ipv6_addr; flags interval; auto-merge; elements = { ";
    for (int i = 0; i < 5; ++i) sets += Prefix6(rng) + ", ";
    sets += "9::9 } }\n";
    std::string rules;
    const int count = static_cast<int>(1 + rng.Below(8));
    for (int i = 0; i < count; ++i) {
      const std::string rule = RandomRule(rng, family, i);
      if (rule.find("@meter") != std::string::npos) {
        const bool v6 = rule.find("{ ip6 saddr") != std::string::npos;
        sets += "set meter" + std::to_string(i) + " { type " + (v6 ? "ipv6_addr" : "ipv4_addr") +
                "; size 65535; flags dynamic; }\n";
      }
      rules += "  " + rule + "\n";
    }
    const std::string priority = std::to_string(ingress ? -500 + t : -300 + t);
    text += "table " + family + " t" + std::to_string(t) + " {\n" + sets + "chain c {\n" +
            "  type filter hook " + (ingress ? "ingress device \"near\"" : "prerouting") +
            " priority " + priority + "; policy " + (rng.Chance(1, 8) ? "drop" : "accept") + ";\n" +
            rules + "}\n}\n";
  }
  return text;
}

// What XDP leaves to user space by its form is not compared.
bool IsJudged(const Bytes& frame, bool fragments) {
  const uint16_t type = LoadBe16(frame.data() + 12);
  if (type == 0x86dd) return frame[20] != 0 && frame[20] != 44;
  return fragments || type != 0x0800 || (LoadBe16(frame.data() + 20) & 0x3fff) == 0;
}

class EarlyKernelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // Frames are then processed in the order in which they are sent.
    cpu_set_t one;
    CPU_ZERO(&one);
    ASSERT_EQ(sched_getaffinity(0, sizeof before_, &before_), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &before_)) {
        CPU_SET(cpu, &one);
        break;
      }
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    veth_ = std::make_unique<test::VethPair>("near", "far");
    test::WriteFile("/proc/sys/net/ipv6/conf/near/disable_ipv6", "0");
    socket_ = std::make_unique<test::RawSocket>("far");
    auto limits = EarlyLimits::Create();
    ASSERT_TRUE(limits.ok()) << limits.status();
    limits_ = *std::move(limits);
    skeleton_ = sluice_xdp_ingress::open();
    ASSERT_NE(skeleton_, nullptr);
    ASSERT_EQ(bpf_map__reuse_fd(skeleton_->maps.early_buckets, limits_->buckets_fd()), 0);
    ASSERT_EQ(bpf_map__reuse_fd(skeleton_->maps.early_sources, limits_->sources_fd()), 0);
    ASSERT_EQ(sluice_xdp_ingress::load(skeleton_), 0);
    uint64_t mac = 0;
    const uint8_t own[6] = {2, 0, 0, 0, 0, 1};
    std::memcpy(&mac, own, sizeof own);
    skeleton_->bss->config.own_mac = mac;
    skeleton_->bss->config.enabled = 1;
    auto filter = EarlyFilter::Create({.cores = bpf_map__fd(skeleton_->maps.early_cores),
                                       .pages = bpf_map__fd(skeleton_->maps.early_pages),
                                       .tries = bpf_map__fd(skeleton_->maps.early_tries),
                                       .stats = bpf_map__fd(skeleton_->maps.stats),
                                       .word = &skeleton_->bss->config.early},
                                      *limits_);
    ASSERT_TRUE(filter.ok()) << filter.status();
    filter_ = *std::move(filter);
  }
  void TearDown() override {
    test::NetworkNamespace::Nft("flush ruleset\n");
    filter_.reset();
    if (skeleton_ != nullptr) sluice_xdp_ingress::destroy(skeleton_);
    sched_setaffinity(0, sizeof before_, &before_);
  }

  static control::nft::Ruleset Read() {
    auto reader = control::nft::RulesetReader::Open();
    EXPECT_TRUE(reader.ok()) << reader.status();
    auto ruleset = reader->Read(Seconds(1));
    EXPECT_TRUE(ruleset.ok()) << ruleset.status();
    return *std::move(ruleset);
  }
  static Counters KernelCounters(const control::nft::Ruleset& ruleset) {
    Counters counters;
    for (const auto& table : ruleset.tables) {
      for (const auto& chain : table.chains) {
        for (const auto& rule : chain.rules) {
          for (const auto& expr : rule.exprs) {
            const auto* c = std::get_if<control::nft::CounterExpr>(&expr);
            if (c == nullptr) continue;
            counters[{static_cast<uint8_t>(table.family), table.name, chain.name, rule.handle}] = {
                c->packets, c->bytes};
          }
        }
      }
    }
    return counters;
  }
  void ThroughXdp(const Bytes& frame) {
    bpf_test_run_opts opts{};
    opts.sz = sizeof opts;
    opts.data_in = frame.data();
    opts.data_size_in = static_cast<uint32_t>(frame.size());
    ASSERT_EQ(bpf_prog_test_run_opts(bpf_program__fd(skeleton_->progs.xdp_ingress), &opts), 0);
  }
  // Waits until a last frame, which nothing else looks like, was counted.
  void ThroughKernel(const std::vector<Bytes>& frames) {
    test::NetworkNamespace::Nft(
        "table netdev last { chain c { type filter hook ingress device \"near\" priority -1000; "
        "meta protocol 0x88b6 counter drop; }; }\n");
    for (const Bytes& frame : frames) ASSERT_TRUE(socket_->Send(frame));
    Bytes last = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb6};
    last.resize(60);
    ASSERT_TRUE(socket_->Send(last));
    ASSERT_TRUE(test::Eventually([] {
      for (const auto& [key, counter] : KernelCounters(Read())) {
        if (key.table == "last") return counter.packets == 1;
      }
      return false;
    }));
  }

  cpu_set_t before_;
  std::unique_ptr<test::VethPair> veth_;
  std::unique_ptr<test::RawSocket> socket_;
  std::unique_ptr<EarlyLimits> limits_;
  sluice_xdp_ingress* skeleton_ = nullptr;
  std::unique_ptr<EarlyFilter> filter_;
};

// SLUICE_TEST_SEED and SLUICE_TEST_ROUNDS: others, or more of them, by hand.
uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::strtoull(value, nullptr, 10) : otherwise;
}

TEST_F(EarlyKernelTest, CountsAsTheKernelDoes) {
  const uint64_t first = FromEnvironment("SLUICE_TEST_SEED", 1);
  const uint64_t rounds = FromEnvironment("SLUICE_TEST_ROUNDS", 60);
  size_t compared = 0;
  size_t moved_packets = 0;
  size_t left = 0;
  for (uint64_t seed = first; seed < first + rounds; ++seed) {
    Rng rng(seed);
    const bool ingress = rng.Chance(1, 2);
    const std::string text = RandomRuleset(rng, ingress);
    const bool fragments = ingress;
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    test::NetworkNamespace::Nft("flush ruleset\n" + text);
    const control::nft::Ruleset ruleset = Read();
    control::EarlyCompiler compiler;
    const control::EarlyInterface near{"near", if_nametoindex("near")};
    const auto compiled = compiler.Compile(ruleset, nullptr, {&near, 1}, Seconds(1));
    const tables::EarlyProgram& program = *compiled.programs[0];
    ASSERT_TRUE(filter_->Install(tables::EarlyProgram()).ok());
    ASSERT_TRUE(filter_->Install(program).ok());

    std::vector<Bytes> frames;
    while (frames.size() < 300) {
      Bytes frame = test::RandomEarlyFrame(rng);
      if (IsJudged(frame, fragments)) frames.push_back(std::move(frame));
    }
    for (const Bytes& frame : frames) ASSERT_NO_FATAL_FAILURE(ThroughXdp(frame));
    ASSERT_NO_FATAL_FAILURE(ThroughKernel(frames));
    const Counters kernel = KernelCounters(Read());
    const auto counts = filter_->ReadCounts();
    ASSERT_TRUE(counts.ok()) << counts.status();
    for (const auto& count : *counts) {
      const auto found = kernel.find(count.key);
      if (found == kernel.end()) continue;  // a policy, which has no counter
      const Counter ours{count.packets, count.bytes};
      const std::string where = count.key.table + ", handle " + std::to_string(count.key.handle);
      if (program.remarks.empty()) {
        EXPECT_EQ(ours, found->second) << where;
      } else {
        // Of one family it may be left to user space.
        EXPECT_LE(ours.packets, found->second.packets) << where;
      }
      ++compared;
      moved_packets += count.packets;
    }
    left += program.remarks.size();
    if (HasFailure()) {
      test::Shell("nft -a list ruleset");
      break;
    }
  }
  RecordProperty("rules", static_cast<int>(compared));
  if (rounds >= 60) {
    EXPECT_GT(compared, 200u);
    EXPECT_GT(moved_packets, 2000u);
  }
  EXPECT_LT(left, compared) << "most rules can run in XDP";
}

}  // namespace
}  // namespace sluice

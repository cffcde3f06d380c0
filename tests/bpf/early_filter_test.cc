// The early filter: random programs over random frames, by BPF_PROG_TEST_RUN and by the same C
// compiled natively, against a plain evaluation of the rules.
#include "io/af_xdp/early_filter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>

#include <cstring>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "io/af_xdp/early_limits.h"
#include "sluice_bpf/xdp_ingress.skel.h"
#include "support/early_oracle.h"
#include "support/early_random.h"
#include "support/net_sandbox.h"

namespace sluice {
namespace {

using io::af_xdp::EarlyFilter;
using io::af_xdp::EarlyLimits;
using io::af_xdp::EarlyRuleCount;
using tables::EarlyProgram;
using test::Bytes;

const uint8_t kOwnMac[8] = {2, 0, 0, 0, 0, 1, 0, 0};

class EarlyFilterTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    auto limits = EarlyLimits::Create();
    ASSERT_TRUE(limits.ok()) << limits.status();
    limits_ = *std::move(limits);
    skeleton_ = sluice_xdp_ingress::open();
    ASSERT_NE(skeleton_, nullptr);
    ASSERT_EQ(bpf_map__reuse_fd(skeleton_->maps.early_buckets, limits_->buckets_fd()), 0);
    ASSERT_EQ(bpf_map__reuse_fd(skeleton_->maps.early_sources, limits_->sources_fd()), 0);
    ASSERT_EQ(sluice_xdp_ingress::load(skeleton_), 0);
    uint64_t mac;
    std::memcpy(&mac, kOwnMac, sizeof mac);
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
    filter_.reset();
    if (skeleton_ != nullptr) sluice_xdp_ingress::destroy(skeleton_);
  }

  // The action. Nobody listens, so what is not dropped goes to the kernel.
  uint32_t Run(const Bytes& frame) {
    bpf_test_run_opts opts{};
    opts.sz = sizeof opts;
    opts.data_in = frame.data();
    opts.data_size_in = static_cast<uint32_t>(frame.size());
    const auto* program =
        GetParam() ? skeleton_->progs.xdp_ingress_frags : skeleton_->progs.xdp_ingress;
    EXPECT_EQ(bpf_prog_test_run_opts(bpf_program__fd(program), &opts), 0);
    return opts.retval;
  }
  uint64_t Reason(sluice_xdp_reason reason) {
    std::vector<sluice_xdp_stats> cells(static_cast<size_t>(libbpf_num_possible_cpus()));
    const uint32_t key = 0;
    EXPECT_EQ(bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.stats), &key, cells.data()), 0);
    uint64_t sum = 0;
    for (const auto& cell : cells) sum += cell.packets[reason];
    return sum;
  }
  void Install(const EarlyProgram& program) {
    const auto retired = filter_->Install(program);
    ASSERT_TRUE(retired.ok()) << retired.status();
  }

  std::unique_ptr<EarlyLimits> limits_;
  sluice_xdp_ingress* skeleton_ = nullptr;
  std::unique_ptr<EarlyFilter> filter_;
};
INSTANTIATE_TEST_SUITE_P(Entry, EarlyFilterTest, ::testing::Bool(), [](const auto& run) {
  return run.param ? std::string("frags") : std::string("plain");
});

TEST_P(EarlyFilterTest, RandomProgramsAndFrames) {
  int drops = 0;
  int passes = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    const EarlyProgram program = test::RandomEarlyProgram(rng);
    ASSERT_NO_FATAL_FAILURE(Install(program));
    const auto before = filter_->ReadCounts();
    ASSERT_TRUE(before.ok()) << before.status();
    test::EarlyOracle oracle(program);
    for (int i = 0; i < 400; ++i) {
      const Bytes frame = test::RandomEarlyFrame(rng);
      const auto expected = oracle.Judge(test::ReadEarlyFacts(frame));
      ASSERT_EQ(Run(frame), expected ? XDP_DROP : XDP_PASS)
          << "frame " << i << ": " << test::ToHex(frame);
      ++(expected ? drops : passes);
    }
    const auto counts = filter_->ReadCounts();
    ASSERT_TRUE(counts.ok()) << counts.status();
    for (size_t r = 0; r < program.rules.size(); ++r) {
      // Keys repeat from program to program here, so counters go on.
      EXPECT_EQ((*counts)[r].packets - (*before)[r].packets, oracle.packets()[r]) << "rule " << r;
      EXPECT_EQ((*counts)[r].bytes - (*before)[r].bytes, oracle.bytes()[r]) << "rule " << r;
    }
  }
  EXPECT_GT(drops, 2000);
  EXPECT_GT(passes, 2000);
}

// Sets change in place; each change shows at once, and nothing else does.
TEST_P(EarlyFilterTest, ElementsChangeInPlace) {
  Rng rng(7);
  EarlyProgram program = test::RandomEarlyProgram(rng);
  program.rules.clear();
  for (uint16_t s = 0; s < 3; ++s) {
    tables::EarlyRule rule;
    rule.key = {5, "t", "c", s + 1u};
    rule.ingress = true;
    rule.families = s == 2 ? tables::kEarlyIpv6 : tables::kEarlyIpv4;
    if (s == 2) {
      rule.addresses6[0] = {{0, false}};
    } else {
      rule.addresses4[s] = {{s, false}};
    }
    rule.verdict = tables::EarlyVerdict::kDrop;
    program.rules.push_back(rule);
  }
  program.sets4 = {test::RandomSet4(rng), test::RandomSet4(rng)};
  program.sets6 = {test::RandomSet6(rng)};
  ASSERT_NO_FATAL_FAILURE(Install(program));
  const uint32_t word = skeleton_->bss->config.early;
  int changed_in_place = 0;
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    const size_t which = rng.Below(3);
    if (which == 2) {
      program.sets6[0] = test::RandomSet6(rng);
    } else {
      program.sets4[which] = test::RandomSet4(rng);
    }
    ASSERT_NO_FATAL_FAILURE(Install(program));
    changed_in_place += skeleton_->bss->config.early == word;
    test::EarlyOracle oracle(program);
    for (int i = 0; i < 100; ++i) {
      const Bytes frame = test::RandomEarlyFrame(rng);
      ASSERT_EQ(Run(frame), oracle.Judge(test::ReadEarlyFacts(frame)) ? XDP_DROP : XDP_PASS)
          << test::ToHex(frame);
    }
  }
  EXPECT_EQ(changed_in_place, 200);
}

TEST_P(EarlyFilterTest, CountsFollowARuleAndEndWithIt) {
  EarlyProgram program;
  program.port_sets = {{{53, 53}}};
  tables::EarlyRule rule;
  rule.key = {5, "t", "c", 1};
  rule.families = tables::kEarlyIpv4;
  rule.ingress = true;
  rule.ports[1] = {{0, false}};
  rule.verdict = tables::EarlyVerdict::kDrop;
  program.rules = {rule};
  ASSERT_NO_FATAL_FAILURE(Install(program));
  const Bytes frame = test::PacketBuilder()
                          .Ethernet("02:00:00:00:00:02", "02:00:00:00:00:01")
                          .Ipv4("10.0.0.2", "10.0.0.1")
                          .Udp(1, 53)
                          .Payload(18)
                          .Build();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Run(frame), XDP_DROP);
  EXPECT_EQ(Reason(SLUICE_XDP_EARLY_RULE), 5u);
  // Another rule before it: its counter goes with it.
  tables::EarlyRule first = rule;
  first.key.handle = 2;
  first.verdict = tables::EarlyVerdict::kContinue;
  program.rules = {first, rule};
  ASSERT_NO_FATAL_FAILURE(Install(program));
  EXPECT_EQ(Run(frame), XDP_DROP);
  auto counts = filter_->ReadCounts();
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ((*counts)[0].packets, 1u);
  EXPECT_EQ((*counts)[1].packets, 6u);
  EXPECT_EQ((*counts)[1].bytes, 6u * (20 + 8 + 18));
  // And it is told when it goes.
  program.rules = {first};
  const auto retired = filter_->Install(program);
  ASSERT_TRUE(retired.ok());
  ASSERT_EQ(retired->size(), 1u);
  EXPECT_EQ((*retired)[0].key, rule.key);
  EXPECT_EQ((*retired)[0].packets, 6u);
  EXPECT_EQ(Run(frame), XDP_PASS);
  ASSERT_TRUE(filter_->Install(EarlyProgram()).ok());
  EXPECT_EQ(skeleton_->bss->config.early, 0u) << "without rules nothing is looked at";
}

TEST_P(EarlyFilterTest, DropsWhatTheKernelWouldDrop) {
  const auto to_us = [] {
    return test::PacketBuilder().Ethernet("02:00:00:00:00:02", "02:00:00:00:00:01");
  };
  const auto v4 = [&](const char* from, const char* to) {
    return to_us().Ipv4(from, to).Udp(1, 2).Payload(18).Build();
  };
  const auto v6 = [&](const char* from, const char* to) {
    return to_us().Ipv6(from, to).Udp(1, 2).Payload(18).Build();
  };
  const auto with = [](Bytes frame, size_t at, int value) {
    frame[at] = static_cast<uint8_t>(value);
    return frame;
  };
  const auto cut = [](Bytes frame, size_t by) {
    frame.resize(frame.size() - by);
    return frame;
  };
  const Bytes good4 = v4("10.0.0.2", "10.0.0.1");
  const Bytes good6 = v6("2001:db8::2", "2001:db8::1");
  const std::vector<std::pair<Bytes, sluice_xdp_reason>> cases = {
      {with(good4, 14, 0x55), SLUICE_XDP_IPV4_HEADER},
      {with(good4, 14, 0x44), SLUICE_XDP_IPV4_HEADER},
      {with(good4, 17, 19), SLUICE_XDP_IPV4_HEADER},
      {cut(good4, 1), SLUICE_XDP_IPV4_TRUNCATED},
      {with(good6, 14, 0x50), SLUICE_XDP_IPV6_HEADER},
      {v6("::1", "2001:db8::1"), SLUICE_XDP_IPV6_HEADER},
      {v6("2001:db8::2", "::1"), SLUICE_XDP_IPV6_HEADER},
      {v6("ff02::1", "2001:db8::1"), SLUICE_XDP_IPV6_HEADER},
      {cut(good6, 1), SLUICE_XDP_IPV6_TRUNCATED},
      {v4("224.0.0.1", "10.0.0.1"), SLUICE_XDP_MARTIAN_SOURCE},
      {v4("255.255.255.255", "10.0.0.1"), SLUICE_XDP_MARTIAN_SOURCE},
      {v4("0.0.0.0", "10.0.0.1"), SLUICE_XDP_MARTIAN_SOURCE},
      {v4("127.0.0.1", "10.0.0.1"), SLUICE_XDP_MARTIAN_SOURCE},
      {v4("10.0.0.2", "127.0.0.1"), SLUICE_XDP_MARTIAN_DESTINATION},
      {v4("10.0.0.2", "0.0.0.0"), SLUICE_XDP_MARTIAN_DESTINATION},
  };
  EarlyProgram program;
  program.martians = true;
  ASSERT_NO_FATAL_FAILURE(Install(program));
  for (const auto& [frame, reason] : cases) EXPECT_EQ(Run(frame), XDP_PASS) << "not asked for";
  filter_->SetChecks({.headers = true, .martians = true, .loopback = true});
  for (const auto& [frame, reason] : cases) {
    SCOPED_TRACE(test::ToHex(frame));
    const uint64_t before = Reason(reason);
    EXPECT_EQ(Run(frame), XDP_DROP);
    EXPECT_EQ(Reason(reason), before + 1);
  }
  for (const Bytes& frame : {good4, good6, v4("0.1.2.3", "10.0.0.1"), v4("240.0.0.1", "10.0.0.1"),
                             v4("0.0.0.0", "0.0.0.0"), v6("fe80::2", "fe80::1")}) {
    EXPECT_EQ(Run(frame), XDP_PASS) << test::ToHex(frame);
  }
  filter_->SetChecks({.headers = true, .martians = true, .loopback = false});
  EXPECT_EQ(Run(v4("127.0.0.1", "10.0.0.1")), XDP_PASS) << "route_localnet";
  program.martians = false;
  ASSERT_NO_FATAL_FAILURE(Install(program));
  EXPECT_EQ(Run(v4("224.0.0.1", "10.0.0.1")), XDP_PASS) << "a rule in user space wants to see it";
}

}  // namespace
}  // namespace sluice

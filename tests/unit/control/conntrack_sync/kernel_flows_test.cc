// Writing to and reading from the kernel's table.
#include "control/conntrack_sync/kernel_flows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "support/network_namespace.h"
#include "unit/control/conntrack_sync/flows.h"

namespace sluice::control {
namespace {

using tables::Flow;
using tables::FlowTuple;
using test::NetworkNamespace;

class KernelFlowsTest : public testing::Test {
 protected:
  std::vector<Flow> Read() {
    std::vector<Flow> flows;
    const auto count = ReadKernelFlows(now_, [&](const Flow& flow) { flows.push_back(flow); });
    EXPECT_TRUE(count.ok()) << count.status();
    return flows;
  }
  const Flow* Find(const std::vector<Flow>& flows, const FlowTuple& original) {
    const auto at = std::find_if(flows.begin(), flows.end(),
                                 [&](const Flow& f) { return f.tuples[0] == original; });
    return at == flows.end() ? nullptr : &*at;
  }
  KernelFlowWriter::Result Write(const std::vector<Flow>& flows) {
    const auto result = WriteKernelFlows(flows, now_);
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(result->first_failure.ok()) << result->first_failure;
    return *result;
  }
  Flow Made(const FlowTuple& original, const FlowTuple& outside) {
    return control::Made(original, outside, now_ + Seconds(300));
  }
  // The flow as it will be read again.
  static void ExpectSame(const Flow& written, const Flow& read) {
    EXPECT_EQ(read.tuples, written.tuples);
    const uint32_t kept = kAlive | tables::kFlowNatMask;
    EXPECT_EQ(read.status & kept, written.status & kept);
    EXPECT_TRUE(read.Has(tables::kFlowImported));
    EXPECT_FALSE(read.Has(tables::kFlowKernel));
    EXPECT_EQ(read.mark, written.mark);
    EXPECT_NEAR((read.expires - written.expires).seconds(), 0, 3);
    if (written.tuples[0].protocol == wire::kProtocolTcp) {
      EXPECT_EQ(read.tcp.state, written.tcp.state);
      EXPECT_EQ(read.tcp.scales, written.tcp.scales);
      for (const size_t d : {0, 1}) {
        EXPECT_EQ(read.tcp.flags[d], written.tcp.flags[d] | tables::kTcpBeLiberal);
      }
      EXPECT_EQ(read.tcp.peers[0].max_window, 0u) << "windows begin with the first packet";
    }
    if (written.tuples[0].protocol == wire::kProtocolSctp) {
      EXPECT_EQ(read.sctp.state, written.sctp.state);
      EXPECT_EQ(read.sctp.tags, written.sctp.tags);
    }
  }

  NetworkNamespace namespace_;
  const Nanos now_ = Seconds(100'000);
};

std::vector<std::pair<FlowTuple, FlowTuple>> Kinds() {
  const auto echo4 = [](const char* from, uint16_t id) {
    return Tuple(from, id, "1.1.1.1", 0x0800, wire::kProtocolIcmp);
  };
  const auto echo6 = [](const char* from, uint16_t id) {
    return Tuple(from, id, "2001:4860::8", 0x8000, wire::kProtocolIcmpv6);
  };
  const uint8_t udp = wire::kProtocolUdp;
  const uint8_t sctp = wire::kProtocolSctp;
  return {
      // Not translated.
      {Tuple("10.0.0.2", 1, "1.1.1.1", 80), Tuple("10.0.0.2", 1, "1.1.1.1", 80)},
      {Tuple("10.0.0.2", 1, "1.1.1.1", 53, udp), Tuple("10.0.0.2", 1, "1.1.1.1", 53, udp)},
      // The source, with and without its port.
      {Tuple("10.0.0.2", 2, "1.1.1.1", 80), Tuple("192.0.2.1", 2, "1.1.1.1", 80)},
      {Tuple("10.0.0.3", 2, "1.1.1.1", 80), Tuple("192.0.2.1", 50000, "1.1.1.1", 80)},
      {Tuple("10.0.0.3", 2, "1.1.1.1", 53, udp), Tuple("192.0.2.1", 50000, "1.1.1.1", 53, udp)},
      // Only the port.
      {Tuple("192.0.2.9", 2, "1.1.1.1", 80), Tuple("192.0.2.9", 50001, "1.1.1.1", 80)},
      // The destination.
      {Tuple("198.51.100.7", 4000, "192.0.2.1", 80), Tuple("198.51.100.7", 4000, "10.0.0.5", 80)},
      {Tuple("198.51.100.7", 4001, "192.0.2.1", 80), Tuple("198.51.100.7", 4001, "10.0.0.5", 8080)},
      // Both (hairpin).
      {Tuple("10.0.0.2", 4002, "192.0.2.1", 80), Tuple("10.0.0.1", 4003, "10.0.0.5", 8080)},
      {echo4("10.0.0.2", 7), echo4("10.0.0.2", 7)},
      {echo4("10.0.0.2", 8), echo4("192.0.2.1", 8)},
      {echo4("10.0.0.2", 9), echo4("192.0.2.1", 10)},
      {echo6("2001:db8::2", 7), echo6("2001:db8::2", 7)},
      {echo6("2001:db8::2", 9), echo6("2001:db8:1::1", 10)},
      {Tuple("10.0.0.2", 0, "1.1.1.1", 0, 50), Tuple("192.0.2.1", 0, "1.1.1.1", 0, 50)},
      {Tuple("10.0.0.2", 5, "1.1.1.1", 6, sctp), Tuple("192.0.2.1", 5, "1.1.1.1", 6, sctp)},
      {Tuple("2001:db8::2", 1, "2001:4860::8", 80), Tuple("2001:db8::2", 1, "2001:4860::8", 80)},
      {Tuple("2001:db8::2", 2, "2001:4860::8", 80),
       Tuple("2001:db8:1::1", 50000, "2001:4860::8", 80)},
      {Tuple("2001:4860::8", 3, "2001:db8:1::1", 80),
       Tuple("2001:4860::8", 3, "2001:db8::5", 8080)},
      {Tuple("2001:4860::8", 4, "2001:db8:1::1", 53, udp),
       Tuple("2001:4860::8", 4, "2001:db8::5", 53, udp)},
  };
}

TEST_F(KernelFlowsTest, WhatIsWrittenIsRead) {
  std::vector<Flow> flows;
  for (const auto& [original, outside] : Kinds()) flows.push_back(Made(original, outside));
  flows[2].mark = 0xdeadbeef;
  flows[3].tcp.state = static_cast<uint8_t>(tables::TcpState::kFinWait);
  flows[4].status &= ~uint32_t{tables::kFlowAssured};
  flows[4].expires = now_ + Seconds(17);
  const auto result = Write(flows);
  EXPECT_EQ(result.written, flows.size());
  EXPECT_EQ(result.replaced, 0u);
  EXPECT_EQ(result.clashed, 0u);
  const std::vector<Flow> read = Read();
  EXPECT_EQ(read.size(), flows.size());
  for (size_t i = 0; i < flows.size(); ++i) {
    SCOPED_TRACE(i);
    const Flow* found = Find(read, flows[i].tuples[0]);
    ASSERT_NE(found, nullptr);
    ExpectSame(flows[i], *found);
  }
}

TEST_F(KernelFlowsTest, WritingAgainReplaces) {
  std::vector<Flow> flows;
  for (const auto& [original, outside] : Kinds()) flows.push_back(Made(original, outside));
  Write(flows);
  for (Flow& flow : flows) flow.mark = 42;
  const auto result = Write(flows);
  EXPECT_EQ(result.written, flows.size());
  EXPECT_EQ(result.replaced, flows.size());
  const std::vector<Flow> read = Read();
  EXPECT_EQ(read.size(), flows.size());
  for (const Flow& flow : read) EXPECT_EQ(flow.mark, 42u);
}

TEST_F(KernelFlowsTest, AnOlderTranslationOfAnotherFlowGivesWay) {
  const FlowTuple outside = Tuple("192.0.2.1", 50000, "1.1.1.1", 80);
  const Flow old = Made(Tuple("10.0.0.2", 1, "1.1.1.1", 80), outside);
  const Flow live = Made(Tuple("10.0.0.3", 1, "1.1.1.1", 80), outside);
  Write({old});
  const auto result = Write({live});
  EXPECT_EQ(result.replaced, 1u);
  const std::vector<Flow> read = Read();
  ASSERT_EQ(read.size(), 1u);
  ExpectSame(live, read[0]);
}

TEST_F(KernelFlowsTest, AConnectionOfTheMachineItselfDoesNot) {
  const FlowTuple outside = Tuple("192.0.2.1", 50000, "1.1.1.1", 80);
  const Flow local = Made(outside, outside);
  const Flow ours = Made(Tuple("10.0.0.3", 1, "1.1.1.1", 80), outside);
  Write({local});
  const auto result = Write(
      {ours, Made(Tuple("10.0.0.4", 1, "1.1.1.1", 80), Tuple("192.0.2.1", 50001, "1.1.1.1", 80))});
  EXPECT_EQ(result.clashed, 1u);
  EXPECT_EQ(result.written, 1u);
  const std::vector<Flow> read = Read();
  EXPECT_EQ(read.size(), 2u);
  ASSERT_NE(Find(read, outside), nullptr);
}

TEST_F(KernelFlowsTest, SkipsWhatIsOverOrTheKernels) {
  Flow over = Made(Tuple("10.0.0.3", 1, "1.1.1.1", 80), Tuple("10.0.0.3", 1, "1.1.1.1", 80));
  Flow unconfirmed = over;
  Flow kernels = over;
  over.expires = now_;
  unconfirmed.status &= ~uint32_t{tables::kFlowConfirmed};
  kernels.status |= tables::kFlowKernel;
  const auto result = Write({over, unconfirmed, kernels});
  EXPECT_EQ(result.skipped, 3u);
  EXPECT_EQ(result.written, 0u);
  EXPECT_TRUE(Read().empty());
}

TEST_F(KernelFlowsTest, WhatTheKernelRefusesIsReported) {
  Flow flow = Made(Tuple("10.0.0.3", 1, "1.1.1.1", 80), Tuple("10.0.0.3", 1, "1.1.1.1", 80));
  flow.tcp.state = 200;
  const auto result = WriteKernelFlows({flow}, now_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->failed, 1u);
  EXPECT_FALSE(result->first_failure.ok());
}

TEST_F(KernelFlowsTest, RemovesByEitherTuple) {
  std::vector<Flow> flows;
  for (const auto& [original, outside] : Kinds()) flows.push_back(Made(original, outside));
  Write(flows);
  std::vector<FlowTuple> some;
  for (size_t i = 0; i < flows.size(); ++i) {
    if (i % 3 != 0) some.push_back(flows[i].tuples[i % 3 == 1 ? 0 : 1]);
  }
  const size_t there = some.size();
  some.push_back(Tuple("10.9.9.9", 1, "1.1.1.1", 80));  // not there
  const auto removed = RemoveKernelFlows(some);
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(*removed, there);
  const std::vector<Flow> read = Read();
  EXPECT_EQ(read.size(), flows.size() - there);
  for (size_t i = 0; i < flows.size(); i += 3) EXPECT_NE(Find(read, flows[i].tuples[0]), nullptr);
}

TEST_F(KernelFlowsTest, ManyFlows) {
  constexpr size_t kFlows = 20'000;
  auto writer = KernelFlowWriter::Open();
  ASSERT_TRUE(writer.ok());
  const auto begin = std::chrono::steady_clock::now();
  for (size_t i = 0; i < kFlows; ++i) {
    const auto port = static_cast<uint16_t>(1024 + i % 60'000);
    const std::string host = "10.1." + std::to_string(i >> 8) + "." + std::to_string(i & 255);
    ASSERT_TRUE(
        writer
            ->Add(Made(Tuple(host, 4000, "1.1.1.1", 443), Tuple("192.0.2.1", port, "1.1.1.1", 443)),
                  now_)
            .ok());
  }
  const auto result = writer->Finish();
  ASSERT_TRUE(result.ok());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(result->written, kFlows) << result->first_failure;
  EXPECT_EQ(Read().size(), kFlows);
  RecordProperty("microseconds_per_flow", std::to_string(took.count() * 1e6 / kFlows));
}

TEST(IsForwardedTest, LooksAtTheRealEnds) {
  const auto own = [](const IpAddress& a) {
    return a == *ParseIpAddress("192.0.2.1") || a == *ParseIpAddress("10.0.0.1");
  };
  const Nanos later = Seconds(1);
  const auto forwarded = [&](const FlowTuple& original, const FlowTuple& outside) {
    return IsForwarded(control::Made(original, outside, later), own);
  };
  const FlowTuple masqueraded = Tuple("192.0.2.1", 2, "1.1.1.1", 80);
  EXPECT_TRUE(forwarded(Tuple("10.0.0.2", 2, "1.1.1.1", 80), masqueraded));
  EXPECT_TRUE(forwarded(Tuple("1.1.1.1", 2, "192.0.2.1", 80), Tuple("1.1.1.1", 2, "10.0.0.5", 80)));
  EXPECT_FALSE(forwarded(masqueraded, masqueraded)) << "from us";
  EXPECT_FALSE(
      forwarded(Tuple("1.1.1.1", 2, "192.0.2.1", 22), Tuple("1.1.1.1", 2, "192.0.2.1", 22)))
      << "to us";
  EXPECT_FALSE(
      forwarded(Tuple("10.0.0.2", 2, "1.1.1.1", 80), Tuple("10.0.0.2", 2, "10.0.0.1", 3128)))
      << "redirected to us";
}

}  // namespace
}  // namespace sluice::control

// Messages of the kernel: whole, cut short, and garbled.
#include "control/conntrack_sync/flow_message.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "unit/control/conntrack_sync/flows.h"

namespace sluice::control {
namespace {

using tables::Flow;

const Nanos kNow = Seconds(1000);

std::vector<uint8_t> Message(const Flow& flow) {
  std::vector<uint8_t> out;
  AppendCreate(out, 7, flow, kNow);
  return out;
}

// In a buffer of exactly its size, so that a sanitizer sees every byte that is read too much.
std::optional<Flow> Parse(const std::vector<uint8_t>& bytes) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::memcpy(copy.get(), bytes.data(), bytes.size());
  return ParseFlowMessage(*reinterpret_cast<const nlmsghdr*>(copy.get()), kNow);
}

std::vector<Flow> Flows() {
  return {control::Made(Tuple("10.0.0.2", 1, "1.1.1.1", 80), Tuple("192.0.2.1", 5, "1.1.1.1", 80),
                        kNow + Seconds(99)),
          control::Made(Tuple("2001:db8::2", 1, "2001:4860::8", 80, wire::kProtocolSctp),
                        Tuple("2001:db8:1::1", 5, "2001:4860::8", 80, wire::kProtocolSctp),
                        kNow + Seconds(99)),
          control::Made(Tuple("10.0.0.2", 7, "1.1.1.1", 0x0800, wire::kProtocolIcmp),
                        Tuple("192.0.2.1", 8, "1.1.1.1", 0x0800, wire::kProtocolIcmp),
                        kNow + Seconds(99))};
}

TEST(FlowMessageTest, ACreateMessageReadsAsTheUntranslatedFlow) {
  for (const Flow& flow : Flows()) {
    const std::vector<uint8_t> bytes = Message(flow);
    ASSERT_TRUE(IsFlowMessage(*reinterpret_cast<const nlmsghdr*>(bytes.data())));
    const auto read = Parse(bytes);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->tuples[0], flow.tuples[0]);
    EXPECT_EQ(read->tuples[1], Inverse(flow.tuples[0])) << "the kernel translates it itself";
    EXPECT_EQ(read->expires, flow.expires);
    EXPECT_EQ(read->status, kAlive | tables::kFlowImported);
  }
}

TEST(FlowMessageTest, TheTimeLeftIsRoundedUp) {
  Flow flow = Flows()[0];
  for (const auto& [left, told] : {std::pair{Millis(1), 1},
                                   {Millis(1000), 1},
                                   {Millis(1001), 2},
                                   {Seconds(432'000), 432'000}}) {
    flow.expires = kNow + left;
    EXPECT_EQ(Parse(Message(flow))->expires, kNow + Seconds(told));
  }
}

TEST(FlowMessageTest, CutShortAnywhere) {
  for (const Flow& flow : Flows()) {
    const std::vector<uint8_t> whole = Message(flow);
    for (size_t size = sizeof(nlmsghdr); size < whole.size(); ++size) {
      std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<long>(size));
      const auto length = static_cast<uint32_t>(size);
      std::memcpy(cut.data(), &length, sizeof length);
      const auto read = Parse(cut);
      if (read) {
        EXPECT_EQ(read->tuples[0], flow.tuples[0]);
      }
    }
  }
}

TEST(FlowMessageTest, GarbledBytes) {
  Rng rng(11);
  size_t taken = 0;
  for (int round = 0; round < 100'000; ++round) {
    const auto flows = Flows();
    std::vector<uint8_t> bytes = Message(flows[rng.Below(flows.size())]);
    for (uint64_t n = 1 + rng.Below(3); n > 0; --n) {
      // Not the length of the whole, which the socket has checked.
      bytes[4 + rng.Below(bytes.size() - 4)] = static_cast<uint8_t>(rng.Next());
    }
    const auto read = Parse(bytes);
    if (!read) continue;
    ++taken;
    EXPECT_LE(read->tcp.scales[0], read->tuples[0].protocol == wire::kProtocolTcp ? 14 : 255);
    EXPECT_EQ(read->tuples[0].family, read->tuples[1].family);
  }
  EXPECT_GT(taken, 10'000u);
}

}  // namespace
}  // namespace sluice::control

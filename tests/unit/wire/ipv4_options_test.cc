#include "wire/ipv4_options.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "support/packet_builder.h"

namespace sluice::wire {
namespace {

using test::Bytes;

constexpr int kValid = -1;

struct Case {
  const char* what;
  Bytes options;
  int pointer;  // of the parameter problem, from the IP header; kValid when there is none
  bool action;  // NeedsAction()
};

// Each as __ip_options_compile answers it for a received packet.
const Case kCases[] = {
    {"none", {}, kValid, false},
    {"nops", {1, 1, 1, 1}, kValid, false},
    {"end", {0, 0, 0, 0}, kValid, false},
    {"garbage after end is cleared", {0, 0, 7, 0}, kValid, true},
    {"unknown kind", {200, 4, 1, 2}, kValid, false},
    {"unknown kind of length 2", {200, 2, 0, 0}, kValid, false},
    {"length 0", {200, 0, 0, 0}, 20, false},
    {"length 1", {1, 200, 1, 0}, 21, false},
    {"length beyond the end", {1, 200, 4, 0}, 21, false},
    {"length byte missing", {1, 1, 1, 7}, 23, false},
    {"record route", {7, 7, 4, 0, 0, 0, 0, 0}, kValid, true},
    {"record route full", {7, 7, 8, 1, 2, 3, 4, 0}, kValid, false},
    {"record route too short", {7, 2, 0, 0}, 21, false},
    {"record route pointer 3", {7, 7, 3, 0, 0, 0, 0, 0}, 22, false},
    {"record route no room", {7, 7, 5, 0, 0, 0, 0, 0}, 22, false},
    {"record route twice", {7, 3, 4, 7, 3, 4, 0, 0}, 23, false},
    {"loose source route", {131, 7, 4, 1, 2, 3, 4, 0}, kValid, true},
    {"strict source route", {137, 7, 8, 1, 2, 3, 4, 0}, kValid, true},
    {"source route too short", {131, 2, 0, 0}, 21, false},
    {"source route pointer 3", {131, 7, 3, 1, 2, 3, 4, 0}, 22, false},
    {"two source routes", {131, 3, 4, 137, 3, 4, 0, 0}, 23, true},
    {"timestamp", {68, 8, 5, 0, 0, 0, 0, 0}, kValid, true},
    {"timestamp and address", {68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0}, kValid, true},
    {"timestamp, prespecified", {68, 12, 5, 3, 0, 0, 0, 0, 0, 0, 0, 0}, kValid, true},
    {"timestamp and address, no room", {68, 8, 5, 1, 0, 0, 0, 0}, 22, false},
    {"timestamp, unknown flag", {68, 8, 5, 2, 0, 0, 0, 0}, kValid, false},
    {"timestamp full", {68, 8, 9, 0, 0, 0, 0, 0}, kValid, true},
    {"timestamp overflow full", {68, 8, 9, 0xf0, 0, 0, 0, 0}, 23, false},
    {"timestamp too short", {68, 3, 5, 0}, 21, false},
    {"timestamp pointer 4", {68, 8, 4, 0, 0, 0, 0, 0}, 22, false},
    {"timestamp no room", {68, 8, 6, 0, 0, 0, 0, 0}, 22, false},
    {"timestamp twice", {68, 4, 5, 0, 68, 4, 5, 0}, 24, true},
    {"router alert", {148, 4, 0, 0}, kValid, true},
    {"router alert, other value", {148, 4, 0, 1}, kValid, false},
    {"router alert too short", {148, 3, 0, 0}, 21, false},
    {"CIPSO", {134, 6, 0, 0, 0, 1, 0, 0}, kValid, true},
    {"CIPSO twice", {134, 2, 134, 2}, 22, true},
};

TEST(Ipv4OptionsTest, CompilesAsLinux) {
  for (const Case& c : kCases) {
    const auto result = CompileIpv4Options(c.options);
    EXPECT_EQ(result.valid, c.pointer == kValid) << c.what;
    if (c.pointer != kValid) {
      EXPECT_EQ(result.problem_pointer, c.pointer) << c.what;
    }
    EXPECT_EQ(result.NeedsAction(), c.action) << c.what;
  }
}

TEST(Ipv4OptionsTest, NamesWhatItFinds) {
  EXPECT_TRUE(CompileIpv4Options(Bytes{137, 3, 4, 0}).strict);
  EXPECT_FALSE(CompileIpv4Options(Bytes{131, 3, 4, 0}).strict);
  EXPECT_TRUE(CompileIpv4Options(Bytes{131, 3, 4, 0}).source_route);
  EXPECT_TRUE(CompileIpv4Options(Bytes{148, 4, 0, 0}).router_alert);
  EXPECT_TRUE(CompileIpv4Options(Bytes{7, 7, 4, 0, 0, 0, 0, 0}).record_route);
  EXPECT_TRUE(CompileIpv4Options(Bytes{68, 8, 5, 0, 0, 0, 0, 0}).timestamp);
}

TEST(Ipv4OptionsTest, IteratorYieldsWholeOptions) {
  const Bytes options = {1, 7, 3, 4, 148, 4, 0, 0, 0, 9, 9};
  Ipv4OptionIterator it(options);
  const auto first = it.Next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->kind, 7);
  EXPECT_EQ(first->offset, 1);
  EXPECT_EQ(first->bytes.size(), 3u);
  EXPECT_EQ(it.Next()->kind, 148);
  EXPECT_FALSE(it.Next());
  EXPECT_FALSE(it.malformed());
  EXPECT_EQ(it.offset(), 8u);
}

// Random bytes: the verdict never points outside, and the iterator covers no byte twice.
TEST(Ipv4OptionsTest, RandomBytesStayInBounds) {
  Rng rng(1);
  constexpr uint8_t kKinds[] = {0, 1, 7, 68, 131, 137, 148, 134, 200};
  for (int i = 0; i < 200'000; ++i) {
    Bytes options(4 * rng.Below(11));
    for (auto& b : options) {
      b = rng.Chance(1, 2) ? kKinds[rng.Below(sizeof kKinds)] : static_cast<uint8_t>(rng.Below(13));
    }
    const auto result = CompileIpv4Options(options);
    if (!result.valid) {
      ASSERT_GE(result.problem_pointer, 20);
      ASSERT_LT(result.problem_pointer, 20 + options.size());
    }
    size_t covered = 0;
    Ipv4OptionIterator it(options);
    while (const auto option = it.Next()) {
      ASSERT_GE(option->offset, covered);
      covered = option->offset + option->bytes.size();
    }
    ASSERT_LE(covered, options.size());
  }
}

}  // namespace
}  // namespace sluice::wire

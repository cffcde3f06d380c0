#include "control/nft/set_writer.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "control/nft/ruleset_reader.h"
#include "support/network_namespace.h"

namespace sluice::control::nft {
namespace {

using sluice::test::NetworkNamespace;

constexpr char kRules[] = R"(
table inet t {
  set plain { type ipv4_addr; size 3; flags dynamic; }
  set timed { type ipv4_addr . inet_service; size 100; flags dynamic,timeout; timeout 1h; }
  map marks { type ipv4_addr : mark; size 100; flags dynamic; }
}
table ip u {
  set plain { type ipv4_addr; size 100; flags dynamic; }
}
)";

class SetWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    NetworkNamespace::Nft(kRules);
    auto writer = SetWriter::Open();
    ASSERT_TRUE(writer.ok()) << writer.status();
    writer_.emplace(*std::move(writer));
  }
  static Ruleset Read() {
    auto reader = RulesetReader::Open();
    EXPECT_TRUE(reader.ok());
    auto ruleset = reader->Read(Seconds(1));
    EXPECT_TRUE(ruleset.ok()) << ruleset.status();
    return *std::move(ruleset);
  }
  static ElementChange Change(const char* set, Bytes key) {
    ElementChange change;
    change.table = "t";
    change.set = set;
    change.key = std::move(key);
    return change;
  }
  SetWriter::Result Write(const std::vector<ElementChange>& changes) {
    const auto result = writer_->Write(changes, Read().generation);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(SetWriter::Result());
  }
  static size_t Size(const char* set, size_t table = 0) {
    return Read().tables[table].sets.at(set).elements.size();
  }

  NetworkNamespace namespace_;
  std::optional<SetWriter> writer_;
};

TEST_F(SetWriterTest, WritesKeysDataTimeoutsAndStatements) {
  ElementChange timed = Change("timed", {10, 0, 0, 1, 0, 80, 0, 0});
  timed.timeout_ms = 60'000;
  ElementChange mark = Change("marks", {10, 0, 0, 2});
  mark.data = {7, 0, 0, 0};
  ElementChange limited = Change("plain", {10, 0, 0, 3});
  limited.exprs = {LimitExpr{.rate = 5, .unit_seconds = 60, .burst = 9, .inverted = true}};
  ElementChange other = Change("plain", {10, 0, 0, 4});
  other.family = TableFamily::kIp;
  other.table = "u";
  other.exprs = {CounterExpr{}, QuotaExpr{.bytes = 100}};
  const auto result = Write({timed, mark, limited, other});
  EXPECT_EQ(result.written, 4u);
  EXPECT_EQ(result.refused, 0u);

  const Ruleset ruleset = Read();
  const auto& sets = ruleset.tables[0].sets;
  ASSERT_EQ(sets.at("timed").elements.size(), 1u);
  const SetElement& element = *sets.at("timed").elements.begin();
  EXPECT_EQ(element.key, timed.key);
  EXPECT_EQ(element.timeout_ms, 60'000u);
  EXPECT_LE(element.expires_at, Seconds(61));
  ASSERT_EQ(sets.at("marks").elements.size(), 1u);
  EXPECT_EQ(sets.at("marks").elements.begin()->data, mark.data);
  ASSERT_EQ(sets.at("plain").elements.size(), 1u);
  EXPECT_EQ(sets.at("plain").elements.begin()->exprs, limited.exprs);
  ASSERT_EQ(ruleset.tables[1].sets.at("plain").elements.size(), 1u);
  EXPECT_EQ(ruleset.tables[1].sets.at("plain").elements.begin()->exprs, other.exprs);
}

TEST_F(SetWriterTest, RemovesAndDoesNotMindWhatHasGone) {
  EXPECT_EQ(Write({Change("plain", {10, 0, 0, 1}), Change("plain", {10, 0, 0, 2})}).written, 2u);
  ElementChange gone = Change("plain", {10, 0, 0, 1});
  ElementChange never = Change("plain", {10, 0, 0, 9});
  gone.removed = never.removed = true;
  const auto result = Write({gone, never, Change("plain", {10, 0, 0, 2})});
  EXPECT_EQ(result.written, 2u);
  EXPECT_EQ(result.refused, 0u);
  EXPECT_EQ(Size("plain"), 1u);
}

TEST_F(SetWriterTest, WhatTheKernelRefusesKeepsNothingElseOut) {
  std::vector<ElementChange> changes;
  for (uint8_t host = 1; host <= 5; ++host) changes.push_back(Change("plain", {10, 0, 0, host}));
  changes.push_back(Change("nowhere", {10, 0, 0, 1}));
  changes.push_back(Change("marks", {10, 0, 0, 1}));  // a map's without data
  changes.push_back(Change("plain", {10, 0, 0}));     // too short
  ElementChange mark = Change("marks", {10, 0, 0, 2});
  mark.data = {1, 0, 0, 0};
  changes.push_back(mark);
  const auto result = Write(changes);
  EXPECT_EQ(result.written, 4u);
  EXPECT_EQ(result.refused, 5u);
  EXPECT_EQ(Size("plain"), 3u) << "its size";
  EXPECT_EQ(Size("marks"), 1u);
}

TEST_F(SetWriterTest, NothingIsWrittenIntoAnotherRuleset) {
  const uint32_t generation = Read().generation;
  NetworkNamespace::Nft("table ip later { }");
  const std::vector<ElementChange> changes = {Change("plain", {10, 0, 0, 1})};
  const auto result = writer_->Write(changes, generation);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->stale);
  EXPECT_EQ(Size("plain"), 0u);
}

}  // namespace
}  // namespace sluice::control::nft

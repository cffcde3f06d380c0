#include "control/nft/nft_mirror.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "control/nft/ruleset_reader.h"
#include "support/network_namespace.h"
#include "unit/control/nft/nft_text.h"

namespace sluice::control::nft {
namespace {

using sluice::test::NetworkNamespace;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// SLUICE_TEST_SEED and SLUICE_TEST_ROUNDS: more of the same, by hand.
uint32_t SeedFromEnvironment() {
  const char* seed = std::getenv("SLUICE_TEST_SEED");
  return seed != nullptr ? static_cast<uint32_t>(std::atoi(seed)) : 1;
}
int Rounds() {
  const char* rounds = std::getenv("SLUICE_TEST_ROUNDS");
  return rounds != nullptr ? std::atoi(rounds) : 300;
}

class NftMirrorTest : public testing::Test {
 protected:
  void Open(const NftMirrorOptions& options = {}) {
    auto mirror = NftMirror::Open(now_, options);
    ASSERT_TRUE(mirror.ok()) << mirror.status();
    mirror_ = *std::move(mirror);
  }
  // Runs the mirror until it has come to the kernel's generation.
  std::vector<RulesetChange> Follow() {
    std::vector<RulesetChange> changes;
    auto reader = RulesetReader::Open();
    EXPECT_TRUE(reader.ok());
    const auto target = reader->ReadTables(now_);
    EXPECT_TRUE(target.ok()) << target.status();
    for (int i = 0; i < 10000; ++i) {
      pollfd polled{mirror_->fd(), POLLIN, 0};
      if (mirror_->NextDeadline() > now_) poll(&polled, 1, 20);
      auto change = mirror_->Run(now_);
      EXPECT_TRUE(change.ok()) << change.status();
      if (*change) changes.push_back(**std::move(change));
      if (mirror_->consistent() && mirror_->ruleset().generation >= target->generation) {
        return changes;
      }
    }
    ADD_FAILURE() << "the mirror is at generation " << mirror_->ruleset().generation
                  << ", the kernel at " << target->generation;
    return changes;
  }
  Ruleset Fresh() {
    auto reader = RulesetReader::Open();
    EXPECT_TRUE(reader.ok());
    auto ruleset = reader->Read(now_);
    EXPECT_TRUE(ruleset.ok()) << ruleset.status();
    return *std::move(ruleset);
  }
  void ExpectSameAsKernel(const std::string& after) {
    const Ruleset fresh = Fresh();
    EXPECT_EQ(mirror_->ruleset().generation, fresh.generation);
    ASSERT_EQ(test::Difference(test::Lines(mirror_->ruleset()), test::Lines(fresh)), "")
        << "after: " << after;
  }

  NetworkNamespace namespace_;
  Nanos now_ = Seconds(1000);
  std::unique_ptr<NftMirror> mirror_;
};

TEST_F(NftMirrorTest, NothingIsThereAtFirst) {
  Open();
  EXPECT_THAT(mirror_->ruleset().tables, IsEmpty());
  EXPECT_THAT(Follow(), IsEmpty());
}

TEST_F(NftMirrorTest, ATransactionIsSeenAsAWhole) {
  Open();
  NetworkNamespace::Nft(R"(
table inet t {
  set s { type ipv4_addr; elements = { 1.2.3.4, 5.6.7.8 }; }
  chain c { type filter hook forward priority 0; ip saddr @s drop; tcp dport { 1, 2 } accept; }
  chain d { accept; }
}
)");
  const std::vector<RulesetChange> changes = Follow();
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_TRUE(changes[0].structure);
  ExpectSameAsKernel("loading");
  ASSERT_THAT(mirror_->ruleset().tables, SizeIs(1));
  EXPECT_THAT(mirror_->ruleset().tables[0].sets.at("s").elements, SizeIs(2));
  EXPECT_EQ(mirror_->stats().full_readings, 1u);
}

TEST_F(NftMirrorTest, ElementsComeAsADelta) {
  NetworkNamespace::Nft(
      "table ip t {\n set s { type ipv4_addr; }\n set o { type ipv4_addr; }\n"
      " map m { type ipv4_addr : mark; }\n}\n");
  Open();
  const uint64_t version = mirror_->ruleset().tables[0].sets.at("s").version;
  const uint64_t other = mirror_->ruleset().tables[0].sets.at("o").version;
  NetworkNamespace::Nft("add element ip t s { 1.1.1.1, 2.2.2.2 }\n");
  std::vector<RulesetChange> changes = Follow();
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_FALSE(changes[0].structure);
  ASSERT_THAT(changes[0].sets, SizeIs(1));
  EXPECT_EQ(changes[0].sets[0].set, "s");
  EXPECT_THAT(changes[0].sets[0].added, SizeIs(2));
  EXPECT_THAT(changes[0].sets[0].removed, IsEmpty());
  EXPECT_NE(mirror_->ruleset().tables[0].sets.at("s").version, version);
  EXPECT_EQ(mirror_->ruleset().tables[0].sets.at("o").version, other);

  NetworkNamespace::Nft("delete element ip t s { 1.1.1.1 }\nadd element ip t s { 3.3.3.3 }\n");
  changes = Follow();
  ASSERT_THAT(changes, SizeIs(1));
  ASSERT_THAT(changes[0].sets, SizeIs(1));
  ASSERT_THAT(changes[0].sets[0].added, SizeIs(1));
  EXPECT_THAT(changes[0].sets[0].added[0].key, ElementsAre(3, 3, 3, 3));
  ASSERT_THAT(changes[0].sets[0].removed, SizeIs(1));
  EXPECT_THAT(changes[0].sets[0].removed[0].key, ElementsAre(1, 1, 1, 1));

  // Two transactions that undo each other are no change of the set, whether seen as one or as two.
  NetworkNamespace::Nft("add element ip t m { 1.1.1.1 : 1 }\n");
  Follow();
  NetworkNamespace::Nft("delete element ip t m { 1.1.1.1 }\nadd element ip t m { 1.1.1.1 : 2 }\n");
  changes = Follow();
  ASSERT_THAT(changes, SizeIs(1));
  ASSERT_THAT(changes[0].sets, SizeIs(1));
  ASSERT_THAT(changes[0].sets[0].added, SizeIs(1));
  ASSERT_THAT(changes[0].sets[0].removed, SizeIs(1));
  EXPECT_THAT(changes[0].sets[0].removed[0].data, ElementsAre(1, 0, 0, 0));
  EXPECT_THAT(changes[0].sets[0].added[0].data, ElementsAre(2, 0, 0, 0));
  ExpectSameAsKernel("elements");
  EXPECT_EQ(mirror_->stats().full_readings, 1u);
  EXPECT_EQ(mirror_->stats().structure_readings, 0u);
}

// Random commands of nft, each a transaction of some changes.
class Script {
 public:
  explicit Script(uint32_t seed) : random_(seed) {}

  std::string Next(const Ruleset& ruleset) {
    std::string text;
    for (int i = Below(4); i >= 0; --i) text += Command(ruleset);
    return text;
  }

 private:
  int Below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }
  std::string TableName() {
    static const char* const kTables[] = {"ip t", "inet t", "inet u", "netdev n"};
    return kTables[Below(4)];
  }
  std::string Address() { return absl::StrCat("10.0.", Below(3), ".", Below(6)); }
  std::string RuleText() {
    switch (Below(9)) {
      case 0:
        return "counter accept";
      case 1:
        return absl::StrCat("ip saddr ", Address(), " drop");
      case 2:
        return absl::StrCat("tcp dport { ", 1 + Below(9), ", ", 20 + Below(9), " } accept");
      case 3:
        return absl::StrCat("ip saddr . tcp dport { ", Address(), " . ", Below(9), "-20 } accept");
      case 4:
        return "jump x";
      case 5:
        return absl::StrCat("jump { ip daddr ", Address(), " tcp dport { 7, 8 } accept; }");
      case 6:
        return absl::StrCat("tcp dport vmap { ", Below(5), " : jump x, 7 : drop }");
      case 7:
        return "ip saddr @s drop";
      default:
        return "limit rate 5/second comment \"hello\"";
    }
  }
  std::string Handle(const Ruleset& ruleset, const std::string& table, const std::string& chain) {
    for (const Table& t : ruleset.tables) {
      if (absl::StrCat(FamilyName(t.family), " ", t.name) != table) continue;
      const Chain* c = FindChain(t, chain);
      if (c == nullptr || c->rules.empty()) continue;
      const int which = Below(3);  // the first and the last one most often
      const size_t at = which == 0 ? 0
                        : which == 1
                            ? c->rules.size() - 1
                            : static_cast<size_t>(Below(static_cast<int>(c->rules.size())));
      return absl::StrCat(c->rules[at].handle);
    }
    return "";
  }
  std::string Command(const Ruleset& ruleset) {
    const std::string table = TableName();
    const std::string chain = Below(2) == 0 ? "x" : "y";
    const std::string handle = Handle(ruleset, table, chain);
    switch (Below(24)) {
      case 0:
        return absl::StrCat("delete table ", table, "\n");
      case 1:
        return absl::StrCat("flush table ", table, "\n");
      case 2:
        return absl::StrCat("flush chain ", table, " ", chain, "\n");
      case 3:
        return absl::StrCat("delete chain ", table, " ", chain, "\n");
      case 4:
        return Below(8) == 0 ? "flush ruleset\n" : absl::StrCat("flush set ", table, " s\n");
      case 5:
      case 6:
      case 7:
        return absl::StrCat("insert rule ", table, " ", chain, " ", RuleText(), "\n");
      case 8:
      case 9:
        if (handle.empty()) break;
        return absl::StrCat(Below(2) == 0 ? "add" : "insert", " rule ", table, " ", chain,
                            " position ", handle, " ", RuleText(), "\n");
      case 10:
      case 11:
        if (handle.empty()) break;
        return absl::StrCat("replace rule ", table, " ", chain, " handle ", handle, " ", RuleText(),
                            "\n");
      case 12:
      case 13:
        if (handle.empty()) break;
        return absl::StrCat("delete rule ", table, " ", chain, " handle ", handle, "\n");
      case 14:
        return absl::StrCat("add element ", table, " s { ", Address(), ", ", Address(), " }\n");
      case 15:
        return absl::StrCat("delete element ", table, " s { ", Address(), " }\n");
      case 16:
        return absl::StrCat("add element ", table, " i { ", Address(), "-10.0.3.", Below(99),
                            " }\n");
      case 17:
        return absl::StrCat("add element ", table, " k { ", Address(), "/31 . ", Below(9), "-",
                            10 + Below(9), " }\n");
      case 18:
        return absl::StrCat("add counter ", table, " n", Below(3), "\n");
      case 19:
        return absl::StrCat("delete counter ", table, " n", Below(3), "\n");
      case 20:
        return absl::StrCat("add element ", table, " e { ", Address(), " timeout 1h }\n");
      case 21:
        return absl::StrCat("add chain ", table, " b { type filter hook ",
                            table == "netdev n" ? "ingress device \"lo\"" : "forward",
                            " priority 5; policy ", Below(2) == 0 ? "accept" : "drop", "; }\n");
      case 22:
        return Below(3) == 0 ? absl::StrCat("delete set ", table, " s\n")
                             : absl::StrCat("add table ", table, " { flags dormant; }\n");
      default:
        break;
    }
    return absl::StrCat("add table ", table, "\nadd chain ", table, " x\nadd chain ", table,
                        " y\nadd set ", table, " s { type ipv4_addr; }\nadd set ", table,
                        " i { type ipv4_addr; flags interval; }\nadd set ", table,
                        " k { type ipv4_addr . inet_service; flags interval; }\nadd set ", table,
                        " e { type ipv4_addr; flags timeout; }\nadd rule ", table, " ", chain, " ",
                        RuleText(), "\n");
  }

  std::mt19937 random_;
};

TEST_F(NftMirrorTest, FollowsRandomTransactionsExactly) {
  Open();
  const uint32_t seed = SeedFromEnvironment();
  Script script(seed);
  int accepted = 0;
  for (int i = 0; i < Rounds(); ++i) {
    const std::string text = script.Next(mirror_->ruleset());
    if (!NetworkNamespace::TryNft(text)) continue;  // the kernel refused it: no transaction
    ++accepted;
    Follow();
    ExpectSameAsKernel(absl::StrCat("seed ", seed, ", step ", i, ":\n", text));
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(accepted, Rounds() / 10);
  EXPECT_EQ(mirror_->stats().full_readings, 1u);
  // Most must be followed without reading again, or following is not what it is for.
  EXPECT_LT(mirror_->stats().structure_readings * 2, mirror_->stats().transactions);
}

std::string ManyElements(int first, int count, int per_command) {
  std::string text;
  for (int i = first; i < first + count; i += per_command) {
    absl::StrAppend(&text, "add element ip t s { ");
    for (int k = i; k < std::min(i + per_command, first + count); ++k) {
      absl::StrAppend(&text, "10.", k >> 16, ".", k >> 8 & 255, ".", k & 255, ", ");
    }
    absl::StrAppend(&text, "}\n");
  }
  return text;
}

TEST_F(NftMirrorTest, OneElementMoreInASetOfHundredThousand) {
  NetworkNamespace::Nft("add table ip t\nadd set ip t s { type ipv4_addr; }\n" +
                        ManyElements(0, 100000, 1000));
  Open();
  ASSERT_EQ(mirror_->ruleset().tables[0].sets.at("s").elements.size(), 100000u);
  for (int i = 0; i < 3; ++i) {
    NetworkNamespace::Nft("add element ip t s { 192.0.2.1 }\n");
    std::vector<RulesetChange> changes = Follow();
    ASSERT_THAT(changes, SizeIs(1));
    EXPECT_FALSE(changes[0].structure);
    ASSERT_THAT(changes[0].sets, SizeIs(1));
    EXPECT_THAT(changes[0].sets[0].added, SizeIs(1));
    NetworkNamespace::Nft("delete element ip t s { 192.0.2.1 }\n");
    changes = Follow();
    ASSERT_THAT(changes, SizeIs(1));
    ASSERT_THAT(changes[0].sets, SizeIs(1));
    EXPECT_THAT(changes[0].sets[0].removed, SizeIs(1));
  }
  EXPECT_EQ(mirror_->stats().full_readings, 1u);
  EXPECT_EQ(mirror_->stats().structure_readings, 0u);
  EXPECT_EQ(mirror_->ruleset().tables[0].sets.at("s").elements.size(), 100000u);
}

TEST_F(NftMirrorTest, LostMessagesMeanReadingAllAgain) {
  NetworkNamespace::Nft("add table ip t\nadd set ip t s { type ipv4_addr; }\n");
  NftMirrorOptions options;
  options.event_buffer = 4096;
  Open(options);
  for (int i = 0; i < 4; ++i) NetworkNamespace::Nft(ManyElements(i * 5000, 5000, 1000));
  const std::vector<RulesetChange> changes = Follow();
  EXPECT_GE(mirror_->stats().overflows, 1u);
  EXPECT_GE(mirror_->stats().full_readings, 2u);
  ASSERT_FALSE(changes.empty());
  EXPECT_TRUE(changes.back().structure);
  ExpectSameAsKernel("an overflow");
  EXPECT_EQ(mirror_->ruleset().tables[0].sets.at("s").elements.size(), 20000u);
}

TEST_F(NftMirrorTest, ASetThatIsReadAgainUnchangedKeepsItsVersion) {
  NetworkNamespace::Nft(
      "table ip t {\n set s { type ipv4_addr; elements = { 1.1.1.1 }; }\n"
      " set o { type ipv4_addr; elements = { 1.1.1.1 }; }\n chain c { accept; }\n}\n");
  NftMirrorOptions options;
  options.event_buffer = 4096;
  Open(options);
  const auto version = [&](const char* set) {
    return mirror_->ruleset().tables[0].sets.at(set).version;
  };
  const uint64_t s = version("s");
  const uint64_t o = version("o");
  EXPECT_NE(s, o);
  // The first rule replaced: the structure is read again.
  NetworkNamespace::Nft("add rule ip t c drop\n");
  Follow();
  const uint64_t handle = mirror_->ruleset().tables[0].chains[0].rules[0].handle;
  NetworkNamespace::Nft(absl::StrCat("replace rule ip t c handle ", handle,
                                     " drop\nadd element ip t o { 2.2.2.2 }\n"));
  Follow();
  EXPECT_EQ(mirror_->stats().structure_readings, 1u);
  EXPECT_EQ(version("s"), s);
  EXPECT_NE(version("o"), o);
  ExpectSameAsKernel("replacing");
  // Everything is read again.
  for (int i = 0; i < 4; ++i) NetworkNamespace::Nft(ManyElements(i * 5000, 5000, 1000));
  Follow();
  EXPECT_GE(mirror_->stats().full_readings, 2u);
  EXPECT_NE(version("s"), s);
  const uint64_t o_later = version("o");
  for (int i = 0; i < 4; ++i) NetworkNamespace::Nft(ManyElements(20000 + i * 5000, 5000, 1000));
  Follow();
  EXPECT_GE(mirror_->stats().full_readings, 3u);
  EXPECT_EQ(version("o"), o_later);
}

TEST_F(NftMirrorTest, ElementsExpireByTheClockThatWasGiven) {
  NetworkNamespace::Nft(
      "table ip t {\n set s { type ipv4_addr; flags timeout; elements = { 1.1.1.1 timeout 1h, "
      "2.2.2.2 timeout 2d, 3.3.3.3 }; }\n}\n");
  Open();
  const auto& elements = mirror_->ruleset().tables[0].sets.at("s").elements;
  ASSERT_THAT(elements, SizeIs(3));
  EXPECT_GT(elements.begin()->expires_at, now_ + Seconds(3590));
  EXPECT_LE(elements.begin()->expires_at, now_ + Seconds(3600));
  NetworkNamespace::Nft("add element ip t s { 4.4.4.4 timeout 30m }\n");
  const std::vector<RulesetChange> changes = Follow();
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_LE(changes[0].sets[0].added.at(0).expires_at, now_ + Seconds(1800));
  // The kernel's clock is an hour behind, so all are there still; by this one, two are over.
  now_ += Seconds(3601);
  ASSERT_LE(mirror_->NextDeadline(), now_);
  EXPECT_THAT(Follow(), IsEmpty());
  EXPECT_THAT(elements, SizeIs(2));
}

// A table that belongs to a process goes with it, without a word from the kernel.
TEST_F(NftMirrorTest, TheAuditFindsWhatNobodyTold) {
  FILE* nft = popen("nft -i >/dev/null 2>&1", "w");
  ASSERT_NE(nft, nullptr);
  std::fputs("add table ip owned { flags owner; }\nadd chain ip owned c\n", nft);
  std::fflush(nft);
  for (int i = 0; i < 500 && Fresh().tables.empty(); ++i) usleep(10000);
  Open();
  ASSERT_THAT(mirror_->ruleset().tables, SizeIs(1));
  pclose(nft);
  for (int i = 0; i < 500 && !Fresh().tables.empty(); ++i) usleep(10000);
  ASSERT_THAT(Fresh().tables, IsEmpty());
  now_ = mirror_->NextDeadline();
  bool changed = false;
  for (int i = 0; i < 10 && !changed; ++i) {
    auto change = mirror_->Run(now_);
    ASSERT_TRUE(change.ok()) << change.status();
    changed = change->has_value() && (*change)->structure;
  }
  EXPECT_TRUE(changed);
  EXPECT_THAT(mirror_->ruleset().tables, IsEmpty());
}

// Ten thousand rules at once, and a chain of them emptied again.
TEST_F(NftMirrorTest, ManyRulesAtOnce) {
  Open();
  std::string text = "add table ip t\nadd chain ip t c\nadd set ip t s { type ipv4_addr; }\n";
  for (int i = 0; i < 10000; ++i) {
    absl::StrAppend(&text, "add rule ip t c ip saddr 10.0.", i >> 8, ".", i & 255, " drop\n");
  }
  NetworkNamespace::Nft(text + ManyElements(0, 100, 100));
  Follow();
  ExpectSameAsKernel("loading");
  EXPECT_THAT(mirror_->ruleset().tables[0].chains[0].rules, SizeIs(10000));
  NetworkNamespace::Nft("flush chain ip t c\nadd element ip t s { 192.0.2.1 }\n");
  Follow();
  ExpectSameAsKernel("flushing");
  EXPECT_THAT(mirror_->ruleset().tables[0].sets.at("s").elements, SizeIs(101));
  EXPECT_EQ(mirror_->stats().full_readings, 1u);
}

// While somebody changes a set all the time, every change arrives, and structure too.
TEST_F(NftMirrorTest, FollowsWhileItIsChangedAllTheTime) {
  NetworkNamespace::Nft("add table ip t\nadd chain ip t c\nadd set ip t s { type ipv4_addr; }\n");
  Open();
  std::string commands;
  for (int i = 0; i < 300; ++i) {
    absl::StrAppend(&commands, "nft 'add element ip t s { 10.0.", i >> 8, ".", i & 255, " }';");
    if (i % 10 == 0)
      absl::StrAppend(&commands, "nft 'insert rule ip t c drop; insert rule ip t c accept';");
  }
  FILE* script = popen(commands.c_str(), "w");
  for (int i = 0; i < 100; ++i) Follow();
  EXPECT_EQ(pclose(script), 0);
  Follow();
  ExpectSameAsKernel("the script");
  EXPECT_THAT(mirror_->ruleset().tables[0].sets.at("s").elements, SizeIs(300));
  EXPECT_THAT(mirror_->ruleset().tables[0].chains[0].rules, SizeIs(60));
}

}  // namespace
}  // namespace sluice::control::nft

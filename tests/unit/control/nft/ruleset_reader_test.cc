#include "control/nft/ruleset_reader.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "support/network_namespace.h"
#include "unit/control/nft/every_statement.h"
#include "unit/control/nft/nft_text.h"

namespace sluice::control::nft {
namespace {

using sluice::test::NetworkNamespace;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Nanos kNow = Seconds(1000);

Ruleset Read() {
  auto reader = RulesetReader::Open();
  EXPECT_TRUE(reader.ok());
  auto ruleset = reader->Read(kNow);
  EXPECT_TRUE(ruleset.ok()) << ruleset.status();
  return *std::move(ruleset);
}

// `nft --debug=netlink list ruleset`: the expressions of each rule as libnftnl reads them.
std::map<std::string, std::vector<std::string>> RulesByNft() {
  std::map<std::string, std::vector<std::string>> out;
  FILE* pipe = popen("nft --debug=netlink list ruleset", "r");
  std::string text;
  char buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  EXPECT_EQ(pclose(pipe), 0);
  std::string rule;
  for (const auto line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "  [ ")) {
      out[rule].emplace_back(line.substr(2));
      continue;
    }
    // "inet t chain 12 11": the rule's handle, and that of the rule before it.
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    rule = words.size() >= 4 && !absl::StartsWith(line, "\t")
               ? absl::StrCat(words[0], " ", words[1], " ", words[2], " ", words[3])
               : "";
  }
  out.erase("");
  return out;
}

std::string Normalised(std::string text, const Expr& expr) {
  // What libnftnl knows of an expression that Sluice does not is more than its name.
  if (std::holds_alternative<UnsupportedExpr>(expr))
    text = text.substr(0, text.find(' ', 2)) + " ]";
  while (absl::StrContains(text, "  ]")) text.erase(text.find("  ]"), 1);
  return text;
}

TEST(RulesetReader, ReadsEveryStatementAsLibnftnlDoes) {
  const NetworkNamespace inside;
  NetworkNamespace::Nft(test::kBaseRuleset);
  for (const char* rule : test::kRules)
    NetworkNamespace::Nft(absl::StrCat("add rule ", rule, "\n"));
  const Ruleset ruleset = Read();
  const auto by_nft = RulesByNft();
  size_t compared = 0;
  for (const Table& table : ruleset.tables) {
    for (const Chain& chain : table.chains) {
      for (const Rule& rule : chain.rules) {
        const std::string name = absl::StrCat(FamilyName(table.family), " ", table.name, " ",
                                              chain.name, " ", rule.handle);
        const auto expected = by_nft.find(name);
        ASSERT_NE(expected, by_nft.end()) << name;
        ASSERT_EQ(rule.exprs.size(), expected->second.size()) << name;
        for (size_t i = 0; i < rule.exprs.size(); ++i) {
          EXPECT_EQ(Normalised(test::Text(rule.exprs[i]), rule.exprs[i]),
                    Normalised(expected->second[i], rule.exprs[i]))
              << name;
        }
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, std::size(test::kRules));
  EXPECT_EQ(compared, by_nft.size());
}

TEST(RulesetReader, OnlyWhatTheModelLacksIsUnsupported) {
  const NetworkNamespace inside;
  NetworkNamespace::Nft(test::kBaseRuleset);
  std::set<std::string> unsupported;
  for (const char* rule : test::kRules)
    NetworkNamespace::Nft(absl::StrCat("add rule ", rule, "\n"));
  const Ruleset ruleset = Read();
  for (const Table& table : ruleset.tables) {
    for (const Chain& chain : table.chains) {
      for (const Rule& rule : chain.rules) {
        for (const Expr& expr : rule.exprs) {
          if (const auto* u = std::get_if<UnsupportedExpr>(&expr)) unsupported.insert(u->name);
        }
      }
    }
  }
  EXPECT_THAT(unsupported,
              ElementsAre("dup", "fwd", "osf", "socket", "synproxy", "tproxy", "xfrm"));
}

TEST(RulesetReader, NothingIsThereAtFirst) {
  const NetworkNamespace inside;
  EXPECT_THAT(Read().tables, IsEmpty());
}

TEST(RulesetReader, TablesAndChains) {
  const NetworkNamespace inside;
  NetworkNamespace::Nft(test::kBaseRuleset);
  const Ruleset ruleset = Read();
  std::vector<std::string> names;
  for (const Table& t : ruleset.tables)
    names.push_back(absl::StrCat(FamilyName(t.family), " ", t.name));
  EXPECT_THAT(
      names, ElementsAre("inet t", "netdev n", "arp a", "bridge b", "ip dorm", "ip6 t6", "ip old"));
  EXPECT_TRUE(FindTable(ruleset, TableFamily::kIp, "dorm")->dormant);
  const Table& t = ruleset.tables[0];
  EXPECT_FALSE(t.dormant);
  EXPECT_EQ(FindChain(t, "sub")->base, std::nullopt);
  const BaseChain& forward = *FindChain(t, "fw")->base;
  EXPECT_EQ(forward.type, "filter");
  EXPECT_EQ(forward.hook, 2u);
  EXPECT_EQ(forward.priority, 5);
  EXPECT_EQ(forward.policy, 0u);
  EXPECT_THAT(forward.devices, IsEmpty());
  EXPECT_EQ(FindChain(t, "rout")->base->type, "route");
  EXPECT_EQ(FindChain(t, "ns")->base->type, "nat");
  EXPECT_EQ(FindChain(t, "ns")->base->priority, 100);
  const BaseChain& ingress = *FindChain(t, "ing")->base;
  EXPECT_EQ(ingress.hook, 5u);
  EXPECT_THAT(ingress.devices, ElementsAre("lo"));
  const Table& netdev = ruleset.tables[1];
  EXPECT_EQ(FindChain(netdev, "i")->base->priority, -5);
  EXPECT_EQ(FindChain(netdev, "e")->base->hook, 1u);
  EXPECT_THAT(FindChain(netdev, "e")->base->devices, ElementsAre("lo"));
}

TEST(RulesetReader, SetsAndMaps) {
  const NetworkNamespace inside;
  NetworkNamespace::Nft(test::kBaseRuleset);
  const Ruleset ruleset = Read();
  const std::map<std::string, Set>& sets = ruleset.tables[0].sets;
  EXPECT_EQ(sets.at("a4").flags, 0u);
  EXPECT_EQ(sets.at("a4").key_length, 4u);
  EXPECT_THAT(sets.at("a4").elements, SizeIs(2));

  // Intervals come in order: where each begins and where it has ended.
  std::vector<std::string> interval;
  for (const SetElement& e : sets.at("i4").elements) interval.push_back(test::Text(e));
  EXPECT_THAT(interval, ElementsAre("element 00000000 : interval_end ",
                                    "element 0000000a : ", "element 0000000b : interval_end ",
                                    "element 0000000b : ", "element 0a00000b : interval_end ",
                                    "element 0100a8c0 : ", "element 0200a8c0 : interval_end "));

  const Set& cc = sets.at("cc");
  EXPECT_EQ(cc.flags, 0x84u);
  EXPECT_THAT(cc.field_lengths, ElementsAre(4, 2));
  ASSERT_THAT(cc.elements, SizeIs(2));
  const SetElement& oldest =
      *std::min_element(cc.elements.begin(), cc.elements.end(),
                        [](const SetElement& a, const SetElement& b) { return a.order < b.order; });
  EXPECT_THAT(oldest.key, ElementsAre(10, 0, 0, 0, 0, 80, 0, 0));
  EXPECT_THAT(*oldest.key_end, ElementsAre(10, 255, 255, 255, 0, 90, 0, 0));

  EXPECT_EQ(sets.at("dyn").flags, 0x30u);
  EXPECT_EQ(sets.at("dyn").timeout_ms, 60000u);
  EXPECT_EQ(sets.at("dyn").size, 1000u);

  const Set& el = sets.at("el");
  ASSERT_THAT(el.exprs, SizeIs(1));
  ASSERT_THAT(el.elements, SizeIs(1));
  const SetElement& e = *el.elements.begin();
  EXPECT_EQ(e.timeout_ms, 3600000u);
  EXPECT_GT(e.expires_at, kNow + Seconds(3500));
  EXPECT_LE(e.expires_at, kNow + Seconds(3600));
  ASSERT_THAT(e.exprs, SizeIs(1));
  EXPECT_EQ(std::get<CounterExpr>(e.exprs[0]).packets, 3u);
  EXPECT_EQ(sets.at("a4").elements.begin()->expires_at, Nanos::Max());

  std::vector<std::string> verdicts;
  for (const SetElement& v : sets.at("vm").elements) verdicts.push_back(test::Text(v));
  EXPECT_EQ(sets.at("vm").data_type, 0xffffff00u);
  EXPECT_THAT(verdicts, ElementsAre("element 00001600 : accept ",
                                    "element 00001700 : ", "element 00001800 : jump -> sub "));
  EXPECT_EQ(sets.at("om").object_type, 1u);
  EXPECT_EQ(sets.at("om").elements.begin()->object, "c1");
  EXPECT_THAT(sets.at("dm").elements.begin()->data, ElementsAre(10, 0, 0, 1, 0x1f, 0x90, 0, 0));
  EXPECT_TRUE(std::prev(sets.at("mm").elements.end())->catchall);
}

TEST(RulesetReader, Objects) {
  const NetworkNamespace inside;
  NetworkNamespace::Nft(test::kBaseRuleset);
  std::vector<std::string> objects;
  const Ruleset ruleset = Read();
  for (const Object& o : ruleset.tables[0].objects) {
    objects.push_back(absl::StrCat(o.type, " ", o.name, " ", test::Text(o.value)));
  }
  EXPECT_THAT(
      objects,
      testing::UnorderedElementsAre(
          "1 c1 [ counter pkts 5 bytes 7 ]", "2 q1 [ quota bytes 26214400 consumed 0 flags 1 ]",
          "4 l1 [ limit rate 5120/second burst 100 type bytes flags 0x1 ]", "3 ftp [ ct helper ]",
          "7 ctt [ ct timeout ]", "9 cte [ ct expectation ]", "10 sp [ synproxy ]"));
}

TEST(RulesetReader, ARuleHasItsComment) {
  const NetworkNamespace inside;
  NetworkNamespace::Nft(
      "table ip t {\n chain c {\n  accept comment \"hello world\"\n  drop\n }\n}\n");
  const Ruleset ruleset = Read();
  const std::vector<Rule>& rules = ruleset.tables[0].chains[0].rules;
  ASSERT_THAT(rules, SizeIs(2));
  EXPECT_EQ(rules[0].comment, "hello world");
  EXPECT_EQ(rules[1].comment, "");
  EXPECT_LT(rules[0].handle, rules[1].handle);
}

// A set of ports that packets add to, without a change of the generation; its table grows with them.
class GrowingSet : public testing::Test {
 protected:
  static constexpr int kAtFirst = 20000;

  void SetUp() override {
    NetworkNamespace::Ip("link set lo up\n");
    // The rule comes later: nft gives a set that it sees a rule add to a size, and with it the kernel a
    // table that need not grow.
    std::string text =
        "add table ip t\n"
        "add set ip t s { type inet_service; flags timeout; }\n"
        "add element ip t s { ";
    for (int port = 1; port <= kAtFirst; ++port) absl::StrAppend(&text, port, ", ");
    NetworkNamespace::Nft(text + "}\n");
    NetworkNamespace::Nft(
        "add chain ip t out { type filter hook output priority 0; }\n"
        "add rule ip t out add @s { udp dport }\n");
    socket_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ASSERT_GE(socket_, 0);
  }
  void TearDown() override { close(socket_); }

  void Send(int first, int last) const {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int port = first; port <= last; ++port) {
      to.sin_port = htons(static_cast<uint16_t>(port));
      // Nobody listens, and the answers to earlier ones may be reported here.
      while (sendto(socket_, "", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0) {
        ASSERT_EQ(errno, ECONNREFUSED);
      }
    }
  }
  // Reads with `between(n)` called after the n-th datagram.
  static Ruleset ReadWith(RulesetReader& reader, const std::function<void(int)>& between) {
    reader.Start();
    for (int n = 1;; ++n) {
      const auto done = reader.Step(1, kNow);
      EXPECT_TRUE(done.ok());
      if (!done.ok() || *done) return reader.Take();
      between(n);
    }
  }
  static int ElementsAtFirst(const Ruleset& ruleset) {
    int found = 0;
    for (const SetElement& e : ruleset.tables[0].sets.at("s").elements) {
      found += (e.key[0] << 8 | e.key[1]) <= kAtFirst;
    }
    return found;
  }

  const NetworkNamespace inside_;
  int socket_ = -1;
};

TEST_F(GrowingSet, NoneIsLostWhenItIsResizedMeanwhile) {
  auto reader = RulesetReader::Open();
  ASSERT_TRUE(reader.ok());
  int datagrams = 0;
  EXPECT_EQ(ElementsAtFirst(ReadWith(*reader, [&](int n) { datagrams = n; })), kAtFirst);
  ASSERT_GT(datagrams, 8) << "the elements come in several parts";
  const Ruleset ruleset = ReadWith(*reader, [&](int n) {
    if (n != datagrams - 5) return;  // amid the elements
    Send(kAtFirst + 1, 60000);
    usleep(100'000);  // for the kernel to move them; if it has not, nothing is repeated
  });
  EXPECT_EQ(ElementsAtFirst(ruleset), kAtFirst);
  EXPECT_GT(reader->attempts(), 1) << "the table was not resized: the test shows nothing";
}

TEST_F(GrowingSet, PacketsCannotKeepAReadingFromItsEnd) {
  auto reader = RulesetReader::Open();
  ASSERT_TRUE(reader.ok());
  int datagrams = 0;
  ReadWith(*reader, [&](int n) { datagrams = n; });
  int next = kAtFirst;
  int attempt = 0;
  int begun = 0;  // the datagram that this attempt began with
  const Ruleset ruleset = ReadWith(*reader, [&](int n) {
    if (reader->attempts() != attempt) {
      attempt = reader->attempts();
      begun = n;
    }
    if (n - begun != datagrams - 5 || next > 65000) return;  // amid the elements of each attempt
    Send(next + 1, next + 500);
    next += 500;
  });
  EXPECT_GT(reader->attempts(), 3) << "nothing came twice: the test shows nothing";
  EXPECT_LE(reader->attempts(), 10);
  EXPECT_EQ(ElementsAtFirst(ruleset), kAtFirst);
}

// The kernel may still be resizing the set's table while it is read, on a busy machine above all.
TEST(RulesetReader, HundredThousandElements) {
  const NetworkNamespace inside;
  std::string text = "add table ip t\nadd set ip t s { type ipv4_addr; }\n";
  for (int i = 0; i < 100000; i += 1000) {
    absl::StrAppend(&text, "add element ip t s { ");
    for (int k = i; k < i + 1000; ++k) {
      absl::StrAppend(&text, "10.", k >> 16, ".", k >> 8 & 255, ".", k & 255, ", ");
    }
    absl::StrAppend(&text, "}\n");
  }
  NetworkNamespace::Nft(text);
  EXPECT_EQ(Read().tables[0].sets.at("s").elements.size(), 100000u);
}

}  // namespace
}  // namespace sluice::control::nft

#include "control/nft/rule_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "control/nft/ruleset_reader.h"
#include "support/network_namespace.h"

namespace sluice::control::nft {
namespace {

using sluice::test::NetworkNamespace;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kRules[] = R"(
table inet t {
  counter c1 { packets 5 bytes 7; }
  quota q1 { over 25 mbytes; }
  set s { type ipv4_addr; elements = { 1.2.3.4, 5.6.7.8 }; }
  set d { type ipv4_addr; flags dynamic; size 100; }
  chain sub { accept; }
  chain c {
    type filter hook forward priority 0; policy drop;
    ip saddr 1.2.3.4 counter packets 3 bytes 4 log prefix "counter packets 1 bytes 2 " drop \
      comment "x { counter packets 5 bytes 6 # handle 9"
    counter packets 1 bytes 100 ip saddr @s counter packets 20 bytes 2000 accept
    counter name "c1" quota name "q1"
    add @d { ip saddr counter } counter
    jump { ip saddr 1.1.1.1 counter accept; ip saddr 2.2.2.2 drop; }
    tcp dport { 22, 80 } jump sub
  }
}
table netdev n {
  chain i { type filter hook ingress device lo priority 0; counter drop; }
}
table ip t {
  chain c { counter; }
}
)";

class RuleTextTest : public testing::Test {
 protected:
  void SetUp() override {
    NetworkNamespace::Nft(kRules);
    auto listing = ListRuleset();
    ASSERT_TRUE(listing.ok()) << listing.status();
    listing_ = *std::move(listing);
    auto reader = RulesetReader::Open();
    ASSERT_TRUE(reader.ok());
    ruleset_ = *reader->Read(Seconds(1));
  }
  std::string Ranges(const ListingLine& line) {
    std::string out;
    for (const ListingLine::Range& r : line.counters) {
      out += line.text.substr(r.begin, r.end - r.begin) + ";";
    }
    return out;
  }

  NetworkNamespace namespace_;
  std::vector<ListingLine> listing_;
  Ruleset ruleset_;
};

TEST_F(RuleTextTest, EveryRuleHasItsLineAndItsCounters) {
  size_t rules = 0;
  for (const Table& table : ruleset_.tables) {
    for (const Chain& chain : table.chains) {
      if (chain.anonymous) continue;  // within its rule
      for (const Rule& rule : chain.rules) {
        ++rules;
        const ListingLine* found = nullptr;
        for (const ListingLine& line : listing_) {
          if (line.kind == ListingLine::Kind::kRule && line.family == table.family &&
              line.table == table.name && line.chain == chain.name && line.handle == rule.handle) {
            EXPECT_EQ(found, nullptr);
            found = &line;
          }
        }
        ASSERT_NE(found, nullptr) << chain.name << " " << rule.handle;
        std::string expected;
        for (const Expr& expr : rule.exprs) {
          if (const auto* c = std::get_if<CounterExpr>(&expr)) {
            expected += "packets " + std::to_string(c->packets) + " bytes " +
                        std::to_string(c->bytes) + ";";
          }
        }
        EXPECT_EQ(Ranges(*found), expected) << found->text;
      }
    }
  }
  EXPECT_EQ(rules, 9u);
  size_t lines = 0;
  for (const ListingLine& line : listing_) lines += line.kind == ListingLine::Kind::kRule ? 1 : 0;
  EXPECT_EQ(lines, rules);
}

TEST_F(RuleTextTest, NamedCounters) {
  size_t found = 0;
  for (const ListingLine& line : listing_) {
    if (line.kind != ListingLine::Kind::kCounter) continue;
    ++found;
    EXPECT_EQ(line.name, "c1");
    EXPECT_EQ(line.table, "t");
    EXPECT_EQ(line.family, TableFamily::kInet);
    EXPECT_EQ(Ranges(line), "packets 5 bytes 7;");
  }
  EXPECT_EQ(found, 1u);
}

TEST_F(RuleTextTest, TextOfOneRule) {
  const Chain& chain = *FindChain(ruleset_.tables[0], "c");
  const auto text = [&](size_t i) {
    return RuleText(listing_, TableFamily::kInet, "t", "c", chain.rules[i].handle);
  };
  EXPECT_THAT(text(0), HasSubstr("ip saddr 1.2.3.4 counter packets 3 bytes 4 log prefix"));
  EXPECT_THAT(text(0), testing::EndsWith("comment \"x { counter packets 5 bytes 6 # handle 9\""));
  EXPECT_EQ(text(4),
            "jump { ip saddr 1.1.1.1 counter packets 0 bytes 0 accept "
            "ip saddr 2.2.2.2 drop }");
  EXPECT_EQ(text(5), "tcp dport { 22, 80 } jump sub");
  EXPECT_EQ(RuleText(listing_, TableFamily::kInet, "t", "c", 9999), "");
  EXPECT_EQ(RuleText(listing_, TableFamily::kIp6, "t", "c", chain.rules[5].handle), "");
  EXPECT_EQ(RuleText(listing_, TableFamily::kNetdev, "n", "i",
                     ruleset_.tables[1].chains[0].rules[0].handle),
            "counter packets 0 bytes 0 drop");
}

TEST(ParseListing, ATableOfAProcess) {
  const auto lines = ParseListing(
      "table inet t { # handle 1 progname firewalld\n"
      "\tflags owner\n\n"
      "\tchain c { # handle 1\n"
      "\t\tcounter packets 1 bytes 2 drop # handle 7\n"
      "\t}\n}\n"
      "table ip u { # handle 2\n}\n");
  ASSERT_THAT(lines, SizeIs(9));
  EXPECT_EQ(RuleText(lines, TableFamily::kInet, "t", "c", 7), "counter packets 1 bytes 2 drop");
  EXPECT_EQ(lines[7].table, "u");
  EXPECT_EQ(lines[7].family, TableFamily::kIp);
}

TEST(ParseListing, NonsenseIsNoRule) {
  for (const char* text :
       {"", "\n\n", "}\n}\n", "{{{{", "# handle 5", "x # handle 99999999999999999999999", "table\n",
        "table inet {\n x # handle 5", "chain c {\n} # handle 3\n"}) {
    for (const ListingLine& line : ParseListing(text)) {
      EXPECT_EQ(line.kind, ListingLine::Kind::kOther) << text;
      EXPECT_THAT(line.counters, IsEmpty());
    }
  }
}

}  // namespace
}  // namespace sluice::control::nft

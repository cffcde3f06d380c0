#include "telemetry/rule_listing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "telemetry/view_json.h"
#include "telemetry/view_table.h"

namespace sluice::telemetry {
namespace {

using ::testing::HasSubstr;

// As nft 1.0.6 prints it, with two spaces for each of its tabs.
constexpr char kText[] = R"(table inet filter { # handle 1
  counter web { # handle 5
    comment "all packets 7 bytes 8 # handle 9"
    packets 0 bytes 0
  }

  set deny { # handle 7
    type ipv4_addr
    flags interval
    counter
    elements = { 10.0.0.0/8 counter packets 4 bytes 5, 100.64.0.0/10 counter packets 0 bytes 0 }
  }

  chain aux { # handle 1
    counter packets 1 bytes 2 comment "odd counter packets 3 bytes 4 # handle 77" # handle 9
  }

  chain forward { # handle 2
    type filter hook forward priority filter; policy drop;
    ct state vmap { invalid : drop, established : accept, related : accept } # handle 11
    tcp dport 80 counter name "web" accept # handle 15
    log prefix "counter packets 5 bytes 6 " counter packets 100 bytes 200 drop # handle 16
    meta secmark 1 # handle 17
  }
}
table bridge b { # handle 2
  chain forward { # handle 1
    counter packets 9 bytes 10 # handle 2
  }
}
)";

std::string Tabbed(std::string text) {
  for (size_t at = 0; (at = text.find("\n  ", at)) != std::string::npos;) {
    for (++at; text.compare(at, 2, "  ") == 0; ++at) text.replace(at, 2, "\t");
  }
  return text;
}
const std::string kListing = Tabbed(kText);

RuleStatusSource Source() {
  RuleStatusSource source;
  source.rule = [](const RuleId& id) -> std::optional<RuleStatus> {
    if (id.family != "inet") return {};
    EXPECT_EQ(id.table, "filter");
    static const std::map<uint64_t, RuleStatus> kRules = {
        {9, {.where = "worker", .counts = true, .packets = 11, .bytes = 22}},
        {11, {.where = "worker"}},
        {15, {.where = "xdp"}},
        {16, {.where = "worker", .counts = true, .packets = 33, .bytes = 44}},
        {17, {.where = "kernel", .reason = "meta secmark"}}};
    const auto found = kRules.find(id.handle);
    if (found == kRules.end()) return {};
    EXPECT_EQ(id.chain, id.handle == 9 ? "aux" : "forward");
    return found->second;
  };
  source.counter = [](std::string_view family, std::string_view table,
                      std::string_view name) -> std::optional<RuleStatus> {
    EXPECT_EQ(family, "inet");
    EXPECT_EQ(table, "filter");
    EXPECT_EQ(name, "web");
    return RuleStatus{.counts = true, .packets = 55, .bytes = 66};
  };
  return source;
}

const RuleLineView& LineOf(const std::vector<RuleLineView>& lines, const std::string& part) {
  for (const RuleLineView& line : lines) {
    if (line.text.find(part) != std::string::npos) return line;
  }
  ADD_FAILURE() << "no line with " << part;
  return lines.at(0);
}

TEST(RuleListingTest, PutsCountsAndPlacesIntoNftsText) {
  const auto lines = AnnotateListing(kListing, Source());
  EXPECT_EQ(lines.size(), static_cast<size_t>(std::count(kListing.begin(), kListing.end(), '\n')));
  // A counter outside of quotes, and only that one.
  EXPECT_EQ(LineOf(lines, "# handle 9").text, "\t\tcomment \"all packets 7 bytes 8 # handle 9\"");
  const RuleLineView& aux = LineOf(lines, "odd");
  EXPECT_EQ(aux.text,
            "\t\tcounter packets 11 bytes 22 comment \"odd counter packets 3 bytes 4 # handle "
            "77\" # handle 9");
  EXPECT_EQ(aux.where, "worker");
  EXPECT_EQ(aux.packets, 11u);
  EXPECT_EQ(aux.chain, "aux");
  EXPECT_EQ(LineOf(lines, "log prefix").text,
            "\t\tlog prefix \"counter packets 5 bytes 6 \" counter packets 33 bytes 44 drop # "
            "handle 16");
  const RuleLineView& named = LineOf(lines, "packets 55");
  EXPECT_EQ(named.text, "\t\tpackets 55 bytes 66");
  EXPECT_EQ(named.chain, "web");
  EXPECT_EQ(named.where, "");
  EXPECT_EQ(named.handle, 0u);
  EXPECT_EQ(LineOf(lines, "tcp dport 80").where, "xdp");
  EXPECT_EQ(LineOf(lines, "secmark").where, "kernel");
  EXPECT_EQ(LineOf(lines, "secmark").reason, "meta secmark");
  // Not Sluice's: as nft says it.
  EXPECT_EQ(LineOf(lines, "packets 9").text, "\t\tcounter packets 9 bytes 10 # handle 2");
  EXPECT_EQ(LineOf(lines, "packets 9").where, "-");
  EXPECT_EQ(LineOf(lines, "packets 9").family, "bridge");
  EXPECT_EQ(LineOf(lines, "policy drop").where, "");
  EXPECT_EQ(LineOf(lines, "elements").text.find("packets 4 bytes 5") != std::string::npos, true);
}

// Where the kernel counts as well, Sluice's come on top.
TEST(RuleListingTest, AddsToTheKernelsCounts) {
  RuleStatusSource source;
  source.rule = [](const RuleId&) {
    return RuleStatus{
        .where = "kernel", .counts = true, .adds = true, .packets = 3, .bytes = 1000};
  };
  const auto lines = AnnotateListing(kListing, source);
  EXPECT_THAT(LineOf(lines, "log prefix").text, HasSubstr(" counter packets 103 bytes 1200 drop"));
  EXPECT_EQ(LineOf(lines, "log prefix").packets, 3u) << "Sluice's alone";
  EXPECT_EQ(LineOf(lines, "table inet").text, "table inet filter { # handle 1");
}

// Their handle is at the end, behind the block that belongs to the rule.
TEST(RuleListingTest, RulesOfSeveralLines) {
  const auto lines = AnnotateListing(
      "table inet filter { # handle 1 progname firewalld\n"
      "\tflags owner\n\n"
      "\tchain forward { # handle 2\n"
      "\t\tjump {\n"
      "\t\t\tcounter packets 7 bytes 8 accept\n"
      "\t\t} # handle 16\n"
      "\t\tcounter packets 100 bytes 200 drop # handle 11\n"
      "\t}\n}\n",
      Source());
  ASSERT_EQ(lines.size(), 10u);
  EXPECT_EQ(lines[5].text, "\t\t\tcounter packets 7 bytes 8 accept") << "a rule without a handle";
  EXPECT_EQ(lines[6].handle, 16u);
  EXPECT_EQ(lines[6].where, "worker");
  EXPECT_EQ(lines[7].handle, 11u);
}

TEST(RuleListingTest, AnythingIsTakenAsText) {
  for (const char* text : {"", "\n\n", "\t\t\n", "}", "\t\tx # handle ", "\t\tx # handle 1x",
                           "table\n\tchain\n\t\tr # handle 99999999999999999999",
                           "table inet filter {\n\tchain c {\n\t\tcounter packets # handle 9"}) {
    RuleStatusSource all;
    all.rule = [](const RuleId&) { return RuleStatus{.where = "worker", .counts = true}; };
    const auto lines = AnnotateListing(text, all);
    std::string joined;
    for (const RuleLineView& line : lines) joined += line.text + "\n";
    EXPECT_EQ(joined.substr(0, std::string(text).size()), text);
  }
}

TEST(RuleListingTest, Table) {
  RulesView view;
  view.firewall = {.generation = 12, .rules = 5, .in_xdp = 1, .in_workers = 3, .unsupported = 1};
  view.lines = AnnotateListing(kListing, Source());
  const std::string text = ToTable(view);
  EXPECT_THAT(text, HasSubstr("        table inet filter { # handle 1\n"));
  EXPECT_THAT(text, HasSubstr("xdp     \t\ttcp dport 80 counter name \"web\" accept # handle 15\n"));
  EXPECT_THAT(text, HasSubstr("kernel  \t\tmeta secmark 1 # handle 17\n"
                              "        \t\t# ^ left to the kernel: meta secmark\n"));
  EXPECT_THAT(text, HasSubstr("-       \t\tcounter packets 9 bytes 10 # handle 2\n"));
  EXPECT_THAT(text, HasSubstr("\n5 rules: 3 in workers, 1 in XDP, 1 left to the kernel; generation "
                              "12\n"));
  EXPECT_EQ(ToTable(RulesView{}),
            "no rules\n\n0 rules: 0 in workers, 0 left to the kernel; generation 0\n");
  const auto back = FromJson<RulesView>(ToJson(view));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToTable(*back), text);
}

}  // namespace
}  // namespace sluice::telemetry

// Which of nftables' statements leave a flow to the flow tier: each example of nft_words.inc, as the
// kernel has it, is run for flows that meet it, with a FlowPath. Needs root.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "control/nft/ruleset_reader.h"
#include "control/ruleset/compiler.h"
#include "support/filter_world.h"
#include "support/network_namespace.h"
#include "tables/flow.h"
#include "unit/control/ruleset/nft_examples.h"

namespace sluice::test {
namespace {

using stages::FlowPath;
using stages::Variance;

// What holds a flow back that meets the statement. Statements that are not here hold nobody back,
// or are the kernel's.
const std::map<std::string, Variance> kHeldBack = {
    {"meta length 100-200", Variance::kPacketLength},
    {"meta random 5", Variance::kRandom},
    {"meta time \"2026-01-01 00:00\"", Variance::kTime},
    {"meta day \"Monday\"", Variance::kTime},
    {"meta hour \"10:00\"-\"11:00\"", Variance::kTime},
    {"ether saddr 02:00:00:00:00:01", Variance::kHeaderField},
    {"ip dscp ef", Variance::kHeaderField},
    {"ip ttl < 5", Variance::kHeaderField},
    {"ip6 hoplimit 64", Variance::kHeaderField},
    {"ip6 flowlabel 5", Variance::kHeaderField},
    {"tcp option maxseg size 1000-1460", Variance::kTcpOptions},
    {"tcp option sack-perm exists", Variance::kTcpOptions},
    {"ct expiration > 10s", Variance::kConnectionCounts},
    {"ct original packets > 10", Variance::kConnectionCounts},
    {"ct bytes > 1000", Variance::kConnectionCounts},
    {"ct avgpkt > 100", Variance::kConnectionCounts},
    {"ct count over 20", Variance::kConnectionLimit},
    {"numgen inc mod 3 1", Variance::kRandom},
    {"numgen random mod 10 < 3", Variance::kRandom},
    {"reject", Variance::kReject},
    {"reject with tcp reset", Variance::kReject},
    {"reject with icmp type host-prohibited", Variance::kReject},
    {"reject with icmpv6 type admin-prohibited", Variance::kReject},
    {"reject with icmpx type no-route", Variance::kReject},
    {"limit rate over 10/second burst 5 packets", Variance::kLimit},
    {"limit rate 1 mbytes/second", Variance::kLimit},
    {"limit name slowly", Variance::kLimit},
    {"quota over 10 mbytes", Variance::kQuota},
    {"quota name volume", Variance::kQuota},
    {"log prefix \"seen: \" level info", Variance::kLog},
    {"log group 1", Variance::kLog},
    {"add @dynamic4 { ip saddr }", Variance::kDynamicSet},
    {"update @dynamic4 { ip saddr timeout 10s }", Variance::kDynamicSet},
    {"delete @dynamic4 { ip saddr }", Variance::kDynamicSet},
    {"update @limited4 { ip saddr limit rate over 10/second }", Variance::kDynamicSet},
    {"add @counted4 { ip saddr counter }", Variance::kDynamicSet},
    {"add @connections4 { ip saddr ct count over 5 }", Variance::kDynamicSet},
    {"add @seen { ip saddr : tcp dport }", Variance::kDynamicSet},
    // The first packet that meets it; the second one finds the mark as it would set it.
    {"ct mark set ct mark and 0xff or 0x100", Variance::kConnectionMark},
    {"ip dscp set ef", Variance::kWrite},
    {"ip6 dscp set cs1", Variance::kWrite},
    {"ip ecn set ce", Variance::kWrite},
    {"ip ttl set 10", Variance::kWrite},
    {"ip6 hoplimit set 10", Variance::kWrite},
    {"ip saddr set 10.0.0.1", Variance::kWrite},
    {"tcp dport set 80", Variance::kWrite},
    {"ether saddr set 02:00:00:00:00:01", Variance::kWrite},
    {"tcp option maxseg size set 1400", Variance::kWrite},
    {"tcp option maxseg size set rt mtu", Variance::kWrite},
    // Of what the kernel does: TCP and UDP do not meet it.
    {"sctp dport set 1", Variance::kNone},
};

struct Sample {
  const char* name;
  Bytes frame;
};
std::vector<Sample> Samples() {
  const auto port = [](bool tcp, bool v6, uint16_t destination) {
    PacketBuilder b = FilterWorld::Ethernet();
    if (v6) {
      b.Ipv6("2001:db8::1", "2001:db8::2");
    } else {
      b.Ipv4("10.0.0.1", "10.0.0.2");
    }
    if (tcp) {
      b.Tcp(53, destination, 0x10);
    } else {
      b.Udp(53, destination);
    }
    return b.Payload(20).Build();
  };
  return {{"tcp4", port(true, false, 80)},
          {"udp4", port(false, false, 80)},
          {"tcp6", port(true, true, 80)},
          {"udp6", port(false, true, 80)}};
}

class FlowPathWordsTest : public testing::Test {
 protected:
  FlowPathWordsTest() {
    w_.wall_offset = Seconds(1'700'000'000);
    tables::Route route;
    route.paths.push_back({.oif = IfIndex{4}, .slot = IfaceSlot{1}});
    route_ = *w_.routes.Intern(route);
    EXPECT_TRUE(w_.fib4.Insert(*ParseIpv4Prefix("0.0.0.0/0"), route_).ok());
    EXPECT_TRUE(w_.fib6.Insert(*ParseIpv6Prefix("::/0"), route_).ok());
    flow_.status = tables::kFlowConfirmed | tables::kFlowSeenReply | tables::kFlowAssured;
  }

  FlowPath PathOf(const Bytes& frame, HookPoint hook) {
    FlowPath path;
    path.Begin(w_.Load(frame));
    w_.p.ct_state = static_cast<uint8_t>(hook == HookPoint::kIngress ||
                                                 hook == HookPoint::kPreroutingRaw
                                             ? tables::CtState::kNone
                                             : tables::CtState::kEstablished);
    w_.p.route_id = route_.value;
    tables::Flow flow = flow_;
    flow.tuples[0].family = flow.tuples[1].family = w_.family;
    flow.tuples[0].protocol = flow.tuples[1].protocol = w_.p.l4_protocol;
    w_.flow = &flow;
    // The examples at ingress are in chains of this device.
    w_.snapshot.interfaces[0].name = hook == HookPoint::kIngress ? "lo" : "lan0";
    w_.out_known = hook == HookPoint::kForward || hook == HookPoint::kPostroutingNat;
    stages::FilterContext context = w_.Context();
    context.path = &path;
    static_cast<void>(w_.filter.Run(hook, w_.family, context));
    w_.flow = nullptr;
    return path;
  }

  FilterWorld w_;
  tables::Flow flow_{};
  tables::RouteId route_;
};

HookPoint HookOf(const std::string& place) {
  if (place == "prerouting") return HookPoint::kPreroutingEarly;
  if (place == "raw") return HookPoint::kPreroutingRaw;
  if (place == "dnat") return HookPoint::kPreroutingNat;
  if (place == "snat") return HookPoint::kPostroutingNat;
  if (place == "ingress") return HookPoint::kIngress;
  return HookPoint::kForward;
}

TEST_F(FlowPathWordsTest, EveryExampleHoldsBackWhatItMust) {
  const NetworkNamespace inside;
  std::set<std::string> met;
  for (const NftWords& words : kNftWords) {
    SCOPED_TRACE(words.text);
    for (const NftExample& example : SplitNftExamples(words.rules)) {
      if (example.rule.starts_with("lacking ")) continue;
      SCOPED_TRACE(example.rule);
      NetworkNamespace::Nft(NftRulesetOf({example}));
      auto reader = nft::RulesetReader::Open();
      ASSERT_TRUE(reader.ok()) << reader.status();
      auto model = reader->Read(w_.now);
      ASSERT_TRUE(model.ok()) << model.status();
      w_.Use(*model);
      const auto held = kHeldBack.find(example.rule);
      Variance expected =
          words.who == NftWho::kKernel ? Variance::kKernel : Variance::kNone;
      if (held != kHeldBack.end()) {
        expected = held->second;
        met.insert(held->first);
      }
      Variance seen = Variance::kNone;
      for (const Sample& sample : Samples()) {
        const FlowPath path = PathOf(sample.frame, HookOf(example.place));
        if (path.varies()) seen = path.variance;
      }
      EXPECT_EQ(VarianceLabel(seen), VarianceLabel(expected));
    }
  }
  for (const auto& [rule, reason] : kHeldBack) {
    EXPECT_TRUE(met.contains(rule)) << rule << " is not in nft_words.inc";
  }
}

}  // namespace
}  // namespace sluice::test

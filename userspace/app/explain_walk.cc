#include "app/explain_walk.h"

#include "absl/strings/str_cat.h"
#include "control/packet_text/packet_text.h"
#include "tables/flow_owner.h"

namespace sluice::app {
namespace {

using dataplane::Walk;
using dataplane::WalkStep;
using packet::Verdict;
using telemetry::ExplainStage;

std::string End(const Verdict& verdict, const std::string& out) {
  switch (verdict.kind()) {
    case Verdict::Kind::kDrop:
      return absl::StrCat("dropped: ", std::string(Label(verdict.drop_reason())));
    case Verdict::Kind::kPunt:
      return absl::StrCat("left to the kernel: ", std::string(Label(verdict.punt_reason())));
    case Verdict::Kind::kHeld:
      return "held: a fragment waits for the rest of its datagram";
    case Verdict::Kind::kLocal:
      return "for Sluice itself";
    default:
      return out.empty() ? "accept" : absl::StrCat("forwarded to ", out);
  }
}

std::string Address(const Ipv6& bits, Family family) {
  return family == Family::kIpv4 ? ToString(Ipv4(static_cast<uint32_t>(bits.lo))) : ToString(bits);
}

std::string Tuple(const tables::FlowTuple& t) {
  std::string text = absl::StrCat(Address(t.source, t.family), " -> ",
                                  Address(t.destination, t.family));
  if (tables::HasPorts(t.protocol)) {
    absl::StrAppend(&text, ", ports ", t.source_port, " -> ", t.destination_port);
  } else if (tables::IsIcmp(t.protocol)) {
    absl::StrAppend(&text, ", id ", t.source_port);
  }
  return text;
}

std::string StateName(tables::CtState state) {
  constexpr const char* kNames[] = {"none",        "invalid", "new",
                                    "established", "related", "untracked"};
  return kNames[static_cast<size_t>(state)];
}

std::string RuleName(const WalkNames& names, uint32_t rule) {
  const tables::Ruleset& ruleset = *names.ruleset;
  const tables::RuleInfo& info = ruleset.rule(rule);
  const tables::ChainInfo& chain = ruleset.chain(info.chain);
  return absl::StrCat("table ", chain.table, ", chain ", chain.name, ", rule ", info.handle,
                      info.comment.empty() ? "" : absl::StrCat(" (", info.comment, ")"),
                      names.left_out != nullptr && names.left_out->rule(rule) ? ", in XDP" : "");
}

std::string HookText(const WalkStep& step) {
  switch (step.outcome) {
    case WalkStep::Outcome::kDrop:
      return "drop";
    case WalkStep::Outcome::kReject:
      return step.reset ? "reject with tcp reset"
                        : absl::StrCat("reject with icmp code ", step.reject_code);
    case WalkStep::Outcome::kNat:
      return "translate";
    case WalkStep::Outcome::kKernel:
      return "a rule that only the kernel can evaluate";
    default:
      return "accept";
  }
}

// The rules that matched, in order; then what decided.
std::string HookDetail(const Walk& walk, const WalkStep& step, const WalkNames& names) {
  const tables::Ruleset& ruleset = *names.ruleset;
  std::string detail;
  for (size_t i = 0; i < step.rule_count; ++i) {
    absl::StrAppend(&detail, detail.empty() ? "" : "\n", "matches ",
                    RuleName(names, walk.rules()[step.first_rule + i]));
  }
  if (step.outcome == WalkStep::Outcome::kAccept && step.rule == stages::kNoRule) return detail;
  std::string decided;
  if (step.rule != stages::kNoRule) {
    decided = absl::StrCat("decided by ", RuleName(names, step.rule));
  } else if (step.chain != tables::kNoChain) {
    decided = absl::StrCat(
        "decided by the policy of table ", ruleset.chain(step.chain).table, ", chain ",
        ruleset.chain(step.chain).name,
        names.left_out != nullptr && names.left_out->policy(step.chain) ? ", in XDP" : "");
  }
  if (!decided.empty()) absl::StrAppend(&detail, detail.empty() ? "" : "\n", decided);
  return detail;
}

std::string NextHop(const WalkStep& step, const WalkNames& names) {
  return absl::StrCat("to ", names.interface(step.slot), " via ", ToString(step.next_hop));
}

std::string TierName(const WalkStep& step) {
  return step.tier == WalkStep::Tier::kXdp ? "xdp" : "worker";
}

std::string TierDetail(const WalkStep& step, const WalkNames& names) {
  switch (step.tier) {
    case WalkStep::Tier::kXdp:
      return "";
    case WalkStep::Tier::kSoonXdp:
      return "XDP carries it once there are more packets like it";
    case WalkStep::Tier::kNotYet:
      return "XDP may carry it once the connection is established, both ways";
    case WalkStep::Tier::kForm:
      return "XDP carries whole packets without options; of TCP those with ACK (and PSH) alone";
    case WalkStep::Tier::kDiffers: {
      const std::string_view why = stages::VarianceText(step.variance);
      return absl::StrCat("not XDP: ", absl::string_view(why.data(), why.size()),
                          step.rule == stages::kNoRule || names.ruleset == nullptr
                              ? ""
                              : absl::StrCat(", in ", RuleName(names, step.rule)));
    }
    case WalkStep::Tier::kOff:
      return "XDP carries nothing of this kind from this interface";
    case WalkStep::Tier::kOutput:
      return "XDP cannot send by the output interface";
    case WalkStep::Tier::kPaths:
      return "the way depends on more than XDP looks at";
  }
  return "";
}

ExplainStage StageOf(const Walk& walk, const WalkStep& step, const WalkNames& names) {
  switch (step.kind) {
    case WalkStep::Kind::kParse:
      return {"parse", End(step.verdict, ""), ""};
    case WalkStep::Kind::kAddresses:
      return {"addresses", End(step.verdict, ""), ""};
    case WalkStep::Kind::kOwner:
      return {"worker", absl::StrCat(step.worker.value), ""};
    case WalkStep::Kind::kConnection:
      return {"conntrack", StateName(step.state),
              absl::StrCat(Tuple(step.tuple), step.direction == tables::FlowDirection::kReply
                                                  ? ", in the direction of replies"
                                                  : "")};
    case WalkStep::Kind::kHook:
      return {std::string(tables::HookName(step.hook)), HookText(step),
              names.ruleset == nullptr ? "" : HookDetail(walk, step, names)};
    case WalkStep::Kind::kTranslation:
      return {step.nat == tables::NatKind::kSource ? "snat" : "dnat", Tuple(step.tuple), ""};
    case WalkStep::Kind::kRoute:
      return {"route",
              step.verdict.is_continue() ? NextHop(step, names)
              : step.verdict.kind() == Verdict::Kind::kLocal
                  ? "for this machine"
                  : End(step.verdict, ""),
              ""};
    case WalkStep::Kind::kForwarding:
      return {"ttl, mtu", End(step.verdict, ""), absl::StrCat("MTU ", step.mtu)};
    case WalkStep::Kind::kNeighbor:
      return {"neighbour",
              step.resolved ? ToString(step.mac)
                            : "not resolved: the packet would wait while it is asked for",
              ToString(step.next_hop)};
    case WalkStep::Kind::kSocket:
      return {"socket", "a socket of Sluice's takes it, if INPUT accepts it",
              step.verdict.kind() == Verdict::Kind::kPunt
                  ? "a member of the group; the kernel gets a copy"
                  : ""};
    case WalkStep::Kind::kTier:
      return {"tier", TierName(step), TierDetail(step, names)};
    case WalkStep::Kind::kEnd:
      return {"verdict", End(step.verdict, names.interface(step.slot)), ""};
  }
  return {};
}

}  // namespace

telemetry::ExplainView ExplainWalk(const telemetry::ExplainRequest& request, const Walk& walk,
                                   const WalkNames& names) {
  telemetry::ExplainView view;
  view.packet = control::DescribePacket(request.frame);
  view.interface = request.interface;
  for (const WalkStep& step : walk.steps()) {
    if (step.kind == WalkStep::Kind::kEnd) {
      view.verdict = End(step.verdict, names.interface(step.slot));
    } else {
      view.stages.push_back(StageOf(walk, step, names));
    }
  }
  if (walk.truncated()) view.stages.push_back({"...", "more rules matched than are shown", ""});
  return view;
}

}  // namespace sluice::app

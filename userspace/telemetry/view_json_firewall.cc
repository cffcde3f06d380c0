// The firewall's part of view_json.h.
#include <string>
#include <vector>

#include "telemetry/json_helpers.h"
#include "telemetry/view_json.h"

namespace sluice::telemetry {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RuleLineView, text, where, reason, family, table,
                                                chain, handle, packets, bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RulesView, firewall, lines)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TupleView, source, destination, source_port,
                                                destination_port, icmp_type, icmp_code, icmp_id,
                                                packets, bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(FlowView, family, protocol, protocol_number, state,
                                                timeout_seconds, original, reply, nat, status, mark,
                                                worker, conntrack)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(FlowsView, total, matched, limit, flows)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(NatRuleView, family, table, chain, handle, text,
                                                kind, where, connections)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(NatAddressView, address, mappings, by_worker)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(NatFlowView, protocol, from, to, nat,
                                                timeout_seconds)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(NatView, mappings, exhausted, ports_first, ports_last,
                                                rules, addresses, flows, truncated)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(ExplainStage, stage, text, detail)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(ExplainView, packet, interface, stages, verdict)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TraceView, time_seconds, worker, interface, packet,
                                                length, verdict, reason, output, tier, translated,
                                                rules, bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TraceRequest, program)

std::string ToJson(const RulesView& view) { return Dump(view); }
std::string ToJson(const FlowsView& view) { return Dump(view); }
std::string ToJson(const NatView& view) { return Dump(view); }
std::string ToJson(const ExplainView& view) { return Dump(view); }
std::string ToJson(const TraceView& view) { return Dump(view); }

template absl::StatusOr<RulesView> FromJson(const std::string&);
template absl::StatusOr<FlowsView> FromJson(const std::string&);
template absl::StatusOr<NatView> FromJson(const std::string&);
template absl::StatusOr<ExplainView> FromJson(const std::string&);
template absl::StatusOr<TraceView> FromJson(const std::string&);

std::string ToJson(const ExplainRequest& request) {
  return Dump(json{{"interface", request.interface}, {"frame", ToHex(request.frame)}});
}
std::string ToJson(const TraceRequest& request) { return Dump(request); }

absl::StatusOr<ExplainRequest> ExplainRequestFromJson(const std::string& text) {
  const json j = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!j.is_object() || !j.contains("interface") || !j["interface"].is_string() ||
      !j.contains("frame") || !j["frame"].is_string()) {
    return absl::InvalidArgumentError(
        R"(expected {"interface": NAME, "frame": HEXADECIMAL DIGITS})");
  }
  auto frame = FromHex(j["frame"].get<std::string>());
  if (!frame || frame->empty() || frame->size() > kMaxExplainFrame) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"frame\" must be 1 to ", kMaxExplainFrame, " bytes in hexadecimal digits"));
  }
  return ExplainRequest{j["interface"].get<std::string>(), *std::move(frame)};
}

absl::StatusOr<TraceRequest> TraceRequestFromJson(const std::string& text) {
  return FromJson<TraceRequest>(text);
}

std::string LostJson(uint64_t packets) { return Dump(json{{"lost", packets}}); }

std::optional<uint64_t> LostFromJson(const std::string& line) {
  const json j = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!j.is_object() || !j.contains("lost") || !j["lost"].is_number_unsigned()) return {};
  return j["lost"].get<uint64_t>();
}

std::string ToHex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 0xf];
  }
  return out;
}

std::optional<std::vector<uint8_t>> FromHex(std::string_view text) {
  if (text.substr(0, 2) == "0x") text.remove_prefix(2);
  std::vector<uint8_t> bytes;
  int high = -1;
  for (const char c : text) {
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == ':') continue;
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return {};
    if (high < 0) {
      high = digit;
    } else {
      bytes.push_back(static_cast<uint8_t>(high << 4 | digit));
      high = -1;
    }
  }
  if (high >= 0) return {};
  return bytes;
}

}  // namespace sluice::telemetry

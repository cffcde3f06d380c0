// The firewall's part of view_table.h.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "telemetry/text_table.h"
#include "telemetry/view_table.h"

namespace sluice::telemetry {
namespace {

constexpr Align kRight = Align::kRight;

std::string EndpointText(const std::string& address, const std::optional<uint16_t>& port) {
  if (!port) return address;
  const bool v6 = address.find(':') != std::string::npos;
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(*port);
}

std::string TupleText(const TupleView& t) {
  std::string out = EndpointText(t.source, t.source_port) + " > " +
                    EndpointText(t.destination, t.destination_port);
  if (t.icmp_type) {
    out += " type " + std::to_string(*t.icmp_type) + " code " +
           std::to_string(t.icmp_code.value_or(0)) + " id " + std::to_string(t.icmp_id.value_or(0));
  }
  return out;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ",") + word;
  return out;
}

// The lines of `text`, the first as it is and the others indented by `width`.
std::string Hanging(const std::string& text, size_t width) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == '\n') out.append(width, ' ');
  }
  return out;
}

std::string RuleName(const NatRuleView& r) {
  return r.family + " " + r.table + " " + r.chain + " handle " + std::to_string(r.handle);
}

}  // namespace

std::string FirewallText(const FirewallView& v) {
  std::string out = Grouped(v.rules) + " rules: " + Grouped(v.in_workers) + " in workers";
  if (v.in_xdp > 0) out += ", " + Grouped(v.in_xdp) + " in XDP";
  if (v.for_this_machine > 0) {
    out += ", " + Grouped(v.for_this_machine) + " in the kernel for this machine";
  }
  out += ", " + Grouped(v.unsupported) + " left to the kernel; generation " +
         std::to_string(v.generation);
  if (v.tracking4 || v.tracking6) {
    out += "; " + Grouped(v.flows) + " of " + Grouped(v.flows_limit) + " connections";
  }
  if (!v.refused.empty()) out += "; not in force: " + v.refused;
  return out;
}

std::string ToTable(const RulesView& view) {
  std::string out;
  for (const RuleLineView& line : view.lines) {
    std::string where = line.where;
    where.resize(8, ' ');
    std::string row = where + line.text;
    row.erase(row.find_last_not_of(' ') + 1);
    out += row + "\n";
    if (!line.reason.empty()) {
      const size_t tabs = line.text.find_first_not_of('\t');
      out += std::string(8, ' ') + line.text.substr(0, tabs == std::string::npos ? 0 : tabs) +
             "# ^ left to the kernel: " + line.reason + "\n";
    }
  }
  if (view.lines.empty()) out = "no rules\n";
  return out + "\n" + FirewallText(view.firewall) + "\n";
}

std::string ToTable(const FlowsView& view) {
  std::string out;
  if (view.flows.empty()) {
    out = "no matching connections\n";
  } else {
    TextTable table({{"proto"},
                     {"state"},
                     {"timeout", kRight},
                     {"original"},
                     {"reply"},
                     {"nat"},
                     {"status"},
                     {"mark", kRight},
                     {"packets", kRight},
                     {"bytes", kRight},
                     {"worker", kRight}});
    for (const FlowView& f : view.flows) {
      char mark[16];
      std::snprintf(mark, sizeof mark, "0x%x", f.mark);
      table.AddRow({f.protocol, OrDash(f.state), HumanSeconds(f.timeout_seconds),
                    TupleText(f.original), f.nat.empty() ? "-" : TupleText(f.reply), OrDash(f.nat),
                    OrDash(Joined(f.status)), f.mark == 0 ? "-" : mark,
                    Grouped(f.original.packets + f.reply.packets),
                    HumanBytes(f.original.bytes + f.reply.bytes), std::to_string(f.worker)});
    }
    out = table.Render();
  }
  out += "\n" + Grouped(static_cast<uint64_t>(view.flows.size())) + " shown of " +
         Grouped(view.matched) + " that match, " + Grouped(view.total) + " connections in all (of " +
         Grouped(view.limit) + ")";
  if (view.flows.size() < view.matched) out += "; see --limit";
  return out + "\n";
}

std::string ToConntrackLines(const FlowsView& view) {
  std::string out;
  for (const FlowView& flow : view.flows) out += flow.conntrack + "\n";
  return out;
}

std::string ToTable(const NatView& view) {
  std::string out;
  if (view.rules.empty()) {
    out = "no rule translates\n";
  } else {
    TextTable rules({{"runs in"}, {"connections", kRight}, {"kind"}, {"rule"}, {"of"}});
    for (const NatRuleView& r : view.rules) {
      rules.AddRow({OrDash(r.where), r.connections ? Grouped(*r.connections) : "-", r.kind, r.text,
                    RuleName(r)});
    }
    out = rules.Render();
  }
  if (!view.addresses.empty()) {
    TextTable addresses({{"address"}, {"connections", kRight}, {"by worker"}});
    for (const NatAddressView& a : view.addresses) {
      std::string by_worker;
      for (const uint64_t n : a.by_worker) by_worker += (by_worker.empty() ? "" : " ") + Grouped(n);
      addresses.AddRow({a.address, Grouped(a.mappings), by_worker});
    }
    out += "\nAddresses\n" + addresses.Render();
  }
  if (!view.flows.empty()) {
    TextTable flows({{"proto"}, {"from"}, {"becomes"}, {"nat"}, {"timeout", kRight}});
    for (const NatFlowView& f : view.flows) {
      flows.AddRow({f.protocol, f.from, f.to, f.nat, HumanSeconds(f.timeout_seconds)});
    }
    out += "\nConnections\n" + flows.Render();
  }
  out += "\n" + Grouped(view.mappings) + " connections translated, " + Grouped(view.exhausted) +
         " refused for want of a port (ports " + std::to_string(view.ports_first) + "-" +
         std::to_string(view.ports_last) + ")";
  if (view.truncated) out += "; more than shown, see --limit and show flows";
  return out + "\n";
}

std::string ToTable(const ExplainView& view) {
  std::string out = "packet   " + view.packet + "\narrives  " + view.interface + "\n\n";
  size_t width = 0;
  for (const ExplainStage& s : view.stages) width = std::max(width, s.stage.size());
  width += 2;
  for (const ExplainStage& s : view.stages) {
    out += s.stage + std::string(width - s.stage.size(), ' ') + Hanging(s.text, width) + "\n";
    if (!s.detail.empty()) {
      out += std::string(width, ' ') + "  " + Hanging(s.detail, width + 2) + "\n";
    }
  }
  return out + "\nverdict  " + view.verdict + "\n";
}

std::string ToLines(const TraceView& v) {
  char time[32];
  std::snprintf(time, sizeof time, "%.6f", v.time_seconds);
  std::string out = std::string(time) + " " + v.interface + " " + v.packet + " (" +
                    std::to_string(v.length) + " bytes): " + v.verdict;
  if (!v.output.empty()) out += " to " + v.output;
  if (!v.reason.empty()) out += ": " + v.reason;
  if (v.tier == "xdp") out += " (by XDP, when it is not traced)";
  out += "\n";
  if (!v.translated.empty()) out += "    as    " + v.translated + "\n";
  for (const std::string& rule : v.rules) out += "    rule  " + rule + "\n";
  return out;
}

}  // namespace sluice::telemetry

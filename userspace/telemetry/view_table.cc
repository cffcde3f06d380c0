#include "telemetry/view_table.h"

#include <cmath>
#include <cstdio>

#include "telemetry/text_table.h"

namespace sluice::telemetry {
namespace {

constexpr Align kRight = Align::kRight;

std::string Percent(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%%", ratio * 100);
  return text;
}

// `key    value` lines with the values in one column.
class Facts {
 public:
  void Add(const std::string& key, const std::string& value) {
    std::string padded = key;
    padded.resize(kKeyWidth, ' ');
    text_ += padded + value + "\n";
  }
  void Section(const std::string& heading) { text_ += "\n" + heading + "\n"; }
  void Raw(const std::string& text) { text_ += text; }
  std::string Take() { return std::move(text_); }

 private:
  static constexpr size_t kKeyWidth = 16;
  std::string text_;
};

std::string Indented(const std::string& text) {
  std::string out;
  size_t start = 0;
  while (start < text.size()) {
    const size_t end = text.find('\n', start) + 1;
    out += "  " + text.substr(start, end - start);
    start = end;
  }
  return out;
}

std::string PacketLines(const PacketTotals& packets) {
  TextTable table({{"", Align::kLeft}, {"packets", kRight}});
  table.AddRow({"received", Grouped(packets.received)});
  table.AddRow({"forwarded", Grouped(packets.forwarded)});
  table.AddRow({"local", Grouped(packets.local)});
  table.AddRow({"punted to kernel", Grouped(packets.punted)});
  table.AddRow({"dropped", Grouped(packets.dropped)});
  table.AddRow({"held", Grouped(packets.held)});
  table.AddRow({"merged fragments", Grouped(packets.merged)});
  const int64_t unaccounted = Unaccounted(packets);
  std::string out = Indented(table.Render());
  out += unaccounted == 0 ? "  every packet accounted for\n"
                          : "  " + Grouped(unaccounted) +
                                " not accounted for (under way while this was read, or a bug)\n";
  return out;
}

std::string TiersText(const TiersView& tiers) {
  const uint64_t all = tiers.xdp + tiers.worker + tiers.kernel;
  const auto share = [&](uint64_t packets) {
    return Percent(all == 0 ? 0 : static_cast<double>(packets) / static_cast<double>(all));
  };
  if (!tiers.offload) return "the flow tier is off: workers carry everything";
  return "XDP " + share(tiers.xdp) + ", workers " + share(tiers.worker) + ", kernel " +
         share(tiers.kernel) + " of packets; " + Grouped(tiers.entries) + " of " +
         Grouped(tiers.limit) + " entries";
}

std::string MirrorText(const MirrorView& mirror) {
  std::string out = mirror.in_step && mirror.divergence == 0
                        ? "in step with the kernel"
                        : "not in step: " + Grouped(mirror.divergence) + " differences";
  out +=
      ", " + Grouped(mirror.resyncs) + " resyncs, " + Grouped(mirror.corrections) + " corrections";
  if (!mirror.last_resync_reason.empty()) out += " (last: " + mirror.last_resync_reason + ")";
  return out;
}

std::string PathText(const RoutePathView& path, bool show_weight) {
  std::string out;
  if (!path.via.empty()) out = "via " + path.via;
  if (!path.dev.empty()) out += (out.empty() ? "dev " : " dev ") + path.dev;
  if (show_weight) out += " weight " + std::to_string(path.weight);
  return OrDash(out);
}

}  // namespace

std::string ToTable(const StatusView& view) {
  Facts facts;
  facts.Add("sluice", view.version + ", kernel " + view.kernel + ", pid " +
                          std::to_string(view.pid) + ", up " + HumanSeconds(view.uptime_seconds));
  facts.Add("state", view.ready ? "ready: packets are being forwarded"
                                : "not ready: " + OrDash(view.not_ready_reason));
  facts.Add("configuration", OrDash(view.config_file));
  facts.Add("metrics", view.metrics_listen.empty() || view.metrics_listen == "off"
                           ? "off"
                           : "http://" + view.metrics_listen + "/metrics");
  facts.Add("interfaces", Grouped(view.interfaces_up) + " of " + Grouped(view.interfaces) + " up");
  facts.Add("workers",
            Grouped(view.workers) + (view.workers_stalled == 0
                                         ? std::string()
                                         : ", " + Grouped(view.workers_stalled) + " stalled"));
  facts.Add("mirror", MirrorText(view.mirror));
  if (view.firewall) facts.Add("firewall", FirewallText(*view.firewall));
  facts.Add("tiers", TiersText(view.tiers));
  for (const std::string& problem : view.tiers.problems) facts.Add("", "not in XDP: " + problem);
  if (view.kernel_decides.empty()) {
    facts.Add("kernel decides", "only about packets for this machine");
  }
  bool first = true;
  for (const std::string& reason : view.kernel_decides) {
    facts.Add(first ? "kernel decides" : "", reason);
    first = false;
  }

  facts.Section("Packets");
  facts.Raw(PacketLines(view.packets));
  if (!view.punts.empty()) {
    facts.Section("Punted to the kernel");
    TextTable table({{"packets", kRight}, {"reason"}, {"why"}});
    for (const ReasonCount& punt : view.punts) {
      table.AddRow({Grouped(punt.packets), punt.reason, punt.text});
    }
    facts.Raw(Indented(table.Render()));
  }
  if (!view.tables.empty()) {
    facts.Section("Tables");
    TextTable table({{"table"}, {"used", kRight}, {"limit", kRight}, {"full", kRight}});
    for (const TableUse& use : view.tables) {
      const double ratio =
          use.limit == 0 ? 0 : static_cast<double>(use.used) / static_cast<double>(use.limit);
      table.AddRow({use.name, Grouped(use.used), Grouped(use.limit), Percent(ratio)});
    }
    facts.Raw(Indented(table.Render()));
  }
  return facts.Take();
}

std::string ToTable(const std::vector<InterfaceView>& views) {
  if (views.empty()) return "no interfaces\n";
  TextTable links({{"interface"},
                   {"state"},
                   {"slot", kRight},
                   {"mac"},
                   {"mtu", kRight},
                   {"driver"},
                   {"mode"},
                   {"memory"},
                   {"jumbo"},
                   {"queues", kRight},
                   {"checksum"}});
  TextTable traffic({{"interface"},
                     {"rx packets", kRight},
                     {"rx bytes", kRight},
                     {"tx packets", kRight},
                     {"tx bytes", kRight},
                     {"punted", kRight},
                     {"dropped", kRight},
                     {"tx errors", kRight}});
  TextTable xdp({{"interface"},
                 {"forwarded", kRight},
                 {"to sluice", kRight},
                 {"to kernel", kRight},
                 {"dropped", kRight},
                 {"ring full", kRight}});
  std::string problems;
  for (const InterfaceView& v : views) {
    links.AddRow({v.name, v.state, std::to_string(v.slot), OrDash(v.mac), std::to_string(v.mtu),
                  OrDash(v.driver), OrDash(v.mode),
                  v.mode.empty() ? "-"
                  : v.zero_copy  ? "zero-copy"
                                 : "copy",
                  YesNo(v.multi_buffer), std::to_string(v.queues), OrDash(v.checksum)});
    traffic.AddRow({v.name, Grouped(v.rx_packets), HumanBytes(v.rx_bytes), Grouped(v.tx_packets),
                    HumanBytes(v.tx_bytes), Grouped(v.punts), Grouped(v.drops),
                    Grouped(v.tx_errors)});
    xdp.AddRow({v.name, Grouped(v.xdp_forward), Grouped(v.xdp_redirect), Grouped(v.xdp_pass),
                Grouped(v.xdp_drop), Grouped(v.ring_full)});
    if (!v.problem.empty()) problems += v.name + ": " + v.problem + "\n";
  }
  std::string out = links.Render() + "\nTraffic\n" + traffic.Render() + "\nXDP\n" + xdp.Render();
  if (!problems.empty()) out += "\n" + problems;
  return out;
}

std::string ToTable(const RoutesView& view) {
  std::string out;
  if (view.routes.empty()) {
    out = "no matching routes\n";
  } else {
    TextTable table({{"prefix"}, {"type"}, {"path"}, {"mtu", kRight}, {"served"}});
    for (const RouteView& route : view.routes) {
      const std::string served = route.served ? "yes" : "no: " + OrDash(route.not_served_by);
      const std::string mtu = route.mtu == 0 ? "-" : std::to_string(route.mtu);
      if (route.paths.empty()) {
        table.AddRow({route.prefix, route.type, "-", mtu, served});
      }
      for (size_t i = 0; i < route.paths.size(); ++i) {
        const std::string path = PathText(route.paths[i], route.paths.size() > 1);
        if (i == 0) {
          table.AddRow({route.prefix, route.type, path, mtu, served});
        } else {
          table.AddRow({"", "", path, "", ""});
        }
      }
    }
    out = table.Render();
  }
  out += "\n" + Grouped(static_cast<uint64_t>(view.routes.size())) + " shown of " +
         Grouped(view.total4) + " IPv4 and " + Grouped(view.total6) + " IPv6 routes";
  if (view.truncated) out += " (more match; see --limit and --destination)";
  return out + "\n";
}

std::string ToTable(const std::vector<NeighborView>& views) {
  if (views.empty()) return "no neighbors\n";
  TextTable table({{"address"},
                   {"dev"},
                   {"mac"},
                   {"state"},
                   {"queued", kRight},
                   {"age", kRight},
                   {"worker", kRight}});
  for (const NeighborView& v : views) {
    table.AddRow({v.address, v.dev, OrDash(v.mac), v.state, Grouped(v.queued),
                  HumanSeconds(v.age_seconds), std::to_string(v.worker)});
  }
  return table.Render();
}

std::string ToTable(const std::vector<WorkerView>& views) {
  if (views.empty()) return "no workers\n";
  TextTable table({{"worker", kRight},
                   {"cpu", kRight},
                   {"state"},
                   {"busy", kRight},
                   {"loops", kRight},
                   {"sleeps", kRight},
                   {"free", kRight},
                   {"fill", kRight},
                   {"tx", kRight},
                   {"held", kRight},
                   {"sockets", kRight},
                   {"handed over", kRight}});
  for (const WorkerView& v : views) {
    table.AddRow({std::to_string(v.worker), v.cpu ? std::to_string(*v.cpu) : "-", v.state,
                  Percent(v.busy_ratio), Grouped(v.loops), Grouped(v.sleeps),
                  Grouped(v.frames_free), Grouped(v.frames_fill), Grouped(v.frames_tx),
                  Grouped(v.frames_held), Grouped(v.frames_sockets),
                  Grouped(v.frames_handed_over)});
  }
  return table.Render() + "\nfree, fill, tx, held and sockets count frames of memory\n";
}

std::string ToTable(const std::vector<DropView>& views, bool all) {
  TextTable table({{"interface"}, {"packets", kRight}, {"reason"}, {"what happened"}});
  uint64_t total = 0;
  bool any = false;
  for (const DropView& v : views) {
    total += v.packets;
    if (v.packets == 0 && !all) continue;
    table.AddRow({v.interface, Grouped(v.packets), v.reason, v.text});
    any = true;
  }
  if (!any) return "no drops\n";
  return table.Render() + "\n" + Grouped(total) + " packets dropped\n";
}

}  // namespace sluice::telemetry

// Sockets and services as JSON and as text.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "telemetry/json_helpers.h"
#include "telemetry/text_table.h"
#include "telemetry/view_json.h"
#include "telemetry/view_table.h"

namespace sluice::telemetry {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(LabeledCount, label, count)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(SocketView, protocol, state, receive_queue,
                                                send_queue, local, remote, worker, service, mss,
                                                path_mtu, congestion_window, in_flight,
                                                receive_window, rtt_ms, rtt_variance_ms, rto_ms,
                                                retransmits, congestion_state, last_data_ms,
                                                busy_ms, window_limited_ms, buffer_limited_ms)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(SocketsView, total, truncated, sockets)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(BackendView, address, weight, health, removed,
                                                connections, total, failures, checks_passed,
                                                checks_failed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(ServiceView, name, kind, state, listen, balance,
                                                active, accepted, retries, bytes_in, bytes_out,
                                                messages_in, messages_out, failures, backends)

std::string ToJson(const SocketsView& view) { return Dump(view); }
std::string ToJson(const std::vector<ServiceView>& views) { return Dump(views); }
template absl::StatusOr<SocketsView> FromJson(const std::string&);
template absl::StatusOr<std::vector<ServiceView>> FromJson(const std::string&);

namespace {

constexpr Align kRight = Align::kRight;

std::string Times(const SocketView& s) {
  if (s.rtt_ms == 0) return "-";
  return absl::StrFormat("%.3g/%.3g", s.rtt_ms, s.rtt_variance_ms);
}

std::string Number(uint64_t n, bool known) { return known ? Grouped(n) : "-"; }

}  // namespace

std::string ToTable(const SocketsView& view) {
  if (view.sockets.empty()) return "no sockets\n";
  TextTable table({{"proto"},
                   {"state"},
                   {"recv-q", kRight},
                   {"send-q", kRight},
                   {"local"},
                   {"remote"},
                   {"worker", kRight},
                   {"service"},
                   {"cwnd", kRight},
                   {"mss", kRight},
                   {"rtt/var ms", kRight},
                   {"rto ms", kRight},
                   {"retrans", kRight},
                   {"recovery"}});
  for (const SocketView& s : view.sockets) {
    const bool connection = s.mss != 0;
    const bool ends_here = connection && s.congestion_state != "spliced";
    table.AddRow({s.protocol, s.state, Grouped(s.receive_queue), Grouped(s.send_queue), s.local,
                  OrDash(s.remote), std::to_string(s.worker), OrDash(s.service),
                  Number(s.congestion_window, ends_here), Number(s.mss, connection), Times(s),
                  ends_here ? absl::StrFormat("%.0f", s.rto_ms) : "-",
                  Number(s.retransmits, connection), OrDash(s.congestion_state)});
  }
  std::string out = table.Render();
  absl::StrAppend(&out, "\n", Grouped(static_cast<uint64_t>(view.sockets.size())), " of ",
                  Grouped(view.total), " sockets");
  if (view.truncated) out += " (see --limit)";
  return out + "\n";
}

std::string ToTable(const std::vector<ServiceView>& views) {
  if (views.empty()) return "no services\n";
  TextTable table({{"service"},
                   {"kind"},
                   {"state"},
                   {"listen"},
                   {"active", kRight},
                   {"accepted", kRight},
                   {"failed", kRight},
                   {"bytes in", kRight},
                   {"bytes out", kRight}});
  TextTable backends({{"service"},
                      {"backend"},
                      {"health"},
                      {"weight", kRight},
                      {"active", kRight},
                      {"total", kRight},
                      {"failures", kRight},
                      {"checks passed", kRight},
                      {"failed", kRight}});
  std::string failures;
  bool any = false;
  for (const ServiceView& s : views) {
    uint64_t failed = 0;
    for (const LabeledCount& n : s.failures) {
      failed += n.count;
      absl::StrAppend(&failures, s.name, ": ", n.label, " ", Grouped(n.count), "\n");
    }
    for (size_t i = 0; i < s.listen.size() || i == 0; ++i) {
      const std::string listen = i < s.listen.size() ? s.listen[i] : "-";
      if (i == 0) {
        table.AddRow({s.name, s.kind, s.state, listen, Grouped(s.active), Grouped(s.accepted),
                      Grouped(failed), HumanBytes(s.bytes_in), HumanBytes(s.bytes_out)});
      } else {
        table.AddRow({"", "", "", listen, "", "", "", "", ""});
      }
    }
    for (const BackendView& b : s.backends) {
      any = true;
      backends.AddRow({s.name, b.address, b.removed ? "removed" : b.health,
                       std::to_string(b.weight), Grouped(b.connections), Grouped(b.total),
                       Grouped(b.failures), Grouped(b.checks_passed), Grouped(b.checks_failed)});
    }
  }
  std::string out = table.Render();
  if (any) out += "\n" + backends.Render();
  if (!failures.empty()) out += "\nNot served to their end\n" + failures;
  return out;
}

}  // namespace sluice::telemetry

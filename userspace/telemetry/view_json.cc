#include "telemetry/view_json.h"

#include "telemetry/json_helpers.h"

namespace sluice::telemetry {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(ReadyView, ready, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(PacketTotals, received, forwarded, local, punted,
                                                dropped, held, merged)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(ReasonCount, reason, text, packets)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TableUse, name, used, limit)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(MirrorView, in_step, divergence, resyncs,
                                                corrections, last_resync_reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TiersView, xdp, worker, kernel, offload, entries,
                                                limit, problems)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(StatusView, version, kernel, pid, uptime_seconds,
                                                ready, not_ready_reason, config_file,
                                                metrics_listen, interfaces, interfaces_up, workers,
                                                workers_stalled, packets, tiers, punts,
                                                kernel_decides, mirror, firewall, tables)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(InterfaceView, name, slot, ifindex, state, problem,
                                                mac, mtu, driver, mode, zero_copy, multi_buffer,
                                                busy_poll, checksum, queues, addresses, rx_packets,
                                                rx_bytes, tx_packets, tx_bytes, tx_errors, drops,
                                                punts, held, xdp_redirect, xdp_pass, xdp_drop,
                                                xdp_forward, ring_full)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RoutePathView, via, dev, weight, served)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RouteView, prefix, type, paths, mtu, served,
                                                not_served_by)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(RoutesView, total4, total6, truncated, routes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(NeighborView, address, dev, mac, state, queued,
                                                age_seconds, worker)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(WorkerView, worker, cpu, state, busy_ratio, loops,
                                                sleeps, frames_free, frames_fill, frames_tx,
                                                frames_held, frames_sockets, frames_handed_over)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DropView, interface, reason, text, packets)

std::string ToJson(const ReadyView& view) { return Dump(view); }
std::string ToJson(const StatusView& view) {
  json j = view;
  const int64_t unaccounted = Unaccounted(view.packets);
  j["packets"]["unaccounted"] = unaccounted;
  j["packets"]["balanced"] = unaccounted == 0;
  return Dump(j);
}
std::string ToJson(const std::vector<InterfaceView>& views) { return Dump(views); }
std::string ToJson(const RoutesView& view) { return Dump(view); }
std::string ToJson(const std::vector<NeighborView>& views) { return Dump(views); }
std::string ToJson(const std::vector<WorkerView>& views) { return Dump(views); }
std::string ToJson(const std::vector<DropView>& views) { return Dump(views); }

template absl::StatusOr<ReadyView> FromJson(const std::string&);
template absl::StatusOr<StatusView> FromJson(const std::string&);
template absl::StatusOr<std::vector<InterfaceView>> FromJson(const std::string&);
template absl::StatusOr<RoutesView> FromJson(const std::string&);
template absl::StatusOr<std::vector<NeighborView>> FromJson(const std::string&);
template absl::StatusOr<std::vector<WorkerView>> FromJson(const std::string&);
template absl::StatusOr<std::vector<DropView>> FromJson(const std::string&);

std::string ErrorJson(const std::string& message) { return Dump(json{{"error", message}}); }

std::string ErrorFromJson(const std::string& text) {
  const json j = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!j.is_object() || !j.contains("error") || !j["error"].is_string()) return text;
  return j["error"].get<std::string>();
}

std::string PrettyJson(const std::string& text) {
  const ordered_json j = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (j.is_discarded()) return text;
  return j.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace sluice::telemetry

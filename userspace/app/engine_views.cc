// What the engine tells about itself: `sluice show`, the control API and the metrics.
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "app/clock.h"
#include "app/engine.h"
#include "app/rule_status.h"
#include "app/startup_checks.h"
#include "stages/neighbor/neighbor_state.h"

namespace sluice::app {

using telemetry::LabeledCount;

namespace {

std::string RouteTypeName(tables::RouteType type) {
  switch (type) {
    case tables::RouteType::kUnicast:
      return "unicast";
    case tables::RouteType::kLocal:
      return "local";
    case tables::RouteType::kBroadcast:
      return "broadcast";
    case tables::RouteType::kMulticast:
      return "multicast";
    case tables::RouteType::kAnycast:
      return "anycast";
    case tables::RouteType::kBlackhole:
      return "blackhole";
    case tables::RouteType::kUnreachable:
      return "unreachable";
    case tables::RouteType::kProhibit:
      return "prohibit";
    case tables::RouteType::kPunt:
      return "kernel";
  }
  return "unknown";
}

using XdpCount = telemetry::MetricSample::XdpCount;

std::vector<XdpCount> ByReason(const io::af_xdp::XdpCounts& counts) {
  std::vector<XdpCount> result;
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto& text = io::af_xdp::kXdpReasons[i];
    result.push_back({std::string(text.action), std::string(text.reason), counts[i]});
  }
  return result;
}

// Its counters may be read by any thread.
const stages::NeighborTable& NeighborsOf(WorkerThread& thread) {
  return thread.worker().pipeline().neighbors().table();
}

telemetry::RouteView ViewOf(const std::string& prefix, const tables::Route& route,
                            const control::KernelState& kernel) {
  telemetry::RouteView view;
  view.prefix = prefix;
  view.type = RouteTypeName(route.type);
  view.mtu = route.mtu;
  bool all_served = true;
  for (const tables::Path& path : route.paths) {
    const control::Link* const link = kernel.FindLink(path.oif);
    view.paths.push_back({.via = path.has_gateway ? ToString(path.gateway) : "",
                          .dev = link != nullptr ? link->name : "",
                          .weight = path.weight,
                          .served = path.slot.valid()});
    all_served = all_served && path.slot.valid();
  }
  switch (route.type) {
    case tables::RouteType::kPunt:
      view.not_served_by = kPuntReasons[static_cast<size_t>(route.punt_reason)].text;
      break;
    case tables::RouteType::kLocal:
    case tables::RouteType::kAnycast:
    case tables::RouteType::kBroadcast:
    case tables::RouteType::kMulticast:
      view.not_served_by = "for this machine";
      break;
    default:
      if (!all_served) {
        view.not_served_by = kPuntReasons[static_cast<size_t>(PuntReason::kUnservedOutput)].text;
      }
  }
  view.served = view.not_served_by.empty();
  return view;
}

}  // namespace

std::string Engine::NotReadyReason() const {
  if (!forwarding_) return "starting or stopping";
  for (const WorkerWatch& watch : watches_) {
    if (watch.stalled) return "a worker does not turn";
  }
  bool any = false;
  for (const ServedInterface& served : interfaces_->all()) {
    if (served.config.name.empty()) continue;
    if (!served.attached()) return served.config.name + ": " + served.problem;
    any = true;
  }
  return any ? "" : "no interface is configured";
}

std::vector<std::string> Engine::KernelDecides() const {
  std::vector<std::string> lines;
  for (const Family family : {Family::kIpv4, Family::kIpv6}) {
    if (mirror_->state().policy_routing(family)) {
      lines.push_back(absl::StrFormat("ip rules beyond the default ones: the kernel forwards IPv%d",
                                      static_cast<int>(family)));
    }
  }
  const control::FirewallPresence& firewall = presence_;
  if (firewall.forward4) lines.push_back("netfilter or IPsec rules: the kernel forwards IPv4");
  if (firewall.forward6) lines.push_back("netfilter or IPsec rules: the kernel forwards IPv6");
  lines.insert(lines.end(), firewall.reasons.begin(), firewall.reasons.end());
  return lines;
}

telemetry::ReadyView Engine::Ready() {
  const std::string reason = NotReadyReason();
  return {.ready = reason.empty(), .reason = reason};
}

uint64_t Engine::Sum(IfaceSlot slot, Counter InterfaceCounters::*counter) const {
  uint64_t sum = 0;
  for (const auto& thread : workers_) sum += (thread->worker().counters().of(slot).*counter).Read();
  return sum;
}

telemetry::PacketTotals Engine::Totals() const {
  telemetry::PacketTotals totals;
  for (const auto& thread : workers_) {
    for (const InterfaceCounters& c : thread->worker().counters().interfaces) {
      totals.received += c.received_packets.Read();
      totals.forwarded += c.forwarded_packets.Read();
      totals.local += c.local_packets.Read();
      totals.punted += c.punted_packets.Read();
      totals.merged += c.merged_packets.Read();
      totals.held += c.held_packets.Read();
      for (const Counter& dropped : c.dropped_packets) totals.dropped += dropped.Read();
    }
  }
  return totals;
}

std::vector<telemetry::TableUse> Engine::TableUses() const {
  const uint64_t free_frames = spare_->size();
  uint64_t frames_in_use = arena_->frame_count() - free_frames;
  uint64_t neighbors = 0;
  uint64_t fragments = 0;
  for (const auto& thread : workers_) {
    frames_in_use -= std::min<uint64_t>(frames_in_use, thread->pool().size());
    neighbors = std::max<uint64_t>(neighbors, NeighborsOf(*thread).used());
    fragments = std::max<uint64_t>(fragments, thread->worker().pipeline().fragments());
  }
  const telemetry::FirewallView firewall = FirewallState();
  std::vector<telemetry::TableUse> uses = {{"routes4", fib4_->size(), config_.limits.routes4},
          {"routes6", fib6_->size(), config_.limits.routes6},
          {"route_results", routes_->used(), routes_->limit()},
          {"neighbors", neighbors, config_.limits.neighbors},
          {"frames", frames_in_use, arena_->frame_count()},
          {"flows", firewall.flows, firewall.flows_limit},
          {"fragments", fragments, config_.limits.fragments},
          {"offloads", OffloadEntries(), offload_ == nullptr ? 0 : offload_->entries()},
          {"groups", groups_.used(), SLUICE_MAX_GROUPS}};
  for (telemetry::TableUse& use : services_->TableUses()) uses.push_back(std::move(use));
  return uses;
}

uint64_t Engine::OffloadEntries() const {
  uint64_t entries = 0;
  for (const auto& thread : workers_) entries += thread->worker().counters().offload.entries.Read();
  return entries;
}

telemetry::TiersView Engine::Tiers() const {
  telemetry::TiersView view;
  const telemetry::PacketTotals totals = Totals();
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    view.xdp += Sum(IfaceSlot{i}, &InterfaceCounters::offloaded_packets);
  }
  view.kernel = totals.punted;
  view.worker = totals.received - std::min(totals.received, view.xdp + view.kernel);
  view.offload = offload_ != nullptr;
  if (offload_ == nullptr) return view;
  view.entries = OffloadEntries();
  view.limit = offload_->entries();
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& served = interfaces_->all()[i];
    if (!served.attached()) continue;
    for (const std::string& problem :
         {offload_->InputProblem(served), offload_->OutputProblem(IfaceSlot{i})}) {
      if (!problem.empty()) view.problems.push_back(problem);
    }
  }
  return view;
}

telemetry::StatusView Engine::Status() {
  telemetry::StatusView view;
  const telemetry::ReadyView ready = Ready();
  view.version = SLUICE_VERSION;
  view.kernel = KernelRelease();
  view.pid = getpid();
  view.uptime_seconds = (MonotonicNow() - started_).seconds();
  view.ready = ready.ready;
  view.not_ready_reason = ready.reason;
  view.config_file = options_.config_path;
  view.metrics_listen = config_.metrics.listen ? ToString(*config_.metrics.listen) : "off";
  for (const ServedInterface& served : interfaces_->all()) {
    view.interfaces += served.config.name.empty() ? 0 : 1;
    view.interfaces_up += served.attached() ? 1 : 0;
  }
  view.workers = workers_.size();
  for (const WorkerWatch& watch : watches_) view.workers_stalled += watch.stalled ? 1 : 0;
  view.packets = Totals();
  view.tiers = Tiers();
  for (size_t reason = 0; reason < kPuntReasonCount; ++reason) {
    uint64_t packets = 0;
    for (const auto& thread : workers_) {
      for (const InterfaceCounters& c : thread->worker().counters().interfaces) {
        packets += c.punts[reason].Read();
      }
    }
    if (packets == 0) continue;
    view.punts.push_back({std::string(kPuntReasons[reason].label),
                          std::string(kPuntReasons[reason].text), packets});
  }
  view.kernel_decides = KernelDecides();
  const control::MirrorStats stats = mirror_->stats();
  view.mirror = {.in_step = mirror_->divergence() == 0,
                 .divergence = mirror_->divergence(),
                 .resyncs = stats.resyncs,
                 .corrections = stats.audit_route_corrections + stats.audit_other_corrections,
                 .last_resync_reason = stats.overflows > 0 ? "the netlink socket overflowed" : ""};
  if (firewall_->current() != nullptr || !firewall_->refusal().empty()) {
    view.firewall = FirewallState();
  }
  view.tables = TableUses();
  return view;
}

std::vector<telemetry::InterfaceView> Engine::Interfaces() {
  std::vector<telemetry::InterfaceView> views;
  const tables::Snapshot& snapshot = *snapshot_.load();
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& served = interfaces_->all()[i];
    if (served.config.name.empty()) continue;
    const IfaceSlot slot{i};
    telemetry::InterfaceView view;
    view.name = served.config.name;
    view.slot = i;
    view.problem = served.problem;
    const control::Link* const link = mirror_->state().FindLink(served.config.name);
    view.state = link == nullptr                        ? "absent"
                 : !link->up()                          ? "down"
                 : !served.attached()                   ? "failed"
                 : !link->carrier || !served.enabled    ? "down"
                                                        : "up";
    if (served.attached() && link != nullptr && !link->carrier) view.problem = "no carrier";
    if (link != nullptr) {
      view.ifindex = link->ifindex.value;
      view.mac = ToString(link->mac);
      view.mtu = link->mtu;
    }
    if (served.attached()) {
      const io::af_xdp::AttachmentDescription d = served.attachment->Describe();
      view.driver = d.interface.driver;
      view.mode = d.mode;
      view.zero_copy = d.zero_copy;
      view.multi_buffer = d.multi_buffer;
      view.busy_poll = d.busy_polling;
      view.queues = d.queues;
      view.ring_full = d.statistics.rx_ring_full + d.statistics.rx_dropped;
      const tables::Interface& in = snapshot.at(slot);
      view.checksum =
          in.checksum == tables::ChecksumMode::kComplete ? "complete" : "trust";
      for (const auto& a : in.addresses4) {
        view.addresses.push_back(ToString(Ipv4Prefix{a.address, a.prefix_length}));
      }
      for (const auto& a : in.addresses6) {
        view.addresses.push_back(ToString(Ipv6Prefix{a.address, a.prefix_length}));
      }
      if (const auto xdp = served.attachment->ReadXdpCounts(); xdp.ok()) {
        for (const XdpCount& count : ByReason(*xdp)) {
          (count.action == "redirect"  ? view.xdp_redirect
           : count.action == "drop"    ? view.xdp_drop
           : count.action == "forward" ? view.xdp_forward
                                       : view.xdp_pass) += count.packets;
        }
      }
    }
    view.rx_packets = Sum(slot, &InterfaceCounters::received_packets);
    view.rx_bytes = Sum(slot, &InterfaceCounters::received_bytes);
    view.tx_packets = Sum(slot, &InterfaceCounters::transmitted_packets);
    view.tx_bytes = Sum(slot, &InterfaceCounters::transmitted_bytes);
    view.punts = Sum(slot, &InterfaceCounters::punted_packets);
    view.held = Sum(slot, &InterfaceCounters::held_packets);
    for (const auto& thread : workers_) {
      const InterfaceCounters& c = thread->worker().counters().of(slot);
      for (const Counter& error : c.tx_errors) view.tx_errors += error.Read();
      for (const Counter& dropped : c.dropped_packets) view.drops += dropped.Read();
    }
    views.push_back(std::move(view));
  }
  return views;
}

telemetry::RoutesView Engine::Routes(const telemetry::RouteFilter& filter) {
  telemetry::RoutesView view;
  view.total4 = fib4_->size();
  view.total6 = fib6_->size();
  const uint64_t limit = std::min(filter.limit, telemetry::kMaxRouteLimit);
  const auto add = [&](const auto& prefix, tables::RouteId id) {
    if (filter.destination) {
      // The longest match is the last of those that contain it: prefixes come in order.
      if (!view.routes.empty()) view.routes.clear();
    } else if (view.routes.size() >= limit) {
      view.truncated = true;
      return;
    }
    view.routes.push_back(ViewOf(ToString(prefix), routes_->Get(id), mirror_->state()));
  };
  uint8_t best = 0;
  fib4_->ForEach([&](const Ipv4Prefix& prefix, tables::RouteId id) {
    if (!filter.destination) return add(prefix, id);
    if (!filter.destination->is_v4() || !prefix.Contains(filter.destination->v4())) return;
    if (prefix.length >= best) add(prefix, id);
    best = std::max(best, prefix.length);
  });
  best = 0;
  fib6_->ForEach([&](const Ipv6Prefix& prefix, tables::RouteId id) {
    if (!filter.destination) return add(prefix, id);
    if (filter.destination->is_v4() || !prefix.Contains(filter.destination->v6())) return;
    if (prefix.length >= best) add(prefix, id);
    best = std::max(best, prefix.length);
  });
  return view;
}

std::vector<LabeledCount> Engine::FramesOf(const WorkerThread& thread) const {
  uint64_t fill = 0;
  uint64_t tx = 0;
  for (const ServedInterface& served : interfaces_->all()) {
    for (const auto& port : served.ports) {
      if (port->worker() != thread.worker().id()) continue;
      fill += port->frames_in_fill();
      tx += port->frames_in_tx();
    }
  }
  std::vector<uint64_t> gauges;
  for (const auto& worker : workers_) {
    uint64_t& gauge = gauges.emplace_back(0);
    for (const InterfaceCounters& c : worker->worker().counters().interfaces) {
      gauge += c.held_packets.Read();
    }
  }
  const uint64_t held = telemetry::ShareOutHeld(gauges)[thread.worker().id().value];
  return {{"free", const_cast<WorkerThread&>(thread).pool().size()},
          {"fill", fill},
          {"tx", tx},
          {"held", held},
          {"sockets", services_->Frames(thread.worker().id())}};
}

std::vector<telemetry::WorkerView> Engine::Workers() {
  std::vector<telemetry::WorkerView> views;
  for (const auto& thread : workers_) {
    const WorkerCounters& counters = thread->worker().counters();
    const WorkerWatch& watch = watches_[thread->worker().id().value];
    const std::vector<LabeledCount> frames = FramesOf(*thread);
    views.push_back({.worker = thread->worker().id().value,
                     .cpu = thread->cpu(),
                     .state = watch.stalled ? "stalled" : thread->sleeping() ? "sleeping" : "running",
                     .busy_ratio = std::min(watch.busy_ratio, 1.0),
                     .loops = counters.loops.Read(),
                     .sleeps = counters.sleeps.Read(),
                     .frames_free = frames[0].count,
                     .frames_fill = frames[1].count,
                     .frames_tx = frames[2].count,
                     .frames_held = frames[3].count,
                     .frames_sockets = frames[4].count,
                     .frames_handed_over = counters.frames_handed_over.Read()});
  }
  return views;
}

std::vector<telemetry::DropView> Engine::Drops() {
  std::vector<telemetry::DropView> views;
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& served = interfaces_->all()[i];
    if (served.config.name.empty()) continue;
    for (size_t reason = 0; reason < kDropReasonCount; ++reason) {
      uint64_t packets = 0;
      for (const auto& thread : workers_) {
        packets += thread->worker().counters().of(IfaceSlot{i}).dropped_packets[reason].Read();
      }
      views.push_back({served.config.name, std::string(kDropReasons[reason].label),
                       std::string(kDropReasons[reason].text), packets});
    }
  }
  return views;
}

telemetry::SocketsView Engine::Sockets(uint64_t limit) { return services_->Sockets(limit); }

std::vector<telemetry::ServiceView> Engine::Services() { return services_->Services(); }

telemetry::MetricSample Engine::Sample() {
  telemetry::MetricSample sample;
  tasks_.Run([&] { sample = SampleHere(); });
  return sample;
}

telemetry::MetricSample Engine::SampleHere() {
  telemetry::MetricSample sample;
  sample.version = SLUICE_VERSION;
  sample.kernel = KernelRelease();
  sample.ready = NotReadyReason().empty();
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& served = interfaces_->all()[i];
    if (served.config.name.empty()) continue;
    telemetry::MetricSample::Interface interface;
    interface.slot = IfaceSlot{i};
    interface.name = served.config.name;
    interface.mode = "none";
    if (served.attached()) {
      const io::af_xdp::AttachmentDescription d = served.attachment->Describe();
      interface.up = served.enabled && snapshot_.load()->at(IfaceSlot{i}).up;
      interface.driver = d.interface.driver;
      interface.mode = d.mode;
      interface.zero_copy = d.zero_copy;
      interface.queues = d.queues;
      interface.ring_full = d.statistics.rx_ring_full + d.statistics.rx_dropped;
      if (offload_ != nullptr) interface.offload_lost = offload_->lost_frames(IfaceSlot{i});
      if (const auto xdp = served.attachment->ReadXdpCounts(); xdp.ok()) {
        interface.xdp = ByReason(*xdp);
      }
    }
    sample.interfaces.push_back(std::move(interface));
  }
  for (const auto& thread : workers_) {
    telemetry::MetricSample::Worker worker;
    worker.id = thread->worker().id();
    worker.counters = &thread->worker().counters();
    worker.stalled = watches_[worker.id.value].stalled;
    for (size_t state = 1; state < stages::kNeighborStateCount; ++state) {  // 0 is none
      worker.neighbors.push_back(
          {std::string(stages::kNeighborStates[state]),
           NeighborsOf(*thread).count(static_cast<stages::NeighborState>(state)).Read()});
    }
    worker.frames = FramesOf(*thread);
    dataplane::Firewall& firewall = thread->worker().pipeline().firewall();
    worker.nat_translations = firewall.nat().counters().translated.Read();
    worker.nat_port_changes = firewall.nat().counters().port_changed.Read();
    worker.nat_exhausted = firewall.nat().counters().exhausted.Read();
    worker.log_lost = firewall.filter().log_lost();
    sample.workers.push_back(std::move(worker));
  }
  services_->Sample(sample);
  if (firewall_->current() != nullptr) {
    sample.firewall = FirewallSampleOf(*firewall_->current(), CountsInXdp());
  }
  sample.firewall.compile_seconds = firewall_->last_compile_seconds();
  sample.firewall.refused = !firewall_->refusal().empty();
  for (const auto& [prefix, packets] : log_counts_) {
    sample.firewall.logged.push_back({prefix, packets});
  }
  sample.tables = TableUses();
  sample.frames_limit = arena_->frame_count();
  if (offload_ != nullptr) sample.offload_failed_orders = offload_->failed_orders();
  sample.neighbors_not_exported = neighbors_not_exported_;
  sample.groups_not_joined = groups_.not_joined();
  const control::MirrorStats stats = mirror_->stats();
  sample.mirror_divergence = mirror_->divergence();
  sample.mirror_resyncs = stats.resyncs;
  sample.mirror_corrections = stats.audit_route_corrections + stats.audit_other_corrections;
  sample.mirror_events = {{"all", stats.events}};
  return sample;
}

}  // namespace sluice::app

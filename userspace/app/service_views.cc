// What sockets and services tell: `sluice show sockets`, `show services`, and metrics.
#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "app/service_program.h"
#include "transport/tcp/state.h"

namespace sluice::app {

using telemetry::LabeledCount;
using telemetry::MetricSample;
using telemetry::ServiceView;
using telemetry::SocketView;

namespace {

// Places looked at per command, so that no worker is kept from its ports for long.
constexpr uint32_t kSlice = 1024;

std::string Text(const transport::Endpoint& e) {
  if (e.port == 0 && transport::IsAny(e.address)) return "";
  return ToString(tables::ServiceAddress{e.address, e.port});
}

// What one worker has counted; `active` is not in it, since that is the caller's to tell.
void AddTo(telemetry::ServiceCounts& counts, const services::ServiceStats& stats) {
  counts.accepted += stats.accepted.Read();
  counts.retries += stats.retries.Read();
  counts.bytes_in += stats.bytes_in.Read();
  counts.bytes_out += stats.bytes_out.Read();
  counts.messages_in += stats.messages_in.Read();
  counts.messages_out += stats.messages_out.Read();
}

double Millis(Nanos n) { return static_cast<double>(n.count()) / 1e6; }

SocketView ViewOf(const transport::Tcb& t, Nanos now) {
  static constexpr std::array<const char*, 4> kRecovery = {"open", "reduced", "recovery", "loss"};
  SocketView v;
  v.protocol = "tcp";
  v.state = std::string(Name(t.state));
  v.receive_queue = t.receive.bytes();
  v.send_queue = t.snd_una.Before(t.write_end()) ? t.write_end() - t.snd_una : 0;
  v.local = Text(t.tuple.local);
  v.remote = Text(t.tuple.remote);
  v.mss = t.mss;
  v.path_mtu = t.path_mtu;
  v.retransmits = t.retransmitted;
  if (t.spliced) {  // windows, times and losses are the peers'
    v.congestion_state = "spliced";
    return v;
  }
  v.congestion_window = t.congestion.cwnd();
  v.in_flight = t.Flight();
  v.receive_window = t.OfferedWindow();
  if (t.rtt.has_sample()) {
    v.rtt_ms = Millis(t.rtt.srtt());
    v.rtt_variance_ms = Millis(t.rtt.rttvar());
  }
  v.rto_ms = Millis(t.rtt.rto());
  v.congestion_state = kRecovery[static_cast<size_t>(t.recovery)];
  if (t.was_established) v.last_data_ms = Millis(now - t.last_data_received);
  v.busy_ms = Millis(t.sending.Busy(now));
  v.window_limited_ms = Millis(t.sending.Time(transport::Sending::kPeerWindow, now));
  v.buffer_limited_ms = Millis(t.sending.Time(transport::Sending::kSendBuffer, now));
  return v;
}

template <size_t N>
MetricSample::Histogram HistogramOf(const std::array<Nanos, N>& bounds,
                                    const std::array<Counter, N + 1>& counts,
                                    const Counter& sum_ns) {
  MetricSample::Histogram h;
  for (const Nanos bound : bounds) h.bounds.push_back(bound.seconds());
  for (const Counter& count : counts) h.counts.push_back(count.Read());
  h.sum = static_cast<double>(sum_ns.Read()) / 1e9;
  return h;
}

void AddTo(MetricSample::Histogram& to, const MetricSample::Histogram& h) {
  if (to.counts.empty()) {
    to = h;
    return;
  }
  for (size_t i = 0; i < h.counts.size(); ++i) to.counts[i] += h.counts[i];
  to.sum += h.sum;
}

void SampleStack(const transport::Transport& stack, MetricSample::Worker& w) {
  const transport::TcpCounters& c = stack.tcp().counters();
  w.has_sockets = true;
  for (size_t i = 1; i < transport::kTcpStateCount; ++i) {  // 0 is CLOSED
    w.tcp_connections.push_back({std::string(transport::kTcpStateNames[i]), c.states[i].Read()});
  }
  w.tcp_accepted = c.connections_accepted.Read();
  w.tcp_opened = c.connections_opened.Read();
  w.tcp_failed = c.connections_failed.Read();
  w.tcp_retransmits = c.segments_retransmitted.Read();
  w.tcp_segments = {{"received", c.segments_received.Read()}, {"sent", c.segments_sent.Read()},
                    {"spliced", c.segments_spliced.Read()}};
  const uint64_t strangers = c.resets_of_strangers.Read();
  w.tcp_resets = {{"received", c.resets_received.Read()},
                  {"sent_no_connection", strangers},
                  {"sent_connection", std::max(c.resets_sent.Read(), strangers) - strangers}};
  const auto event = [&](const char* name, const Counter& n) {
    w.tcp_events.push_back({name, n.Read()});
  };
  event("timeout", c.timeouts);
  event("tail_loss_probe", c.tail_loss_probes);
  event("fast_recovery", c.fast_recoveries);
  event("undone", c.undone);
  event("zero_window_probe", c.zero_window_probes);
  event("keepalive_probe", c.keepalive_probes);
  event("challenge_ack", c.challenge_acks);
  event("challenge_ack_limited", c.challenge_acks_limited);
  event("syn_cookie_sent", c.syn_cookies_sent);
  event("syn_cookie_accepted", c.syn_cookies_accepted);
  event("syn_cookie_rejected", c.syn_cookies_rejected);
  event("time_wait_reused", c.time_wait_reused);
  event("ecn_reduction", c.ecn_reductions);
  event("splice", c.splices);
  event("path_mtu_change", c.path_mtu_changes);
  event("path_mtu_learned", stack.path_mtus().counters().learned);
  event("path_mtu_evicted", stack.path_mtus().counters().evicted);
  event("path_mtu_refused", stack.path_mtus().counters().refused);
  event("black_hole", c.black_holes);
  event("limit_connections", c.no_connection);
  event("limit_half_open", c.half_open_evicted);
  event("limit_time_wait", c.time_wait_evicted);
  event("limit_orphans", c.orphans_reset);
  event("orphan_timeout", c.orphans_timed_out);
  event("limit_orphan_memory", c.orphans_for_memory);
  event("limit_accept_queue", c.accept_queue_full);
  event("limit_segments", c.no_segment);
  event("limit_send_buffers", c.no_send_buffer);
  event("limit_frames", c.no_frame);
  event("receive_pruned", c.receive_pruned);
  event("receive_refused", c.receive_refused);
  w.tcp_round_trips =
      HistogramOf(transport::kRoundTripBounds, c.round_trips, c.round_trip_ns);
  const transport::UdpCounters& u = stack.udp().counters();
  w.udp_datagrams = {{"received", u.datagrams_received.Read()}, {"sent", u.datagrams_sent.Read()}};
}

// The name of the service that listens on an address, with or without naming it: for connections that
// no program has (not accepted yet, or closed).
class Owners {
 public:
  void Add(const ServiceView& service) {
    for (const std::string& listen : service.listen) by_address_[listen] = service.name;
  }
  std::string Of(const transport::Endpoint& local) const {
    const auto exact = by_address_.find(Text(local));
    if (exact != by_address_.end()) return exact->second;
    transport::Endpoint any = local;
    any.address.bits = {};
    const auto wild = by_address_.find(ToString(tables::ServiceAddress{any.address, any.port}));
    return wild == by_address_.end() ? "" : wild->second;
  }

 private:
  std::map<std::string, std::string> by_address_;
};

}  // namespace

telemetry::SocketsView ServiceControl::Sockets(uint64_t limit) const {
  telemetry::SocketsView view;
  Owners owners;
  for (const ServiceView& service : Services()) owners.Add(service);
  // Beyond the limit they are counted only: this is the worker's time.
  const auto add = [&](const transport::Endpoint& local, const Of& of, const auto* handler,
                       const auto& view_of) {
    ++view.total;
    if (view.sockets.size() >= limit) {
      view.truncated = true;
      return;
    }
    SocketView v = view_of();
    v.worker = of.thread->worker().id().value;
    const services::Service* const owner = of.program->set.OwnerOf(handler);
    v.service = owner != nullptr ? owner->config().name : owners.Of(local);
    view.sockets.push_back(std::move(v));
  };
  for (const Of& of : sets_) {
    const auto portions = [&](uint32_t places, const auto& look) {
      for (uint32_t from = 0; from < places; from += kSlice) {
        of.thread->Call([&](WorkerThread::Worker&) { look(from, from + kSlice); });
      }
    };
    of.thread->Call([&](WorkerThread::Worker&) {
      of.stack->tcp().ForEachListener([&](const transport::TcpListener& l) {
        add(l.local, of, l.handler, [&] {
          return SocketView{
              .protocol = "tcp", .state = "LISTEN", .receive_queue = l.waiting,
              .send_queue = l.backlog,
              .local = ToString(tables::ServiceAddress{l.local.address, l.local.port})};
        });
      });
    });
    portions(of.stack->tcp().connection_places(), [&](uint32_t from, uint32_t to) {
      of.stack->tcp().VisitConnections(from, to, [&](const transport::Tcb& t) {
        add(t.tuple.local, of, t.handler, [&] { return ViewOf(t, MonotonicNow()); });
      });
    });
    portions(of.stack->udp().places(), [&](uint32_t from, uint32_t to) {
      of.stack->udp().VisitSockets(
          from, to, [&](const transport::Tuple& t, bool connected, uint32_t queued,
                        const transport::UdpHandler* handler) {
            add(t.local, of, handler, [&] {
              return SocketView{
                  .protocol = "udp", .state = connected ? "CONNECTED" : "BOUND",
                  .receive_queue = queued,
                  .local = ToString(tables::ServiceAddress{t.local.address, t.local.port}),
                  .remote = Text(t.remote)};
            });
          });
    });
  }
  return view;
}

std::vector<ServiceView> ServiceControl::Services() const {
  std::vector<ServiceView> views;
  std::map<std::pair<std::string, bool>, size_t> places;  // by name, and whether it drains
  for (const Of& of : sets_) {
    of.thread->Call([&](WorkerThread::Worker&) {
      of.program->set.ForEachService([&](const services::Service& s) {
        const tables::ServiceConfig& config = s.config();
        const auto [place, fresh] =
            places.try_emplace({config.name, s.draining()}, views.size());
        if (fresh) {
          ServiceView& v = views.emplace_back();
          v.name = config.name;
          v.kind = std::string(Name(config.kind));
          v.state = s.draining() ? "draining" : "listening";
          for (const tables::ServiceAddress& a : config.listen) v.listen.push_back(ToString(a));
          if (!config.backends.empty()) v.balance = std::string(Name(config.balance));
        }
        ServiceView& v = views[place->second];
        const size_t wanted =
            config.listen.size() * ((config.uses_tcp() ? 1 : 0) + (config.uses_udp() ? 1 : 0));
        if (!s.draining() && s.listening() < wanted) v.state = "partly";
        const services::ServiceStats& stats = s.stats();
        v.active += s.active();
        AddTo(v, stats);
        for (size_t i = 0; i < services::kServiceFailureCount; ++i) {
          const uint64_t n = stats.failed[i].Read();
          if (n == 0) continue;
          const auto name = std::string(services::kServiceFailureNames[i]);
          const auto it = std::find_if(v.failures.begin(), v.failures.end(),
                                       [&](const LabeledCount& c) { return c.label == name; });
          if (it == v.failures.end()) {
            v.failures.push_back({name, n});
          } else {
            it->count += n;
          }
        }
        s.ForEachBackend([&](const services::BackendView& b) {
          const std::string address = ToString(b.address);
          auto it = std::find_if(v.backends.begin(), v.backends.end(), [&](const auto& known) {
            return known.address == address && known.removed == b.removed;
          });
          const std::string health = !b.checked ? "unchecked" : b.up ? "up" : "down";
          if (it == v.backends.end()) {
            v.backends.push_back({.address = address, .weight = b.weight, .health = health,
                                  .removed = b.removed});
            it = v.backends.end() - 1;
          } else if (it->health != health) {
            it->health = "mixed";
          }
          it->connections += b.connections;
          if (b.stats == nullptr) return;
          it->total += b.stats->connections.Read();
          it->failures += b.stats->failures.Read();
          it->checks_passed += b.stats->checks_passed.Read();
          it->checks_failed += b.stats->checks_failed.Read();
        });
      });
    });
  }
  return views;
}

void ServiceControl::Sample(MetricSample& sample) const {
  for (const Of& of : sets_) {
    const WorkerId id = of.thread->worker().id();
    for (MetricSample::Worker& w : sample.workers) {
      if (w.id == id) SampleStack(*of.stack, w);
    }
  }
  const auto sum = [&](const auto& of_counters) {
    uint64_t n = 0;
    for (const Of& of : sets_) n += of_counters(of.program->set.counters()).Read();
    return n;
  };
  const auto& services = slots_.services();
  for (uint32_t slot = 0; slot < services.size(); ++slot) {
    if (!slots_.IsCurrent(services[slot])) continue;
    MetricSample::Service s;
    s.name = services[slot].service;
    s.kind = std::string(Name(services[slot].kind));
    for (size_t i = 0; i < services::kServiceFailureCount; ++i) {
      s.failures.push_back({std::string(services::kServiceFailureNames[i]),
                            sum([&](const services::ServiceCounters& c) -> const Counter& {
                              return c.service(slot).failed[i];
                            })});
    }
    for (const Of& one : sets_) {
      const services::ServiceStats& stats = one.program->set.counters().service(slot);
      s.active += stats.active.Read();
      AddTo(s, stats);
      AddTo(s.connect_time, HistogramOf(services::kConnectTimeBounds, stats.connect_time,
                                        stats.connect_time_ns));
    }
    const auto& backends = slots_.backends();
    for (uint32_t b = 0; b < backends.size(); ++b) {
      if (!slots_.IsCurrent(backends[b]) || backends[b].service != s.name) continue;
      const auto of_backend = [&](Counter services::BackendStats::*counter) {
        return sum([&](const services::ServiceCounters& c) -> const Counter& {
          return c.backend(b).*counter;
        });
      };
      using Backend = services::BackendStats;
      s.backends.push_back({.address = ToString(backends[b].address),
                            .up = of_backend(&Backend::up) > 0,
                            .active = of_backend(&Backend::active),
                            .connections = of_backend(&Backend::connections),
                            .failures = of_backend(&Backend::failures),
                            .checks_passed = of_backend(&Backend::checks_passed),
                            .checks_failed = of_backend(&Backend::checks_failed),
                            .checks_skipped = of_backend(&Backend::checks_skipped)});
    }
    sample.services.push_back(std::move(s));
  }
}

uint64_t ServiceControl::Frames(WorkerId worker) const {
  uint64_t frames = 0;
  for (const Of& of : sets_) {
    if (of.thread->worker().id() != worker) continue;
    of.thread->Call([&](WorkerThread::Worker&) {
      const transport::TcpUsage usage = of.stack->tcp().usage();
      frames = uint64_t{usage.receive_frames} + usage.send_frames +
               of.stack->udp().frames_waiting();
    });
  }
  return frames;
}

// The fullest worker's, since the limits are each worker's.
std::vector<telemetry::TableUse> ServiceControl::TableUses() const {
  uint64_t connections = 0;
  uint64_t sessions = 0;
  uint64_t path_mtus = 0;
  uint64_t path_mtus_limit = transport::TransportConfig().path_mtus;
  for (const Of& of : sets_) {
    path_mtus = std::max(path_mtus, of.stack->path_mtus().counters().entries.Read());
    path_mtus_limit = of.stack->path_mtus().capacity();
    uint64_t n = 0;
    const transport::TcpCounters& c = of.stack->tcp().counters();
    for (size_t i = 1; i < transport::kTcpStateCount; ++i) n += c.states[i].Read();
    connections = std::max(connections, n);
    uint64_t udp = 0;
    for (uint32_t slot = 0; slot < tables::ServiceSlots::kServices; ++slot) {
      if (slots_.services().size() > slot &&
          slots_.services()[slot].kind == tables::ServiceKind::kUdpProxy) {
        udp += of.program->set.counters().service(slot).active.Read();
      }
    }
    sessions = std::max(sessions, udp);
  }
  return {{"connections", connections, limits_.connections},
          {"udp_sessions", sessions, limits_.udp_sessions},
          {"path_mtus", path_mtus, path_mtus_limit}};
}

}  // namespace sluice::app

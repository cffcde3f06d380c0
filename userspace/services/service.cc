#include "services/service.h"

#include <algorithm>

namespace sluice::services {

namespace {

constexpr uint32_t kBacklog = 1024;

bool Contains(const std::vector<tables::ServiceAddress>& all, const tables::ServiceAddress& a) {
  return std::find(all.begin(), all.end(), a) != all.end();
}

}  // namespace

template <class Wanted>
void Service::CloseUnless(Wanted&& wanted, Nanos now) {
  std::erase_if(tcp_, [&](const TcpListening& l) {
    if (wanted(l.address, config_->uses_tcp())) return false;
    tcp().CloseListener(l.id, now);
    stats_->listening.Sub();
    return true;
  });
  std::erase_if(udp_, [&](const UdpListening& l) {
    if (wanted(l.address, config_->uses_udp())) return false;
    udp().Close(l.socket);
    stats_->listening.Sub();
    OnUdpClosed(l, now);
    return true;
  });
}

void Service::CloseUnwanted(Nanos now) {
  CloseUnless(
      [this](const tables::ServiceAddress& a, bool used) {
        return used && Contains(config_->listen, a);
      },
      now);
}

void Service::Listen() {
  const auto open = [](const auto& list, const tables::ServiceAddress& a) {
    return std::any_of(list.begin(), list.end(), [&](const auto& l) { return l.address == a; });
  };
  for (const tables::ServiceAddress& a : config_->listen) {
    if (config_->uses_tcp() && !open(tcp_, a)) {
      transport::TcpListenerId id;
      if (tcp().Listen(EndpointOf(a), ListenOptions(), kBacklog, this, id) ==
          transport::SocketError::kNone) {
        tcp_.push_back({a, id});
        stats_->listening.Add();
      } else {
        stats_->Fail(ServiceFailure::kListen);
      }
    }
    if (config_->uses_udp()) ListenUdp(a);
  }
}

// A group is joined once more where it is listened to already: it may come by other interfaces now.
void Service::ListenUdp(const tables::ServiceAddress& a) {
  const auto known = std::find_if(udp_.begin(), udp_.end(),
                                  [&](const UdpListening& l) { return l.address == a; });
  const bool open = known != udp_.end();
  transport::UdpSocket socket = open ? known->socket : transport::UdpSocket{};
  transport::SocketError error = transport::SocketError::kNone;
  if (!open) error = udp().Bind(EndpointOf(a), this, socket);
  if (error == transport::SocketError::kNone && IsGroup(a)) {
    error = udp().Join(socket, a.address, config_->group_slots);
    if (error != transport::SocketError::kNone && !open) udp().Close(socket);
  }
  if (error != transport::SocketError::kNone) return stats_->Fail(ServiceFailure::kListen);
  if (open) return;
  context_.item_of_udp[socket.index] = transport::kNoIndex;
  udp_.push_back({a, socket});
  stats_->listening.Add();
}

void Service::Reconfigure(ConfigPtr config, Nanos now) {
  config_ = std::move(config);
  OnReconfigured(now);
}

void Service::Drain(Nanos now) {
  drain_deadline_ = now + config_->drain_timeout;
  CloseUnless([](const tables::ServiceAddress&, bool) { return false; }, now);
  OnDrain(now);
  SetTimer();
}

bool Service::HasRoom() const {
  if (config_->max_connections == 0) return true;
  const uint32_t workers = std::max(1u, context_.limits.workers);
  return active_ < (config_->max_connections + workers - 1) / workers;
}

void Service::WantWork(Nanos deadline) {
  if (deadline >= work_deadline_) return;
  work_deadline_ = deadline;
  SetTimer();
}

void Service::SetTimer() {
  Nanos next = std::min(work_deadline_, drain_deadline_);
  if (draining() && active_ == 0) next = Nanos();
  if (next == Nanos::Max()) {
    context_.timers.Clear(TimerKind::kService, timer_);
  } else {
    context_.timers.Set(TimerKind::kService, timer_, next);
  }
}

void Service::OnTimer(Nanos now) {
  if (now >= work_deadline_) {
    work_deadline_ = Nanos::Max();
    work_deadline_ = std::min(work_deadline_, OnWork(now));
  }
  if (now >= drain_deadline_) {
    AbortAll(now);
    drain_deadline_ = now + config_->drain_timeout;
  }
  SetTimer();
}

}  // namespace sluice::services
